"""Turns from TextGrids of Praat, in their long and short form: a tier is a speaker."""

import re
from bisect import bisect_right
from collections.abc import Iterator

from emoser.errors import TurnsError
from emoser.results.transcripts.times import parse_seconds
from emoser.results.turn_formats import EMOTION_TIER
from emoser.results.turns import Turn

# Praat itself reads the quoted texts, the numbers that stand alone, and nothing else.
TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?!\S)')
INTERVALS, POINTS = "IntervalTier", "TextTier"


def parse_textgrid(text: str) -> list[Turn]:
    """A turn for each interval with text, tier by tier; tiers of points hold none.

    Intervals of a tier of emotions, which emoser writes beside that of each speaker, are turns
    whose words are not known, except where the speaker's own tier has text.

    Raises:
        TurnsError: If the file is cut short or damaged.
    """
    tokens = _Tokens(text)
    for name in ("file type", "object class"):
        tokens.text(name)
    for name in ("start", "end", "number of tiers"):
        count = tokens.number(name)
    turns: dict[str, list[Turn]] = {}
    for number in range(1, round(count) + 1):
        kind, name = tokens.text(f"class of tier {number}"), tokens.text(f"name of tier {number}")
        if kind not in (INTERVALS, POINTS):
            raise TurnsError(f"tier {number} is of the unknown class {kind[:40]!r}")
        for field in ("start", "end", "size"):
            size = tokens.number(f"{field} of tier {number}")
        turns.setdefault(name, []).extend(_read_tier(tokens, round(size), kind, name))
    for name in [name for name in turns if name.endswith(EMOTION_TIER)]:
        speaker = name.removesuffix(EMOTION_TIER)
        spoken = sorted(turns.setdefault(speaker, []), key=lambda turn: turn.start)
        ends = [turn.end for turn in spoken]
        for row in turns.pop(name):
            following = bisect_right(ends, row.start)
            if following == len(spoken) or spoken[following].start >= row.end:
                turns[speaker].append(Turn(row.start, row.end, speaker or None))
    return [turn for rows in turns.values() for turn in rows]


def _read_tier(tokens: "_Tokens", size: int, kind: str, name: str) -> Iterator[Turn]:
    for number in range(1, size + 1):
        place = f"interval {number} of tier {name!r}"
        start = tokens.number(f"start of {place}")
        end = tokens.number(f"end of {place}") if kind == INTERVALS else start
        text = " ".join(tokens.text(f"text of {place}").split())
        if text and kind == INTERVALS:
            yield Turn(start, end, name or None, text)


class _Tokens:
    """The texts and numbers of a file, one after another."""

    def __init__(self, text: str) -> None:
        self._found = TOKEN.finditer(text)

    def text(self, what: str) -> str:
        found = self._next(what)
        if found[1] is None:
            raise TurnsError(f"the {what} is missing, {found[2]} stands in its place")
        return found[1].replace('""', '"')

    def number(self, what: str) -> float:
        found = self._next(what)
        if found[2] is None:
            raise TurnsError(f"the {what} is missing, {found[1][:40]!r} stands in its place")
        return parse_seconds(found[2], f"the {what}")

    def _next(self, what: str) -> re.Match[str]:
        found = next(self._found, None)
        if found is None:
            raise TurnsError(f"it ends before the {what}; copy it again")
        return found
