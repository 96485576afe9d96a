"""Turns from Rich Transcription Time Marked files (RTTM) of NIST, as diarization programs write."""

from emoser.errors import TurnsError
from emoser.results.transcripts.times import parse_seconds
from emoser.results.turns import Turn
from emoser.text import shorten

TYPES = frozenset(
    "SPEAKER LEXEME NON-LEX NON-SPEECH FILLER SEGMENT NOSCORE NO_RT_METADATA SPKR-INFO SU EDIT IP "
    "CB A/P A/V".split()
)
NUM_FIELDS = 8  # up to the name of the speaker; what follows is optional
UNKNOWN = "<NA>"


def is_rttm(text: str) -> bool:
    """Whether the first line that is no comment begins with a type of RTTM."""
    lines = (line.split() for line in text.splitlines() if not line.startswith(";;"))
    first = next((words for words in lines if words), [""])
    return first[0] in TYPES


def parse_rttm(text: str, recording: str = "") -> list[Turn]:
    """The turns of one recording.

    Args:
        text: The content.
        recording: Name of the recording, needed if the file holds turns of several.

    Raises:
        TurnsError: If a line is damaged, or no line is of the recording where there are several.

    Example:
        >>> parse_rttm("SPEAKER call 1 0.5 1.25 <NA> <NA> anna <NA> <NA>")[0].end
        1.75
    """
    found: dict[str, list[Turn]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0] != "SPEAKER":
            continue
        if len(words) < NUM_FIELDS:
            raise TurnsError(
                f"line {number} has {len(words)} fields; SPEAKER lines of RTTM have at least "
                f"{NUM_FIELDS}"
            )
        found.setdefault(words[1], []).append(_parse(words, f"line {number}"))
    if len(found) <= 1:
        return next(iter(found.values()), [])
    if recording.replace(" ", "_") in found:
        return found[recording.replace(" ", "_")]
    if recording in found:
        return found[recording]
    raise TurnsError(
        f"it holds turns of {shorten(sorted(found))}, none of which is named like the recording "
        f"({recording or 'which has no name'}); keep one of them"
    )


def _parse(words: list[str], place: str) -> Turn:
    start = parse_seconds(words[3], place)
    channel = int(words[2]) - 1 if words[2].isdigit() and words[2] != "0" else None
    speaker = None if words[7] == UNKNOWN else words[7]
    return Turn(start, start + parse_seconds(words[4], place), speaker, None, channel)
