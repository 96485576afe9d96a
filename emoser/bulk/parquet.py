"""Converts rows of JSON lines to a Parquet file in constant memory."""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from emoser.errors import missing_extra

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

    Raises:
        DependencyError: If pyarrow is not installed.
    """
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = _find_scores(rows)
    numbers = [pa.field(name, pa.float64()) for name in (*NUMBERS, *names)]
    schema = pa.schema(
        [
            *(pa.field(name, pa.string()) for name in TEXTS),
            *numbers,
            pa.field("num_windows", pa.int64()),
            pa.field("quality", pa.list_(pa.string())),
        ]
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            flat = (_flatten(row) for row in _read(rows))
            while group := list(islice(flat, ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read(rows: Path) -> Iterator[dict[str, Any]]:
    with rows.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _find_scores(rows: Path) -> list[str]:
    """Labels and dimensions of the first row without an error."""
    for row in _read(rows):
        if "error" not in row:
            return [*row["scores"], *(row["dimensions"] or {})]
    return []


def _flatten(row: dict[str, Any]) -> dict[str, Any]:
    scores = {**(row.get("scores") or {}), **(row.get("dimensions") or {})}
    # File names that are not valid Unicode cannot be stored as text.
    texts = {name: _as_text(row.get(name)) for name in TEXTS}
    return {**row, **scores, **texts}


def _as_text(value: str | None) -> str | None:
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()
