"""Text that is safe for a terminal or a spreadsheet, counts in good grammar, and short lists."""

import re
from collections.abc import Sequence

CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # the direction of the text around them
    "\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # invisible
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that control a terminal or hide in text. Not the joiners of emoji and Persian."""

ESCAPED = re.compile(r"(\\+)(?=ud[89a-f][0-9a-f]{2}|[\ud800-\udfff])")
FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # what a spreadsheet would execute
MARKUP = re.compile(r"[<\[\]|`]")
QUOTED = re.compile(r'[,;|"]|[^\S ]|^ | $')  # separators of any program, line ends, outer space


def printable(text: str) -> str:
    r"""Text that cannot control a terminal: control characters become escapes.

    Example:
        >>> print(printable("a\x1b[31m\n"), printable("\u202egpj.wav"))
        a\x1b[31m\x0a \u202egpj.wav
    """
    return CONTROL.sub(_escape, as_unicode(text))


def printable_lines(text: str) -> str:
    r"""The same with line ends and tabs kept, for text of several lines.

    Example:
        >>> print(printable_lines("a\n\x9bb"))
        a
        \x9bb
    """
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def as_unicode(text: str) -> str:
    r"""Valid Unicode for a file name that may not be: different names stay different.

    Bytes that are not UTF-8, which Python reads as lone surrogates, become escapes, and the
    backslashes of a name that looks like such an escape are doubled.

    Example:
        >>> print(as_unicode("\udcff.wav"), as_unicode(r"\udcff.wav"), as_unicode(r"C:\a.wav"))
        \udcff.wav \\udcff.wav C:\a.wav
    """
    return ESCAPED.sub(r"\1\1", text).encode("utf-8", "backslashreplace").decode()


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

    Different texts give different cells.

    Example:
        >>> guard_cell("=1+1"), guard_cell("'=1+1"), guard_cell("call.wav")
        ("'=1+1", "''=1+1", 'call.wav')
    """
    text = as_unicode(text)
    return f"'{text}" if FORMULA.match(text) else text


def csv_line(cells: Sequence[str]) -> str:
    r"""A line of a CSV table, with its end.

    Cells that hold a separator of any program or a line end are quoted; the `csv` module leaves
    those with a carriage return as they are.

    Example:
        >>> csv_line(["a,b", "c", "d\r"])
        '"a,b",c,"d\r"\n'
    """
    return ",".join(map(_quote, cells)) + "\n"


def _quote(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if QUOTED.search(cell) else cell


def join_words(words: Sequence[str]) -> str:
    """Words as an enumeration; "" for none.

    Example:
        >>> join_words(["sad"]), join_words(["sad", "happy", "angry"])
        ('sad', 'sad, happy and angry')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def markdown_text(text: str) -> str:
    r"""Text that is shown as it is by Markdown: no HTML, link, code or cell of a table.

    Example:
        >>> print(markdown_text("<b>|![x](http://y)"))
        \<b>\|!\[x\](http://y)
    """
    return MARKUP.sub(r"\\\g<0>", printable(text))


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of any text; the first row is its header.

    Example:
        >>> print(markdown_table([["label", "recall"], ["sad", "0.7"]]))
        | label | recall |
        |---|---|
        | sad | 0.7 |
    """
    lines = [f"| {' | '.join(map(markdown_text, row))} |" for row in rows]
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
