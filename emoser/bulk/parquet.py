"""Converts rows of JSON lines to a Parquet file in constant memory."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from emoser.checkpoints.atomic import new_file
from emoser.errors import missing_extra
from emoser.json_text import parse_json
from emoser.text import as_unicode

ROWS_PER_GROUP = 20_000  # in memory at the same time
TEXTS = ("source", "label", "model", "error")
NUMBERS = ("score", "duration", "unmapped")


def require_pyarrow() -> None:
    """Check that Parquet can be written.

    Raises:
        DependencyError: If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise missing_extra("writing Parquet", "parquet") from error


def write_parquet(rows: Path, path: Path) -> None:
    """Write rows to a Parquet file with one column per label and dimension, atomically.

    The caller has locked the output, so that the partial file of a killed process is replaced.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    valid = (row for row in _read(rows) if "error" not in row)
    names = list(_scores_of(next(valid, {})))
    numbers = [pa.field(name, pa.float64()) for name in (*NUMBERS, *names)]
    schema = pa.schema(
        [
            *(pa.field(name, pa.string()) for name in TEXTS),
            *numbers,
            pa.field("num_windows", pa.int64()),
            pa.field("quality", pa.list_(pa.string())),
        ]
    )
    with new_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        flat = (_flatten(row) for row in _read(rows))
        while group := list(islice(flat, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _read(rows: Path) -> Iterator[dict[str, Any]]:
    with rows.open(encoding="utf-8") as file:
        yield from (parse_json(line, dict) for line in file)


def _scores_of(row: dict[str, Any]) -> dict[str, float]:
    return {**(row.get("scores") or {}), **(row.get("dimensions") or {})}


def _flatten(row: dict[str, Any]) -> dict[str, Any]:
    # File names that are not valid Unicode cannot be stored as text.
    texts = {name: as_unicode(row[name]) for name in TEXTS if row.get(name) is not None}
    return {**row, **_scores_of(row), **texts}
