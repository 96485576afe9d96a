"""From recordings to what a model says about each: read ahead, cut, batch, and gather.

Recordings are decoded in worker threads while the model works, longer ones are cut into
windows as they are read, windows of several recordings share a batch or are heard side by side
where the engine likes that, and the answers come out in the order of the recordings. Memory
stays constant however long or many the recordings are. Knows nothing of labels.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from emoser.audio import Channel, Source, describe_source, open_blocks
from emoser.errors import AudioError, EmoserError
from emoser.inference.chunking import Chunk, Chunker, Loudness, SilentChunk
from emoser.inference.vad import SpeechRegion
from emoser.inference.windows import window_weights
from emoser.runtimes import Runtime

NUM_THREADS = 2  # that decode; soundfile and soxr release the interpreter lock
MAX_THREADS = 8  # likewise, where the model is not on the processor
AHEAD_PER_THREAD = 4  # recordings decoded before they are needed
BLOCKS_AHEAD = 4  # half-minute blocks of each that a thread decodes; the rest is read on demand
BATCHES_SORTED = 8  # batches' worth of windows that are sorted by length together

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class InferenceOptions:
    """How recordings are read and cut.

    Attributes:
        sampling_rate: Rate in Hz of arrays; files have their own.
        channel: "mix", "left", "right" or an index.
        window: Longest piece in samples.
        hop: Samples from one piece to the next; None for pieces that follow one another.
        vad: "energy" or "silero" for pieces without speech to be left out, or None.
        batch_samples: Samples in one batch, padding included; None for no padding: one piece at a
            time, or the groups that the engine likes.
        keep_errors: Give the error of a recording in its place instead of raising it.
    """

    window: int
    sampling_rate: int | None = None
    channel: Channel = "mix"
    hop: int | None = None
    vad: str | None = None
    batch_samples: int | None = None
    keep_errors: bool = False


@dataclass(frozen=True)
class RecordingOutput:
    """What the model says about one recording.

    Attributes:
        source: Short name of the recording.
        windows: Positions of its pieces in samples.
        logits: One row per piece, (N, C).
        embeddings: One row per piece, (N, D).
        duration: Length in seconds.
        quality: Flags of the recording.
    """

    source: str
    windows: tuple[slice, ...]
    logits: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32]
    duration: float
    quality: tuple[str, ...]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """The share of the recording that each piece speaks for, (N,)."""
        return window_weights(self.windows)


class ChunkOutput(NamedTuple):
    """What the model says about one piece.

    Attributes:
        window: Its position in samples.
        logits: (C,).
        embedding: (D,).
    """

    window: slice
    logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


class End(NamedTuple):
    """A recording is over.

    Attributes:
        source: Its short name.
        duration: Its length in seconds.
        quality: Its flags.
        error: What ended it early, where errors are kept.
    """

    source: str
    duration: float
    quality: tuple[str, ...]
    error: EmoserError | None


class _Fault(NamedTuple):
    error: Exception


Mark: TypeAlias = SilentChunk | SpeechRegion | Loudness | End
_Passed: TypeAlias = Mark | _Fault


def infer_recordings(
    sources: Iterable[Source], runtime: Runtime, options: InferenceOptions
) -> Iterator[RecordingOutput | EmoserError]:
    """What the model says about each recording, in their order.

    Raises:
        AudioError: If a recording cannot be read and errors are not kept.
        OSError: Likewise, if a file is missing or may not be read.
        ValueError: If an array comes without its rate or in an ambiguous shape.
    """
    single = isinstance(sources, list) and len(sources) == 1

    def read(source: Source) -> "_Reading | EmoserError":
        try:
            return _Reading(source, options, num_ahead=1 if single else BLOCKS_AHEAD)
        except (EmoserError, OSError) as error:
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
    told: list[ChunkOutput] = []
    for event in _infer_in_order(readings, runtime, options):
        if isinstance(event, ChunkOutput):
            told.append(event)
        elif isinstance(event, End):
            yield event.error if event.error is not None else _gather(event, told)
            told = []


def infer_chunks(
    source: Source, runtime: Runtime, options: InferenceOptions
) -> Iterator["ChunkOutput | Mark"]:
    """What there is to say about one recording, as it goes by and in constant memory.

    Every piece comes as `ChunkOutput`, or as `SilentChunk` when nobody speaks in it; `SpeechRegion`s
    cover the recording; `End` is last.

    Raises:
        AudioError: If the recording cannot be read.
        OSError: If a file is missing or may not be read.
        ValueError: If an array comes without its rate or in an ambiguous shape.
    """
    readings = (_Reading(item, options, num_ahead=1) for item in [source])
    return _infer_in_order(readings, runtime, options)


def as_emoser_error(error: EmoserError | OSError) -> EmoserError:
    """The error itself, or an `AudioError` that stands for a fault of the file system."""
    if isinstance(error, EmoserError):
        return error
    wrapped = AudioError(str(error))
    wrapped.__cause__ = error
    return wrapped


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int, num_ahead: int
) -> Iterator[Result]:
    """`map(function, items)` in order, computed ahead in threads.

    A fault of `items` itself comes after the results of the items before it.

    Example:
        >>> list(map_ahead(abs, [-1, 2, -3], num_threads=2, num_ahead=2))
        [1, 2, 3]
    """
    iterator = iter(items)
    pending: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="emoser-read")
    fault: Exception | None = None
    exhausted = False
    try:
        while pending or not exhausted:
            if exhausted or len(pending) > num_ahead:
                yield pending.popleft().result()
                continue
            try:
                pending.append(executor.submit(function, next(iterator)))
            except StopIteration:
                exhausted = True
            except Exception as error:  # whatever the caller's own iterator raises
                exhausted, fault = True, error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    if fault is not None:
        raise fault


class _Reading:
    """A recording that is open, with its first blocks decoded."""

    def __init__(self, source: Source, options: InferenceOptions, *, num_ahead: int) -> None:
        self.source = describe_source(source)
        self.blocks = open_blocks(
            source, sampling_rate=options.sampling_rate, channel=options.channel
        )
        try:
            self.first = list(islice(self.blocks, num_ahead))
        except BaseException:
            self.blocks.close()
            raise


def _infer_in_order(
    readings: Iterable["_Reading | EmoserError"], runtime: Runtime, options: InferenceOptions
) -> Iterator[ChunkOutput | Mark]:
    """All that happens in the recordings, one after another; faults are raised in their turn."""
    for event in _infer(_read_chunks(readings, options), runtime, options.batch_samples):
        if isinstance(event, _Fault):
            raise event.error
        yield event


def _read_chunks(
    readings: Iterable["_Reading | EmoserError"], options: InferenceOptions
) -> Iterator[Chunk | _Passed]:
    """The pieces of all recordings; a fault waits its turn behind what was read before it."""
    try:
        for reading in readings:
            yield from _cut(reading, options)
    except Exception as error:  # raised by `_infer_in_order`, when the answers before it are out
        yield _Fault(error)


def _cut(reading: _Reading | EmoserError, options: InferenceOptions) -> Iterator[Chunk | Mark]:
    """The windows of a recording and what lies between them, then its end."""
    if isinstance(reading, EmoserError):
        yield End("", 0.0, (), reading)
        return
    chunker = Chunker(window=options.window, hop=options.hop or options.window, vad=options.vad)
    with reading.blocks as blocks:
        try:
            for block in chain(reading.first, blocks):
                yield from chunker.push(block)
            yield from chunker.flush()
        except (EmoserError, OSError) as error:
            if not options.keep_errors:
                raise
            yield End(reading.source, 0.0, (), as_emoser_error(error))
        else:
            yield End(reading.source, blocks.duration, blocks.quality, None)


def _infer(
    events: Iterable[Chunk | _Passed], runtime: Runtime, batch_samples: int | None
) -> Iterator[ChunkOutput | _Passed]:
    """The same events in the same order, with every piece answered."""
    if batch_samples is not None or runtime.group_size > 1:
        yield from _infer_groups(events, runtime, batch_samples)
        return
    for event in events:
        if isinstance(event, Chunk):
            yield from _tell([event], runtime, None)
        else:
            yield event


def _infer_groups(
    events: Iterable[Chunk | _Passed], runtime: Runtime, batch_samples: int | None
) -> Iterator[ChunkOutput | _Passed]:
    """As `_infer`, with groups of pieces heard while the next one is gathered.

    The first piece goes alone and at once; a group is what has come while the one before it
    was heard, so that nobody waits for a full one.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="emoser-infer")
    heard: _Group | None = None
    gathered = _Group()
    try:
        for event in events:
            if heard is not None and not gathered.pieces and not isinstance(event, Chunk):
                heard.events.append(event)
                continue
            gathered.add(event)
            if heard is None or heard.is_over() or gathered.is_full(runtime, batch_samples):
                yield from heard.tell() if heard is not None else ()
                heard, gathered = gathered, _Group()
                heard.begin(executor, runtime, batch_samples)
        if heard is not None:
            gathered.begin(executor, runtime, batch_samples)
            yield from heard.tell()
            yield from gathered.tell()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


class _Group:
    """Pieces that are heard together, and what lies between and behind them."""

    def __init__(self) -> None:
        self.events: list[Chunk | _Passed] = []
        self.pieces: list[Chunk] = []
        self.num_samples = 0
        self.answer: Future[list[ChunkOutput]] = Future()

    def add(self, event: Chunk | _Passed) -> None:
        self.events.append(event)
        if isinstance(event, Chunk):
            self.pieces.append(event)
            self.num_samples += len(event.samples)

    def is_full(self, runtime: Runtime, batch_samples: int | None) -> bool:
        if batch_samples is None:
            return len(self.pieces) >= runtime.group_size
        return self.num_samples >= BATCHES_SORTED * batch_samples

    def is_over(self) -> bool:
        return self.answer.done()

    def begin(
        self, executor: ThreadPoolExecutor, runtime: Runtime, batch_samples: int | None
    ) -> None:
        self.answer = executor.submit(_tell, self.pieces, runtime, batch_samples)

    def tell(self) -> Iterator[ChunkOutput | _Passed]:
        """All events in their order, the pieces answered."""
        told = iter(self.answer.result())
        for event in self.events:
            yield next(told) if isinstance(event, Chunk) else event


def _tell(
    pieces: Sequence[Chunk], runtime: Runtime, batch_samples: int | None
) -> list[ChunkOutput]:
    """What the engine says about some pieces, in their order: in batches, or in one call."""
    lengths = [len(piece.samples) for piece in pieces]
    batches: Iterable[list[int]] = [list(range(len(pieces)))] if pieces else []
    if batch_samples is not None:
        batches = _pack(lengths, batch_samples)
    told: dict[int, ChunkOutput] = {}
    for places in batches:
        answer = runtime.infer([pieces[place].samples for place in places])
        for place, logits, embedding in zip(places, *answer, strict=True):
            told[place] = ChunkOutput(pieces[place].window, logits, embedding)
    return [told[place] for place in range(len(pieces))]


def _pack(lengths: Sequence[int], batch_samples: int) -> Iterator[list[int]]:
    """Batches of places, longest first, that hold at most `batch_samples` with their padding."""
    batch: list[int] = []
    longest = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = longest if batch else lengths[place]
        if batch and longest * (len(batch) + 1) > batch_samples:
            yield batch
            batch, longest = [], lengths[place]
        batch.append(place)
    if batch:
        yield batch


def _gather(end: End, told: list[ChunkOutput]) -> RecordingOutput:
    return RecordingOutput(
        source=end.source,
        windows=tuple(item.window for item in told),
        logits=np.stack([item.logits for item in told]),
        embeddings=np.stack([item.embedding for item in told]),
        duration=end.duration,
        quality=end.quality,
    )
