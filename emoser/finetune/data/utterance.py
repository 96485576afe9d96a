"""`Utterance`: one labelled recording, or a piece of one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Utterance:
    """A recording (or the piece between `start` and `end`) and what is known about it.

    Attributes:
        path: Where the audio is.
        label: Canonical name of the emotion.
        speaker: Who speaks, unique within the corpus; None when it is not known.
        corpus: Name of the corpus that it belongs to.
        sex: "f" or "m", where known.
        split: Part of the corpus' own split, such as "train", where it has one.
        start: Beginning of the piece in seconds, None for the beginning of the file.
        end: End of the piece in seconds, None for the end of the file.
        session: Recording session, where the corpus has such; its speakers meet in no other.
        style: "improvised" or "scripted", where known.
        sentence: Name of the text that is spoken, equal for equal texts, where known.

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
        """Refuse a piece that ends before it begins.

        Raises:
            ValueError: If a position is negative or `end` is not after `start`.
        """
        start = self.start or 0.0
        if not self.path or not self.label:
            raise ValueError(f"an utterance needs a path and a label, got {self}")
        if start < 0.0 or (self.end is not None and not self.end > start):
            raise ValueError(
                f"{self.path}: the piece from {self.start} to {self.end} seconds is empty; "
                "start must be at least 0 and end after start"
            )

    @property
    def voice(self) -> tuple[str | None, str] | None:
        """The speaker together with the corpus, or None when the speaker is not known."""
        return None if self.speaker is None else (self.corpus, self.speaker)
