"""Pictures with matplotlib: a timeline, scores, a confusion matrix, a reliability diagram.

Takes results and numbers, gives figures that pyplot knows nothing of: no window opens, no default
changes and no figure stays behind. Colours come from `palette`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emoser.errors import missing_extra
from emoser.results.palette import colours_of
from emoser.results.prediction import Prediction
from emoser.results.segments import TimelineWindow, choose_step, clock
from emoser.results.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
WIDTH_INCHES = 8.0  # the width of a notebook page
NUM_POINTS = 1600  # of a waveform: more than the picture has dots to show
NUM_BINS = 10
STRONG_SHARE = 0.6  # from here on a cell is dark enough for white letters
PEAK_SECONDS = 512 / 16_000


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


def plot_timeline(timeline: Timeline, *, theme: str = "light") -> "Figure":
    """The waveform, the segments under it, and the probabilities of all labels stacked.

    One such group per channel; silence stays empty. Without labels, a line per dimension.

    Args:
        timeline: What `EmotionClassifier.timeline` gave.
        theme: "light" or "dark".

    Raises:
        DependencyError: If matplotlib is not installed.
        ValueError: If the theme is unknown.
    """
    parts = timeline.per_channel()
    figure, colours = _open_figure(theme, 0.6 + 2.9 * len(parts)), _colours_along(timeline)
    grid = figure.add_gridspec(len(parts), 1, hspace=0.3)
    first: Axes | None = None
    for place, part in enumerate(parts):
        rows = grid[place].subgridspec(3, 1, height_ratios=[3, 1, 4], hspace=0.12)
        wave = figure.add_subplot(rows[0], sharex=first)
        first = first or wave
        band, stack = (figure.add_subplot(rows[row], sharex=first) for row in (1, 2))
        _draw_wave(wave, part, THEMES[theme])
        _draw_segments(band, part, colours, THEMES[theme])
        (_draw_probabilities if part.labels else _draw_dimensions)(stack, part, colours)
        if part.channels:
            wave.set_title(
                f"channel {part.channels[0]}", loc="left", fontsize=9, color=THEMES[theme].ink
            )
        for row in (wave, band, stack):
            _style(row, THEMES[theme])
            is_last = row is stack and place == len(parts) - 1
            row.tick_params(labelbottom=is_last, bottom=is_last)
        for row in (wave, band):
            row.spines[["left", "bottom"]].set_visible(False)
        stack.set_xlim(0, timeline.duration)
        stack.set_xticks(np.arange(0, timeline.duration, choose_step(timeline.duration)))
        stack.xaxis.set_major_formatter(lambda value, _: clock(value).rpartition(".")[0])
    _draw_legend(figure, timeline, colours, THEMES[theme])
    return figure


def plot_scores(prediction: Prediction, *, theme: str = "light") -> "Figure":
    """A bar for the probability of every label, most probable on top.

    Raises:
        DependencyError: If matplotlib is not installed.
        ValueError: If the theme is unknown, or the prediction has no scores.
    """
    rows = prediction.top()[::-1]
    if not rows:
        raise ValueError("the prediction has no scores to draw, only dimensions")
    figure = _open_figure(theme, 0.8 + 0.32 * len(rows), width=0.6)
    axes, colours = figure.add_subplot(), colours_of(list(prediction.scores))
    _style(axes, THEMES[theme])
    axes.barh([name for name, _ in rows], [value for _, value in rows],
              color=[colours[name] for name, _ in rows], height=0.7)  # fmt: skip
    for place, (_, value) in enumerate(rows):
        axes.text(
            value + 0.01, place, f"{value:.2f}", va="center", fontsize=8, color=THEMES[theme].ink
        )
    axes.set_xlim(0, 1.08)
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("probability")
    axes.tick_params(left=False)
    return figure


def plot_confusion(
    matrix: npt.ArrayLike, labels: Sequence[str], *, theme: str = "light"
) -> "Figure":
    """A confusion matrix, shaded by the share of each true label, with the counts in it.

    Args:
        matrix: Counts, (C, C); rows are the truth, columns what was predicted.
        labels: The C names.
        theme: "light" or "dark".

    Raises:
        DependencyError: If matplotlib is not installed.
        ValueError: If the shapes do not fit, or the theme is unknown.
    """
    counts = np.asarray(matrix)
    size = len(labels)
    if counts.shape != (size, size):
        raise ValueError(f"a matrix of shape {counts.shape} does not fit {size} labels")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.4 + 0.55 * size
    figure = _open_figure(theme, side, width=(side + 0.4) / WIDTH_INCHES)
    axes, colours = figure.add_subplot(), THEMES[theme]
    _style(axes, colours)
    axes.imshow(shares, cmap=_shades(colours), vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        strong = shares[row, column] > STRONG_SHARE
        axes.text(
            column, row, f"{counts[row, column]:g}", ha="center", va="center", fontsize=8,
            color="#ffffff" if strong else colours.ink,
        )  # fmt: skip
    axes.set_xticks(range(size), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def plot_reliability(
    truth: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    num_bins: int = NUM_BINS,
    theme: str = "light",
) -> "Figure":
    """How often the model is right when it says how sure it is, and how often it says so.

    Args:
        truth: The class of each recording, (N,).
        probabilities: One row per recording, (N, C).
        num_bins: Equal bins of the probability of the best class.
        theme: "light" or "dark".

    Raises:
        DependencyError: If matplotlib is not installed.
        ValueError: If there is nothing to draw, the lengths differ, or the theme is unknown.
    """
    classes, rows = np.asarray(truth), np.asarray(probabilities, float)
    if rows.ndim != 2 or classes.shape != rows.shape[:1] or not len(rows):
        raise ValueError(f"truth of {classes.shape} and probabilities of {rows.shape} do not fit")
    sure, right = rows.max(axis=1), (rows.argmax(axis=1) == classes).astype(float)
    bins = np.clip((sure * num_bins).astype(int), 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    shown = counts > 0
    share = np.bincount(bins, right, num_bins)[shown] / counts[shown]
    mean = np.bincount(bins, sure, num_bins)[shown] / counts[shown]
    figure = _open_figure(theme, 4.4, width=0.55)
    grid = figure.add_gridspec(2, 1, height_ratios=[4, 1], hspace=0.1)
    upper = figure.add_subplot(grid[0])
    lower = figure.add_subplot(grid[1], sharex=upper)
    colours = THEMES[theme]
    for axes in (upper, lower):
        _style(axes, colours)
    upper.plot([0, 1], [0, 1], linestyle="--", color=colours.faint, linewidth=1, zorder=1)
    upper.plot(mean, share, marker="o", color="#3d8fd1", linewidth=1.6, zorder=2)
    upper.set_ylabel("share that is right")
    upper.set_ylim(0, 1.02)
    upper.tick_params(labelbottom=False)
    lower.bar((np.arange(num_bins) + 0.5) / num_bins, counts, width=0.9 / num_bins,
              color=colours.faint)  # fmt: skip
    lower.set_ylabel("count")
    lower.set_xlabel("probability of the predicted label")
    lower.set_xlim(0, 1)
    return figure


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure; the suffix chooses the format.

    Raises:
        ValueError: If matplotlib does not write this format.
    """
    figure.savefig(path, facecolor=figure.get_facecolor(), bbox_inches="tight")


def _open_figure(theme: str, height: float, *, width: float = 1.0) -> "Figure":
    if theme not in THEMES:
        raise ValueError(f"theme is {theme!r}; use one of {', '.join(THEMES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("drawing", "plot") from error
    return Figure(
        figsize=(WIDTH_INCHES * width, height), dpi=DOTS_PER_INCH, facecolor=THEMES[theme].paper
    )


def _style(axes: "Axes", theme: _Theme) -> None:
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(theme.ink)
        label.set_fontsize(9)


def _draw_wave(axes: "Axes", part: Timeline, theme: _Theme) -> None:
    peaks = part.peaks[0] if part.peaks else np.zeros(1, np.float32)
    step = -(-len(peaks) // NUM_POINTS)
    padded = np.pad(peaks, (0, -len(peaks) % step))
    heights = padded.reshape(-1, step).max(axis=1)
    times = np.minimum((np.arange(len(heights)) + 0.5) * step * PEAK_SECONDS, part.duration)
    axes.fill_between(times, -heights, heights, color=theme.ink, alpha=0.55, linewidth=0)
    limit = max(float(heights.max()), 1e-3) * 1.05
    axes.set_ylim(-limit, limit)
    axes.set_yticks([])


def _draw_segments(axes: "Axes", part: Timeline, colours: Mapping[str, str], theme: _Theme) -> None:
    for segment in part.segments:
        if segment.kind == "silence":
            axes.plot([segment.start, segment.end], [0.5, 0.5], linestyle=":", color=theme.faint)
            continue
        plain = segment.label is None
        axes.broken_barh(
            [(segment.start, segment.duration)], (0, 1), linewidth=0.8,
            facecolor="none" if plain else colours[segment.label or ""],
            edgecolor=theme.faint if plain else theme.paper,
            hatch="////" if segment.kind == "uncertain" else None,
        )  # fmt: skip
        if segment.duration > part.duration * 0.012 * len(segment.name):
            axes.text(
                (segment.start + segment.end) / 2, 0.47, segment.name, ha="center", va="center",
                fontsize=7.5, color=theme.ink if plain else "#000000",
            )  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_yticks([])


def _draw_probabilities(axes: "Axes", part: Timeline, colours: Mapping[str, str]) -> None:
    """Steps from half-way to half-way through the windows' overlaps, as segments are made."""
    edges = _edges(part.windows, part.duration)
    rows = np.array([[item.scores.get(label, 0.0) for label in part.labels]
                     for item in part.windows])  # fmt: skip
    floor = np.zeros(len(rows))
    for place, label in enumerate(part.labels):
        top = floor + rows[:, place]
        axes.stairs(top, edges, baseline=floor, fill=True, color=colours[label], linewidth=0)
        floor = top
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("probability")


def _draw_dimensions(axes: "Axes", part: Timeline, colours: Mapping[str, str]) -> None:
    edges = _edges(part.windows, part.duration)
    for name in part.dimensions:
        values = [(item.dimensions or {}).get(name, np.nan) for item in part.windows]
        axes.stairs(values, edges, baseline=None, color=colours[name], linewidth=1.6)
    axes.set_ylabel("value")


def _edges(windows: Sequence[TimelineWindow], duration: float) -> npt.NDArray[np.float64]:
    ends = np.array([window.end for window in windows[:-1]])
    starts = np.array([window.start for window in windows[1:]])
    return np.concatenate([[0.0], (ends + starts) / 2, [duration]])


def _colours_along(timeline: Timeline) -> Mapping[str, str]:
    return colours_of(timeline.labels or timeline.dimensions)


def _draw_legend(
    figure: "Figure", timeline: Timeline, colours: Mapping[str, str], theme: _Theme
) -> None:
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=colour, label=name) for name, colour in colours.items()]
    if any(segment.kind == "uncertain" for segment in timeline.segments):
        handles.append(Patch(fill=False, edgecolor=theme.faint, hatch="////", label="uncertain"))
    figure.legend(
        handles=handles, loc="upper center", ncols=min(len(handles), 9),
        handlelength=1.2, columnspacing=1.2, handletextpad=0.5, frameon=False,
        fontsize=8, labelcolor=theme.ink, bbox_to_anchor=(0.5, 0.99),
    )  # fmt: skip


def _shades(theme: _Theme) -> Any:
    """From the paper to a blue that carries white letters."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("emoser", [theme.paper, theme.deep])
