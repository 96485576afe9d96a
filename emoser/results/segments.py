"""Windows and segments of a timeline: frozen values with times in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SILENCE = "silence"
KINDS = ("emotion", SILENCE, "uncertain", "speech")
TIME_DIGITS = 3
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # of a time axis
MAX_MARKS = 12


@dataclass(frozen=True, slots=True)  # slots: a long recording has tens of thousands
class TimelineWindow:
    """The scores of one window, or of one short cell of a model that classifies frames.

    Attributes:
        start: Where it begins, in seconds.
        end: Where it ends, in seconds.
        scores: Probability of every label, summing to 1; empty for a window without speech,
            which the model does not get, and for a model without labels.
        channel: Index of the channel with channel="each", else None.
        dimensions: Values of the dimensions, as in `Prediction`; None without any.
    """

    start: float
    end: float
    scores: Mapping[str, float] = field(hash=False)
    channel: int | None = None
    dimensions: Mapping[str, float] | None = field(default=None, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "start": round(self.start, TIME_DIGITS),
            "end": round(self.end, TIME_DIGITS),
            "scores": dict(self.scores),
            "dimensions": None if self.dimensions is None else dict(self.dimensions),
            "channel": self.channel,
        }


@dataclass(frozen=True)
class Segment:
    """A stretch of one emotion, of silence, or of uncertainty.

    A model with dimensions only has "speech" instead of emotions.

    Attributes:
        start: Where it begins, in seconds.
        end: Where it ends, in seconds.
        kind: "emotion", "silence", "uncertain" (no label was probable enough) or "speech" (the
            model has no labels).
        label: The emotion; None for the other kinds.
        score: Its mean probability over the segment, in [0, 1]; None for the other kinds.
        scores: Mean probability of every label over the segment; empty in silence.
        channel: Index of the channel with channel="each", else None.
        dimensions: Mean values of the dimensions over the segment; None in silence and for a
            model without any.

    Raises:
        ValueError: If the kind is unknown, the label is missing or not allowed, or the end is
            before the start.

    Example:
        >>> segment = Segment(1.0, 2.5, "emotion", "sad", 0.75, {"sad": 0.75, "happy": 0.25})
        >>> print(segment)
        0:01.00 - 0:02.50  sad 0.75
        >>> segment.to_dict()["end"]
        2.5
    """

    start: float
    end: float
    kind: str
    label: str | None = None
    score: float | None = None
    scores: Mapping[str, float] | None = field(default=None, hash=False)
    channel: int | None = None
    dimensions: Mapping[str, float] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; use one of {', '.join(KINDS)}")
        if (self.kind == "emotion") != (self.label is not None):
            raise ValueError(f"a segment of kind {self.kind!r} has the label {self.label!r}")
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a segment from {self.start} s to {self.end} s does not exist")
        if self.scores is None:
            object.__setattr__(self, "scores", {})

    @property
    def name(self) -> str:
        """The emotion, or the kind where there is none."""
        return self.label if self.label is not None else self.kind

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "start": round(self.start, TIME_DIGITS),
            "end": round(self.end, TIME_DIGITS),
            "kind": self.kind,
            "label": self.label,
            "score": self.score,
            "scores": dict(self.scores or {}),
            "dimensions": None if self.dimensions is None else dict(self.dimensions),
            "channel": self.channel,
        }

    def __str__(self) -> str:
        """One line: times, channel where there are several, name and score."""
        channel = "" if self.channel is None else f"  channel {self.channel}"
        score = "" if self.score is None else f" {self.score:.2f}"
        score += "".join(f", {name} {value:.2f}" for name, value in (self.dimensions or {}).items())
        times = f"{clock(self.start)} - {clock(self.end)}"
        return f"{times}{channel}  {self.name}{score}"


def channel_name(channel: int, channels: Sequence[int]) -> str:
    """The name of one of the channels of a recording, by both names that it has as an option.

    Example:
        >>> channel_name(1, (0, 1)), channel_name(1, (0, 1, 2))
        ('channel 1 (right)', 'channel 1')
    """
    side = ("left", "right")[channel] if tuple(channels) == (0, 1) else ""
    return f"channel {channel} ({side})" if side else f"channel {channel}"


def choose_step(duration: float, *, max_marks: int = MAX_MARKS) -> int:
    """Seconds between the marks of a time axis: a round number, for at most `max_marks`.

    Example:
        >>> choose_step(38.0), choose_step(3600.0)
        (5, 300)
    """
    return next((step for step in STEPS if duration / step <= max_marks), STEPS[-1])


def clock(seconds: float) -> str:
    """A time as m:ss.hh, or h:mm:ss.hh from one hour on.

    Example:
        >>> clock(7.5), clock(3661.25), clock(59.999), clock(-3)
        ('0:07.50', '1:01:01.25', '1:00.00', '-0:03.00')
    """
    hundredths = abs(round(seconds * 100))
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    sign = "-" if round(seconds * 100) < 0 else ""
    return f"{sign}{head}:{rest // 100:02d}.{rest % 100:02d}"
