"""Text that is safe for a terminal or a spreadsheet, counts in good grammar, and short lists."""

import csv
import io
import re
from collections.abc import Sequence

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would execute


def printable(text: str) -> str:
    r"""Text that cannot control a terminal: control characters become escapes.

    Example:
        >>> print(printable("a\x1b[31m\n"))
        a\x1b[31m\x0a
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "speaker"), counted(2_000, "recording")
        ('1 speaker', '2,000 recordings')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten(items: Sequence[str], limit: int = 8, *, separator: str = ", ") -> str:
    """The first few items of a list, and how many more there are.

    Example:
        >>> shorten(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    more = f"{len(items) - limit} more" if len(items) > limit else ""
    joint = " and " if separator == ", " else f"{separator}and "
    return separator.join(items[:limit]) + (joint + more if more else "")


def guard_cell(text: str) -> str:
    """Text for a table cell that a spreadsheet does not take for a formula.

    Example:
        >>> guard_cell("=1+1"), guard_cell("call.wav")
        ("'=1+1", 'call.wav')
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULA) else text


def csv_line(cells: Sequence[str]) -> str:
    r"""A line of a CSV table, with its end.

    Example:
        >>> csv_line(["a,b", "c"])
        '"a,b",c\n'
    """
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(cells)
    return file.getvalue()


def join_words(words: Sequence[str]) -> str:
    """Words as an enumeration; "" for none.

    Example:
        >>> join_words(["sad"]), join_words(["sad", "happy", "angry"])
        ('sad', 'sad, happy and angry')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header.

    Example:
        >>> print(markdown_table([["label", "recall"], ["sad", "0.7"]]))
        | label | recall |
        |---|---|
        | sad | 0.7 |
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def aligned_table(rows: Sequence[Sequence[str]]) -> str:
    """A table in columns of equal width, the first to the left and the others to the right.

    Example:
        >>> print(aligned_table([["label", "recall"], ["sad", "0.7"]]))
        label     recall
        sad          0.7
    """
    width = max(len(cell) for row in rows for cell in row) + 2
    return "\n".join(
        row[0].ljust(width) + "".join(cell.rjust(width) for cell in row[1:]) for row in rows
    )
