"""What a model logits about each piece of sound in; the windows of a timeline out.

A model that classifies recordings says one thing about a piece, which is one window. A model
that classifies frames says something every 20 ms: the windows are then short cells, each with
the mean probability of its frames, and a piece tells about the cells around its middle, up to
half-way through its overlaps with its neighbours; the rest of it is context. For files and live
sound alike, in constant memory. Knows neither samples nor checkpoints.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from emoser.results.segments import TimelineWindow
from emoser.runtimes import Runtime

# About a syllable, and ten frames. Three hours are 54,000 cells then, which take 21 MiB with 4
# labels and 32 MiB with 9; a cell for every frame would take ten times that.
CELL_SECONDS = 0.2

Logits: TypeAlias = npt.NDArray[np.float32]
ToScores: TypeAlias = Callable[[Logits], list[float]]
ToDimensions: TypeAlias = Callable[[Logits], dict[str, float] | None]


@dataclass(frozen=True)
class Scorer:
    """What hears: an engine, and how its logits become scores and dimensions.

    Attributes:
        runtime: The engine. With `frame_seconds`, its "logits" of a piece are the
            probabilities of every frame, (L, C).
        to_scores: From the logits of one piece, (C,), to the probability of every label.
        to_dimensions: From the same to the values of the dimensions, None without any.
        labels: Names of the scores, in their order; empty for dimensions only.
        dimensions: Names of the dimensions, in their order.
        sampling_rate: Rate in Hz at which the engine listens.
        model: Name of the checkpoint.
        frame_seconds: Time between frames where the engine gives them, else None.
    """

    runtime: Runtime
    to_scores: ToScores
    to_dimensions: ToDimensions
    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    sampling_rate: int
    model: str
    frame_seconds: float | None = None


class ScoredWindow(NamedTuple):
    """What there is to say about one window of a timeline.

    Attributes:
        window: Its position in samples.
        values: Scores, then dimensions; None where nobody spoke.
        shown: The same, as the timeline shows it.
    """

    window: slice
    values: list[float] | None
    shown: TimelineWindow


class WindowScorer:
    """Turns the pieces of one channel, in their order, into the windows of its timeline."""

    def __init__(self, scorer: Scorer, channel: int | None = None) -> None:
        self._scorer = scorer
        self._channel = channel
        self._held: tuple[slice, Logits | None] | None = None  # ends where the next piece says
        self._start = 0  # of what has not been told

    def add(self, piece: slice, logits: Logits | None) -> list[ScoredWindow]:
        """The windows that are settled by the next piece, with its logits; None for silence."""
        if self._scorer.frame_seconds is None:
            return [self._judge(piece, logits)]
        told = [] if self._held is None else self._tell((self._held[0].stop + piece.start) // 2)
        self._held = (piece, logits)
        return told

    def finish(self) -> list[ScoredWindow]:
        """The windows that are left when the sound has ended."""
        return [] if self._held is None else self._tell(self._held[0].stop)

    def _tell(self, stop: int) -> list[ScoredWindow]:
        """The cells of the held piece up to `stop`."""
        piece, frames = self._held or (slice(0, 0), None)
        rate = self._scorer.sampling_rate
        cells = list(cut_cells(self._start, stop, cell=round(CELL_SECONDS * rate)))
        self._start = stop
        if frames is None:
            return [self._judge(cell, None) for cell in cells]
        step = (self._scorer.frame_seconds or 0.0) * rate
        return [
            self._judge(
                cell, pool_frames(frames, cell.start - piece.start, cell.stop - piece.start, step)
            )
            for cell in cells
        ]

    def _judge(self, window: slice, logits: Logits | None) -> ScoredWindow:
        scorer = self._scorer
        scores: Mapping[str, float] = {}
        dimensions, values = None, None
        if logits is not None:
            scores = dict(zip(scorer.labels, scorer.to_scores(logits), strict=True))
            dimensions = scorer.to_dimensions(logits)
            values = [*scores.values(), *(dimensions or {}).values()]
        start, stop = window.start / scorer.sampling_rate, window.stop / scorer.sampling_rate
        shown = TimelineWindow(start, stop, scores, self._channel, dimensions)
        return ScoredWindow(window, values, shown)


def cut_cells(start: int, stop: int, *, cell: int) -> Iterator[slice]:
    """Equal parts of a stretch of samples, each about as long as a cell.

    Example:
        >>> list(cut_cells(0, 7, cell=3))
        [slice(0, 3, None), slice(3, 7, None)]
    """
    count = max(1, round((stop - start) / cell))
    edges = [start + (stop - start) * place // count for place in range(count + 1)]
    for left, right in pairwise(edges):
        yield slice(left, right)


def pool_frames(probabilities: Logits, start: int, stop: int, step: float) -> Logits:
    """The logarithm of the mean probability over the frames of a stretch, (L, C) -> (C,).

    Args:
        probabilities: Of every frame, (L, C).
        start: First sample of the stretch, from the first sample of the frames.
        stop: The sample after its last one.
        step: Samples from one frame to the next. A frame belongs where its middle lies; a
            stretch without any has the nearest one.

    Example:
        >>> frames = np.array([[1, 0], [0.5, 0.5], [0, 1]], np.float32)
        >>> np.exp(pool_frames(frames, 0, 640, 320.0)).tolist()
        [0.75, 0.25]
    """
    first = min(math.ceil(start / step - 0.5), len(probabilities) - 1)
    last = max(math.ceil(stop / step - 0.5), first + 1)
    mean = np.maximum(probabilities[first:last].mean(axis=0), np.finfo(np.float32).tiny)
    pooled: Logits = np.log(mean)
    return pooled
