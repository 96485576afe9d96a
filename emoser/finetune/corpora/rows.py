"""Rows of a table file: CSV of any delimiter and encoding, JSON, JSON lines or Parquet.

The content of a file decides how it is read, not its name; gzip, bzip2 and xz are unpacked. Values
are given as they stand in the file.
"""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from emoser.errors import missing_extra
from emoser.json_text import parse_json

UNPACK: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
}
PARQUET, ZIP, OLE = b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
MARKS = {  # UTF-32 first, for its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
CONTROL = {chr(code) for code in range(32)} - set("\t\n\r\f")
MAX_TABLE_BYTES = 2**30
DELIMITERS = (",", ";", "\t", "|")
ZEROS = 0.3  # share of zeros among the high bytes of UTF-16, in any text with ASCII file names

Row: TypeAlias = tuple[str, Mapping[str, Any]]


class Table(NamedTuple):
    """The content of a table file.

    Attributes:
        columns: Names of the columns as they stand in the file.
        rows: The place of every row, such as "row 2", and its values by the names of the columns.
        decimal: "," in tables whose cells are separated by semicolons, else ".".
    """

    columns: Sequence[str]
    rows: Iterable[Row]
    decimal: str = "."


def read_table(file: Path, *, is_header: Callable[[Sequence[str]], bool]) -> Table:
    """The columns and rows of a table file.

    Args:
        file: The file.
        is_header: Whether names are those of the columns of a table; it finds the delimiter.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a table, or damaged; broken rows also while they are iterated.
        DependencyError: If it is Parquet and pyarrow is not installed.
    """
    content = _unpack(file.read_bytes(), file)
    if content.startswith(PARQUET):
        return _read_parquet(content, file)
    if content.startswith((ZIP, OLE)):
        raise ValueError(f"{file} is a spreadsheet or an archive; save the table as CSV")
    text = _decode(content, file)
    if text.lstrip().startswith(("{", "[")):
        return _read_json(text, file)
    return _read_csv(text, file, is_header)


def _unpack(content: bytes, file: Path) -> bytes:
    for magic, unpack in UNPACK.items():
        if content.startswith(magic):
            try:
                return unpack(content)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise ValueError(f"{file} is damaged ({error}); copy it again") from error
    return content


def _decode(content: bytes, file: Path) -> str:
    """The text of a file in Unicode, or else in the code page of Western Windows, or Latin-1."""
    marked = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    for encoding in [marked] if marked else [*_guess_utf16(content), "utf-8", "cp1252", "latin-1"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if CONTROL.isdisjoint(text):
            return text
    raise ValueError(f"{file} is not a table of text; pass CSV, JSON lines or Parquet")


def _guess_utf16(content: bytes) -> list[str]:
    """UTF-16 without a mark has zeros in every second byte."""
    zeros = {"utf-16-le": content[1::2].count(0), "utf-16-be": content[::2].count(0)}
    return [name for name, count in zeros.items() if count > ZEROS * len(content) / 2]


def _read_csv(text: str, file: Path, is_header: Callable[[Sequence[str]], bool]) -> Table:
    lines = io.StringIO(text, newline="").readlines()
    first = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
    if lines[first:] and lines[first].startswith("sep="):  # a line for spreadsheets
        first += 1
    headers = {mark: _split_header("".join(lines[first : first + 1]), mark) for mark in DELIMITERS}
    widest = max(DELIMITERS, key=lambda mark: len(headers[mark]))
    mark = next((mark for mark in DELIMITERS if is_header(headers[mark])), widest)
    rows = _name_cells(lines, headers[mark], mark, file=file, first=first + 1)
    return Table(headers[mark], rows, "," if mark == ";" else ".")


def _split_header(line: str, mark: str) -> list[str]:
    return next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])


def _name_cells(
    lines: Sequence[str], names: Sequence[str], mark: str, *, file: Path, first: int
) -> Iterator[Row]:
    """The records from line `first` on that are not blank."""
    reader = csv.reader(lines[first:], delimiter=mark, skipinitialspace=True, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            place = f"{file}, row {first + reader.line_num}"
            raise ValueError(f"{place} is not valid CSV ({error}); check the quotes") from error
        if cells is None:
            return
        place = f"row {first + reader.line_num}"
        if any(cell.strip() for cell in cells[len(names) :]):
            raise ValueError(
                f"{file}, {place} has {len(cells)} cells and the header {len(names)}; put double "
                "quotes around a cell that contains the delimiter"
            )
        if any(cell.strip() for cell in cells):
            yield place, dict(zip(names, cells, strict=False))


def _read_json(text: str, file: Path) -> Table:
    """An array of objects, or one object in each line."""
    if text.lstrip().startswith("["):
        parts = [(f"item {number}", item) for number, item in enumerate(_parse(text, file), 1)]
    else:
        parts = [
            (f"line {number}", _parse(line, f"{file}, line {number}"))
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip()
        ]
    for place, row in parts:
        if not isinstance(row, dict):
            raise ValueError(f"{file}, {place}: no JSON object")
    return Table(list(dict.fromkeys(name for _, row in parts for name in row)), parts)


def _parse(text: str, place: str | Path) -> Any:
    try:
        return parse_json(text, object, max_bytes=MAX_TABLE_BYTES)
    except ValueError as error:
        raise ValueError(f"{place}: no JSON object ({error})") from error


def _read_parquet(content: bytes, file: Path) -> Table:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("reading Parquet", "parquet") from error
    try:
        table = parquet.read_table(pa.BufferReader(content))
        names = {column: _class_names(table.schema, column) for column in table.column_names}
        rows = [
            {
                column: names[column][value] if names[column] and value is not None else value
                for column, value in row.items()
            }
            for row in table.to_pylist()
        ]
    except (pa.ArrowException, OSError, IndexError) as error:
        raise ValueError(f"{file} is damaged ({error}); write it again") from error
    places = (f"row {number}" for number in range(1, len(rows) + 1))
    return Table(table.column_names, list(zip(places, rows, strict=True)))


def _class_names(schema: Any, column: str) -> Sequence[str]:
    """What the numbers of a column of class labels mean, as `datasets` notes it; else nothing."""
    noted = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"), dict)
    feature = noted.get("info", {}).get("features", {}).get(column, {})
    names: Sequence[str] = feature.get("names", ()) if isinstance(feature, dict) else ()
    return names
