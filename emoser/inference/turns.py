"""The turns of a conversation, predicted in one pass over the recording.

Of a turn that has ended, the logits are kept: they are all that its answer, adapted to the speaker
or not, is made of.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tqdm import tqdm

from emoser.audio import Source, describe_source
from emoser.audio.blocks import check_channel
from emoser.errors import EmoserError, TurnsError
from emoser.inference.adaptation import (
    MIN_RECORDINGS,
    adapt_output,
    estimate_adaptation,
    has_speech,
)
from emoser.inference.batching import RecordingOutput
from emoser.inference.pieces import Piece
from emoser.inference.pipeline import EACH_CHANNEL
from emoser.inference.predictor import BatchOptions, Predictor
from emoser.results.conversation import UNKNOWN, Conversation, SpeakerAdaptation
from emoser.results.prediction import Prediction
from emoser.results.transcripts.reading import Turns, read_turns
from emoser.results.turns import OUT_OF_RANGE, OVERLAP, Turn, find_overlaps
from emoser.text import counted

ROUNDING_SECONDS = 0.05  # by which the end of a turn may lie after that of the recording


def predict_turns(
    predictor: Predictor,
    source: Source,
    turns: Turns,
    options: BatchOptions,
    *,
    progress: bool = False,
    adapt_speakers: bool = False,
) -> Conversation:
    """The turns of a recording with their predictions, in the order given.

    With channel "each", every turn is taken from its own channel. With `adapt_speakers`, the model
    is adapted to every speaker with enough turns, by these turns.

    Raises:
        AudioError: If the recording, or a turn of it, cannot be read and errors are not returned.
        CheckpointError: If the model cannot be adapted, and should be.
        TurnsError: Likewise, if a turn is empty or its times are no numbers.
        ValueError: If channel is "each" and a turn has no channel, or as for `predict`.
    """
    if adapt_speakers:
        predictor.check_adaptable()
    turns = read_turns(turns, recording=describe_source(source))
    by_channel = options.channel == EACH_CHANNEL
    if not by_channel:
        check_channel(options.channel)
    elif unplaced := sum(turn.channel is None for turn in turns):
        raise ValueError(
            f"channel is 'each', and {unplaced} of {len(turns)} turns have no channel; add it to "
            "the turns, or choose one channel for all"
        )
    overlaps = find_overlaps(turns, by_channel=by_channel)
    outputs = _infer_turns(predictor, source, turns, options, progress=progress)
    speakers: dict[str, SpeakerAdaptation] = {}
    if adapt_speakers:
        outputs, speakers = _adapt(predictor, turns, outputs)
    return Conversation(
        tuple(
            _answer(turn, predictor.conclude(outputs[place]), overlaps[place])
            for place, turn in enumerate(turns)
        ),
        predictor.labels,
        predictor.dimensions,
        predictor.scorer.model,
        describe_source(source),
        speakers,
    )


def _infer_turns(
    predictor: Predictor,
    source: Source,
    turns: Sequence[Turn],
    options: BatchOptions,
    *,
    progress: bool,
) -> dict[int, RecordingOutput | EmoserError]:
    """The logits of every turn by its place, or the reason why there are none."""
    outputs: dict[int, RecordingOutput | EmoserError] = {}
    for place, turn in enumerate(turns):
        if fault := _find_fault(place, turn):
            if options.on_error == "raise":
                raise fault
            outputs[place] = fault
    places = [place for place in range(len(turns)) if place not in outputs]
    by_channel = options.channel == EACH_CHANNEL
    pieces = [
        Piece(turn.start, turn.end, turn.channel if by_channel else None)
        for turn in (turns[place] for place in places)
    ]
    options = replace(options, channel="mix") if by_channel else options
    found = predictor.infer_pieces(source, pieces, options)
    hidden = None if progress else True
    for number, output in tqdm(found, total=len(pieces), unit="turn", disable=hidden):
        outputs[places[number]] = _logits_only(output)
    return outputs


def _logits_only(output: RecordingOutput | EmoserError) -> RecordingOutput | EmoserError:
    """The outputs without the embeddings, which take hundreds of times as much memory."""
    if isinstance(output, EmoserError):
        return output
    return replace(output, embeddings=output.embeddings[:, :0].copy())


def _adapt(
    predictor: Predictor,
    turns: Sequence[Turn],
    outputs: Mapping[int, RecordingOutput | EmoserError],
) -> tuple[dict[int, RecordingOutput | EmoserError], dict[str, SpeakerAdaptation]]:
    """The outputs of models that are adapted to each speaker, and to whom they are."""
    said: dict[str | None, list[int]] = defaultdict(list)
    for place, turn in enumerate(turns):
        said[turn.speaker].append(place)
    adapted, speakers = dict(outputs), {}
    for speaker, places in said.items():
        answered = {
            place: output
            for place in places
            if isinstance(output := outputs[place], RecordingOutput)
        }
        num_turns = sum(map(has_speech, answered.values()))
        reason = _reason_against(speaker, num_turns)
        speakers[speaker or UNKNOWN] = SpeakerAdaptation(num_turns, reason)
        if not reason:
            adaptation = estimate_adaptation(answered.values(), predictor.config)
            adapted.update(
                {place: adapt_output(output, adaptation) for place, output in answered.items()}
            )
    return adapted, speakers


def _reason_against(speaker: str | None, num_turns: int) -> str:
    """Why a speaker cannot be adapted to; empty if nothing is against it."""
    if speaker is None:
        return "it is unknown who speaks in these turns"
    if num_turns < MIN_RECORDINGS:
        return f"{counted(num_turns, 'turn')} with speech; at least {MIN_RECORDINGS} are needed"
    return ""


def _find_fault(place: int, turn: Turn) -> TurnsError | None:
    times = f"from {turn.start:g} to {turn.end:g} s"
    if not math.isfinite(turn.start) or not math.isfinite(turn.end):
        return TurnsError(f"turn {place + 1} goes {times}; its times must be numbers of seconds")
    if turn.end <= turn.start:
        return TurnsError(
            f"turn {place + 1} is empty: it goes {times}; correct its end or leave it out"
        )
    if turn.end <= 0:
        return TurnsError(f"turn {place + 1} goes {times}, before the recording; correct its times")
    return None


def _answer(turn: Turn, answer: Prediction | EmoserError, overlaps: bool) -> Turn:
    flags = (OVERLAP,) if overlaps else ()
    if isinstance(answer, EmoserError):
        return replace(turn, prediction=None, error=answer, flags=flags)
    if turn.start < 0 or answer.duration < turn.end - max(turn.start, 0.0) - ROUNDING_SECONDS:
        flags = (*flags, OUT_OF_RANGE)
    return replace(turn, prediction=answer, error=None, flags=flags)
