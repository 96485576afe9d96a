"""Pictures of timelines and confusion matrices, with matplotlib.

They are made without pyplot: no window opens, no default changes, and no figure stays in memory.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emoser.errors import missing_extra, writes_to
from emoser.results.segments import TimelineWindow, channel_name, choose_step, clock
from emoser.results.svg import colours_of, ink_on
from emoser.results.turn_pictures import labels_of, lane_of
from emoser.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from emoser.results.conversation import Conversation
    from emoser.results.figures import Picture
    from emoser.results.timeline import Timeline

DOTS_PER_INCH = 150
WIDTH_INCHES = 8.0  # the width of a notebook cell
WIDE_INCHES = 12.0  # for a recording that would be too dense in it
WIDE_SECONDS = 180.0
MAX_STEPS = 300  # of the probabilities: what is narrower cannot be made out
LANE_HEIGHT = 0.7  # of the distance between two speakers
LETTER_INCHES = 0.09  # of a name in a segment
EDGE_POINTS = 0.8  # of the outline of a box
POINTS_PER_INCH = 72
NUM_POINTS = 1600  # of a waveform: more than the pixels of the figure
SOLID_POINTS = 50  # of a scatter plot; more are drawn the fainter
STRONG_SHARE = 0.6  # from this share on a cell is dark enough for white text
ROUNDING = 1e-3  # of a sum of probabilities
PEAK_SECONDS = 0.032  # of each value of `Timeline.peaks`


@dataclass(frozen=True)
class _Theme:
    paper: str
    ink: str
    faint: str
    deep: str


THEMES: Mapping[str, _Theme] = {
    "light": _Theme("#ffffff", "#1b1f24", "#9aa2ab", "#15568f"),
    "dark": _Theme("#14171c", "#e6e9ed", "#6b747f", "#2f7fc1"),
}


def plot_timeline(timeline: "Timeline", *, theme: str = "light") -> "Picture":
    """The waveform, the segments, and the stacked probabilities of all labels, per channel.

    Silence is empty. A model without labels has a line per dimension. Raises as `Timeline.plot`.
    """
    parts = timeline.per_channel()
    width = WIDE_INCHES if timeline.duration > WIDE_SECONDS else WIDTH_INCHES
    figure, style = _open_figure(theme, 0.6 + 2.9 * len(parts), width=width), THEMES[theme]
    colours = colours_of(timeline.labels or timeline.dimensions)
    grid = figure.add_gridspec(len(parts), 1, hspace=0.3)
    first: Axes | None = None
    for place, part in enumerate(parts):
        rows = grid[place].subgridspec(3, 1, height_ratios=[3, 1, 4], hspace=0.12)
        wave = figure.add_subplot(rows[0], sharex=first)
        first = first or wave
        band, stack = (figure.add_subplot(rows[row], sharex=first) for row in (1, 2))
        _draw_wave(wave, part, style)
        _draw_segments(band, part, colours, style)
        (_draw_probabilities if part.labels else _draw_dimensions)(stack, part, colours)
        if part.channels:
            name = channel_name(part.channels[0], timeline.channels)
            wave.set_title(name, loc="left", fontsize=9, color=style.ink)
        for row in (wave, band, stack):
            _style(row, style)
            is_last = row is stack and place == len(parts) - 1
            row.tick_params(labelbottom=is_last, bottom=is_last)
        for row in (wave, band):
            row.spines[["left", "bottom"]].set_visible(False)
        stack.set_xlim(0, timeline.duration)
        stack.set_xticks(np.arange(0, timeline.duration, choose_step(timeline.duration)))
        stack.xaxis.set_major_formatter(lambda value, _: clock(value).rpartition(".")[0])
    _draw_legend(figure, timeline, colours, style)
    return figure


def plot_conversation(conversation: "Conversation", *, theme: str = "light") -> "Picture":
    """A lane per speaker with the emotions of the turns; raises as `Conversation.plot`.

    Silence, and a turn without an answer, is an outline only.
    """
    speakers, style = conversation.speakers, THEMES.get(theme, THEMES["light"])
    width = WIDE_INCHES if conversation.duration > WIDE_SECONDS else WIDTH_INCHES
    figure = _open_figure(theme, 1.3 + 0.55 * len(speakers), width=width)
    colours = colours_of(conversation.labels)
    axes = figure.add_subplot()
    scale = axes.bbox.width / DOTS_PER_INCH / (conversation.duration or 1.0)  # inches per second
    for row, speaker in enumerate(speakers):
        for turn in lane_of(conversation, speaker):
            start = max(turn.start, 0.0)
            seconds = max(turn.end - start, 1.0 / DOTS_PER_INCH / scale)  # at least a pixel
            colour = colours.get(turn.label or "")
            axes.broken_barh(
                [(start, seconds)], (row - LANE_HEIGHT / 2, LANE_HEIGHT),
                linewidth=_edge(seconds * scale) if colour else EDGE_POINTS,
                facecolor=colour or "none", edgecolor=style.paper if colour else style.faint,
                linestyle="-" if colour else ":",
            )  # fmt: skip
    axes.set_xlim(0, conversation.duration or 1.0)
    axes.set_ylim(len(speakers) - 0.4, -0.6)
    axes.set_yticks(range(len(speakers)), [plain_text(name) for name in speakers])
    axes.set_xticks(np.arange(0, conversation.duration, choose_step(conversation.duration)))
    axes.xaxis.set_major_formatter(lambda value, _: clock(value).rpartition(".")[0])
    _style(axes, style)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    seen = labels_of(conversation)
    _add_legend(figure, {name: colours[name] for name in colours if name in seen}, style)
    return figure


def plot_confusion(
    matrix: npt.ArrayLike, labels: Sequence[str], *, theme: str = "light"
) -> "Picture":
    """A confusion matrix, shaded by the share of each true label, with shares and counts.

    Rows of `matrix`, (C, C), are the truth, columns what was predicted. Raises as
    `Timeline.plot`, and a ValueError if the shapes do not fit.
    """
    counts = np.asarray(matrix)
    size = len(labels)
    if counts.shape != (size, size):
        raise ValueError(f"a matrix of shape {counts.shape} does not fit {size} labels")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.4 + 0.65 * size
    figure = _open_figure(theme, side, width=side + 0.4)  # finds out whether matplotlib is there
    from matplotlib.colors import LinearSegmentedColormap

    axes, colours = figure.add_subplot(), THEMES[theme]
    shades = LinearSegmentedColormap.from_list("emoser", [colours.paper, colours.deep])
    axes.imshow(shares, cmap=shades, vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        strong = shares[row, column] > STRONG_SHARE
        axes.text(
            column, row, f"{shares[row, column]:.0%}\n{counts[row, column]:g}",
            ha="center", va="center", fontsize=8, color="#ffffff" if strong else colours.ink,
        )  # fmt: skip
    names = [plain_text(label) for label in labels]
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    _style(axes, colours)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def plot_values(
    pairs: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    notes: Mapping[str, str],
    *,
    theme: str = "light",
) -> "Picture":
    """True against predicted values of each dimension, with the line on which they are equal.

    `notes` are shown beside the names of the dimensions. Raises as `Timeline.plot`.
    """
    side = WIDTH_INCHES / 3
    figure, style = _open_figure(theme, side + 0.5, width=side * len(pairs) + 0.5), THEMES[theme]
    for place, (name, (truth, predicted)) in enumerate(pairs.items()):
        axes = figure.add_subplot(1, len(pairs), place + 1)
        ends = [min(0.0, truth.min(), predicted.min()), max(1.0, truth.max(), predicted.max())]
        axes.plot(ends, ends, color=style.ink, linewidth=0.8, linestyle=":")
        shade = min(1.0, max(0.1, SOLID_POINTS / len(truth)))
        axes.scatter(truth, predicted, s=9, color=style.deep, alpha=shade, linewidths=0)
        axes.set_xlim(ends[0] - 0.05, ends[1] + 0.05)
        axes.set_ylim(ends[0] - 0.05, ends[1] + 0.05)
        axes.set_aspect("equal")
        axes.set_title(f"{plain_text(name)}\n{notes[name]}", fontsize=9, color=style.ink)
        axes.set_xlabel("true")
        axes.set_ylabel("predicted" if place == 0 else "")
        _style(axes, style)
    figure.tight_layout()
    return figure


def plot_conditions(
    panels: Mapping[str, Mapping[str, tuple[float, str]]], *, theme: str = "light"
) -> "Picture":
    """Bars of a figure in each condition, a panel for each figure; a line marks the reference.

    `panels` hold value and text of each condition, the reference first, by the name of the
    figure. Raises as `Timeline.plot`.
    """
    count = sum(map(len, panels.values()))
    figure, style = _open_figure(theme, 0.8 * len(panels) + 0.28 * count), THEMES[theme]
    for place, (title, values) in enumerate(panels.items()):
        axes, rows = figure.add_subplot(len(panels), 1, place + 1), range(len(values))
        found = [value for value, _ in values.values()]
        axes.barh(rows, found, height=0.66, color=[style.faint] + [style.deep] * (len(rows) - 1))
        axes.axvline(found[0], color=style.ink, linewidth=0.8, linestyle=":")
        for row, (_, text) in enumerate(values.values()):
            axes.annotate(
                plain_text(text), (1.02, row), xycoords=("axes fraction", "data"), va="center",
                fontsize=8, color=style.ink, annotation_clip=False,
            )  # fmt: skip
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_xlim(min(0.0, *found), 1.0)
        axes.set_yticks(rows, [plain_text(name) for name in values])
        axes.set_xlabel(plain_text(title))
        _style(axes, style)
        axes.tick_params(axis="y", length=0)
    figure.tight_layout()
    return figure


def plain_text(text: str) -> str:
    """Text that matplotlib draws as it is, without formulas between dollar signs."""
    return printable(text).replace("$", r"\$")


def save_figure(figure: "Picture", path: str | os.PathLike[str]) -> None:
    """Write a figure; the suffix chooses the format."""
    with writes_to(path):
        figure.save(path)


def _open_figure(theme: str, height: float, *, width: float = WIDTH_INCHES) -> "Picture":
    if theme not in THEMES:
        raise ValueError(f"theme is {theme!r}; use one of {', '.join(THEMES)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise missing_extra("drawing", "plot") from error
    from emoser.results.figures import Picture

    return Picture(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=THEMES[theme].paper)


def _style(axes: "Axes", theme: _Theme) -> None:
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.ink, fontsize=9)


def _draw_wave(axes: "Axes", part: "Timeline", theme: _Theme) -> None:
    peaks = part.peaks[0] if part.peaks else np.zeros(1, np.float32)
    step = -(-len(peaks) // NUM_POINTS)
    padded = np.pad(peaks, (0, -len(peaks) % step))
    heights = padded.reshape(-1, step).max(axis=1)
    times = np.minimum((np.arange(len(heights)) + 0.5) * step * PEAK_SECONDS, part.duration)
    axes.fill_between(times, -heights, heights, color=theme.ink, alpha=0.55, linewidth=0)
    limit = max(float(heights.max()), 1e-3) * 1.05
    axes.set_ylim(-limit, limit)
    axes.set_yticks([])


def _draw_segments(
    axes: "Axes", part: "Timeline", colours: Mapping[str, str], theme: _Theme
) -> None:
    scale = axes.bbox.width / DOTS_PER_INCH / (part.duration or 1.0)  # inches per second
    for segment in part.segments:
        if segment.kind == "silence":
            axes.plot([segment.start, segment.end], [0.5, 0.5], linestyle=":", color=theme.faint)
            continue
        plain = segment.label is None
        axes.broken_barh(
            [(segment.start, segment.duration)], (0, 1), linewidth=_edge(segment.duration * scale),
            facecolor="none" if plain else colours[segment.label or ""],
            edgecolor=theme.faint if plain else theme.paper,
            hatch="////" if segment.kind == "uncertain" else None,
        )  # fmt: skip
        if segment.duration * scale > LETTER_INCHES * len(segment.name):
            colour = theme.ink if plain else ink_on(colours[segment.label or ""])
            axes.text(
                (segment.start + segment.end) / 2, 0.47, plain_text(segment.name), ha="center",
                va="center", fontsize=7.5, color=colour,
            )  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_yticks([])


def _edge(inches: float) -> float:
    """The points of the outline of a box, which would cover the colour of a narrow one."""
    return min(EDGE_POINTS, inches * POINTS_PER_INCH / 4)


def _draw_probabilities(axes: "Axes", part: "Timeline", colours: Mapping[str, str]) -> None:
    """A step per window, from mid-overlap to mid-overlap, or the mean of several windows.

    Probabilities are stacked; independent scores, which do not sum to 1, are a line per label.
    """
    edges = _edges(part.windows, part.duration)
    rows = np.array([[item.scores.get(label, 0.0) for label in part.labels]
                     for item in part.windows])  # fmt: skip
    sums = rows.sum(axis=1)
    independent = np.abs(sums[sums > 0] - 1).max(initial=0) > ROUNDING
    num_joined = -(-len(rows) // MAX_STEPS) or 1
    starts = range(0, len(rows), num_joined)
    rows = np.array([rows[start : start + num_joined].mean(axis=0) for start in starts])
    edges = np.append(edges[:-1:num_joined], edges[-1])
    floor = np.zeros(len(rows))
    for place, label in enumerate(part.labels):
        if independent:
            axes.stairs(rows[:, place], edges, baseline=None, color=colours[label], linewidth=1.6)
            continue
        top = floor + rows[:, place]
        axes.stairs(top, edges, baseline=floor, fill=True, color=colours[label], linewidth=0)
        floor = top
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("probability")


def _draw_dimensions(axes: "Axes", part: "Timeline", colours: Mapping[str, str]) -> None:
    edges = _edges(part.windows, part.duration)
    for name in part.dimensions:
        values = [(item.dimensions or {}).get(name, np.nan) for item in part.windows]
        axes.stairs(values, edges, baseline=None, color=colours[name], linewidth=1.6)
    axes.set_ylabel("value")


def _edges(windows: Sequence[TimelineWindow], duration: float) -> npt.NDArray[np.float64]:
    ends = np.array([window.end for window in windows[:-1]])
    starts = np.array([window.start for window in windows[1:]])
    return np.concatenate([[0.0], (ends + starts) / 2, [duration]])


def _draw_legend(
    figure: "Picture", timeline: "Timeline", colours: Mapping[str, str], theme: _Theme
) -> None:
    is_uncertain = any(segment.kind == "uncertain" for segment in timeline.segments)
    _add_legend(figure, colours, theme, uncertain=is_uncertain)


def _add_legend(
    figure: "Picture", colours: Mapping[str, str], theme: _Theme, *, uncertain: bool = False
) -> None:
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(color=colour, label=plain_text(name)) for name, colour in colours.items()
    ]
    if uncertain:
        handles.append(Patch(fill=False, edgecolor=theme.faint, hatch="////", label="uncertain"))
    figure.legend(
        handles=handles, loc="upper center", ncols=min(len(handles), 9) or 1,
        handlelength=1.2, columnspacing=1.2, handletextpad=0.5, frameon=False,
        fontsize=8, labelcolor=theme.ink, bbox_to_anchor=(0.5, 0.99),
    )  # fmt: skip
