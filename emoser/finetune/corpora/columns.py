"""What the columns of a table mean: names in any case, with spaces or underscores, and times.

Times are given in seconds whatever their unit, and as start and end whichever two of start, end
and duration a table has.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emoser.finetune.corpora.votes import find_vote_columns
from emoser.finetune.settings import AUTO
from emoser.labels import DIMENSIONS

NAMES: Mapping[str, Sequence[str]] = {
    "path": (
        *("path", "audiofilepath", "filepath", "filename", "file"),
        *("audiopath", "audiofile", "audio", "wavpath", "wav"),
    ),
    "label": ("label", "emotion"),
    "labels": ("labels", "emotions"),
    "speaker": ("speaker", "speakerid", "speakername", "spk", "spkid"),
    "corpus": ("corpus",),
    "sex": ("sex", "gender"),
    "split": ("split", "partition", "subset"),
    "session": ("session", "sessionid"),
    "style": ("style",),
    "sentence": ("sentence", "sentenceid"),
    "arousal": ("arousal", "activation"),
    "dominance": ("dominance",),
    "valence": ("valence",),
}
"""Fields, and the columns that hold them: small letters and digits, the first found counts."""

TIMES: Mapping[str, str] = {
    **dict.fromkeys(("start", "begin", "onset", "offset"), "start"),
    **dict.fromkeys(("end", "stop"), "end"),
    **dict.fromkeys(("duration", "dur"), "duration"),
}
TIME = re.compile(
    rf"(?:segment|seg|utterance|utt|clip|turn|t)?(?P<name>{'|'.join(TIMES)})(?:time)?(?:in)?"
    r"(?:(?P<milli>ms|msecs?|millis|milliseconds?)|(?P<other>samples?|frames?)|"
    r"s|secs?|seconds?)?"
)
SEPARATOR = re.compile(r"[;|,]")  # of several labels
WHOLE = re.compile(r"^(-?\d+)\.0$")
MISSING = frozenset(
    (
        *("", "na", "n/a", "#n/a", "#n/a n/a", "#na", "<na>", "nan", "-nan", "1.#ind", "-1.#ind"),
        *(
            "1.#qnan",
            "-1.#qnan",
            "null",
            "(null)",
            "#null!",
            "none",
            "nil",
            "nat",
            "-",
            "--",
            "---",
            "–",
            "—",
            "?",
            ".",
        ),
    )
)
"""Spellings of a missing value in small letters; those of pandas, R, SQL and spreadsheets."""
TOLERANCE = 0.01  # seconds by which an end may differ from start and duration, which are rounded


class Columns:
    """Finds the fields of an utterance in the rows of a table.

    Args:
        names: Names of the columns as they stand in the table.
        decimal: "," if numbers may have a decimal comma.
        targets: "labels" or "dimensions" if the table is read for these alone, else "auto".

    Raises:
        ValueError: If two columns have the same name or the votes for the same emotion, a time is
            counted in samples, or an offset could be a start or an end.

    Example:
        >>> columns = Columns(["File Name", "offset", "Duration (ms)"])
        >>> row = {"File Name": "a.wav", "offset": "1.5", "Duration (ms)": "500"}
        >>> columns.text(row, "path"), columns.piece(row)
        ('a.wav', (1.5, 2.0))
    """

    def __init__(self, names: Iterable[str], *, decimal: str = ".", targets: str = AUTO) -> None:
        self._decimal = decimal
        self._targets = targets
        keys: dict[str, str] = {}  # names as in NAMES, and those of the table
        starts: dict[str, str] = {}  # words for a start, and the columns that have them
        self._times: dict[str, list[tuple[str, float]]] = {"start": [], "end": [], "duration": []}
        for name in names:
            key = re.sub(r"[\W_]", "", name.casefold())
            time = TIME.fullmatch(key)
            if key in keys and (time or any(key in known for known in NAMES.values())):
                raise ValueError(f"the columns {keys[key]!r} and {name!r} are the same; remove one")
            keys[key] = name
            if time and time["other"]:
                raise ValueError(f"the column {name!r} is not in seconds; convert it to seconds")
            if time:
                factor = 0.001 if time["milli"] else 1.0
                self._times[TIMES[time["name"]]].append((name, factor))
                starts |= {time["name"]: name} if TIMES[time["name"]] == "start" else {}
        self._place_offset(starts)
        self._fields = {
            field: [keys[key] for key in known if key in keys] for field, known in NAMES.items()
        }
        self._votes = find_vote_columns([*keys.values()])
        if self.kind == "votes":
            self._votes.check()

    def _place_offset(self, starts: Mapping[str, str]) -> None:
        """Beside an onset, an offset is the end; alone, as in NeMo's manifests, the start."""
        if "offset" not in starts or len(starts) == 1:
            return
        offset = starts["offset"]
        if set(starts) != {"onset", "offset"} or self._times["end"]:
            others = ", ".join(repr(name) for name in starts.values() if name != offset)
            raise ValueError(
                f"the column {offset!r} beside {others} could be a start or an end; rename it"
            )
        (moved,) = [item for item in self._times["start"] if item[0] == offset]
        self._times["start"].remove(moved)
        self._times["end"].append(moved)

    def has(self, *fields: str) -> bool:
        """Whether there are columns of all these fields."""
        return all(self._fields[field] for field in fields)

    @property
    def is_annotated(self) -> bool:
        """Whether a table with these columns names recordings and says what is in them."""
        return self.has("path") and (self.kind != "" or bool(self.rated))

    @property
    def rated(self) -> list[str]:
        """The dimensions that the table has columns of and is read for."""
        return [name for name in DIMENSIONS if self.has(name)] * (self._targets != "labels")

    @property
    def kind(self) -> str:
        """How emotions are named: "label", "labels" (several at once), "votes" or "" for none."""
        if self._targets == "dimensions":
            return ""
        if self.has("label"):
            return "label"
        return "labels" if self.has("labels") else "votes" if self._votes else ""

    @property
    def ignored(self) -> list[str]:
        """Columns of votes or of several labels that are not read, because there is a label."""
        if self.kind != "label":
            return []
        return [*self._fields["labels"], *self._votes.annotators, *self._votes.emotions]

    def text(self, row: Mapping[str, Any], field: str) -> str | None:
        """The value of a field, from the first of its columns that has one; None if missing.

        Raises:
            ValueError: If the value is a list or an object.
        """
        values = (_text(name, row.get(name)) for name in self._fields[field])
        return next(filter(None, values), None)

    def label(self, row: Mapping[str, Any]) -> str | None:
        """The label of a row; None if it is missing."""
        return self.text(row, "label")

    def labels(self, row: Mapping[str, Any]) -> tuple[str, ...] | None:
        """All labels of a row, which may be none; None if the cell is missing."""
        for name in self._fields["labels"]:
            value = row.get(name)
            if isinstance(value, list):
                return tuple(map(str, value))
            text = _text(name, value)
            if text is not None:
                return tuple(filter(None, (part.strip() for part in SEPARATOR.split(text))))
        return None

    def votes(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The votes or shares of a row by label; empty if it has none.

        Raises:
            ValueError: If one is not a number from 0 on, some are missing, or the shares do not
                sum to 1.
        """

        def read_number(name: str) -> float | None:
            text = _text(name, row.get(name))
            return None if text is None else self._number(name, text)

        return self._votes.read(
            {name: _text(name, row.get(name)) for name in self._votes.annotators}, read_number
        )

    def dimensions(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The values of the dimensions in `rated`; empty if all are missing.

        Raises:
            ValueError: If a value is not a number, or some are missing.
        """
        texts = {name: self.text(row, name) for name in self.rated}
        if not any(texts.values()):
            return {}
        return {name: self._number(name, text) for name, text in texts.items()}

    def _number(self, name: str, text: str | None) -> float:
        if text is None:
            raise ValueError(f"{name} is empty; fill it or leave the row out")
        try:
            value = float(text.replace(self._decimal, "."))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{name} is {text!r}, not a number; correct it or rename the column")
        return value

    def piece(self, row: Mapping[str, Any]) -> tuple[float | None, float | None]:
        """Start and end in seconds; None for the start or the end of the file.

        Raises:
            ValueError: If a time is not a number, or end and duration contradict each other.
        """
        start, end, duration = (self._seconds(row, field) for field in self._times)
        if duration is None:
            return start, end
        if not duration > 0.0:
            raise ValueError(f"duration is {duration:g} seconds; it must be above 0")
        stop = round((start or 0.0) + duration, 6)
        if end is not None and abs(end - stop) > TOLERANCE:
            raise ValueError(
                f"end is {end:g}, but start and duration give {stop:g} seconds; correct one of them"
            )
        return start, stop

    def is_length(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has a duration and neither start nor end."""
        values = [self._seconds(row, field) for field in self._times]
        return values[:2] == [None, None] and values[2] is not None

    def _seconds(self, row: Mapping[str, Any], field: str) -> float | None:
        for name, factor in self._times[field]:
            text = _text(name, row.get(name))
            if text is None:
                continue
            try:
                return round(float(text.replace(self._decimal, ".")) * factor, 6)
            except ValueError as error:
                raise ValueError(f"{name} is {text!r}, not a number of seconds") from error
        return None


def _text(name: str, value: object) -> str | None:
    if isinstance(value, dict | list | bytes):
        raise ValueError(f"{name} holds {type(value).__name__}, not a single value")
    text = "" if value is None else str(value).strip()
    if text.casefold() in MISSING:
        return None
    return WHOLE.sub(r"\1", text)  # many programs write whole numbers so where others are missing
