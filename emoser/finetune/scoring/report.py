"""Reports of an evaluation: Markdown and JSON for people and programs, a picture of the confusion.

Every figure stands below the sentence of its protocol, with an interval over speakers. Knows
nothing of models or audio; logits and utterances in.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.errors import missing_extra
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.evaluation import Report, score_logits
from emoser.metrics import (
    accuracy,
    bootstrap_interval,
    confusion_table,
    draw_groups,
    drawn_units,
    unweighted_average_recall,
)
from emoser.text import counted, markdown_table

NUM_DRAWS = 1000
MARKDOWN, JSON, PICTURE = "report.md", "report.json", "confusion.png"


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one set, and how sure they are.

    Attributes:
        protocol: The sentence that belongs beside every figure.
        report: The figures.
        accuracy_interval: 95 % interval of the accuracy over what `drawn` says.
        uar_interval: 95 % interval of the UAR over the same.
        notes: What else a reader must know, such as recordings that were left out.
    """

    protocol: str
    report: Report
    accuracy_interval: tuple[float, float]
    uar_interval: tuple[float, float]
    notes: tuple[str, ...] = ()

    @property
    def drawn(self) -> str:
        """What the intervals are over: "speakers", or "recordings" where there is one speaker."""
        return drawn_units(self.report.num_speakers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same recordings.

    Attributes:
        names: What the two are called.
        uars: UAR of each.
        difference: UAR of the first minus that of the second.
        interval: 95 % interval of the difference.
        drawn: What it is over: "speakers", or "recordings" where there is one speaker.
        only_first: Recordings that only the first one recognised.
        only_second: Recordings that only the second one recognised.
        p_value: Exact McNemar test of these two counts.
    """

    names: tuple[str, str]
    uars: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    drawn: str
    only_first: int
    only_second: int
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One sentence for people."""
        first, second = self.names
        low, high = self.interval
        return (
            f"UAR {100 * self.uars[0]:.1f} % ({first}) against {100 * self.uars[1]:.1f} % "
            f"({second}): {100 * self.difference:+.1f} points, 95 % interval over {self.drawn} "
            f"{100 * low:+.1f} to {100 * high:+.1f}; {counted(self.only_first, 'recording')} only "
            f"{first} recognised, {self.only_second} only {second} "
            f"(McNemar p = {self.p_value:.3g})"
        )


def assess(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    *,
    protocol: str,
    labels: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Evaluation:
    """Figures and intervals of logits.

    Args:
        logits: One row per utterance, (N, C).
        utterances: What was said.
        columns: Names of the columns.
        protocol: How model and test set came about.
        labels: The labels to decide between, all columns unless given.
        notes: What else a reader must know.
    """
    names = tuple(labels) or tuple(columns)
    truth, predicted = _decide(logits, utterances, columns, names)
    groups = _groups(utterances)
    return Evaluation(
        protocol,
        score_logits(logits, utterances, columns, labels=names),
        bootstrap_interval(truth, predicted, groups, accuracy, num_draws=NUM_DRAWS),
        bootstrap_interval(
            truth, predicted, groups, unweighted_average_recall, num_draws=NUM_DRAWS
        ),
        tuple(notes),
    )


def compare(
    logits: tuple[NDArray[np.float32], NDArray[np.float32]],
    columns: tuple[Sequence[str], Sequence[str]],
    utterances: Sequence[Utterance],
    *,
    names: tuple[str, str],
    labels: Sequence[str],
) -> Comparison:
    """Two models on the same recordings, deciding between the same labels."""
    truth, first = _decide(logits[0], utterances, columns[0], labels)
    _, second = _decide(logits[1], utterances, columns[1], labels)
    uars = unweighted_average_recall(truth, first), unweighted_average_recall(truth, second)
    differences = [
        unweighted_average_recall(truth[rows], first[rows])
        - unweighted_average_recall(truth[rows], second[rows])
        for rows in draw_groups(_groups(utterances), NUM_DRAWS, 0)
    ]
    low, high = np.quantile(differences, [0.025, 0.975])
    only_first = int(((first == truth) & (second != truth)).sum())
    only_second = int(((first != truth) & (second == truth)).sum())
    return Comparison(
        names,
        uars,
        uars[0] - uars[1],
        (float(low), float(high)),
        drawn_units(len({item.voice for item in utterances} - {None})),
        only_first,
        only_second,
        mcnemar(only_first, only_second),
    )


def mcnemar(first: int, second: int) -> float:
    """Chance of a split at least this uneven when both are equally good.

    Example:
        >>> mcnemar(0, 5), mcnemar(3, 3)
        (0.0625, 1.0)
    """
    total, fewer = first + second, min(first, second)
    tail = sum(math.comb(total, count) for count in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**total))


def to_markdown(evaluation: Evaluation, *, title: str) -> str:
    """The report as Markdown."""
    report = evaluation.report
    lines = [f"# {title}", "", f"Protocol: {evaluation.protocol}.", ""]
    lines += [f"- {note}" for note in evaluation.notes] + [""] * bool(evaluation.notes)
    lines += [
        f"{report.size}.",
        "",
        f"| figure | value | 95 % interval over {evaluation.drawn} |",
        "|---|---|---|",
        f"| accuracy (WA) | {_percent(report.accuracy)} | {_range(evaluation.accuracy_interval)} |",
        f"| recall averaged over classes (UA, UAR) | {_percent(report.uar)} | "
        f"{_range(evaluation.uar_interval)} |",
        f"| macro F1 | {_percent(report.macro_f1)} | |",
        f"| calibration error | {report.calibration_error:.3f} | |",
        "",
    ]
    recalls = [
        _percent(row[place] / sum(row)) if sum(row) else "-"
        for place, row in enumerate(report.confusion)
    ]
    rows = confusion_table(report.labels, report.confusion)
    lines.append(
        markdown_table([[*row, end] for row, end in zip(rows, ["recall", *recalls], strict=True)])
    )
    for name, figures in (
        ("corpus", report.per_corpus),
        ("sex", report.per_sex),
        ("speaker", report.per_speaker),
    ):
        lines += _table(name, figures)
    return "\n".join(lines) + "\n"


def write_report(evaluation: Evaluation, folder: Path, *, title: str) -> None:
    """Write `report.md`, `report.json` and, where matplotlib is installed, `confusion.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKDOWN).write_text(to_markdown(evaluation, title=title), encoding="utf-8")
    text = json.dumps(evaluation.to_dict(), indent=2) + "\n"
    (folder / JSON).write_text(text, encoding="utf-8")
    try:
        draw_confusion(evaluation.report, folder / PICTURE, title=title)
    except ImportError:
        (folder / PICTURE).unlink(missing_ok=True)


def draw_confusion(report: Report, file: Path, *, title: str) -> None:
    """Draw the confusion matrix as parts of each true class.

    Raises:
        DependencyError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("drawing a confusion matrix", "plot") from error
    counts = np.array(report.confusion, dtype=float)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    size = 2.5 + 0.7 * len(report.labels)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(parts, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.ndindex(*parts.shape):
        shade = "white" if parts[row, column] > 0.5 else "black"
        text = f"{100 * parts[row, column]:.0f} %\n{int(counts[row, column])}"
        axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=8)
    positions = range(len(report.labels))
    axes.set_xticks(positions, report.labels, rotation=45, ha="right")
    axes.set_yticks(positions, report.labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{title}\nUAR {_percent(report.uar)}", fontsize=9)
    figure.savefig(file, dpi=150)


def _decide(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    labels: Sequence[str],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    chosen = logits[:, [list(columns).index(label) for label in labels]]
    truth = np.array([list(labels).index(item.label) for item in utterances])
    return truth, chosen.argmax(axis=1)


def _groups(utterances: Sequence[Utterance]) -> list[object]:
    return [item.voice or index for index, item in enumerate(utterances)]


def _table(name: str, figures: Mapping[str, float]) -> list[str]:
    if len([key for key in figures if key]) < 2:
        return []
    rows = [f"| {key} | {_percent(value)} |" for key, value in figures.items()]
    return ["", f"| {name} | UAR |", "|---|---|", *rows]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
