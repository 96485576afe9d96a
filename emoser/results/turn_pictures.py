"""Pictures of conversations as inline SVG: a lane per speaker, and a bar per prediction.

Text and outlines take the colour of the page, as in `emoser.results.svg`.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from emoser.results.segments import SILENCE, clock
from emoser.results.svg import (
    BAND_HEIGHT,
    BAR_STEP,
    LETTER_WIDTH,
    TRACK_GAP,
    WIDTH,
    as_page,
    as_picture,
    colours_of,
    draw_axis,
    draw_legend,
    draw_text,
    ink_on,
)
from emoser.results.turns import Turn
from emoser.text import counted, printable

if TYPE_CHECKING:
    from emoser.results.conversation import Conversation


def draw_conversation(conversation: "Conversation") -> str:
    """A lane for every speaker with the emotions of the turns, over a time axis and a legend."""
    return as_page(_describe(conversation), draw_lanes(conversation))


def draw_lanes(conversation: "Conversation", *, width: float = WIDTH) -> str:
    """The picture of `draw_conversation` alone, `width` pixels wide; letters keep their size."""
    colours = colours_of(conversation.labels)
    duration = conversation.duration or 1.0
    shapes: list[str] = []
    top = 0.0
    for summary in conversation.summary().values():
        turns = lane_of(conversation, summary.speaker)
        shapes.append(draw_text(0, top + BAR_STEP - 7, _cut(str(summary), width)))
        top += BAR_STEP
        shapes += _lane(turns, width / duration, colours, top)
        top += BAND_HEIGHT + TRACK_GAP
    axis, height = draw_axis(duration, top, width)
    seen = [label for label in conversation.labels if label in labels_of(conversation)]
    legend, rest = draw_legend(seen, colours, top + height + 8, width)
    total = top + height + 8 + rest
    return as_picture(width, total, [*shapes, *axis, *legend], _describe(conversation))


def lane_of(conversation: "Conversation", speaker: str) -> list[Turn]:
    """The turns of a speaker that can be drawn, the longest first."""
    turns = [turn for turn in conversation if (turn.speaker or "unknown") == speaker]
    return sorted(
        (turn for turn in turns if turn.end > max(turn.start, 0.0)), key=lambda turn: -turn.duration
    )


def labels_of(conversation: "Conversation") -> set[str | None]:
    """The labels that occur."""
    return {turn.label for turn in conversation}


def _lane(
    turns: Sequence[Turn], scale: float, colours: Mapping[str, str], top: float
) -> Iterator[str]:
    """The turns as boxes, `scale` pixels per second; without an emotion only an outline."""
    for turn in turns:
        left = max(turn.start, 0.0) * scale
        width = max(turn.end * scale - left, 1.0)
        fill = colours.get(turn.label or "", "none")
        dashes = ' stroke-dasharray="2 2"' if turn.label in (None, SILENCE) else ""
        yield (
            f'<rect x="{left:.1f}" y="{top + 1}" width="{max(width - 1, 0.75):.1f}" '
            f'height="{BAND_HEIGHT - 2}" rx="2" fill="{fill}" stroke="currentColor" '
            f'stroke-opacity="{0.5 if fill == "none" else 0}"{dashes}>'
            f"<title>{html.escape(printable(str(turn)))}</title></rect>"
        )
        name = turn.label or ""
        if name and len(name) * LETTER_WIDTH < width - 6:
            colour = "currentColor" if fill == "none" else ink_on(fill)
            yield draw_text(left + width / 2, top + 15, name, anchor="middle", colour=colour)


def _cut(text: str, width: float) -> str:
    room = int(width / LETTER_WIDTH)
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _describe(conversation: "Conversation") -> str:
    speakers = counted(len(conversation.speakers), "speaker")
    return f"{clock(conversation.duration)}, {counted(len(conversation), 'turn')}, {speakers}"
