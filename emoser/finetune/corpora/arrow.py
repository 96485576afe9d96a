"""Recordings inside tables: folders that `datasets` saved (`save_to_disk`), and Parquet.

Class numbers become names, and audio that is stored as bytes becomes files. No audio is decoded;
folders need the package `datasets` (extra `datasets`).
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emoser.checkpoints.atomic import new_file
from emoser.errors import missing_extra
from emoser.finetune.corpora.rows import Row, Table

MARKERS = ("dataset_info.json", "dataset_dict.json")
PATH = "path"
CACHE = Path("emoser", "recordings")


def is_dataset(folder: Path) -> bool:
    """Whether `datasets` saved this folder."""
    return any((folder / name).is_file() for name in MARKERS)


def read_dataset(folder: Path) -> Table:
    """The rows of a folder; a row of one of several splits has it in the column split.

    Raises:
        DependencyError: If `datasets` is not installed.
    """
    try:
        from datasets import Dataset, load_from_disk
    except ImportError as error:
        raise missing_extra("reading a folder of datasets", "datasets") from error
    loaded = load_from_disk(str(folder))
    parts = {None: loaded} if isinstance(loaded, Dataset) else dict(loaded)
    rows: list[Row] = []
    for split, part in parts.items():
        for row in _without_decoding(part):
            values = _name_classes(row, part.features)
            if split is not None and not values.get("split"):
                values["split"] = split
            rows.append((f"row {len(rows) + 1}", values))
    return Table(list(dict.fromkeys(name for _, row in rows for name in row)), rows)


def place_audio(table: Table, folder: Path | None) -> Table:
    """A table whose recordings, stored as bytes and path, are files in the column path.

    Args:
        table: The table; returned as it is if it stores no recordings.
        folder: Where bytes are written, to files named after their content; the cache of the user
            (`$XDG_CACHE_HOME/emoser/recordings`) unless given.
    """
    stored = next((name for _, row in table.rows for name in row if _is_audio(row[name])), None)
    if stored is None:
        return table
    rows = [
        (place, {**row, PATH: _place(row[stored], folder or _cache())}) for place, row in table.rows
    ]
    return Table([*(name for name in table.columns if name not in (PATH, stored)), PATH], rows)


def _is_audio(value: object) -> bool:
    return isinstance(value, Mapping) and {"bytes", "path"} <= value.keys()


def _without_decoding(part: Any) -> Any:
    from datasets import Audio

    for name, feature in part.features.items():
        if isinstance(feature, Audio):
            part = part.cast_column(name, Audio(decode=False))
    return part


def _name_classes(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    from datasets import ClassLabel

    named = dict(row)
    for name, feature in features.items():
        if isinstance(feature, ClassLabel) and row[name] is not None:
            number = int(row[name])
            named[name] = feature.int2str(number) if number >= 0 else None
    return named


def _place(audio: Mapping[str, Any] | None, folder: Path) -> str | None:
    """The path of a recording; bytes go into a file named after their content."""
    if audio is None:
        return None
    content, path = audio.get("bytes"), audio.get("path")
    if content is None:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    suffix = Path(path).suffix if path else ".audio"
    file = folder / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    if not file.is_file() or file.stat().st_size != len(content):
        with new_file(file) as written:
            written.write_bytes(content)
    return str(file.absolute())


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / CACHE
