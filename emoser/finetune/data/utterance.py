"""`Utterance`: a labelled recording, or a piece of one."""

import math
from dataclasses import dataclass

from emoser.labels import find_label_faults


@dataclass(frozen=True)
class Utterance:
    """A labelled recording, or the piece of it between `start` and `end`.

    Everything but `path` and `label` is None if unknown or not applicable.

    Attributes:
        path: The audio file.
        label: Canonical name of the emotion.
        speaker: Name of the speaker, unique within the corpus.
        corpus: Name of the corpus.
        sex: "f" or "m".
        split: Part of the official split of the corpus, such as "train".
        start: Start of the piece in seconds; None for the start of the file.
        end: End of the piece in seconds; None or infinity for the end of the file.
        session: Recording session; a speaker takes part in only one.
        style: "improvised" or "scripted".
        sentence: Identifier of the text, the same for equal texts.

    Example:
        >>> Utterance("call.wav", "angry", speaker="anna", corpus="calls").voice
        ('calls', 'anna')
    """

    path: str
    label: str
    speaker: str | None = None
    corpus: str | None = None
    sex: str | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None
    session: str | None = None
    style: str | None = None
    sentence: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: If path or label is empty, the label holds control or path characters,
                `start` is not a number from 0 on, or `end` is not after `start`.
        """
        if not self.path or not self.label:
            raise ValueError(f"an utterance needs a path and a label, got {self}")
        if faults := find_label_faults([self.label]):
            raise ValueError(f"{self.path}: {'; '.join(faults)}; correct the label")
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
