"""Predictions as rows: JSON objects, lines of a table, lines for a terminal."""

from collections.abc import Sequence
from typing import Any

from emoser.errors import EmoserError
from emoser.results.prediction import Prediction
from emoser.results.segments import SILENCE
from emoser.text import csv_line, guard_cell, printable


def as_row(name: str, answer: Prediction | EmoserError, top_k: int | None = None) -> dict[str, Any]:
    """The prediction as plain values; an error has the key "error" and no label.

    Example:
        >>> as_row("a.wav", EmoserError("a.wav is empty"))
        {'source': 'a.wav', 'error': 'a.wav is empty'}
    """
    if isinstance(answer, EmoserError):
        return {"source": name, "error": str(answer)}
    return {**answer.to_dict(), "source": name, "scores": dict(answer.top(top_k))}


def as_line(
    name: str,
    answer: Prediction | EmoserError,
    *,
    width: int,
    labels: Sequence[str],
    top_k: int | None = None,
) -> str:
    """The prediction as one aligned line; of a name longer than `width` the end is shown."""
    shown = printable(name)
    shown = f"{shown if len(shown) <= width else '…' + shown[1 - width :]:<{width}}"
    if isinstance(answer, EmoserError):
        return f"{shown}  error: {printable(str(answer))}"
    label_width = max(len(printable(label)) for label in (*labels, SILENCE))
    values: list[tuple[str, float]] = [*answer.top(top_k), *(answer.dimensions or {}).items()]
    first, score = SILENCE, " " * 4
    if answer.label != SILENCE:
        (first, highest), *values = values
        score = f"{highest:.2f}"
    rest = "  ".join(f"{printable(label)} {value:.2f}" for label, value in values)
    line = f"{shown}  {printable(first):<{label_width}}  {score}  {answer.duration:6.1f} s  {rest}"
    return f"{line}  [{' '.join(answer.quality)}]" if answer.quality else line.rstrip()


def csv_header(labels: Sequence[str]) -> str:
    """The header of the table, with its line end."""
    names = map(guard_cell, labels)
    return csv_line(["source", "label", "score", *names, "duration", "quality", "error"])


def as_csv(name: str, answer: Prediction | EmoserError, labels: Sequence[str]) -> str:
    """The prediction as a line of the table, with its line end; no cell is a formula."""
    if isinstance(answer, EmoserError):
        blanks = [""] * (len(labels) + 4)
        return csv_line([guard_cell(name), *blanks, guard_cell(str(answer))])
    values = {**answer.scores, **(answer.dimensions or {})}
    scores = [f"{values[label]:.6f}" for label in labels]
    score = "" if answer.score is None else f"{answer.score:.6f}"
    start = [guard_cell(name), guard_cell(answer.label or ""), score]
    end = [f"{answer.duration:.3f}", " ".join(answer.quality), ""]
    return csv_line([*start, *scores, *end])
