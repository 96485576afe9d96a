"""Inline pictures of answers for notebooks: text and SVG, no dependency.

Takes a prediction or a timeline by its values and gives HTML. Text and outlines take the colour
of the page, so that light and dark pages both work.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from emoser.palette import colours_of
from emoser.segments import Segment, choose_step, clock

WIDTH = 720
BAR_HEIGHT, BAR_STEP, NAME_WIDTH = 14, 20, 90
WAVE_HEIGHT, BAND_HEIGHT, AXIS_HEIGHT, TRACK_GAP = 44, 22, 18, 8
LETTER_WIDTH = 6.6  # of the small text, on average
FONT = "font-family:system-ui,sans-serif;font-size:11px"


class Scored(Protocol):
    """What a prediction has and the picture needs."""

    @property
    def label(self) -> str | None:
        """The most probable label."""
        ...

    @property
    def scores(self) -> Mapping[str, float]:
        """Probability of every label."""
        ...

    @property
    def dimensions(self) -> Mapping[str, float] | None:
        """Values of the dimensions."""
        ...


class Tracked(Protocol):
    """What a timeline has and the picture needs."""

    @property
    def duration(self) -> float:
        """Seconds."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Names in their order."""
        ...

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Those of all channels."""
        ...

    @property
    def channels(self) -> tuple[int, ...]:
        """Indices, or empty."""
        ...

    @property
    def peaks(self) -> Sequence[Any]:
        """Per channel, of each further frame."""
        ...


def draw_prediction(prediction: Scored) -> str:
    """A bar for every label and dimension, most probable first, under the line of text."""
    colours = colours_of(list(prediction.scores))
    rows = sorted(prediction.scores.items(), key=lambda item: -item[1])
    rows += list((prediction.dimensions or {}).items())
    room = WIDTH // 2 - NAME_WIDTH - 50
    shapes = []
    for place, (name, value) in enumerate(rows):
        top, length = place * BAR_STEP, room * min(max(value, 0.0), 1.0)
        middle = top + BAR_HEIGHT - 3
        shapes += [
            _text(NAME_WIDTH - 8, middle, name, anchor="end"),
            _rect(NAME_WIDTH, top, max(length, 1), BAR_HEIGHT, colours.get(name, "#8f959b")),
            _text(NAME_WIDTH + length + 6, middle, f"{value:.2f}"),
        ]
    title = html.escape(str(prediction))
    return _page(title, WIDTH // 2, len(rows) * BAR_STEP, shapes)


def draw_timeline(timeline: Tracked) -> str:
    """The waveform of every channel over its segments, with a time axis and the colours named."""
    duration = timeline.duration or 1.0
    colours = colours_of(timeline.labels)
    shapes: list[str] = []
    top = 0.0
    for place, channel in enumerate(timeline.channels or (None,)):
        peaks = timeline.peaks[place] if place < len(timeline.peaks) else ()
        shapes += _wave(peaks, top)
        top += WAVE_HEIGHT
        own = [item for item in timeline.segments if item.channel == channel]
        shapes += _band(own, duration, colours, top)
        top += BAND_HEIGHT + TRACK_GAP
    shapes += _axis(duration, top)
    top += AXIS_HEIGHT
    legend, height = _legend(timeline, colours, top + 8)
    count = len(timeline.segments)
    title = f"{clock(timeline.duration)}, {count} segment{'' if count == 1 else 's'}"
    return _page(title, WIDTH, top + 8 + height, [*shapes, *legend])


def _wave(peaks: Any, top: float) -> Iterator[str]:
    """The outline of the peaks, as many points as the picture has room for."""
    if not len(peaks):
        return
    count = min(len(peaks), WIDTH // 2)
    edges = [place * len(peaks) // count for place in range(count + 1)]
    highest = max(max(float(peak) for peak in peaks), 1e-3)
    heights = [
        max(float(peak) for peak in peaks[first:last]) / highest * (WAVE_HEIGHT / 2 - 2)
        for first, last in pairwise(edges)
    ]
    middle = top + WAVE_HEIGHT / 2
    xs = [(place + 0.5) * WIDTH / count for place in range(count)]
    upper = [f"{x:.1f},{middle - h - 0.5:.1f}" for x, h in zip(xs, heights, strict=True)]
    lower = [f"{x:.1f},{middle + h + 0.5:.1f}" for x, h in zip(xs, heights, strict=True)]
    points = " ".join([*upper, *reversed(lower)])
    yield f'<polygon points="{points}" fill="currentColor" opacity="0.45"/>'


def _band(
    segments: Sequence[Segment], duration: float, colours: Mapping[str, str], top: float
) -> Iterator[str]:
    for segment in segments:
        left = segment.start / duration * WIDTH
        width = max((segment.end - segment.start) / duration * WIDTH, 0.5)
        tip = f"<title>{html.escape(str(segment))}</title>"
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
            colour = "currentColor" if segment.label is None else "#000"
            yield _text(left + width / 2, top + 15, segment.name, anchor="middle", colour=colour)


def _axis(duration: float, top: float) -> Iterator[str]:
    step = choose_step(duration)
    yield (f'<line x1="0" x2="{WIDTH}" y1="{top}" y2="{top}" stroke="currentColor" opacity="0.4"/>')
    seconds = 0
    while seconds <= duration:
        x = seconds / duration * WIDTH
        anchor = "start" if seconds == 0 else "end" if x > WIDTH - 24 else "middle"
        yield _text(x, top + 13, clock(seconds).rpartition(".")[0], anchor=anchor)
        seconds += step


def _legend(timeline: Tracked, colours: Mapping[str, str], top: float) -> tuple[list[str], float]:
    """The names of the emotions that occur, in rows, and the height of the rows."""
    shapes, x, y = [], 0.0, top
    seen = {segment.label for segment in timeline.segments}
    for name in (label for label in timeline.labels if label in seen):
        width = 16 + len(name) * LETTER_WIDTH + 18
        if x + width > WIDTH:
            x, y = 0.0, y + BAR_STEP
        shapes += [_rect(x, y, 10, 10, colours[name]), _text(x + 15, y + 9, name)]
        x += width
    return shapes, y - top + (BAR_STEP if shapes else 0)


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="2" '
        f'fill="{colour}"/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = "currentColor"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{html.escape(text)}</text>"
    )


def _page(title: str, width: float, height: float, shapes: Sequence[str]) -> str:
    return (
        f'<div style="{FONT}"><div style="margin-bottom:6px">{title}</div>'
        f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" style="max-width:100%;{FONT}" '
        f'xmlns="http://www.w3.org/2000/svg" role="img">{"".join(shapes)}</svg></div>'
    )
