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

from emoser.audio import AudioBlocks, Channel, Source, StreamResampler, describe_source
from emoser.audio.blocks import choose_channel, take_channel
from emoser.audio.intake import Intake
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
from emoser.inference.chunking import Chunk, Chunker, ChunkEvent
from emoser.runtimes import Runtime

Samples: TypeAlias = npt.NDArray[np.float32]
NOTHING: Samples = np.zeros(0, np.float32)


class Piece(NamedTuple):
    """A piece of a recording.

    Attributes:
        start: Where it begins, in seconds; None for the start of the recording.
        end: Where it ends, in seconds; None for the end of the recording.
        channel: The channel to take; None for that of the options.
    """

    start: float | None = None
    end: float | None = None
    channel: Channel | None = None

    def bounds(self, rate: int) -> tuple[int, float]:
        """The first sample, and the one after the last or infinity."""
        first = max(0, round((self.start or 0.0) * rate))
        return first, math.inf if self.end is None else round(self.end * rate)


class Cut(NamedTuple):
    """Some samples of a piece as they are in the recording; its last have the mark."""

    piece: int
    samples: Samples
    last: bool


class Part(NamedTuple):
    """Some samples of a piece at the rate of the model.

    Attributes:
        piece: Index of the piece.
        samples: Those that follow the samples before, (n,).
        end: With the last samples: length and flags of the piece, or why it cannot be read.
    """

    piece: int
    samples: Samples
    end: RecordingEnd | None = None


def read_pieces(
    source: Source, pieces: Sequence[Piece], options: InferenceOptions
) -> Iterator[Part]:
    """The samples of every piece, part by part, in the order of the recording.

    Those of a piece are what a file holds that was cut from the recording. Pieces may overlap and
    come in any order. What follows the last end is not decoded.
    """
    reader = _Reader(source, pieces, options)
    length: float | None = None
    try:
        with AudioBlocks(
            source,
            sampling_rate=options.sampling_rate,
            limits=options.limits,
            target_rate=options.model_rate,
        ) as blocks:
            bounds = [piece.bounds(blocks.source_rate) for piece in pieces]
            for cut in cut_pieces(blocks.frames(), bounds):
                yield from reader.take(cut, blocks)
            length = blocks.duration if reader.waiting else None
    except (AudioError, OSError) as error:
        fault = as_emoser_error(error)
        yield from (reader.fail(piece, fault) for piece in sorted(reader.waiting))
    for piece in sorted(reader.waiting):
        yield reader.fail(piece, _no_samples(source, pieces[piece], length))


class _Reader:
    """The pieces of a recording that have not ended."""

    def __init__(self, source: Source, pieces: Sequence[Piece], options: InferenceOptions) -> None:
        self.waiting = set(range(len(pieces)))
        self._source, self._pieces, self._options = source, pieces, options
        self._name = describe_source(source)
        self._intakes: dict[int, Intake] = {}

    def take(self, cut: Cut, blocks: AudioBlocks) -> Iterator[Part]:
        """The next samples of a piece, if it has not failed."""
        if cut.piece not in self.waiting:
            return
        piece = self._pieces[cut.piece]
        channel = self._options.channel if piece.channel is None else piece.channel
        try:
            index = choose_channel(channel, blocks.num_channels, self._name)
            intake = self._intake(cut.piece, blocks.source_rate)
            samples = intake.push(take_channel(cut.samples, index))
            if not cut.last:
                yield Part(cut.piece, samples)
                return
            if not intake.num_frames:
                raise _no_samples(self._source, piece)
            samples = np.concatenate([samples, intake.flush()])
        except AudioError as error:
            yield self.fail(cut.piece, error)
            return
        self._forget(cut.piece)
        end = RecordingEnd(self._name, intake.duration, intake.flags(), None)
        yield Part(cut.piece, samples, end)

    def fail(self, piece: int, error: EmoserError) -> Part:
        """The end of a piece that cannot be read."""
        self._forget(piece)
        return Part(piece, NOTHING, RecordingEnd(self._name, 0.0, (), error))

    def _forget(self, piece: int) -> None:
        self.waiting.discard(piece)
        self._intakes.pop(piece, None)

    def _intake(self, piece: int, rate: int) -> Intake:
        if piece not in self._intakes:
            first, _ = self._pieces[piece].bounds(rate)
            target = self._options.model_rate
            self._intakes[piece] = Intake(self._name, rate, target_rate=target, first=first)
        return self._intakes[piece]


def cut_pieces(blocks: Iterable[Samples], bounds: Sequence[tuple[int, float]]) -> Iterator[Cut]:
    """Pieces of blocks of samples; one that begins after the last block has none.

    Args:
        blocks: The samples of a recording, (n,) or (n, channels).
        bounds: The first sample of each piece, and the one after its last or infinity.

    Example:
        >>> blocks = [np.arange(4.0), np.arange(4.0, 6.0)]
        >>> [(cut.piece, cut.samples.tolist()) for cut in cut_pieces(blocks, [(3, 5), (0, 2)])]
        [(1, [0.0, 1.0]), (0, [3.0]), (0, [4.0])]
    """
    waiting = deque(sorted(range(len(bounds)), key=bounds.__getitem__))
    active: list[int] = []
    block, stop = NOTHING, 0  # the number of samples so far
    for block in blocks:
        first, stop = stop, stop + len(block)
        while waiting and bounds[waiting[0]][0] < stop:
            active.append(waiting.popleft())
        for piece in active:
            start, end = bounds[piece]
            yield Cut(
                piece, block[max(start - first, 0) : int(min(end, stop)) - first], end <= stop
            )
        active = [piece for piece in active if bounds[piece][1] > stop]
        if not waiting and not active:
            return
    for piece in active:
        yield Cut(piece, block[:0], True)


def infer_pieces(
    recordings: Iterable[tuple[Source, Sequence[Piece]]],
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
    recordings: Iterable[tuple[Source, Sequence[Piece]]], options: InferenceOptions
) -> Iterator[_At | Chunk | RecordingEnd]:
    for number, (source, pieces) in enumerate(recordings):
        chunkers: dict[int, Chunker] = {}
        for piece, samples, end in read_pieces(source, pieces, options):
            yield _At(number, piece)
            chunker = chunkers.setdefault(piece, _open_chunker(options))
            yield from _chunks(chunker.push(samples))
            if end is not None:
                if end.error is None:
                    yield from _chunks(chunker.flush())
                del chunkers[piece]
                yield end


def _open_chunker(options: InferenceOptions) -> Chunker:
    return Chunker(
        window=options.window, hop=options.window, vad=None, sampling_rate=options.model_rate
    )


def _chunks(events: Iterable[ChunkEvent]) -> Iterator[Chunk]:
    return (event for event in events if isinstance(event, Chunk))


def _no_samples(source: Source, piece: Piece, length: float | None = None) -> AudioError:
    start, end = piece.start, piece.end
    known = "" if length is None else f"is {length:.2f} s long and "
    place = f"after {start or 0:g} s" if end is None else f"between {start or 0:g} and {end:g} s"
    return AudioError(
        f"{describe_source(source)} {known}has no samples {place}; correct start and end"
    )
