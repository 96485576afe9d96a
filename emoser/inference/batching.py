"""Run a model over recordings: decode ahead, cut into chunks, batch, and collect the outputs.

Recordings are decoded in worker threads while the model runs, and cut into chunks as they are
read. Outputs come in the order of the recordings, in memory that depends neither on their
length nor on their number.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from emoser.audio import (
    SAMPLING_RATE,
    AudioBlocks,
    AudioLimits,
    Channel,
    Source,
    describe_source,
)
from emoser.audio.blocks import check_channel
from emoser.audio.limits import DEFAULT_LIMITS
from emoser.errors import AudioError, CheckpointError, EmoserError
from emoser.inference.chunking import Chunk, Chunker, ChunkEvent, Loudness, SilentChunk
from emoser.inference.prefetch import Prefetch, map_ahead
from emoser.inference.vad import SpeechRegion
from emoser.inference.windows import window_weights
from emoser.runtimes import Runtime, check_finite

NUM_THREADS = 2  # for decoding; soundfile and soxr release the interpreter lock
MAX_THREADS = 8  # the same where the model does not run on the CPU
AHEAD_PER_THREAD = 4  # recordings decoded before they are needed
BLOCKS_AHEAD = 4  # half-minute blocks of each that a thread decodes; the rest is read on demand
BATCHES_SORTED = 8  # how many batches of chunks are sorted by length together
EVENTS_PER_CHUNK = 4  # of a short recording
SHORT_SAMPLES = 80_000  # a longer chunk counts for several in a group
EVENT_SAMPLES = 1600  # what any other event counts for beside the samples of chunks

Event = TypeVar("Event")


@dataclass(frozen=True)
class InferenceOptions:
    """How recordings are read and cut into chunks.

    Attributes:
        window: Longest chunk in samples.
        sampling_rate: Rate of arrays in Hz; files state their own.
        model_rate: Rate in Hz that recordings are resampled to.
        channel: "mix", "left", "right" or an index.
        hop: Samples from the start of one chunk to the next; None for chunks without overlap.
        vad: "energy" or "silero" to leave out chunks without speech, or None.
        batch_samples: Samples in one batch, padding included. None pads nothing: chunks run one
            at a time, or in groups of the runtime's own size.
        keep_errors: Give the error of a recording in its place instead of raising it.
        limits: Recordings beyond these are refused.
    """

    window: int
    sampling_rate: int | None = None
    channel: Channel = "mix"
    hop: int | None = None
    vad: str | None = None
    batch_samples: int | None = None
    keep_errors: bool = False
    model_rate: int = SAMPLING_RATE
    limits: AudioLimits = DEFAULT_LIMITS


@dataclass(frozen=True)
class RecordingOutput:
    """The model's outputs for one recording."""

    source: str  # its short name
    windows: tuple[slice, ...]  # positions of its N chunks in samples
    logits: npt.NDArray[np.float32]  # (N, C)
    embeddings: npt.NDArray[np.float32]  # (N, D)
    duration: float  # seconds
    quality: tuple[str, ...]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """The share of the recording that each chunk stands for, (N,)."""
        return window_weights(self.windows)

    @property
    def embedding(self) -> npt.NDArray[np.float32]:
        """The mean of the chunks' embeddings by their weights, (D,)."""
        return np.asarray(self.weights @ self.embeddings, np.float32)


class ChunkOutput(NamedTuple):
    """The model's output for one chunk."""

    window: slice  # its position in samples
    logits: npt.NDArray[np.float32]  # (C,), or (L, C) of a model that classifies frames
    embedding: npt.NDArray[np.float32]  # (D,)


class RecordingEnd(NamedTuple):
    """The end of a recording."""

    source: str  # its short name
    duration: float  # seconds
    quality: tuple[str, ...]
    error: EmoserError | None  # that ended it early, where errors are kept


class _Fault(NamedTuple):
    error: Exception


OutputEvent: TypeAlias = ChunkOutput | SilentChunk | SpeechRegion | Loudness | RecordingEnd
_Input: TypeAlias = ChunkEvent | RecordingEnd | _Fault
_Output: TypeAlias = OutputEvent | _Fault


def infer_recordings(
    sources: Iterable[Source], runtime: Runtime, options: InferenceOptions
) -> Iterator[RecordingOutput | EmoserError]:
    """The model's outputs for each recording, in order.

    Raises:
        AudioError: If a recording cannot be read and errors are not kept.
        OSError: Likewise, if a file is missing or may not be read.
        ValueError: If an array has no sampling rate or an ambiguous shape.
    """
    check_channel(options.channel)
    single = isinstance(sources, list) and len(sources) == 1

    def read(source: Source) -> "_Reading | EmoserError":
        try:
            return _Reading(source, options, num_ahead=1 if single else BLOCKS_AHEAD)
        except Exception as error:  # a file object of the caller may raise anything
            if not options.keep_errors:
                raise
            return as_emoser_error(error)

    if single:
        readings: Iterator[_Reading | EmoserError] = map(read, sources)
    else:
        free = runtime.batch_seconds is not None
        threads = min(MAX_THREADS, os.cpu_count() or 1) if free else NUM_THREADS
        ahead = AHEAD_PER_THREAD * threads
        readings = map_ahead(read, sources, num_threads=threads, num_ahead=ahead)
    outputs: list[ChunkOutput] = []
    for event in _infer_in_order(readings, runtime, options):
        if isinstance(event, ChunkOutput):
            outputs.append(event)
        elif isinstance(event, RecordingEnd):
            yield event.error or collect_output(event, outputs, keep_errors=options.keep_errors)
            outputs = []


def infer_chunks(
    source: Source, runtime: Runtime, options: InferenceOptions
) -> Iterator[OutputEvent]:
    """The events of one recording while it is read, in constant memory.

    Every chunk comes as a `ChunkOutput`, or as a `SilentChunk` if it has no speech; the
    `SpeechRegion`s cover the recording; `RecordingEnd` is last. Raises as `infer_recordings`.
    """
    readings = (_Reading(item, options, num_ahead=1) for item in [source])
    return _infer_in_order(readings, runtime, options)


def infer_each(events: Iterable[Chunk | Event], runtime: Runtime) -> Iterator[ChunkOutput | Event]:
    """The same events, with the output of every chunk in its place, computed at once."""
    for event in events:
        if isinstance(event, Chunk):
            yield from _run([event], runtime, None)
        else:
            yield event


def infer_events(
    events: Iterable[Chunk | Event], runtime: Runtime, batch_samples: int | None
) -> Iterator[ChunkOutput | Event]:
    """As `infer_each`; computed in batches or groups if the runtime prefers them."""
    if batch_samples is not None or runtime.group_size > 1:
        return _infer_groups(events, runtime, batch_samples)
    return infer_each(events, runtime)


def as_emoser_error(error: Exception) -> EmoserError:
    """The error itself, or an `AudioError` in the place of an error of another class."""
    if isinstance(error, EmoserError):
        return error
    wrapped = AudioError(str(error) or type(error).__name__)
    wrapped.__cause__ = error
    return wrapped


class _Reading:
    """An open recording with its first blocks decoded."""

    def __init__(self, source: Source, options: InferenceOptions, *, num_ahead: int) -> None:
        self.source = describe_source(source)
        self.blocks = AudioBlocks(
            source,
            sampling_rate=options.sampling_rate,
            channel=options.channel,
            target_rate=options.model_rate,
            limits=options.limits,
        )
        try:
            self.first = list(islice(self.blocks, num_ahead))
        except BaseException:
            self.blocks.close()
            raise


def _infer_in_order(
    readings: Iterable["_Reading | EmoserError"], runtime: Runtime, options: InferenceOptions
) -> Iterator[OutputEvent]:
    """The events of all recordings, one after another; errors are raised in their place."""
    chunks = _read_chunks(readings, options)
    outputs: Iterator[_Output] = infer_events(chunks, runtime, options.batch_samples)
    for event in outputs:
        if isinstance(event, _Fault):
            raise event.error
        yield event


def _read_chunks(
    readings: Iterable["_Reading | EmoserError"], options: InferenceOptions
) -> Iterator[_Input]:
    """The chunks of all recordings; an error follows what was read before it."""
    try:
        for reading in readings:
            yield from _cut(reading, options)
    except Exception as error:  # raised by `_infer_in_order`, after the outputs before it
        yield _Fault(error)


def _cut(
    reading: _Reading | EmoserError, options: InferenceOptions
) -> Iterator[ChunkEvent | RecordingEnd]:
    """The events of one recording, its end included."""
    if isinstance(reading, EmoserError):
        yield RecordingEnd("", 0.0, (), reading)
        return
    chunker = Chunker(
        window=options.window,
        hop=options.hop or options.window,
        vad=options.vad,
        sampling_rate=options.model_rate,
    )
    with reading.blocks as blocks:
        try:
            for block in chain(reading.first, blocks):
                yield from chunker.push(block)
            yield from chunker.flush()
        except Exception as error:  # as in `infer_recordings`
            if not options.keep_errors:
                raise
            yield RecordingEnd(reading.source, 0.0, (), as_emoser_error(error))
        else:
            yield RecordingEnd(reading.source, blocks.duration, blocks.quality, None)


def _infer_groups(
    events: Iterable[Chunk | Event], runtime: Runtime, batch_samples: int | None
) -> Iterator[ChunkOutput | Event]:
    """As `infer_each`, with one group of chunks in the model while the next is collected.

    The first chunk runs alone and at once; a group is what has arrived while the one before it
    ran, so that no output waits for a full group, nor for the next recording.
    """
    if batch_samples is None:
        full, other = runtime.group_size, 1
        limit = EVENTS_PER_CHUNK * full
    else:
        full = limit = BATCHES_SORTED * batch_samples
        other = EVENT_SAMPLES

    def size(event: Chunk | Event) -> int:
        if not isinstance(event, Chunk):
            return 0
        length = len(event.samples)
        return length if batch_samples is not None else -(-length // SHORT_SAMPLES)

    room = 1  # the first chunk runs alone
    with closing(Prefetch(events, limit, lambda event: size(event) or other)) as ahead:
        for event in ahead:
            group, used = [event], size(event)
            while used < room and ahead.is_ready:
                group.append(next(ahead))
                used += size(group[-1])
            room = full if used else room
            chunks = [event for event in group if isinstance(event, Chunk)]
            outputs = iter(_run(chunks, runtime, batch_samples))
            for event in group:
                yield next(outputs) if isinstance(event, Chunk) else event


def _run(chunks: Sequence[Chunk], runtime: Runtime, batch_samples: int | None) -> list[ChunkOutput]:
    """The model's output for each chunk, in order; computed in batches or in one call."""
    batches: Iterable[list[int]] = [list(range(len(chunks)))] if chunks else []
    if batch_samples is not None:
        batches = _pack([len(chunk.samples) for chunk in chunks], batch_samples)
    outputs: dict[int, ChunkOutput] = {}
    for places in batches:
        batch = runtime.infer([chunks[place].samples for place in places])
        for place, logits, embedding in zip(places, *batch, strict=True):
            outputs[place] = ChunkOutput(chunks[place].window, logits, embedding)
    return [outputs[place] for place in range(len(chunks))]


def _pack(lengths: Sequence[int], batch_samples: int) -> Iterator[list[int]]:
    """Indices in batches, longest first, of at most `batch_samples` with their padding."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_samples:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def collect_output(
    end: RecordingEnd, outputs: Sequence[ChunkOutput], *, keep_errors: bool
) -> RecordingOutput | EmoserError:
    """The outputs of a recording together, or the error that they are not finite."""
    collected = RecordingOutput(
        source=end.source,
        windows=tuple(item.window for item in outputs),
        logits=np.stack([item.logits for item in outputs]),
        embeddings=np.stack([item.embedding for item in outputs]),
        duration=end.duration,
        quality=end.quality,
    )
    try:
        check_finite(collected.logits, end.source)
        check_finite(collected.embeddings, end.source)
    except CheckpointError as error:
        if keep_errors:
            return error
        raise
    return collected
