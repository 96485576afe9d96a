"""From scored windows and regions of speech to segments.

Each window stands for the time around its middle, up to half of its overlaps with its neighbours.
An emotion is kept until another leads by a margin (hysteresis), and silence ends it. Works in
constant memory and gives each segment as soon as it has ended.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emoser.audio import SAMPLING_RATE
from emoser.inference.options import TimelineOptions
from emoser.inference.vad import SpeechRegion
from emoser.results.segments import Segment

# Shorter speech at the edge of a silence takes the label of its neighbour.
MIN_PIECE_SECONDS = 0.3


@dataclass(frozen=True)
class SegmentRules:
    """When a segment ends, and its label.

    Attributes:
        labels: Names of the scores, in order; without any, what is not silence is "speech".
        dimensions: Names of the values after the scores, which are not probabilities.
        smoothing: Lead that another label needs, and depth to which a label may fall below the
            threshold, before it is replaced; 0 follows every window.
        threshold: Probability below which the most probable label is "uncertain".
        channel: The channel that segments name.
        sampling_rate: Samples per second of the positions.
    """

    labels: tuple[str, ...]
    smoothing: float = TimelineOptions.smoothing
    threshold: float = TimelineOptions.threshold
    channel: int | None = None
    sampling_rate: int = SAMPLING_RATE
    dimensions: tuple[str, ...] = ()


@dataclass
class _Slot:
    """The time that a window stands for, in samples, and its label."""

    start: int
    stop: int
    label: int | None  # None: uncertain
    scores: Sequence[float] | None  # None: silence
    entered: int | None = None  # where the present speech in it began


@dataclass
class _Open:
    """The segment that has not ended, with sums over its samples."""

    start: int
    stop: int
    kind: str
    label: int | None
    sums: list[float]


class Segmenter:
    """Turns windows and speech of one channel into segments that cover its time.

    Example:
        >>> segmenter = Segmenter(SegmentRules(("happy", "sad"), sampling_rate=10))
        >>> segmenter.add_window(slice(0, 30), [0.9, 0.1])
        >>> segmenter.add_window(slice(10, 40), [0.2, 0.8])
        >>> segmenter.add_speech(SpeechRegion(0, 40, True))
        >>> [print(segment) for segment in segmenter.finish()]
        0:00.00 - 0:02.00  happy 0.90
        0:02.00 - 0:04.00  sad 0.80
        [None, None]
    """

    def __init__(self, rules: SegmentRules) -> None:
        self.rules = rules
        self._window = slice(0, 0)  # the latest
        self._slots: deque[_Slot] = deque()
        self._runs: deque[SpeechRegion] = deque()
        self._label: int | None = None
        self._open: _Open | None = None

    def add_window(self, window: slice, scores: Sequence[float] | None) -> None:
        """The next window in samples, with its scores and dimensions; None when it was silent."""
        start = 0
        if self._slots:
            start = max((self._window.stop + window.start) // 2, self._slots[-1].start)
            self._slots[-1].stop = start
        self._window = window
        self._label = None if scores is None else self._choose(scores)
        self._slots.append(_Slot(start, window.stop, self._label, scores))

    def add_speech(self, run: SpeechRegion) -> None:
        """The next region of speech or silence, adjacent to the one before."""
        if self._runs and self._runs[-1].speaking == run.speaking:
            run = SpeechRegion(self._runs.pop().start, run.stop, run.speaking)
        self._runs.append(run)

    def settle(self) -> Iterator[Segment]:
        """The segments that have ended since the last call."""
        return self._join(keep=1)  # the end of the latest window's time is not known yet

    def finish(self) -> Iterator[Segment]:
        """The remaining segments, the last one included."""
        yield from self._join(keep=0)
        if self._open is not None:
            yield self._close(self._open)
            self._open = None

    @property
    def current(self) -> Segment | None:
        """The segment that has not ended, as far as it is known; None before the first."""
        return None if self._open is None else self._close(self._open)

    def _choose(self, scores: Sequence[float]) -> int | None:
        if not self.rules.labels:
            return None
        best = max(range(len(self.rules.labels)), key=scores.__getitem__)
        kept = self._label
        smoothing, threshold = self.rules.smoothing, self.rules.threshold
        if (
            kept is not None
            and scores[kept] >= scores[best] - smoothing
            and scores[kept] >= threshold - smoothing
        ):
            return kept
        return best if scores[best] >= threshold else None

    def _join(self, *, keep: int) -> Iterator[Segment]:
        """Consume the time for which both windows and speech are known."""
        while len(self._slots) > keep and self._runs:
            slot, run = self._slots[0], self._runs[0]
            stop = min(slot.stop, run.stop)
            start = max(slot.start, run.start)
            if not run.speaking:
                slot.entered = None
            elif slot.entered is None:
                slot.entered = start
            # The only region so far may continue, and its end decides its last label.
            goes_on = keep and len(self._runs) == 1 and stop == run.stop
            if run.speaking and goes_on and self._is_short(slot, stop):
                return
            if stop > start:
                label = self._label_piece(slot, start, stop, run)
                yield from self._grow(slot, start, stop, label=label, speaking=run.speaking)
            if slot.stop <= stop:
                self._slots.popleft()
            if run.stop <= stop:
                self._runs.popleft()

    def _is_short(self, slot: _Slot, stop: int) -> bool:
        entered = stop if slot.entered is None else slot.entered
        return stop - entered < MIN_PIECE_SECONDS * self.rules.sampling_rate

    def _label_piece(self, slot: _Slot, start: int, stop: int, run: SpeechRegion) -> int | None:
        """The label of a part of one window; a short one takes the label of its neighbour."""
        if slot.scores is None or not run.speaking or not self._is_short(slot, stop):
            return slot.label
        before = self._open
        follows = before is not None and before.stop == start and before.kind != "silence"
        if before is not None and follows and stop == run.stop:
            return before.label
        after = self._slots[1] if len(self._slots) > 1 else None
        if not follows and stop == slot.stop and after is not None and after.scores is not None:
            return after.label
        return slot.label

    def _grow(
        self, slot: _Slot, start: int, stop: int, *, label: int | None, speaking: bool
    ) -> Iterator[Segment]:
        scores = slot.scores if speaking else None
        label = label if scores is not None else None
        unnamed = "uncertain" if self.rules.labels else "speech"
        kind = "silence" if scores is None else unnamed if label is None else "emotion"
        grown = self._open
        if grown is not None and (grown.kind, grown.label) != (kind, label):
            yield self._close(grown)
            grown = None
        if grown is None:
            num_values = len(self.rules.labels) + len(self.rules.dimensions)
            grown = self._open = _Open(start, stop, kind, label, [0.0] * num_values)
        grown.stop = stop
        for place, score in enumerate(scores or ()):
            grown.sums[place] += score * (stop - start)

    def _close(self, grown: _Open) -> Segment:
        rules = self.rules
        total = max(grown.stop - grown.start, 1)
        means = [value / total for value in grown.sums]
        scores = dict(zip(rules.labels, means, strict=False))
        dimensions = dict(zip(rules.dimensions, means[len(rules.labels) :], strict=True))
        is_silent = grown.kind == "silence"
        label = None if grown.label is None else rules.labels[grown.label]
        return Segment(
            start=grown.start / rules.sampling_rate,
            end=grown.stop / rules.sampling_rate,
            kind=grown.kind,
            label=label,
            score=None if label is None else scores[label],
            scores={} if is_silent else scores,
            channel=rules.channel,
            dimensions=None if is_silent or not dimensions else dimensions,
        )
