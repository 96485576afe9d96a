"""Read a table of recordings (CSV, JSON lines, or a folder of `datasets`) into utterances.

The columns are path and label (or emotion), and optionally speaker, corpus, sex, split, start,
end, session, style and sentence. Relative paths count from the folder of the table. A folder is
read through its `metadata.csv` or `metadata.jsonl` files, like the audio folders of `datasets`,
with the column file_name. No audio is decoded.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emoser.finetune.corpora.arrow import is_dataset, read_rows
from emoser.finetune.data.utterance import Utterance
from emoser.json_text import parse_json
from emoser.labels import canonical_label
from emoser.text import shorten

PATHS = ("path", "file_name", "audio_filepath")
METADATA = ("metadata.csv", "metadata.jsonl")
TEXTS = ("speaker", "corpus", "sex", "split", "session", "style", "sentence")
SECONDS = ("start", "end")


def read(table: str | Path, *, root: str | Path | None = None) -> list[Utterance]:
    """Utterances of a CSV or JSONL file, or of a folder with metadata files.

    Rows without a label are left out.

    Args:
        table: The file; `.jsonl` and `.ndjson` hold one object per line, all else is CSV. A
            folder is searched for metadata files; one below `train` or `test` has that split. A
            folder that `datasets` saved is read as such, with its splits.
        root: Folder that relative paths count from, the table's own unless given; audio that a
            folder of `datasets` holds as bytes is written there.

    Raises:
        FileNotFoundError: If the table is missing, or recordings that it names are; these
            all in one message.
        DependencyError: If `datasets` is needed and not installed.
        ValueError: If a column is missing or a row is broken; all rows in one message.
    """
    table = Path(table)
    if table.is_dir() and not is_dataset(table):
        return _read_folder(table)
    place = None if root is None else Path(root)
    folder = place or (table if table.is_dir() else table.parent)
    utterances, faults = [], []
    for number, row in _rows(table, place):
        try:
            utterance = _read_row(row, folder)
        except ValueError as error:
            faults.append(f"row {number}: {error}")
            continue
        if utterance is not None:
            utterances.append(utterance)
    if faults:
        raise ValueError(f"{table}: {shorten(faults, separator='; ')}")
    if not utterances:
        raise ValueError(f"{table} has no row with a label; fill the column label or emotion")
    missing = [item.path for item in utterances if not Path(item.path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{table}: {len(missing)} of {len(utterances)} recordings are missing under "
            f"{folder}: {shorten(missing, separator='; ')}"
        )
    return utterances


def _read_folder(folder: Path) -> list[Utterance]:
    files = sorted(item for name in METADATA for item in folder.rglob(name))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no {' or '.join(METADATA)}; name a table, or a corpus with its root"
        )
    return [
        item if item.split or file.parent == folder else replace(item, split=file.parent.name)
        for file in files
        for item in read(file)
    ]


def _rows(table: Path, root: Path | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if table.is_dir():
        for number, row in read_rows(table, root=root):
            _check_columns(table, set(row))
            yield number, row
        return
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
        row = parse_json(line, dict)
    except ValueError as error:
        raise ValueError(f"{table}, line {number}: no JSON object ({error})") from error
    _check_columns(table, set(row))
    return row


def _check_columns(table: Path, columns: set[str]) -> None:
    if not columns & set(PATHS) or not columns & {"label", "emotion"}:
        raise ValueError(
            f"{table} has the columns {', '.join(sorted(columns)) or 'none'}; "
            "it needs path (or file_name) and label (or emotion)"
        )


def _read_row(row: Mapping[str, Any], folder: Path) -> Utterance | None:
    label = _text(row.get("label")) or _text(row.get("emotion"))
    if label is None:
        return None
    path = next((text for name in PATHS if (text := _text(row.get(name)))), None)
    if path is None:
        raise ValueError("no path")
    fields: dict[str, Any] = {name: _text(row.get(name)) for name in TEXTS}
    fields |= {name: _number(name, row.get(name)) for name in SECONDS}
    return Utterance(str(folder / path), canonical_label(label), **fields)


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
