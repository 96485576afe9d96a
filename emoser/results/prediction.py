"""`Prediction`: the frozen result for one recording, in plain Python values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emoser.results.segments import SILENCE
from emoser.results.svg import draw_prediction

MAX_DURATION_DIGITS = 3
BAR_WIDTH = 20


@dataclass(frozen=True)
class Prediction:
    """The emotion of one recording.

    Attributes:
        label: The most probable label; "silence" if nobody speaks, as in timelines; None for a
            model with dimensions only.
        score: Its probability, in [0, 1]; None for silence and where there is no label.
        scores: Probability of every label, in the order of the model; sums to 1. Of a checkpoint
            with independent labels (`multi_label_classification`), each is the probability that
            its label applies, and they need not sum to 1.
        duration: Length of the recording in seconds.
        quality: Problems of the recording, such as "silence", "clipped", "dc",
            "narrow-band", "short" or "truncated" (the file lacks sound that it declares, or holds
            more than was decoded); empty without any.
        dimensions: Values of "arousal", "dominance" and "valence" (about 0 to 1) of a
            dimensional model, else None.
        model: Name of the checkpoint.
        source: The file, or a short description of the input.
        num_windows: Number of chunks that the recording was cut into; with more than one,
            `scores` is their mean, weighted by length.
        unmapped: Probability, in [0, 1], of the labels that the requested map leaves out; in
            `scores` it is part of "other".

    Example:
        >>> answer = Prediction.from_scores({"happy": 0.75, "sad": 0.25}, duration=2.5)
        >>> answer.label, answer.score, answer.top(1), answer.to_dict()["duration"]
        ('happy', 0.75, [('happy', 0.75)], 2.5)
        >>> print(answer)
        happy 0.75 (sad 0.25), 2.5 s
        >>> print(answer.table())
        happy  0.750  ███████████████
        sad    0.250  █████
    """

    label: str | None
    score: float | None
    scores: Mapping[str, float] = field(hash=False)
    duration: float
    quality: tuple[str, ...] = ()
    dimensions: Mapping[str, float] | None = field(default=None, hash=False)
    model: str = ""
    source: str = field(default="", compare=False)
    num_windows: int = 1
    unmapped: float = 0.0

    @classmethod
    def from_scores(
        cls,
        scores: Mapping[str, float],
        *,
        duration: float,
        quality: tuple[str, ...] = (),
        **facts: Any,
    ) -> "Prediction":
        """A prediction whose label is the most probable of `scores`, or "silence" by `quality`.

        Raises:
            ValueError: If `scores` is empty and no dimensions are given.
        """
        if not scores and not facts.get("dimensions"):
            raise ValueError("a prediction needs scores or dimensions; both are empty")
        label = max(scores, key=scores.__getitem__) if scores else None
        score = scores[label] if label is not None else None
        if SILENCE in quality:
            label, score = SILENCE, None
        return cls(label, score, dict(scores), duration, quality, **facts)

    def top(self, count: int | None = None) -> list[tuple[str, float]]:
        """The `count` most probable (label, probability) pairs, best first; all by default."""
        ranked = sorted(self.scores.items(), key=lambda item: -item[1])
        return ranked[:count]

    def to_dict(self, *, flat: bool = False) -> dict[str, Any]:
        """Plain values, ready for JSON.

        Args:
            flat: One value per key, for a row of a table: each score and dimension under its own
                name after "score_" and "dimension_", the flags joined by spaces.

        Example:
            >>> answer = Prediction.from_scores({"sad": 1.0}, duration=2.5, quality=("clipped",))
            >>> row = answer.to_dict(flat=True)
            >>> row["label"], row["score_sad"], row["quality"]
            ('sad', 1.0, 'clipped')
        """
        if flat:
            return self._to_row()
        return {
            "source": self.source,
            "label": self.label,
            "score": self.score,
            "scores": dict(self.scores),
            "dimensions": None if self.dimensions is None else dict(self.dimensions),
            "duration": round(self.duration, MAX_DURATION_DIGITS),
            "quality": list(self.quality),
            "num_windows": self.num_windows,
            "unmapped": self.unmapped,
            "model": self.model,
        }

    def _to_row(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "label": self.label,
            "score": self.score,
            **{f"score_{name}": value for name, value in self.scores.items()},
            **{f"dimension_{name}": value for name, value in self._dimensions()},
            "duration": round(self.duration, MAX_DURATION_DIGITS),
            "quality": " ".join(self.quality),
            "num_windows": self.num_windows,
            "unmapped": self.unmapped,
            "model": self.model,
        }

    def __str__(self) -> str:
        """One line: label and score, the others, the length, and the flags."""
        flags = " ".join(self.quality)
        if self.label == SILENCE:
            answer, flags = SILENCE, " ".join(flag for flag in self.quality if flag != SILENCE)
        elif self.label is None:
            answer = ", ".join(f"{name} {value:.2f}" for name, value in self._dimensions())
        else:
            others = ", ".join(f"{name} {value:.2f}" for name, value in self.top()[1:])
            answer = f"{self.label} {self.score:.2f}" + (f" ({others})" if others else "")
            answer += "".join(f", {name} {value:.2f}" for name, value in self._dimensions())
        return f"{answer}, {self.duration:.1f} s" + (f", {flags}" if flags else "")

    def table(self) -> str:
        """Several lines: every label with its probability and a bar."""
        rows = [*self.top(), *self._dimensions()]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value:.3f}  {_bar(value)}".rstrip() for name, value in rows]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return draw_prediction(self)

    def _dimensions(self) -> Sequence[tuple[str, float]]:
        return list((self.dimensions or {}).items())


def _bar(value: float) -> str:
    return "█" * round(BAR_WIDTH * min(max(value, 0.0), 1.0))
