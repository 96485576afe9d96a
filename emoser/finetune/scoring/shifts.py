"""The figures of a model in every condition of the recordings, as tables and in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from emoser.results.segments import SILENCE
from emoser.text import aligned_table, join_words, markdown_table

PLAIN = "as they are"
HARMLESS = 0.02  # of the UAR, macro F1 or CCC: less is not worth a warning
SHOWN = 3
MACRO_F1, MEAN_CCC = "macro F1", "mean CCC"


class Shift(NamedTuple):
    """A figure in one condition.

    Attributes:
        value: The figure.
        interval: 95 % interval of its difference to that of the recordings as they are, over
            speakers where they are known.
    """

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class ConditionResult:
    """The answers to the same recordings in one condition.

    Attributes:
        name: The condition.
        uar: Unweighted average recall, as in `Report`; NaN where only dimensions are scored.
        changed: Share of recordings with another answer than to the recording as it is; NaN
            likewise.
        silent: Share of recordings in which nobody is found to speak.
        interval: 95 % interval of the difference of the UAR, over speakers where they are known.
        figures: "macro F1" where several labels may apply at once; "CCC of" each dimension, and
            "mean CCC" of all.
        moved: Mean absolute change of the value of each dimension, on a scale of 0 to 1.
    """

    name: str
    uar: float
    changed: float
    silent: float
    interval: tuple[float, float]
    figures: Mapping[str, Shift] = field(default_factory=dict)
    moved: Mapping[str, float] = field(default_factory=dict)

    @property
    def range(self) -> str:
        """The interval of the UAR in points, as text."""
        return " to ".join(f"{100 * bound:+.1f}" for bound in self.interval)


_Column: TypeAlias = tuple[str, Sequence[str]]
"""Head, and a cell for each condition."""


class _Side(NamedTuple):
    """A figure of labels or of dimensions, and how much else changes.

    Attributes:
        name: Of the figure.
        plain: The figure of the recordings as they are.
        shifts: That of each condition.
        changes: What else changes, in words.
        beside: What else changes, as a column of its table; None for nothing.
        is_main: Whether the warning and the picture are of this figure.
    """

    name: str
    plain: float
    shifts: Sequence[Shift]
    changes: Sequence[str]
    beside: _Column | None
    is_main: bool

    @property
    def is_share(self) -> bool:
        """Whether the figure is shown in per cent."""
        return self.name in ("UAR", MACRO_F1)

    def show(self, value: float) -> str:
        """The figure as text."""
        return f"{100 * value:.1f} %" if self.is_share else f"{value:.3f}"

    def show_difference(self, value: float) -> str:
        """A difference of the figure as text, without unit."""
        return f"{100 * value:+.1f}" if self.is_share else f"{value:+.3f}"

    def show_interval(self, shift: Shift) -> str:
        """The interval of a difference as text."""
        return " to ".join(map(self.show_difference, shift.interval))

    def warn(self, names: Sequence[str]) -> str:
        """What to fear, in a sentence."""
        unit = " points" * self.is_share
        found = zip(names, self.shifts, self.changes, strict=True)
        by_loss = sorted(found, key=lambda row: row[1].value)
        worst = [row for row in by_loss if self.plain - row[1].value > HARMLESS][:SHOWN]
        if worst:
            named = [
                f"{name} ({self.name} {self.show_difference(shift.value - self.plain)}{unit}, "
                f"95 % interval {self.show_interval(shift)}; {changes})"
                for name, shift, changes in worst
            ]
            return f"What to fear most: {join_words(named)}."
        loss = max((self.plain - shift.value for shift in self.shifts), default=0.0)
        most = self.show_difference(max(loss, 0.0)).lstrip("+")
        return f"No condition lowers the {self.name} by more than {most}{unit}."


@dataclass(frozen=True)
class Robustness:
    """The recordings as they are, and in every condition.

    Attributes:
        uar: Unweighted average recall of the recordings as they are; NaN where only dimensions
            are scored.
        conditions: The results, in a fixed order.
        missing: Conditions that this machine has no encoder for.
        trained_on: What the model was trained on of these recordings; empty if nothing is known.
        figures: The other figures of the recordings as they are, by the names that they have in
            the conditions.
    """

    uar: float
    conditions: tuple[ConditionResult, ...]
    missing: tuple[str, ...] = ()
    trained_on: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def tables(self) -> list[list[list[str]]]:
        """A table with its head for every figure; the first one counts silent recordings."""
        mark = " (trained on)" * bool(self.trained_on)
        tables: list[list[list[str]]] = []
        for side in self._sides:
            head = ["recordings", side.name, "difference", "95 % interval"]
            table = [head, [PLAIN, side.show(side.plain) + mark, "", ""]]
            for one, shift in zip(self.conditions, side.shifts, strict=True):
                difference = side.show_difference(shift.value - side.plain)
                shown = [side.show(shift.value) + mark, difference, side.show_interval(shift)]
                table.append([one.name, *shown])
            columns = [] if side.beside is None else [side.beside]
            if not tables:
                shares = [f"{100 * one.silent:.0f} %" for one in self.conditions]
                columns.append((SILENCE, shares))
            for name, cells in columns:
                for row, cell in zip(table, [name, "", *cells], strict=True):
                    row.append(cell)
            tables.append(table)
        return tables

    @property
    def _sides(self) -> list[_Side]:
        sides: list[_Side] = []
        if not math.isnan(self.uar):
            shares = [f"{100 * one.changed:.0f} %" for one in self.conditions]
            changes = [f"{share} of the answers change" for share in shares]
            if MACRO_F1 in self.figures:
                sides.append(self._side(MACRO_F1, changes, ("changed answers", shares)))
            recalls = [Shift(one.uar, one.interval) for one in self.conditions]
            beside = None if sides else ("changed answers", shares)
            sides.append(_Side("UAR", self.uar, recalls, changes, beside, not sides))
        names = dict.fromkeys(name for one in self.conditions for name in one.moved)
        if not names:
            return sides
        rows = [[one.moved[name] for name in names] for one in self.conditions]
        changes = [f"values change by {np.mean(row):.3f} on average" for row in rows]
        if MEAN_CCC in self.figures:
            means = [f"{np.mean(row):.3f}" for row in rows]
            sides.append(self._side(MEAN_CCC, changes, ("mean change", means)))
        for place, name in enumerate(names):
            moves = [f"{row[place]:.3f}" for row in rows]
            beside = (f"change of {name}", moves)
            main = MEAN_CCC not in self.figures
            sides.append(self._side(f"CCC of {name}", changes, beside, is_main=main))
        return sides

    def _side(
        self, name: str, changes: Sequence[str], beside: _Column, *, is_main: bool = True
    ) -> _Side:
        shifts = [one.figures[name] for one in self.conditions]
        return _Side(name, self.figures[name], shifts, changes, beside, is_main)

    @property
    def _main(self) -> list[_Side]:
        """One of labels, and one of dimensions."""
        return [side for side in self._sides if side.is_main]

    @property
    def bars(self) -> dict[str, dict[str, tuple[float, str]]]:
        """Value and text of each condition, by the name of the figure, for the picture."""
        names = [one.name for one in self.conditions]
        return {
            side.name: {
                PLAIN: (side.plain, side.show(side.plain)),
                **{
                    name: (shift.value, f"{side.show(shift.value)}; {changes}")
                    for name, shift, changes in zip(names, side.shifts, side.changes, strict=True)
                },
            }
            for side in self._main
        }

    @property
    def warning(self) -> str:
        """What to fear, in a sentence or two, for labels and for dimensions."""
        names = [one.name for one in self.conditions]
        text = " ".join(side.warn(names) for side in self._main)
        if self.missing:
            text += f" Not measured, for want of an encoder: {join_words(self.missing)}."
        return text

    def __str__(self) -> str:
        """The tables and what to fear."""
        return "\n\n".join([*map(aligned_table, self.tables), self.warning])

    def to_markdown(self) -> str:
        """A section for a report."""
        parts = ["## Robustness", *map(markdown_table, self.tables), self.warning]
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = asdict(self)
        for one, row in zip(self.conditions, values["conditions"], strict=True):
            row["figures"] = {name: shift._asdict() for name, shift in one.figures.items()}
        return {**values, "warning": self.warning}
