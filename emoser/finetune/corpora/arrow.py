"""Read a folder that `datasets` saved (`save_to_disk`) as rows of a table.

Each row has a path: that of its audio, or of a file that bytes in the table are written to. Class
numbers become names. No audio is decoded; needs the package `datasets` (extra `datasets`).
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emoser.errors import missing_extra

MARKERS = ("dataset_info.json", "dataset_dict.json")
AUDIO = "audio"
PATH = "path"
CACHE = Path("emoser", "recordings")


def is_dataset(folder: Path) -> bool:
    """Whether `datasets` saved this folder."""
    return any((folder / name).is_file() for name in MARKERS)


def read_rows(folder: Path, *, root: Path | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and values of every row; a row of one of several splits has it in the column split.

    Args:
        folder: Written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.
        root: Folder that audio stored as bytes is written to; the cache of the user
            (`$XDG_CACHE_HOME/emoser/recordings`) unless given.

    Raises:
        DependencyError: If `datasets` is not installed.
    """
    try:
        from datasets import Dataset, load_from_disk
    except ImportError as error:
        raise missing_extra("reading a folder of datasets", "datasets") from error
    loaded = load_from_disk(str(folder))
    parts = {None: loaded} if isinstance(loaded, Dataset) else dict(loaded)
    rows = ((split, part, row) for split, part in parts.items() for row in _without_decoding(part))
    for number, (split, part, row) in enumerate(rows, start=1):
        values = _name_classes(row, part.features)
        if isinstance(values.get(AUDIO), Mapping):
            values[PATH] = _place(values.pop(AUDIO), root or _cache())
        elif isinstance(values.get(AUDIO), str):
            values[PATH] = values.pop(AUDIO)
        if split is not None and not values.get("split"):
            values["split"] = split
        yield number, values


def _without_decoding(part: Any) -> Any:
    from datasets import Audio

    for name, feature in part.features.items():
        if isinstance(feature, Audio):
            part = part.cast_column(name, Audio(decode=False))
            part = part if name == AUDIO else part.rename_column(name, AUDIO)
    return part


def _name_classes(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    from datasets import ClassLabel

    named = dict(row)
    for name, feature in features.items():
        if isinstance(feature, ClassLabel) and row[name] is not None:
            number = int(row[name])
            named[name] = feature.int2str(number) if number >= 0 else None
    return named


def _place(audio: Mapping[str, Any], folder: Path) -> str | None:
    """The path of a recording; bytes go into a file named after their content."""
    content, path = audio.get("bytes"), audio.get("path")
    if content is None:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    suffix = Path(path).suffix if path else ".audio"
    file = folder / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    if not file.is_file() or file.stat().st_size != len(content):
        temporary = file.with_name(f"{file.name}.{os.getpid()}.part")
        temporary.write_bytes(content)
        temporary.replace(file)
    return str(file.absolute())


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / CACHE
