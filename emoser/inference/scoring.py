"""From the model's outputs for chunks to the scored windows of a timeline.

A model that classifies recordings has one output per chunk, which is one window. A model that
classifies frames has one every 20 ms: its windows are short cells with the mean probability of
their frames. A chunk gives the cells around its middle, up to half of its overlaps with its
neighbours; the rest of it is context. Works in constant memory, for files and live audio.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from emoser.models.config import ModelConfig
from emoser.results.segments import TimelineWindow
from emoser.runtimes import Runtime, check_finite

# About a syllable, and ten frames. Three hours are 54,000 cells then, which take 21 MiB with 4
# labels and 32 MiB with 9; a cell for every frame would take ten times that.
CELL_SECONDS = 0.2

Logits: TypeAlias = npt.NDArray[np.float32]
ToScores: TypeAlias = Callable[[Logits], list[float]]
ToDimensions: TypeAlias = Callable[[Logits], dict[str, float] | None]


@dataclass(frozen=True)
class Scorer:
    """A runtime, and how its logits become scores and dimensions.

    Attributes:
        runtime: Runs the model. With `frame_seconds`, its "logits" of a chunk are the
            probabilities of every frame, (L, C).
        to_scores: From the logits of one chunk, (C,), to the probability of every label.
        to_dimensions: From the same to the values of the dimensions, None without any.
        labels: Names of the scores, in their order; empty for dimensions only.
        dimensions: Names of the dimensions, in their order.
        sampling_rate: Input rate of the model in Hz.
        model: Name of the checkpoint.
        frame_seconds: Time between frames if the runtime gives them, else None.
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
    """The scores of one window of a timeline."""

    window: slice  # its position in samples
    values: list[float] | None  # scores, then dimensions; None without speech
    shown: TimelineWindow  # the same as in the timeline


class WindowScorer:
    """Turns the outputs for the chunks of one channel, in order, into scored windows."""

    def __init__(self, scorer: Scorer, channel: int | None = None) -> None:
        self._scorer = scorer
        self._channel = channel
        self._held: tuple[slice, Logits | None] | None = None  # its end depends on the next chunk
        self._start = 0  # of the next cell

    def add(self, chunk: slice, logits: Logits | None) -> list[ScoredWindow]:
        """The windows that the next chunk completes; `logits` is None without speech.

        Raises:
            CheckpointError: If they are not finite.
        """
        if logits is not None:
            start, stop = (edge / self._scorer.sampling_rate for edge in (chunk.start, chunk.stop))
            check_finite(logits, f"{start:.1f} to {stop:.1f} s of the recording")
        if self._scorer.frame_seconds is None:
            return [self._score(chunk, logits)]
        windows = [] if self._held is None else self._cut((self._held[0].stop + chunk.start) // 2)
        self._held = (chunk, logits)
        return windows

    def finish(self) -> list[ScoredWindow]:
        """The windows that are left at the end."""
        return [] if self._held is None else self._cut(self._held[0].stop)

    def _cut(self, stop: int) -> list[ScoredWindow]:
        """The cells of the held chunk up to `stop`."""
        chunk, frames = self._held or (slice(0, 0), None)
        rate = self._scorer.sampling_rate
        cells = list(cut_cells(self._start, stop, cell=round(CELL_SECONDS * rate)))
        self._start = stop
        if frames is None:
            return [self._score(cell, None) for cell in cells]
        step = (self._scorer.frame_seconds or 0.0) * rate
        return [
            self._score(
                cell, pool_frames(frames, cell.start - chunk.start, cell.stop - chunk.start, step)
            )
            for cell in cells
        ]

    def _score(self, window: slice, logits: Logits | None) -> ScoredWindow:
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


def score_labels(logits: Logits, config: ModelConfig) -> npt.NDArray[np.float64]:
    """The scores of the labels from the logits of chunks, (N, C) -> (N, number of labels).

    Probabilities that sum to 1; of a model with independent labels (`multi_label`), the
    probability of each.

    Example:
        >>> logits = np.array([[0.0, np.log(3.0)]], np.float32)
        >>> score_labels(logits, ModelConfig(labels=("happy", "sad"))).round(6).tolist()
        [[0.25, 0.75]]
        >>> config = ModelConfig(labels=("happy", "sad"), multi_label=True)
        >>> score_labels(logits, config).round(6).tolist()
        [[0.5, 0.75]]
    """
    scaled = logits[:, : len(config.labels)].astype(np.float64) / config.temperature
    if config.multi_label:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scaled)))  # the sigmoid, without overflow
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


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
        step: Samples from one frame to the next. A frame belongs to the stretch with its
            middle; a stretch without frames takes the nearest one.

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
