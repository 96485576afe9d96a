"""`Utterance`: a labelled recording, or a piece of one."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from emoser.labels import find_label_faults


@dataclass(frozen=True)
class Utterance:
    """A labelled recording, or the piece of it between `start` and `end`.

    Everything but `path` and the annotation is None if unknown or not applicable.

    Attributes:
        path: The audio file.
        label: Canonical name of the emotion; with votes that of the most, the first of equals;
            empty if there are several labels at once, or only dimensions.
        speaker: Name of the speaker, unique within the corpus.
        corpus: Name of the corpus.
        sex: "f" or "m".
        split: Part of the official split of the corpus, such as "train".
        start: Start of the piece in seconds; None for the start of the file.
        end: End of the piece in seconds; None or infinity for the end of the file.
        session: Recording session; a speaker takes part in only one.
        style: "improvised" or "scripted".
        sentence: Identifier of the text, the same for equal texts.
        dimensions: Annotated values, such as those of "arousal", on the scale of the annotation.
        scale: Lowest and highest value of that scale; None if it is not stated.
        votes: How many annotators chose each label, or their shares; empty if that is not known.
        labels: All labels that apply, of recordings that may have several or none at once.

    Example:
        >>> Utterance("call.wav", "angry", speaker="anna", corpus="calls").voice
        ('calls', 'anna')
        >>> Utterance("call.wav", dimensions={"arousal": 5.5}, scale=(1, 7)).value("arousal")
        0.75
    """

    path: str
    label: str = ""
    speaker: str | None = None
    corpus: str | None = None
    sex: str | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None
    session: str | None = None
    style: str | None = None
    sentence: str | None = None
    dimensions: Mapping[str, float] = field(default_factory=dict, hash=False)
    scale: tuple[float, float] | None = None
    votes: Mapping[str, float] = field(default_factory=dict, hash=False)
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: If the path or the annotation is empty, a label holds control or path
                characters, a dimension is not a number, the scale does not rise, votes are not
                numbers from 0 on with a sum above it, there is a label beside several, `start` is
                not a number from 0 on, or `end` is not after `start`.
        """
        if self.votes and not self.label:
            object.__setattr__(self, "label", max(self.votes, key=self.votes.__getitem__))
        if not self.path or not (self.is_labelled or self.dimensions):
            raise ValueError(f"an utterance needs a path, and a label or dimensions, got {self}")
        if self.labels is not None and self.label:
            raise ValueError(f"{self.path}: label {self.label!r} stands beside labels; pass one")
        counts = self.votes.values()
        if self.votes and not (min(counts) >= 0 and 0 < sum(counts) < math.inf):
            raise ValueError(f"{self.path}: votes {dict(self.votes)} must be 0 or more, and some")
        if faults := find_label_faults(self.classes):
            raise ValueError(f"{self.path}: {'; '.join(faults)}; correct the label")
        if not all(map(math.isfinite, self.dimensions.values())):
            raise ValueError(f"{self.path}: {dict(self.dimensions)} must be numbers")
        if self.scale is not None and not -math.inf < self.scale[0] < self.scale[1] < math.inf:
            raise ValueError(f"{self.path}: the scale {self.scale} must be (lowest, highest)")
        if self.end == math.inf:
            object.__setattr__(self, "end", None)
        start = self.start or 0.0
        if not 0.0 <= start < math.inf or (self.end is not None and not self.end > start):
            raise ValueError(
                f"{self.path}: the piece from {self.start} to {self.end} seconds is empty; "
                "start must be at least 0 and end after start"
            )

    @property
    def is_piece(self) -> bool:
        """Whether this is a piece of a file."""
        return self.start is not None or self.end is not None

    @property
    def voice(self) -> tuple[str | None, str] | None:
        """Corpus and speaker; None if the speaker is unknown."""
        return None if self.speaker is None else (self.corpus, self.speaker)

    @property
    def is_labelled(self) -> bool:
        """Whether it is known which label applies, or which ones."""
        return bool(self.label) or self.labels is not None

    @property
    def answers(self) -> tuple[str, ...]:
        """The labels that a right answer names: one, several or none."""
        return self.labels if self.labels is not None else (self.label,) if self.label else ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that apply, or that somebody voted for."""
        voted = tuple(name for name, count in self.votes.items() if count > 0)
        return tuple(dict.fromkeys((*self.answers, *voted)))

    @property
    def truth(self) -> Any:
        """All of the annotation in plain values; the label alone where there is nothing else."""
        if not self.dimensions and not self.votes and self.labels is None:
            return self.label
        pairs = (tuple(sorted(values.items())) for values in (self.dimensions, self.votes))
        return self.label, *pairs, self.scale, self.labels

    def share(self, label: str) -> float:
        """The share of votes for a label; 1 or 0 without votes.

        Example:
            >>> Utterance("call.wav", votes={"sad": 3, "angry": 1}).share("sad")
            0.75
        """
        if not self.votes:
            return float(label in self.answers)
        return self.votes.get(label, 0.0) / math.fsum(self.votes.values())

    def rename(self, names: Mapping[str, str]) -> "Utterance":
        """The same with other names of labels; votes for equal names are added.

        Example:
            >>> item = Utterance("call.wav", votes={"angry": 2, "fear": 2, "happy": 3})
            >>> item.rename({"angry": "bad", "fear": "bad"}).label
            'bad'
        """
        votes: dict[str, float] = defaultdict(float)
        for label, count in self.votes.items():
            votes[names.get(label, label)] += count
        labels = self.labels
        if labels is not None:
            labels = tuple(dict.fromkeys(names.get(label, label) for label in labels))
        label = names.get(self.label, self.label) if not votes else ""
        return replace(self, label=label, votes=dict(votes), labels=labels)

    def value(self, dimension: str) -> float:
        """The value of a dimension, where 0 and 1 are the ends of the scale, which is stated."""
        low, high = self.scale or (0.0, 1.0)
        return (self.dimensions[dimension] - low) / (high - low)
