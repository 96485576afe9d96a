"""Inline SVG pictures of results for notebooks and web pages, without dependencies.

Text and outlines take the colour of the page, so that light and dark pages both work.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from emoser.results.segments import Segment, channel_name, choose_step, clock
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.results.prediction import Prediction
    from emoser.results.timeline import Timeline

WIDTH = 720
BAR_HEIGHT, BAR_STEP, NAME_WIDTH = 14, 20, 90
WAVE_HEIGHT, BAND_HEIGHT, AXIS_HEIGHT, TRACK_GAP = 44, 22, 18, 8
LETTER_WIDTH = 6.6  # of the small text, on average
MARK_WIDTH = 60  # of the time axis: twelve marks on a wide picture
FONT = "font-family:system-ui,sans-serif;font-size:11px"

# The hues of Okabe and Ito, which colour-blind readers can distinguish, varied in lightness where
# there are more emotions than hues; readable on white and on near-black.
COLOURS: Mapping[str, str] = {
    "neutral": "#8f959b",
    "calm": "#56b4e9",
    "happy": "#e0a800",
    "excited": "#b58200",
    "sad": "#0072b2",
    "angry": "#d55e00",
    "frustrated": "#a84a00",
    "fear": "#9a6fd0",
    "disgust": "#009e73",
    "contempt": "#5c7a29",
    "surprise": "#e377b4",
    "positive": "#e0a800",
    "negative": "#0072b2",
}
MIDDLE_LUMINANCE = 0.179  # on which black and white are equally legible
OTHERS = ("#56b4e9", "#d55e00", "#009e73", "#e377b4", "#e0a800", "#0072b2", "#9a6fd0", "#8f959b")
"""Colours of other labels, in order."""


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label.

    Example:
        >>> colours_of(["angry", "bored"])
        {'angry': '#d55e00', 'bored': '#56b4e9'}
    """
    free = [colour for colour in OTHERS if colour not in {COLOURS.get(name) for name in labels}]
    unknown = [name for name in labels if name not in COLOURS]
    spare = free or list(OTHERS)
    chosen = {name: spare[place % len(spare)] for place, name in enumerate(unknown)}
    return {name: COLOURS.get(name) or chosen[name] for name in labels}


def ink_on(colour: str) -> str:
    """Black or white, whichever is more legible on a colour: the contrast is at least 4.5.

    Example:
        >>> ink_on("#e0a800"), ink_on("#0072b2")
        ('#000000', '#ffffff')
    """
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    parts = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (red, green, blue)
    ]  # the relative luminance of WCAG 2
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "#000000" if luminance > MIDDLE_LUMINANCE else "#ffffff"


def draw_prediction(prediction: "Prediction") -> str:
    """A bar for every label and dimension, most probable first, under the line of text."""
    return as_page(str(prediction), draw_scores(prediction))


def draw_scores(prediction: "Prediction", *, width: float = WIDTH / 2) -> str:
    """The picture of `draw_prediction` alone, `width` pixels wide; letters keep their size."""
    colours = colours_of(list(prediction.scores))
    rows = [*prediction.top(), *(prediction.dimensions or {}).items()]
    room = width - NAME_WIDTH - 50
    shapes = []
    for place, (name, value) in enumerate(rows):
        top, length = place * BAR_STEP, room * min(max(value, 0.0), 1.0)
        middle = top + BAR_HEIGHT - 3
        shapes += [
            draw_text(NAME_WIDTH - 8, middle, name, anchor="end"),
            _rect(NAME_WIDTH, top, max(length, 1), BAR_HEIGHT, colours.get(name, "#8f959b")),
            draw_text(NAME_WIDTH + length + 6, middle, f"{value:.2f}"),
        ]
    description = ", ".join(f"{name} {value:.2f}" for name, value in rows)
    return as_picture(width, len(rows) * BAR_STEP, shapes, description)


def draw_timeline(timeline: "Timeline") -> str:
    """The waveform and segments of every channel, with a time axis and a legend."""
    return as_page(_describe(timeline), draw_track(timeline))


def draw_track(timeline: "Timeline", *, width: float = WIDTH) -> str:
    """The picture of `draw_timeline` alone, `width` pixels wide; letters keep their size."""
    duration = timeline.duration or 1.0
    colours = colours_of(timeline.labels)
    shapes: list[str] = []
    top = 0.0
    for part in timeline.per_channel():
        if part.channels:
            name = channel_name(part.channels[0], timeline.channels)
            shapes.append(draw_text(0, top + BAR_HEIGHT - 3, name))
            top += BAR_STEP
        shapes += _wave(part.peaks[0].tolist() if part.peaks else [], top, width)
        top += WAVE_HEIGHT
        shapes += _band(part.segments, width / duration, colours, top)
        top += BAND_HEIGHT + TRACK_GAP
    axis, height = draw_axis(duration, top, width)
    seen = {segment.label for segment in timeline.segments}
    legend, rest = draw_legend(
        [label for label in timeline.labels if label in seen], colours, top + height + 8, width
    )
    total = top + height + 8 + rest
    return as_picture(width, total, [*shapes, *axis, *legend], _describe(timeline))


def _wave(peaks: Sequence[float], top: float, width: float) -> Iterator[str]:
    """The outline of the peaks, with as many points as fit."""
    if not peaks:
        return
    count = min(len(peaks), int(width) // 2)
    edges = [place * len(peaks) // count for place in range(count + 1)]
    scale = (WAVE_HEIGHT / 2 - 2) / max(*peaks, 1e-3)
    heights = [max(peaks[first:last]) * scale for first, last in pairwise(edges)]
    middle = top + WAVE_HEIGHT / 2
    xs = [(place + 0.5) * width / count for place in range(count)]
    upper = [f"{x:.1f},{middle - h - 0.5:.1f}" for x, h in zip(xs, heights, strict=True)]
    lower = [f"{x:.1f},{middle + h + 0.5:.1f}" for x, h in zip(xs, heights, strict=True)]
    points = " ".join([*upper, *reversed(lower)])
    yield f'<polygon points="{points}" fill="currentColor" opacity="0.45"/>'


def _band(
    segments: Sequence[Segment], scale: float, colours: Mapping[str, str], top: float
) -> Iterator[str]:
    """The segments as a row of boxes, `scale` pixels per second."""
    for segment in segments:
        left = segment.start * scale
        width = max((segment.end - segment.start) * scale, 0.5)
        tip = f"<title>{html.escape(printable(str(segment)))}</title>"
        if segment.kind == "silence":
            line = top + BAND_HEIGHT / 2
            yield (
                f'<line x1="{left:.1f}" x2="{left + width:.1f}" y1="{line}" y2="{line}" '
                f'stroke="currentColor" opacity="0.4" stroke-dasharray="1 3">{tip}</line>'
            )
            continue
        inside = "none" if segment.label is None else colours[segment.label]
        yield (
            f'<rect x="{left + 0.75:.1f}" y="{top + 1}" width="{max(width - 1.5, 0.5):.1f}" '
            f'height="{BAND_HEIGHT - 2}" rx="2" fill="{inside}" '
            f'stroke="currentColor" stroke-opacity="{0.5 if segment.label is None else 0}">'
            f"{tip}</rect>"
        )
        if len(segment.name) * LETTER_WIDTH < width - 6:
            colour = "currentColor" if segment.label is None else ink_on(inside)
            yield draw_text(
                left + width / 2, top + 15, segment.name, anchor="middle", colour=colour
            )


def draw_axis(duration: float, top: float, width: float) -> tuple[list[str], float]:
    """A time axis, and its height."""
    step = choose_step(duration, max_marks=int(width / MARK_WIDTH))
    shapes = [
        f'<line x1="0" x2="{width}" y1="{top}" y2="{top}" stroke="currentColor" opacity="0.4"/>'
    ]
    seconds = 0
    while seconds <= duration:
        x = seconds / duration * width
        anchor = "start" if seconds == 0 else "end" if x > width - 24 else "middle"
        shapes.append(draw_text(x, top + 13, clock(seconds).rpartition(".")[0], anchor=anchor))
        seconds += step
    return shapes, AXIS_HEIGHT


def draw_legend(
    names: Sequence[str], colours: Mapping[str, str], top: float, width: float
) -> tuple[list[str], float]:
    """The names of emotions with their colours, in rows, and the height of the rows."""
    shapes, x, y = [], 0.0, top
    for name in names:
        room = 16 + len(name) * LETTER_WIDTH + 18
        if x + room > width:
            x, y = 0.0, y + BAR_STEP
        shapes += [_rect(x, y, 10, 10, colours[name]), draw_text(x + 15, y + 9, name)]
        x += room
    return shapes, y - top + (BAR_STEP if shapes else 0)


def _describe(timeline: "Timeline") -> str:
    count = len(timeline.segments)
    return f"{clock(timeline.duration)}, {count} segment{'' if count == 1 else 's'}"


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="2" '
        f'fill="{colour}"/>'
    )


def draw_text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = "currentColor"
) -> str:
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{html.escape(printable(text))}</text>"
    )


def as_picture(width: float, height: float, shapes: Sequence[str], description: str) -> str:
    """Shapes as an SVG element with a description for those who do not see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:.0f}" width="{width:g}" '
        f'style="max-width:100%;{FONT}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="{html.escape(printable(description))}">'
        f"{''.join(shapes)}</svg>"
    )


def as_page(title: str, picture: str) -> str:
    """A picture under its title."""
    text = f'<div style="margin-bottom:6px">{html.escape(printable(title))}</div>'
    return f'<div style="{FONT}">{text}{picture}</div>'
