"""Kinds of settings in configurations that others wrote, and the range of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

MAX_LISTED = 32
MAX_SHOWN = 80  # characters of a value in a message


@dataclass(frozen=True)
class Numbers:
    """Numbers from `low` to `high`: whole unless stated, alone or `listed`, or null if `optional`.

    Example:
        >>> [Numbers(1, 8).allows(value) for value in (8, 9, 1.0, True, "8")]
        [True, False, False, False, False]
    """

    low: float
    high: float
    whole: bool = True
    listed: bool = False
    optional: bool = False

    def allows(self, value: object) -> bool:
        """Whether a value of a configuration is among them."""
        if value is None:
            return self.optional
        if not self.listed:
            return self._allows_one(value)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_LISTED:
            return False
        return all(map(self._allows_one, value))

    def _allows_one(self, value: Any) -> bool:
        kind = Integral if self.whole else Real  # NumPy's numbers too
        known = isinstance(value, kind) and not isinstance(value, bool)
        return bool(known and self.low <= value <= self.high)  # False for NaN

    def __str__(self) -> str:
        kind = "whole numbers" if self.whole else "numbers"
        listed = f"a list of up to {MAX_LISTED} " if self.listed else ""
        return f"{listed}{kind} from {self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class Words:
    """Some words or other constants; any short word if there are none."""

    choices: tuple[object, ...] = ()

    def allows(self, value: object) -> bool:
        """Whether a value of a configuration is among them."""
        if self.choices:
            return any(value is choice or value == choice for choice in self.choices)
        return isinstance(value, str) and len(value) <= 64

    def __str__(self) -> str:
        return ", ".join(map(repr, self.choices)) or "a word"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def allows(self, value: object) -> bool:
        """Whether a value of a configuration is one of them."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true and false"


Field = Numbers | Words | Flag


def find_faults(values: Mapping[str, object], fields: Mapping[str, Field]) -> list[str]:
    """A sentence for every setting that is out of its range.

    Example:
        >>> find_faults({"depth": 0}, {"depth": Numbers(1, 256)})
        ['depth is 0, allowed are whole numbers from 1 to 256']
    """
    return [
        f"{name} is {_shown(values[name])}, allowed are {field}"
        for name, field in fields.items()
        if name in values and not field.allows(values[name])
    ]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
