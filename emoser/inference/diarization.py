"""Find the turns of a recording: the speech of each channel, or the speakers of pyannote.audio."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from emoser.audio import SAMPLING_RATE, AudioBlocks, AudioLimits, Source, load_audio
from emoser.audio.limits import DEFAULT_LIMITS
from emoser.audio.sources import describe_source
from emoser.errors import DependencyError, HubError
from emoser.inference.batching import InferenceOptions
from emoser.inference.chunking import Chunker
from emoser.inference.options import check_vad
from emoser.inference.pieces import Piece, read_pieces
from emoser.inference.pipeline import EACH_CHANNEL, refuse_single_pass
from emoser.inference.predictor import BatchOptions
from emoser.inference.vad import SpeechRegion
from emoser.results.segments import channel_name
from emoser.results.transcripts.objects import from_annotation
from emoser.results.turns import Turn

MIX = "mix"
PIPELINE = "pyannote/speaker-diarization-community-1"


def find_turns(
    source: Source,
    options: BatchOptions,
    *,
    vad: str = "energy",
    limits: AudioLimits = DEFAULT_LIMITS,
) -> tuple[Sequence[Turn], BatchOptions]:
    """The turns of a recording in the order of time, and the options to predict them with.

    Args:
        source: A recording that can be read twice.
        options: Of these, the rate is read, and the channel is replaced.
        vad: "energy" or "silero". The default misses no shouting, which silero takes for noise.
        limits: Recordings beyond these are refused.

    Raises:
        AudioError: If the recording cannot be read.
        DependencyError: If it has one channel and pyannote.audio is not installed.
        HubError: If the weights of pyannote.audio cannot be loaded.
        ValueError: If the options choose one channel, or `vad` is unknown.
    """
    if options.channel not in (MIX, EACH_CHANNEL):
        raise ValueError(
            f"channel is {options.channel!r}, and turns are found on all channels; leave it out, "
            "or pass the turns"
        )
    if vad is None:
        raise ValueError("vad is None; finding turns needs 'energy' or 'silero'")
    check_vad(vad)
    refuse_single_pass(source, "finding its turns reads it twice")
    rate = options.sampling_rate
    with AudioBlocks(source, sampling_rate=rate, limits=limits) as blocks:
        num_channels = blocks.num_channels
    if num_channels == 1:
        samples = load_audio(source, sampling_rate=rate, limits=limits)
        turns = _diarize(samples, describe_source(source))
        return turns, replace(options, channel=MIX)
    reading = InferenceOptions(SAMPLING_RATE, sampling_rate=rate, vad=vad, limits=limits)
    turns = _find_speech(source, range(num_channels), reading)
    return turns, replace(options, channel=EACH_CHANNEL)


def _find_speech(source: Source, channels: Sequence[int], options: InferenceOptions) -> list[Turn]:
    """The speech of every channel, in one pass and in constant memory."""
    chunkers = [
        Chunker(window=options.window, hop=options.window, vad=options.vad) for _ in channels
    ]
    regions: list[list[SpeechRegion]] = [[] for _ in channels]
    pieces = [Piece(channel=channel) for channel in channels]
    for number, samples, end in read_pieces(source, pieces, options):
        events = list(chunkers[number].push(samples))
        if end is not None:
            if end.error is not None:
                raise end.error
            events += chunkers[number].flush()
        _extend(regions[number], [event for event in events if isinstance(event, SpeechRegion)])
    turns = [
        Turn(
            region.start / SAMPLING_RATE,
            region.stop / SAMPLING_RATE,
            channel_name(channel, channels),
            channel=channel,
        )
        for channel, found in zip(channels, regions, strict=True)
        for region in found
    ]
    return sorted(turns, key=lambda turn: (turn.start, turn.channel))


def _extend(regions: list[SpeechRegion], more: Sequence[SpeechRegion]) -> None:
    """Add regions with speech; one may come in several parts."""
    for region in more:
        if not region.speaking:
            continue
        if regions and regions[-1].stop == region.start:
            regions[-1] = regions[-1]._replace(stop=region.stop)
        else:
            regions.append(region)


def _diarize(samples: Any, name: str) -> list[Turn]:
    """The turns that pyannote.audio finds in samples at 16 kHz, (T,)."""
    try:
        from pyannote.audio import Pipeline
    except ImportError as error:
        raise DependencyError(
            f"{name} has one channel, whose speakers are found by pyannote.audio; install it with: "
            'pip install "emoser[diarize]", or pass the turns'
        ) from error
    try:
        pipeline = Pipeline.from_pretrained(PIPELINE)
    except Exception as error:  # of huggingface_hub, torch or pyannote.audio
        raise HubError(f"{_no_weights()} ({error})", reason="gated") from error
    if pipeline is None:  # what pyannote.audio returns for a gated repository
        raise HubError(_no_weights(), reason="gated")
    import torch

    waveform = torch.from_numpy(samples)[None]
    found = pipeline({"waveform": waveform, "sample_rate": SAMPLING_RATE})
    return from_annotation(getattr(found, "speaker_diarization", found))


def _no_weights() -> str:
    return (
        f"{PIPELINE} cannot be loaded; accept its conditions on huggingface.co/{PIPELINE}, sign "
        "in with `hf auth login`, and repeat the command"
    )
