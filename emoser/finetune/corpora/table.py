"""Read a table of recordings (CSV or JSON lines) into utterances.

The columns are path and label (or emotion), and optionally speaker, corpus, sex, split, start
and end. Relative paths count from the folder of the table. Never decodes audio.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emoser.finetune.utterance import Utterance
from emoser.labels import canonical_label

SHOWN = 10


def read_corpus(table: str | Path, *, root: str | Path | None = None) -> list[Utterance]:
    """Utterances of a CSV or JSONL file; rows without a label are left out.

    Args:
        table: The file; `.jsonl` and `.ndjson` hold one object per line, all else is CSV.
        root: Folder that relative paths count from, the table's own unless given.

    Raises:
        FileNotFoundError: If the table is missing, or recordings that it names are; these
            all in one message.
        ValueError: If a column is missing or a row is broken; all rows in one message.
    """
    table = Path(table)
    folder = table.parent if root is None else Path(root)
    utterances, faults = [], []
    for number, row in _rows(table):
        try:
            utterance = _read_row(row, folder)
        except ValueError as error:
            faults.append(f"row {number}: {error}")
            continue
        if utterance is not None:
            utterances.append(utterance)
    if faults:
        raise ValueError(f"{table}: {_shorten(faults)}")
    if not utterances:
        raise ValueError(f"{table} has no row with a label; fill the column label or emotion")
    missing = [item.path for item in utterances if not Path(item.path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{table}: {len(missing)} of {len(utterances)} recordings are missing under "
            f"{folder}: {_shorten(missing)}"
        )
    return utterances


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        if table.suffix not in (".jsonl", ".ndjson"):
            reader = csv.DictReader(file)
            _check_columns(table, set(reader.fieldnames or ()))
            yield from enumerate(reader, start=2)
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parse_line(table, number, line)


def _parse_line(table: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{table}, line {number}: no JSON object ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{table}, line {number}: no JSON object")
    _check_columns(table, set(row))
    return row


def _check_columns(table: Path, columns: set[str]) -> None:
    if "path" not in columns or not columns & {"label", "emotion"}:
        raise ValueError(
            f"{table} has the columns {', '.join(sorted(columns)) or 'none'}; "
            "it needs path and label (or emotion)"
        )


def _read_row(row: Mapping[str, Any], folder: Path) -> Utterance | None:
    label = _text(row.get("label")) or _text(row.get("emotion"))
    if label is None:
        return None
    path = _text(row.get("path"))
    if path is None:
        raise ValueError("no path")
    return Utterance(
        str(folder / path),
        canonical_label(label),
        speaker=_text(row.get("speaker")),
        corpus=_text(row.get("corpus")),
        sex=_text(row.get("sex")),
        split=_text(row.get("split")),
        start=_number("start", row.get("start")),
        end=_number("end", row.get("end")),
    )


def _text(value: object) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None


def _number(name: str, value: object) -> float | None:
    text = _text(value)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}, not a number of seconds") from error


def _shorten(items: list[str]) -> str:
    more = f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return "; ".join(items[:SHOWN]) + more
