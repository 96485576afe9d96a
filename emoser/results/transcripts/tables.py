"""Turns from tables (CSV, tab-separated, label tracks of Audacity) and from JSON."""

import csv
import io
from collections.abc import Iterator, Sequence

from emoser.errors import TurnsError
from emoser.json_text import parse_json
from emoser.results.transcripts.objects import (
    LISTS,
    NAMES,
    POSITIONS,
    from_fields,
    from_items,
    turn_rows,
)
from emoser.results.turns import Turn

MAX_JSON_BYTES = 64 * 2**20
SEPARATORS = ("\t", ";", ",")


def parse_json_turns(text: str) -> list[Turn]:
    """Turns from the JSON of WhisperX, faster-whisper or emoser: a list of objects, or lines.

    Raises:
        TurnsError: If there is no list of turns, or a turn has no times.
        ValueError: If it is not JSON.

    Example:
        >>> parse_json_turns('{"segments": [{"start": 0, "end": 1, "speaker": "a"}]}')[0].speaker
        'a'
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines):
        rows = [parse_json(line, dict) for line in lines]
        return from_items(rows, "line")
    value = parse_json(text, object, max_bytes=MAX_JSON_BYTES)
    if isinstance(value, dict) and "start" in value:  # a single line
        return from_items([value], "line")
    name = next((name for name in LISTS if isinstance(value, dict) and name in value), "turns")
    return from_items(turn_rows(value), name)


def parse_table(text: str) -> list[Turn]:
    r"""Turns from a table with the columns start, end (or duration), speaker, text and channel.

    Without a header, the columns are start, end, speaker and text.

    Raises:
        TurnsError: If the times are missing, or no times.

    Example:
        >>> parse_table("start;end;speaker\n0;1.5;anna\n")[0].speaker
        'anna'
    """
    rows = list(_read_rows(text))
    if not rows:
        return []
    _, first = rows[0]
    header: Sequence[str] = [cell.strip().lower() for cell in first]
    if any(cell in NAMES["start"] for cell in header):
        rows = rows[1:]
    elif first[0].strip()[:1].isdigit():
        header = POSITIONS
    else:
        raise TurnsError(
            f"it is of no known format, and as a table its columns are {', '.join(first):.60}, "
            "without start; RTTM, SRT, WebVTT, TextGrid, EAF, JSON and CSV are read"
        )
    turns = []
    for number, row in rows:
        if len(row) > len(header):
            raise TurnsError(f"line {number} has {len(row)} cells, more than columns")
        turns.append(from_fields(dict(zip(header, row, strict=False)), f"line {number}"))
    return turns


def _read_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of the rows that are not empty."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise TurnsError(f"it is a damaged table ({error}); save it again") from error
