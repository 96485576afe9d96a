"""The file that a bulk job writes: rows that are whole or not there, and never twice.

Takes names and answers. JSON lines and CSV grow row by row; Parquet cannot grow, so its rows are
kept as JSON lines beside it and the file is made of them at the end. Knows nothing of models.
"""

import csv
import errno
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Any, NamedTuple

from emoser.errors import EmoserError
from emoser.results.prediction import Prediction
from emoser.results.rows import as_csv, as_row, csv_header
from emoser.text import guard_cell

SYNC_SECONDS = 5.0  # how much work a power cut may cost; a killed process costs none

Answer = Prediction | EmoserError


class _Written(NamedTuple):
    """What an output holds already.

    Attributes:
        keys: The names of its rows as it spells them.
        num_errors: Rows that hold an error.
        size: Bytes up to the end of the last whole row.
    """

    keys: set[str]
    num_errors: int
    size: int


class _Notation(NamedTuple):
    """How rows become lines, and are found again.

    Attributes:
        header: The first line of a file, from the labels.
        encode: A row with its line end, from name, answer and labels.
        key: A name as the row spells it.
        recover: What a file holds.
    """

    header: Callable[[Sequence[str]], str]
    encode: Callable[[str, Answer, Sequence[str]], str]
    key: Callable[[str], str]
    recover: Callable[[Path], _Written]


class ResultFile:
    """An output that is open; made by `open_output`.

    Attributes:
        num_errors: Rows that hold an error, those of earlier runs included.
        num_written: Rows written by this run.
    """

    def __init__(self, path: Path, notation: _Notation) -> None:
        self._notation = notation
        written = notation.recover(path) if path.exists() else _Written(set(), 0, 0)
        self._keys = written.keys
        self.num_errors = written.num_errors
        self.num_written = 0
        self._needs_header = not written.size
        # Unbuffered: a row is one write, and what was written outlives the process.
        self._file = open(path, "r+b" if path.exists() else "x+b", buffering=0)
        self._file.truncate(written.size)
        self._file.seek(written.size)
        self._synced = monotonic()

    def holds(self, name: str) -> bool:
        """Whether there is a row for a recording."""
        return self._notation.key(name) in self._keys

    def write(self, name: str, answer: Answer, labels: Sequence[str]) -> None:
        """Add the row of a recording.

        Raises:
            OSError: If the disk is full.
        """
        text = self._notation.header(labels) if self._needs_header else ""
        self._append(text + self._notation.encode(name, answer, labels))
        self._needs_header = False
        self.num_written += 1
        self.num_errors += isinstance(answer, EmoserError)
        if monotonic() > self._synced + SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Have the disk hold what was written."""
        os.fsync(self._file.fileno())
        self._synced = monotonic()

    def close(self) -> None:
        """Close the file; rows that were written stay."""
        self._file.close()

    def _append(self, text: str) -> None:
        start, data = self._file.tell(), memoryview(text.encode("utf-8"))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:  # the disk is full: half a row is none
            self._file.truncate(start)
            raise


@contextmanager
def open_output(output: str | os.PathLike[str], facts: Mapping[str, Any]) -> Iterator[ResultFile]:
    """The output of a job, with the rows of earlier runs, locked for this process.

    Leaving the context without a fault makes the Parquet file.

    Raises:
        BlockingIOError: If another process works on it.
        DependencyError: If it is Parquet and pyarrow is not installed.
        FileExistsError: If it was written by something else, or by a job with other facts.
        FileNotFoundError: If its folder is missing.
        ValueError: If the suffix is none that is known.
    """
    path = Path(output)
    suffix = path.suffix.lower()
    if suffix not in (*NOTATIONS, ".parquet"):
        allowed = ", ".join((*NOTATIONS, ".parquet"))
        raise ValueError(f"output is {path.name!r}; its suffix must be one of {allowed}")
    is_parquet = suffix == ".parquet"
    if is_parquet:
        from emoser.bulk.parquet import require_pyarrow, write_parquet

        require_pyarrow()
    rows = path.with_name(f"{path.name}.rows.jsonl") if is_parquet else path
    with _claim(path.with_name(f"{path.name}.job"), facts, [path, rows]):
        result = ResultFile(rows, NOTATIONS[rows.suffix.lower()])
        try:
            yield result
            result.sync()
            if is_parquet and (result.num_written or not path.exists()):
                write_parquet(rows, path)
        finally:
            result.close()


@contextmanager
def _claim(ticket: Path, facts: Mapping[str, Any], outputs: Sequence[Path]) -> Iterator[None]:
    """Hold the lock of a job, having made sure that the outputs are of this very job."""
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
        before = json.loads(found)
    except ValueError:
        return "The file was not written by a job like this; choose another output"
    changed = sorted(key for key in facts if before.get(key) != json.loads(json.dumps(facts[key])))
    return (
        f"The file belongs to a job with another {', '.join(changed)}; choose another output, or "
        "repeat the command it was made with"
    )


def _lock(file: IO[str], output: Path) -> None:
    """Hold the file until it is closed, or the process ends in whatever way."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock: two jobs on one output are not noticed there
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(
            errno.EWOULDBLOCK, "Another process works on this output; wait for it", str(output)
        ) from error


def _recover_json(path: Path) -> _Written:
    keys: set[str] = set()
    num_errors = size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break  # the process was killed in the middle of a row
            try:
                row = json.loads(line)
                keys.add(row["source"])
            except (ValueError, KeyError, TypeError) as error:
                raise FileExistsError(
                    errno.EEXIST, f"Line {number} is no row of a job; repair it or", str(path)
                ) from error
            num_errors += "error" in row
            size += len(line)
    return _Written(keys, num_errors, size)


def _recover_csv(path: Path) -> _Written:
    keys: set[str] = set()
    num_errors = num_quotes = size = end = 0
    with path.open("rb") as file:
        for line in file:
            size += len(line)
            num_quotes += line.count(b'"')
            if line.endswith(b"\n") and num_quotes % 2 == 0:  # not inside a cell
                end = size
    with path.open("rb") as file:
        reader = csv.reader(io.StringIO(file.read(end).decode("utf-8"), newline=""))
    next(reader, None)
    for row in reader:
        keys.add(row[0])
        num_errors += bool(row[-1])
    return _Written(keys, num_errors, end)


def _no_header(labels: Sequence[str]) -> str:
    return ""


def _encode_json(name: str, answer: Answer, labels: Sequence[str]) -> str:
    return json.dumps(as_row(name, answer)) + "\n"


def _same(name: str) -> str:
    return name


NOTATIONS: Mapping[str, _Notation] = {
    ".jsonl": _Notation(_no_header, _encode_json, _same, _recover_json),
    ".csv": _Notation(csv_header, as_csv, guard_cell, _recover_csv),
}
"""The notations that grow row by row, by suffix."""
