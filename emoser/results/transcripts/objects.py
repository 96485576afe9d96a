"""Turns from the objects of other libraries, which are recognised by what they offer."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from emoser.errors import TurnsError
from emoser.results.transcripts.times import parse_seconds
from emoser.results.turns import Turn

LISTS = ("segments", "turns", "utterances", "diarization", "exclusiveDiarization")
POSITIONS = ("start", "end", "speaker", "text")  # of tuples, and of tables without a header
NAMES: Mapping[str, tuple[str, ...]] = {
    "start": ("start", "onset", "begin", "start_time", "starttime", "tmin", "xmin"),
    "end": ("end", "offset", "stop", "end_time", "endtime", "tmax", "xmax"),
    "duration": ("duration", "dur"),
    "speaker": ("speaker", "speaker_id", "spk", "who", "tier"),
    "text": ("text", "transcript", "transcription", "utterance", "sentence"),
    "channel": ("channel",),
}
"""Names under which other programs store the fields, in small letters."""


@runtime_checkable
class AnnotationLike(Protocol):
    """An `Annotation` of pyannote.core."""

    def itertracks(self, yield_label: bool = False) -> Any:
        """Segments with their tracks and labels."""


def from_annotation(annotation: AnnotationLike) -> list[Turn]:
    """The turns of a pyannote `Annotation`."""
    return [
        Turn(float(segment.start), float(segment.end), str(label))
        for segment, _, label in annotation.itertracks(yield_label=True)
    ]


def turn_rows(turns: Any) -> Iterable[Any]:
    """The rows of a result of WhisperX, of a DataFrame, or of any other iterable.

    Raises:
        TurnsError: If there are no rows.
    """
    if isinstance(turns, Mapping):
        for name in LISTS:
            if isinstance(turns.get(name), list | tuple):
                rows: Iterable[Any] = turns[name]
                return rows
        raise TurnsError(f"turns has no list of turns; it must be under {', '.join(LISTS[:3])}")
    if hasattr(turns, "columns") and hasattr(turns, "to_dict"):
        records: Iterable[Any] = turns.to_dict("records")
        return records
    if isinstance(turns, Iterable) and not isinstance(turns, bytes):
        return turns
    raise TurnsError(
        f"turns has the type {type(turns).__name__}; pass a file, a pyannote Annotation, or a list "
        "of (start, end, speaker, text)"
    )


def from_items(items: Iterable[Any], name: str) -> list[Turn]:
    """Turns from tuples, mappings, `Turn`s, or objects with `start` and `end`.

    Raises:
        TurnsError: If an item is none of these.

    Example:
        >>> from_items([{"onset": 1, "duration": 0.5, "speaker": "a"}], "turns")[0].end
        1.5
    """
    return [_from_item(item, f"{name}[{place}]") for place, item in enumerate(items)]


def _from_item(item: Any, place: str) -> Turn:
    if isinstance(item, Turn):
        return Turn(item.start, item.end, item.speaker, item.text, item.channel)
    if isinstance(item, Mapping):
        return from_fields(item, place)
    if hasattr(item, "start") and hasattr(item, "end"):  # of faster-whisper
        names = ("start", "end", "speaker", "text", "channel")
        return from_fields({name: getattr(item, name, None) for name in names}, place)
    if isinstance(item, list | tuple) and 2 <= len(item) <= 4:
        return from_fields(dict(zip(POSITIONS, item, strict=False)), place)
    raise TurnsError(f"{place} is {item!r:.80}; a turn is (start, end, speaker, text)")


def from_fields(fields: Mapping[Any, Any], place: str) -> Turn:
    """A turn from its fields under any of `NAMES`; empty texts are None.

    Raises:
        TurnsError: If a time is missing or no time, or the channel is no index.
    """
    found = {str(name).strip().lower(): value for name, value in fields.items()}
    values = {
        field: next((found[name] for name in names if not _is_empty(found.get(name))), None)
        for field, names in NAMES.items()
    }
    if values["start"] is None or (values["end"] is None and values["duration"] is None):
        raise TurnsError(f"{place} has no start and end; a turn needs both, in seconds")
    start = parse_seconds(values["start"], place)
    if values["end"] is None:
        end = start + parse_seconds(values["duration"], place)
    else:
        end = parse_seconds(values["end"], place)
    channel = None if values["channel"] is None else _parse_channel(values["channel"], place)
    return Turn(start, end, _text(values["speaker"]), _text(values["text"]), channel)


def _parse_channel(value: Any, place: str) -> int:
    try:
        number = float(value)
        if number < 0 or number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise TurnsError(
            f"{place} has the channel {value!r:.40}; write an index from 0 on"
        ) from error
    return int(number)


def _is_empty(value: Any) -> bool:
    """Whether a cell is empty: None, "", or the NaN of a DataFrame."""
    return value is None or value == "" or (isinstance(value, float) and value != value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value).strip() or None
