"""Read a table of recordings into utterances.

A file (see `rows`), or a folder that is read through its `metadata` files like the audio folders of
`datasets`, or that `datasets` saved. The columns (see `columns`) are path; label, or labels
(several at once), or votes (see `votes`), or arousal, dominance and valence, also beside these; and
optionally speaker, corpus, sex, split, start, end, duration, session, style and sentence. Relative
paths count from the folder of the table. No audio is decoded.
"""

import logging
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emoser.audio import AudioBlocks
from emoser.errors import AudioError
from emoser.finetune.corpora.arrow import is_dataset, place_audio, read_dataset
from emoser.finetune.corpora.columns import Columns
from emoser.finetune.corpora.rows import Table, read_table
from emoser.finetune.corpora.tree import list_files
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.settings import AUTO
from emoser.labels import ALIASES, canonical_label
from emoser.text import counted, join_words, printable, shorten

NEEDED = {
    AUTO: "label (or emotion), or votes, arousal, dominance or valence",
    "labels": "label (or emotion), or votes",
    "dimensions": "arousal, dominance or valence",
}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
TEXTS = ("speaker", "corpus", "split", "session", "style", "sentence")
NOBODY = ("unknown", "unk")
SEXES = {"male": "m", "man": "m", "female": "f", "woman": "f"}
ROUNDING = 0.05  # seconds by which the stated length of a file may differ from its own

logger = logging.getLogger(__name__)


def read(
    table: str | Path,
    *,
    root: str | Path | None = None,
    check_files: bool = True,
    scale: tuple[float, float] | None = None,
    targets: str = AUTO,
) -> list[Utterance]:
    """Utterances of a table, or of a folder with metadata files.

    Rows without an annotation are left out, with a warning; so are those without a label, if the
    table has such a column.

    Args:
        table: A file of CSV, JSON, JSON lines or Parquet. A folder is searched for metadata
            files; one below `train` or `test` has that split. A folder that `datasets` saved is
            read as such, with its splits.
        root: Folder that relative paths count from, the table's own unless given; audio that a
            folder of `datasets` or a Parquet file holds as bytes is written there.
        check_files: Whether to refuse a table with recordings that do not exist.
        scale: Lowest and highest value of arousal, dominance and valence; None if not known.
        targets: "labels" or "dimensions" to read these alone, as if there were no other columns.

    Raises:
        FileNotFoundError: If the table is missing, or recordings that it names are; these
            all in one message.
        DependencyError: If `datasets` or pyarrow is needed and not installed.
        ValueError: If the table is damaged, a column is missing or a row is broken; all rows in
            one message.
    """
    table, place = Path(table), None if root is None else Path(root)
    if scale is not None and not scale[0] < scale[1]:
        raise ValueError(f"scale is {scale}; it must be (lowest, highest)")
    if table.is_dir() and not is_dataset(table):
        return _read_folder(table, check_files=check_files, scale=scale, targets=targets)
    folder = place or (table if table.is_dir() else table.parent)
    if table.is_dir():
        content = place_audio(read_dataset(table), place)
    else:
        content = read_table(table, is_header=_is_header)
        content = place_audio(content, place) if isinstance(content.rows, list) else content
    utterances = _read_rows(content, table, folder, scale, targets)
    missing = [item.path for item in utterances if not os.path.isfile(item.path)]
    if check_files and missing:
        raise FileNotFoundError(
            f"{table}: {len(missing)} of {len(utterances)} recordings are missing under "
            f"{folder}: {shorten(missing, separator='; ')}"
        )
    return utterances


def _read_folder(
    folder: Path, *, check_files: bool, scale: tuple[float, float] | None, targets: str
) -> list[Utterance]:
    files = [file for file in list_files(folder) if file.name in METADATA]
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no {' or '.join(METADATA)}; name a table, or a corpus with its root"
        )
    return [
        item if item.split or file.parent == folder else replace(item, split=file.parent.name)
        for file in files
        for item in read(file, check_files=check_files, scale=scale, targets=targets)
    ]


def _is_header(names: Sequence[str]) -> bool:
    try:
        return Columns(names).is_annotated
    except ValueError:  # of columns that are refused, and so are the right ones
        return True


def _read_rows(
    content: Table, table: Path, folder: Path, scale: tuple[float, float] | None, targets: str
) -> list[Utterance]:
    columns = _find_columns(content, table, targets)
    utterances, faults, num_rows = [], [], 0
    for place, row in content.rows:
        num_rows += 1
        try:
            utterance = _read_row(row, columns, folder, scale)
        except ValueError as error:
            faults.append(f"{place}: {error}")
            continue
        if utterance is not None:
            utterances.append(utterance)
    if faults:
        raise ValueError(f"{table}: {shorten(faults, separator='; ')}")
    if not utterances:
        missing = "a label; fill the column label or emotion"
        if columns.kind != "label":
            missing = "what its columns say; fill them"
        raise ValueError(f"{table} has no row with {missing}")
    left_out = num_rows - len(utterances)
    if left_out:
        missing = "a label" if columns.kind else join_words(columns.rated)
        logger.warning(
            "%s: %s of %d left out, without %s", table, counted(left_out, "row"), num_rows, missing
        )
    return list(_name_labels(utterances))


def _find_columns(content: Table, table: Path, targets: str) -> Columns:
    try:
        columns = Columns(content.columns, decimal=content.decimal, targets=targets)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from error
    if not columns.is_annotated:
        names = shorten([printable(name) for name in content.columns]) or "none"
        raise ValueError(
            f"{table} has the columns {names}; it needs path (or file_name) and {NEEDED[targets]}"
        )
    if columns.ignored:
        logger.warning(
            "%s: the columns %s are not read, for there is a column label; remove it to learn them",
            table,
            shorten([printable(name) for name in columns.ignored]),
        )
    return columns


def _read_row(
    row: Mapping[str, Any], columns: Columns, folder: Path, scale: tuple[float, float] | None
) -> Utterance | None:
    """The utterance of a row, or None if it is not annotated."""
    fields = _read_annotation(row, columns, scale)
    if not fields:
        return None
    path = columns.text(row, "path")
    if path is None:
        raise ValueError("no path")
    file = _find_file(folder, path)
    start, end = columns.piece(row)
    if end is not None and columns.is_length(row) and _has_length(file, end):
        end = None
    sex = columns.text(row, "sex")
    fields |= {name: columns.text(row, name) for name in TEXTS}
    if (fields["speaker"] or "").casefold() in NOBODY:
        fields["speaker"] = None
    fields["sex"] = sex and SEXES.get(sex.casefold(), sex.casefold())
    return Utterance(file, start=start, end=end, **fields)


def _read_annotation(
    row: Mapping[str, Any], columns: Columns, scale: tuple[float, float] | None
) -> dict[str, Any]:
    """The fields of an utterance that say what is in it; empty if the row lacks a label or all."""
    fields: dict[str, Any] = {}
    if columns.kind:
        read = {"label": columns.label, "labels": columns.labels, "votes": columns.votes}
        found = read[columns.kind](row)
        if not found and not (columns.kind == "labels" and found == ()):
            return {}
        fields[columns.kind] = found
    dimensions = columns.dimensions(row)
    for name, value in dimensions.items():
        if scale and not scale[0] <= value <= scale[1]:
            raise ValueError(
                f"{name} is {value:g}, outside the scale from {scale[0]:g} to {scale[1]:g}"
            )
    return fields | ({"dimensions": dimensions, "scale": scale} if dimensions else {})


def _find_file(folder: Path, path: str) -> str:
    """The file of a path with either kind of slash, in either Unicode form of accents."""
    path = os.path.expanduser(path)
    named = str(folder / path)
    for text in (path, path.replace("\\", "/")):
        for form in (text, *(unicodedata.normalize(kind, text) for kind in ("NFC", "NFD"))):
            if os.path.isfile(folder / form):
                return str(folder / form)
    return named


def _has_length(file: str, seconds: float) -> bool:
    """Whether a file is as long as stated, up to rounding; its header is read."""
    try:
        with AudioBlocks(file) as blocks:
            length = blocks.declared_seconds
    except (AudioError, OSError):
        return False
    return length is not None and abs(length - seconds) <= ROUNDING


def _name_labels(utterances: list[Utterance]) -> Iterator[Utterance]:
    """Canonical labels; letters only if all of them are known, for they differ between corpora."""
    letters = {item.label.casefold() for item in utterances if len(item.label) == 1}
    foreign = bool(letters - ALIASES.keys())
    for item in utterances:
        kept = foreign and len(item.label) == 1
        if item.labels is not None:
            yield replace(item, labels=tuple(dict.fromkeys(map(canonical_label, item.labels))))
            continue
        label = item.label.casefold() if kept else canonical_label(item.label)
        yield replace(item, label=label) if item.label and not item.votes else item
