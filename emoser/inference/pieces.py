"""Pieces of a recording, read in one pass and scored as if each were a recording of its own.

The memory depends neither on the length of the recording nor on that of a piece, but on how many
pieces overlap.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from emoser.audio import SAMPLING_RATE, AudioBlocks, Source, StreamResampler, describe_source
from emoser.audio.quality import QualityMeter
from emoser.errors import AudioError, EmoserError
from emoser.inference.batching import (
    ChunkOutput,
    InferenceOptions,
    RecordingEnd,
    RecordingOutput,
    as_emoser_error,
    collect_output,
    infer_events,
)
from emoser.inference.chunking import Chunk, Chunker
from emoser.runtimes import Runtime

Samples: TypeAlias = npt.NDArray[np.float32]
Seconds: TypeAlias = tuple[float | None, float | None]
"""Start and end of a piece; None for the start or the end of the recording."""


class Part(NamedTuple):
    """Some samples of a piece.

    Attributes:
        piece: Index of the piece.
        samples: Those that follow the samples before, (n,).
        last: Whether the piece ends with them.
        error: Why the piece cannot be read; it has no further parts.
    """

    piece: int
    samples: Samples
    last: bool
    error: EmoserError | None = None


def read_pieces(
    source: Source, pieces: Sequence[Seconds], *, rate: int = SAMPLING_RATE
) -> Iterator[Part]:
    """The samples of every piece at a rate, part by part, in the order of the recording.

    Pieces may overlap and come in any order. What follows the last end is not decoded.
    """
    bounds = [_bounds(piece, rate) for piece in pieces]
    counts = dict.fromkeys(range(len(pieces)), 0)  # samples of the pieces that have not ended
    length: float | None = None
    try:
        with AudioBlocks(source, target_rate=rate) as blocks:
            for part in cut_pieces(blocks, bounds):
                counts[part.piece] += len(part.samples)
                if part.last and counts.pop(part.piece) == 0:
                    part = part._replace(error=_no_samples(source, pieces[part.piece]))
                yield part
            length = blocks.duration if counts else None
    except (AudioError, OSError) as error:
        fault = as_emoser_error(error)
        yield from (Part(piece, np.zeros(0, np.float32), True, fault) for piece in counts)
        return
    for piece in counts:
        fault = _no_samples(source, pieces[piece], length)
        yield Part(piece, np.zeros(0, np.float32), True, fault)


def cut_pieces(blocks: Iterable[Samples], bounds: Sequence[tuple[int, float]]) -> Iterator[Part]:
    """Pieces of blocks of samples; one that begins after the last block has no part.

    Args:
        blocks: The samples of a recording.
        bounds: The first sample of each piece, and the one after its last or infinity.

    Example:
        >>> blocks = [np.arange(4.0), np.arange(4.0, 6.0)]
        >>> [(part.piece, part.samples.tolist()) for part in cut_pieces(blocks, [(3, 5), (0, 2)])]
        [(1, [0.0, 1.0]), (0, [3.0]), (0, [4.0])]
    """
    waiting = deque(sorted(range(len(bounds)), key=bounds.__getitem__))
    active: list[int] = []
    stop = 0  # of the blocks so far
    for block in blocks:
        first, stop = stop, stop + len(block)
        while waiting and bounds[waiting[0]][0] < stop:
            active.append(waiting.popleft())
        for piece in active:
            start, end = bounds[piece]
            part = block[max(start - first, 0) : int(min(end, stop)) - first]
            yield Part(piece, part, end <= stop)
        active = [piece for piece in active if bounds[piece][1] > stop]
        if not waiting and not active:
            return
    for piece in active:
        yield Part(piece, np.zeros(0, np.float32), True)


def infer_pieces(
    recordings: Iterable[tuple[Source, Sequence[Seconds]]],
    runtime: Runtime,
    options: InferenceOptions,
) -> Iterator[tuple[int, int, RecordingOutput | EmoserError]]:
    """Index of a recording, index of a piece of it, and the model's outputs for the piece.

    The outputs are those that `infer_recordings` gives for the samples of the piece alone. Pieces
    come in the order of their ends. An error takes the place of the output.
    """
    outputs: dict[int, list[ChunkOutput]] = defaultdict(list)
    at = _At(0, 0)
    events: Iterator[_At | ChunkOutput | RecordingEnd] = infer_events(
        _cut_all(recordings, options), runtime, options.batch_samples
    )
    for event in events:
        if isinstance(event, _At):
            at = event
        elif isinstance(event, ChunkOutput):
            outputs[at.piece].append(event)
        elif isinstance(event, RecordingEnd):
            collected = outputs.pop(at.piece, [])
            yield (
                at.recording,
                at.piece,
                event.error or collect_output(event, collected, keep_errors=options.keep_errors),
            )


class PieceMeter:
    """Measures the quality of samples at a rate, as of a recording that holds nothing else.

    Example:
        >>> meter = PieceMeter(16_000)
        >>> meter.update(np.zeros(16_000, np.float32))
        >>> meter.flags()
        ('silence',)
    """

    def __init__(self, rate: int) -> None:
        self._meter = QualityMeter(rate)
        self._resampler = StreamResampler(rate)

    def update(self, samples: Samples) -> None:
        """The next samples, (n,)."""
        self._meter.update(samples)
        self._meter.update_resampled(self._resampler.push(samples))

    def flags(self) -> tuple[str, ...]:
        """The flags of all samples; none may follow."""
        self._meter.update_resampled(self._resampler.flush())
        return self._meter.flags()


class _At(NamedTuple):
    """What follows belongs to this piece."""

    recording: int
    piece: int


def _cut_all(
    recordings: Iterable[tuple[Source, Sequence[Seconds]]], options: InferenceOptions
) -> Iterator[_At | Chunk | RecordingEnd]:
    for number, (source, pieces) in enumerate(recordings):
        name = describe_source(source)
        chunkers: dict[int, Chunker] = {}
        meters: dict[int, PieceMeter] = {}
        counts: dict[int, int] = defaultdict(int)
        for piece, samples, last, error in read_pieces(source, pieces, rate=options.model_rate):
            yield _At(number, piece)
            chunker = chunkers.setdefault(
                piece,
                Chunker(
                    window=options.window,
                    hop=options.window,
                    vad=None,
                    sampling_rate=options.model_rate,
                ),
            )
            meter = meters.setdefault(piece, PieceMeter(options.model_rate))
            meter.update(samples)
            counts[piece] += len(samples)
            yield from (event for event in chunker.push(samples) if isinstance(event, Chunk))
            if last:
                if error is None:
                    yield from (event for event in chunker.flush() if isinstance(event, Chunk))
                del chunkers[piece]
                flags = meters.pop(piece).flags() if error is None else ()
                yield RecordingEnd(name, counts.pop(piece) / options.model_rate, flags, error)


def _bounds(piece: Seconds, rate: int) -> tuple[int, float]:
    """First sample of a piece, and the one after its last or infinity."""
    start, end = piece
    return round((start or 0.0) * rate), math.inf if end is None else round(end * rate)


def _no_samples(source: Source, piece: Seconds, length: float | None = None) -> AudioError:
    start, end = piece
    known = "" if length is None else f"is {length:.2f} s long and "
    place = f"after {start or 0:g} s" if end is None else f"between {start or 0:g} and {end:g} s"
    return AudioError(
        f"{describe_source(source)} {known}has no samples {place}; correct start and end"
    )
