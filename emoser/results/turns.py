"""`Turn`: who speaks from when to when, and how."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emoser.errors import EmoserError, TurnsError
from emoser.results.prediction import Prediction
from emoser.results.segments import SILENCE, TIME_DIGITS, clock

OVERLAP = "overlap"
OUT_OF_RANGE = "out-of-range"
ROUNDING_SECONDS = 0.0015  # of ends by starts and durations that are given in milliseconds
MAX_OVERLAP = 100  # turns at one time, each of which holds up to a window of sound in memory


@dataclass(frozen=True)
class Turn:
    """A turn of a conversation; without an answer until it is predicted.

    Attributes:
        start: Where it begins, in seconds.
        end: Where it ends, in seconds.
        speaker: Name of the speaker; None if unknown.
        text: What was said; None if unknown.
        channel: Index of the channel with the speaker; None if unknown.
        prediction: Its emotion, equal to `predict` on a file that holds the turn alone.
        error: Why there is no prediction, with on_error="return".
        flags: "overlap" if another speaker speaks at the same time on the same channel, and
            "out-of-range" if it begins before or ends after the recording.

    Example:
        >>> turn = Turn(0.5, 2.0, "anna", "not again")
        >>> turn.duration, turn.label, turn.scores
        (1.5, None, {})
        >>> print(turn)
        0:00.50 - 0:02.00  anna  not again
    """

    start: float
    end: float
    speaker: str | None = None
    text: str | None = None
    channel: int | None = None
    prediction: Prediction | None = None
    error: EmoserError | None = field(default=None, compare=False)
    flags: tuple[str, ...] = ()

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    @property
    def label(self) -> str | None:
        """The emotion, or "silence"; None without a prediction."""
        return None if self.prediction is None else self.prediction.label

    @property
    def score(self) -> float | None:
        """The probability of the label, in [0, 1]; None without one."""
        return None if self.prediction is None else self.prediction.score

    @property
    def scores(self) -> Mapping[str, float]:
        """The probability of every label; empty without a prediction."""
        return {} if self.prediction is None else self.prediction.scores

    @property
    def dimensions(self) -> Mapping[str, float]:
        """The values of the dimensions; empty without any."""
        return (self.prediction.dimensions if self.prediction else None) or {}

    @property
    def quality(self) -> tuple[str, ...]:
        """The flags of the turn, then those of its prediction."""
        return (*self.flags, *(self.prediction.quality if self.prediction else ()))

    @property
    def answer(self) -> str:
        """The label with its probability, the dimensions, or "error", as text."""
        if self.error is not None:
            return "error"
        values = ", ".join(f"{name} {value:.2f}" for name, value in self.dimensions.items())
        if self.label is None or self.label == SILENCE:
            return self.label or values
        return f"{self.label} {self.score:.2f}" + (f", {values}" if values else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; "error" is among them if there is one."""
        row = {
            "start": round(self.start, TIME_DIGITS),
            "end": round(self.end, TIME_DIGITS),
            "speaker": self.speaker,
            "text": self.text,
            "channel": self.channel,
            "label": self.label,
            "score": self.score,
            "scores": dict(self.scores),
            "dimensions": dict(self.dimensions) or None,
            "quality": list(self.quality),
        }
        return row if self.error is None else {**row, "error": str(self.error)}

    def __str__(self) -> str:
        """One line: times, speaker, answer, text, and flags."""
        flags = f"[{' '.join(self.quality)}]" if self.quality else ""
        times = f"{clock(self.start)} - {clock(self.end)}"
        fault = "" if self.error is None else str(self.error)
        parts = (times, self.speaker, self.answer, fault or self.text, flags)
        return "  ".join(part for part in parts if part)


def find_overlaps(turns: Sequence[Turn], *, by_channel: bool) -> list[bool]:
    """Whether another speaker speaks during each turn.

    Raises:
        TurnsError: If more than `MAX_OVERLAP` turns overlap at one time.

    Args:
        turns: In any order.
        by_channel: Whether speakers on different channels leave each other alone.

    Example:
        >>> find_overlaps([Turn(0, 2, "a"), Turn(1, 3, "b"), Turn(3, 4, "a")], by_channel=False)
        [True, True, False]
        >>> find_overlaps([Turn(0, 2.001, "a"), Turn(2, 3, "b")], by_channel=False)
        [False, False]
    """
    found = [False] * len(turns)
    active: list[int] = []
    for place in sorted(range(len(turns)), key=lambda place: turns[place].start):
        turn = turns[place]
        if not turn.start < turn.end < math.inf:
            continue
        active = [other for other in active if turns[other].end > turn.start + ROUNDING_SECONDS]
        if len(active) >= MAX_OVERLAP:
            raise TurnsError(
                f"more than {MAX_OVERLAP} turns overlap at {turn.start:g} s; check their times, "
                "or pass them in parts"
            )
        for other in active:
            same = turn.speaker is not None and turns[other].speaker == turn.speaker
            if not same and not (by_channel and turns[other].channel != turn.channel):
                found[place] = found[other] = True
        active.append(place)
    return found
