"""The output of a bulk job: each row is written completely or not at all, and never twice.

JSON lines and CSV are appended to. Parquet files cannot be, so their rows are first written as
JSON lines next to the output and converted at the end.
"""

import csv
import errno
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Any, TypeAlias

from emoser.errors import EmoserError, writes_to
from emoser.json_text import format_json, parse_json
from emoser.results.prediction import Prediction
from emoser.results.rows import as_csv, as_row, csv_header
from emoser.text import guard_cell

SYNC_SECONDS = 5.0  # of work may be lost in a power failure; none if the process is killed

SUFFIXES = (".jsonl", ".csv", ".parquet")

Result: TypeAlias = Prediction | EmoserError
Recovered: TypeAlias = tuple[set[str], int, int]
"""Names in the rows of a file as they are written, errors, and bytes of the complete rows."""


class ResultFile:
    """An open output; see `open_output`.

    Attributes:
        num_errors: Number of rows with an error, including earlier runs.
        num_written: Number of rows written by this run.
    """

    def __init__(self, path: Path) -> None:
        self._is_csv = path.suffix.lower() == ".csv"
        recover = _recover_csv if self._is_csv else _recover_json
        self._keys, self.num_errors, size = recover(path) if path.exists() else (set(), 0, 0)
        self.num_written = 0
        self._needs_header = self._is_csv and not size
        # Unbuffered, so that each row is one write and survives a killed process.
        self._file = open(path, "r+b" if path.exists() else "x+b", buffering=0)
        self._file.truncate(size)
        self._file.seek(size)
        self._synced = monotonic()

    def holds(self, name: str) -> bool:
        """Whether a recording has a row."""
        return (guard_cell(name) if self._is_csv else name) in self._keys

    def write(self, name: str, result: Result, labels: Sequence[str]) -> None:
        """Add the row of a recording."""
        header = csv_header(labels) if self._needs_header else ""
        is_csv = self._is_csv
        row = as_csv(name, result, labels) if is_csv else format_json(as_row(name, result)) + "\n"
        self._append(header + row)
        self._needs_header = False
        self.num_written += 1
        self.num_errors += isinstance(result, EmoserError)
        if monotonic() > self._synced + SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Flush written rows to disk."""
        os.fsync(self._file.fileno())
        self._synced = monotonic()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, text: str) -> None:
        start, data = self._file.tell(), memoryview(text.encode())
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:  # the disk is full: remove the incomplete row
            self._file.truncate(start)
            raise


@contextmanager
def open_output(output: str | os.PathLike[str], facts: Mapping[str, Any]) -> Iterator[ResultFile]:
    """Open the output of a job, with the rows of earlier runs, and lock it for this process.

    A Parquet file is written when the context is left without an error. The errors are those of
    `emoser.bulk.predict_folder`.
    """
    path = Path(output)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"output is {path.name!r}; its suffix must be one of {', '.join(SUFFIXES)}"
        )
    is_parquet = suffix == ".parquet"
    if is_parquet:
        from emoser.bulk.parquet import require_pyarrow, write_parquet

        require_pyarrow()
    rows = path.with_name(f"{path.name}.rows.jsonl") if is_parquet else path
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is not a regular file; choose another output")
    ticket = path.with_name(f"{path.name}.job")
    with writes_to(path), _claim(ticket, facts, [path, rows]):
        with closing(ResultFile(rows)) as result:
            yield result
            result.sync()
            if is_parquet and (result.num_written or not _is_newer(path, rows)):
                write_parquet(rows, path)


def _is_newer(path: Path, rows: Path) -> bool:
    """Whether a table holds all rows; one that a killed process has not updated does not."""
    return path.exists() and path.stat().st_mtime_ns >= rows.stat().st_mtime_ns


@contextmanager
def _claim(ticket: Path, facts: Mapping[str, Any], outputs: Sequence[Path]) -> Iterator[None]:
    """Lock a job after checking that existing outputs belong to it."""
    stated = json.dumps(facts, sort_keys=True)
    with open(ticket, "a+", encoding="utf-8") as file:
        _lock(file, outputs[0])
        file.seek(0)
        found = file.read()
        if found != stated:
            taken = [path for path in outputs if path.exists() and path.stat().st_size]
            if taken:
                raise FileExistsError(errno.EEXIST, _explain(found, facts), os.fspath(taken[0]))
            file.truncate(0)
            file.write(stated)
            file.flush()
            os.fsync(file.fileno())
        yield


def _explain(found: str, facts: Mapping[str, Any]) -> str:
    try:
        before = parse_json(found, dict)
    except ValueError:
        return "The file was not written by a bulk job; choose another output"
    changed = sorted(
        key for key in facts if before.get(key) != parse_json(json.dumps(facts[key]), object)
    )
    return (
        f"The file belongs to a job with another {', '.join(changed)}; choose another output, or "
        "repeat the original command"
    )


def _lock(file: IO[str], output: Path) -> None:
    """Lock the file until it is closed or the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows: concurrent jobs are not detected
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(
            errno.EWOULDBLOCK, "Another process is writing this output; wait for it", str(output)
        ) from error


def _recover_json(path: Path) -> Recovered:
    keys: set[str] = set()
    num_errors = size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break  # the process was killed while writing this row
            try:
                row = parse_json(line, dict)
                keys.add(row["source"])
            except (ValueError, KeyError, TypeError) as error:
                raise FileExistsError(
                    errno.EEXIST,
                    f"Line {number} is not a row of a bulk job; repair or remove it",
                    str(path),
                ) from error
            num_errors += "error" in row
            size += len(line)
    return keys, num_errors, size


def _recover_csv(path: Path) -> Recovered:
    keys: set[str] = set()
    num_errors = num_quotes = size = end = 0
    with path.open("rb") as file:
        for line in file:
            size += len(line)
            num_quotes += line.count(b'"')
            if line.endswith(b"\n") and num_quotes % 2 == 0:  # not inside a quoted cell
                end = size
    with path.open("rb") as file:
        reader = csv.reader(io.StringIO(file.read(end).decode("utf-8"), newline=""))
    next(reader, None)
    for row in reader:
        keys.add(row[0])
        num_errors += bool(row[-1])
    return keys, num_errors, end
