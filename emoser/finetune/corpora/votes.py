"""Votes of annotators in a table: a column for each annotator, or one for each emotion.

`label_1`, `label_2`, ... hold what each annotator chose. `happy`, `sad`, ..., or any emotions after
`votes_` or `share_`, hold how many chose each, or their shares, which sum to 1.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emoser.labels import ALIASES, CANONICAL_LABELS, canonical_label

ANNOTATOR = re.compile(r"(?:label|emotion)[\s_]*\d+", re.IGNORECASE)
PREFIXED = re.compile(r"(?:votes?|shares?)[\s_]+(?P<name>.+)", re.IGNORECASE)
EMOTIONS = frozenset((*CANONICAL_LABELS, *(name for name in ALIASES if len(name) > 2)))
TOLERANCE = 0.01  # by which shares, which are rounded, may miss 1


@dataclass(frozen=True)
class VoteColumns:
    """The columns of votes in a table.

    Attributes:
        annotators: Columns with the choice of an annotator.
        emotions: The emotion of every column with votes or shares.

    Example:
        >>> columns = find_vote_columns(["path", "label_1", "label_2", "label_3"])
        >>> columns.read({"label_1": "anger", "label_2": "sad", "label_3": "angry"}, float)
        {'angry': 2.0, 'sad': 1.0}
        >>> columns = find_vote_columns(["path", "Happy", "share_bored"])
        >>> columns.emotions
        {'share_bored': 'bored'}
    """

    annotators: tuple[str, ...]
    emotions: Mapping[str, str]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.annotators or self.emotions)

    def check(self) -> None:
        """Refuse two columns of the same emotion."""
        counts = Counter(self.emotions.values())
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"two columns have the votes for {', '.join(twice)}; add them up")

    def read(
        self, row: Mapping[str, Any], read_number: Callable[[str], float | None]
    ) -> dict[str, float]:
        """The votes or shares of a row by label; empty if it has none.

        `read_number` gives the number in a column, or None if the cell is empty.

        Raises:
            ValueError: If a number is negative or missing, or shares do not sum to 1.
        """
        if self.annotators:
            chosen = [str(row.get(name) or "").strip() for name in self.annotators]
            votes = Counter(canonical_label(choice) for choice in chosen if choice)
            return {label: float(count) for label, count in votes.items()}
        numbers = {name: read_number(name) for name in self.emotions}
        if all(number is None for number in numbers.values()):
            return {}
        shares = {self.emotions[name]: _check(name, number) for name, number in numbers.items()}
        total = math.fsum(shares.values())
        counted = all(number.is_integer() for number in shares.values())
        if total == 0:
            raise ValueError(f"{', '.join(self.emotions)} are all 0; nobody voted")
        if not counted and abs(total - 1.0) > TOLERANCE:
            raise ValueError(f"the shares of {', '.join(self.emotions)} sum to {total:g}, not to 1")
        return shares


def find_vote_columns(names: Sequence[str]) -> VoteColumns:
    """The columns of votes among those of a table; annotators' before emotions'.

    Emotions with a prefix come before those without.
    """
    annotators = tuple(name for name in names if ANNOTATOR.fullmatch(name.strip()))
    if annotators:
        return VoteColumns(annotators, {})
    prefixed = {
        name: canonical_label(found["name"])
        for name in names
        if (found := PREFIXED.fullmatch(name.strip()))
    }
    plain = {
        name: canonical_label(name)
        for name in names
        if " ".join(name.casefold().replace("_", " ").split()) in EMOTIONS
    }
    return VoteColumns((), prefixed or plain)


def _check(name: str, number: float | None) -> float:
    if number is None:
        raise ValueError(f"{name} is empty; write 0 where nobody voted for it")
    if number < 0:
        raise ValueError(f"{name} is {number:g}; votes and shares are 0 or more")
    return number
