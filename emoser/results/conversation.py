"""`Conversation`: who speaks, and how: the turns of a recording with their emotions."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, overload

from emoser.errors import EmoserError
from emoser.results.formats import NO_NAME
from emoser.results.segments import SILENCE, TIME_DIGITS
from emoser.results.turn_formats import (
    write_turn_csv,
    write_turn_rttm,
    write_turn_srt,
    write_turn_textgrid,
    write_turn_webvtt,
)
from emoser.results.turn_pictures import draw_conversation
from emoser.results.turns import Turn
from emoser.text import counted

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

UNKNOWN = "unknown"


@dataclass(frozen=True)
class SpeakerAdaptation:
    """Whether the answers for a speaker were adapted to the voice, where that was asked for.

    Attributes:
        num_turns: The turns of the speaker with speech, by which it was or was not.
        reason: Why it was not; empty if it was.

    Example:
        >>> print(SpeakerAdaptation(12))
        adapted by 12 turns
        >>> print(SpeakerAdaptation(1, "one turn is too little"))
        not adapted: one turn is too little
    """

    num_turns: int
    reason: str = ""

    @property
    def adapted(self) -> bool:
        """Whether the answers were adapted."""
        return not self.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"adapted": self.adapted, "num_turns": self.num_turns, "note": str(self)}

    def __str__(self) -> str:
        """By how many turns, or why not."""
        if self.reason:
            return f"not adapted: {self.reason}"
        return f"adapted by {counted(self.num_turns, 'turn')}"


@dataclass(frozen=True)
class SpeakerSummary:
    """How one speaker speaks.

    Attributes:
        speaker: Name of the speaker, "unknown" for turns without one.
        num_turns: Number of turns, those without an answer included.
        seconds: Time of these turns.
        shares: Share of each label in the time of the answered turns, the largest first.
        switches: How often the emotion of a turn differs from that of the speaker's turn before;
            silence is passed over.
        adaptation: Whether the answers were adapted to the voice; None if nobody asked for it.
    """

    speaker: str
    num_turns: int
    seconds: float
    shares: Mapping[str, float] = field(hash=False)
    switches: int
    adaptation: SpeakerAdaptation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        adaptation = self.adaptation.to_dict() if self.adaptation else None
        seconds = round(self.seconds, TIME_DIGITS)
        return {**asdict(self), "seconds": seconds, "adaptation": adaptation}

    def __str__(self) -> str:
        """One line: time, shares, switches, and the adaptation if one was asked for."""
        shares = ", ".join(f"{label} {share:.0%}" for label, share in self.shares.items())
        facts = [f"{self.seconds:.1f} s in {counted(self.num_turns, 'turn')}", shares]
        facts.append(f"{self.switches} switch{'' if self.switches == 1 else 'es'}")
        facts.append("" if self.adaptation is None else str(self.adaptation))
        return f"{self.speaker}: {'; '.join(fact for fact in facts if fact)}"


@dataclass(frozen=True)
class Conversation:
    """The turns of a recording with their emotions; iterates over them.

    Attributes:
        turns: The turns, in the order in which they were given.
        labels: The labels that scores are for.
        dimensions: Names of the dimensions, mostly none.
        model: Name of the checkpoint.
        source: The file, or a short description of the input.
        adaptations: Which speakers the answers were adapted to, by name; empty if nobody asked
            for it.

    Example:
        >>> from emoser.results.prediction import Prediction
        >>> sad = Prediction.from_scores({"sad": 0.75, "happy": 0.25}, duration=2.0)
        >>> call = Conversation((Turn(0.0, 2.0, "anna", "oh", prediction=sad),), ("sad", "happy"))
        >>> print(call)
        0:00.00 - 0:02.00  anna  sad 0.75  oh
        >>> len(call), call[0].label, [turn.score for turn in call], call.speakers
        (1, 'sad', [0.75], ('anna',))
        >>> print(call.summary()["anna"])
        anna: 2.0 s in 1 turn; sad 100%; 0 switches
        >>> call.to_dict()["turns"][0]["text"], call.to_csv().splitlines()[1][:22]
        ('oh', '0.000,2.000,anna,oh,,s')
        >>> call.to_srt().splitlines()[2], call.to_webvtt().splitlines()[3]
        ('[anna]: (sad 75 %) oh', '<v anna>(sad 75 %) oh</v>')
        >>> call.to_rttm().split()[6:9], call.to_textgrid().count("IntervalTier")
        (['sad', 'anna', '0.750'], 2)
    """

    turns: tuple[Turn, ...]
    labels: tuple[str, ...]
    dimensions: tuple[str, ...] = ()
    model: str = ""
    source: str = field(default="", compare=False)
    adaptations: Mapping[str, SpeakerAdaptation] = field(default_factory=dict, hash=False)

    def __iter__(self) -> Iterator[Turn]:
        return iter(self.turns)

    def __len__(self) -> int:
        return len(self.turns)

    @overload
    def __getitem__(self, place: int) -> Turn: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Turn, ...]: ...

    def __getitem__(self, place: int | slice) -> Turn | tuple[Turn, ...]:
        return self.turns[place]

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speakers in the order of their first turns; "unknown" for turns without one."""
        ordered = sorted(self.turns, key=lambda turn: turn.start)
        return tuple(dict.fromkeys(turn.speaker or UNKNOWN for turn in ordered))

    @property
    def duration(self) -> float:
        """The end of the last turn in seconds."""
        return max((turn.end for turn in self.turns), default=0.0)

    @property
    def errors(self) -> list[EmoserError]:
        """The errors of the turns that have no answer."""
        return [turn.error for turn in self.turns if turn.error is not None]

    @property
    def failure(self) -> EmoserError | None:
        """The error of the whole recording, as of a missing file, if all turns have the same."""
        errors = self.errors
        same = len(errors) == len(self.turns) and len(set(map(id, errors))) == 1
        return errors[0] if same else None

    def summary(self) -> dict[str, SpeakerSummary]:
        """How each speaker speaks, by name, in the order of `speakers`."""
        return {name: self._summarize(name) for name in self.speakers}

    def _summarize(self, speaker: str) -> SpeakerSummary:
        turns = [turn for turn in self.turns if (turn.speaker or UNKNOWN) == speaker]
        turns.sort(key=lambda turn: turn.start)
        total: dict[str, float] = defaultdict(float)
        for turn in turns:
            if turn.label is not None and turn.prediction is not None:
                total[turn.label] += turn.prediction.duration
        whole = sum(total.values())
        ranked = sorted(total.items(), key=lambda item: -item[1])
        labels = [turn.label for turn in turns if turn.label not in (None, SILENCE)]
        return SpeakerSummary(
            speaker,
            len(turns),
            sum(max(turn.duration, 0.0) for turn in turns),
            {label: seconds / whole for label, seconds in ranked},
            sum(label != before for before, label in pairwise(labels)),
            self.adaptations.get(speaker),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "source": self.source,
            "model": self.model,
            "labels": list(self.labels),
            "dimensions": list(self.dimensions),
            "turns": [turn.to_dict() for turn in self.turns],
            "speakers": [item.to_dict() for item in self.summary().values()],
        }

    def to_csv(self) -> str:
        """A table with one row per turn and one column per label and dimension."""
        return write_turn_csv(self.turns, (*self.labels, *self.dimensions))

    def to_srt(self) -> str:
        """SubRip subtitles: speaker, emotion and text."""
        return write_turn_srt(self.turns)

    def to_webvtt(self) -> str:
        """WebVTT subtitles: emotion and text in the voice of the speaker."""
        return write_turn_webvtt(self.turns)

    def to_rttm(self) -> str:
        """RTTM: the speaker as name, the emotion as subtype, its probability as confidence."""
        return write_turn_rttm(self.turns, name=PurePath(self.source).stem or NO_NAME)

    def to_textgrid(self) -> str:
        """A Praat TextGrid with two tiers per speaker: the text and the emotion."""
        return write_turn_textgrid(self.turns, duration=self.duration, unknown=UNKNOWN)

    def to_frame(self) -> "pandas.DataFrame":
        """A pandas DataFrame with one row per turn, as by `emoser.to_frame`.

        Raises:
            DependencyError: If pandas is not installed.

        Example:
            >>> Conversation((Turn(0.0, 2.0, "anna"),), ()).to_frame()["speaker"].tolist()
            ['anna']
        """
        from emoser.results.frames import to_frame

        return to_frame(self)

    def plot(self, path: str | os.PathLike[str] | None = None, *, theme: str = "light") -> "Figure":
        """Draw a lane per speaker with the emotions of the turns.

        A notebook displays the returned figure if it is the last value of its cell.

        Args:
            path: The image file to write, if any; its suffix chooses the format, such as .png,
                .svg or .pdf.
            theme: "light" or "dark".

        Raises:
            DependencyError: If matplotlib is not installed.
            ValueError: If the theme or the suffix is unknown.

        Example:
            >>> import tempfile
            >>> call = Conversation((Turn(0.0, 2.0, "anna"),), ())
            >>> with tempfile.TemporaryDirectory() as place:
            ...     figure = call.plot(f"{place}/call.svg", theme="dark")
        """
        # Imported late, because matplotlib is optional and slow to import.
        from emoser.results.plots import plot_conversation, save_figure

        figure = plot_conversation(self, theme=theme)
        if path is not None:
            save_figure(figure, path)
        return figure

    def __str__(self) -> str:
        """One line per turn."""
        return "\n".join(map(str, self.turns))

    def _repr_html_(self) -> str:
        return draw_conversation(self)
