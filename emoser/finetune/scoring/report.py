"""Evaluations with confidence intervals over speakers, as Markdown, JSON and a plot.

Every report states its protocol.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.checkpoints.atomic import write_text
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.evaluation import Report, score_logits, select_labels
from emoser.finetune.scoring.logits import add_silence
from emoser.finetune.scoring.record import TrainingRecord, describe_training
from emoser.finetune.scoring.robustness import Robustness
from emoser.json_text import format_json
from emoser.metrics import (
    accuracy,
    bootstrap_interval,
    confusion_table,
    draw_groups,
    name_interval,
    unweighted_average_recall,
)
from emoser.results.plots import plain_text, plot_conditions, plot_confusion, save_figure
from emoser.text import counted, markdown_table, markdown_text

NUM_DRAWS = 1000
TRAINED_ON = " (trained on)"  # beside each figure of an evaluation that is not independent
MARKDOWN, JSON, PICTURE = "report.md", "report.json", "confusion.png"
CONDITIONS = "robustness.png"


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a test set, with confidence intervals.

    Attributes:
        protocol: The protocol of the evaluation, in a sentence.
        report: The metrics.
        accuracy_interval: 95 % interval of the accuracy over speakers, see `interval_name`.
        uar_interval: 95 % interval of the UAR over speakers, see `interval_name`.
        notes: Remarks, such as on recordings that were left out.
    """

    protocol: str
    report: Report
    accuracy_interval: tuple[float, float]
    uar_interval: tuple[float, float]
    notes: tuple[str, ...] = ()

    @property
    def interval_name(self) -> str:
        """What the intervals are, such as "95 % interval over 12 speakers"."""
        return name_interval(self.report.num_speakers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same recordings.

    Attributes:
        names: The two models.
        uars: UAR of each.
        difference: UAR of the first minus that of the second.
        interval: 95 % interval of the difference.
        drawn: Unit of the interval: "speakers", or "recordings" if there is one speaker.
        num_speakers: Number of known speakers.
        only_first: Number of recordings that only the first one recognised.
        only_second: Number of recordings that only the second one recognised.
        p_value: Exact McNemar test of these two numbers.
        trained_on: What the models were trained on of these recordings; empty if nothing is known.
    """

    names: tuple[str, str]
    uars: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    drawn: str
    num_speakers: int
    only_first: int
    only_second: int
    p_value: float
    trained_on: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The comparison in one sentence."""
        first, second = self.names
        low, high = self.interval
        return (
            f"UAR {100 * self.uars[0]:.1f} % ({first}) against {100 * self.uars[1]:.1f} % "
            f"({second}): {100 * self.difference:+.1f} points, "
            f"{name_interval(self.num_speakers)} "
            f"{100 * low:+.1f} to {100 * high:+.1f}; {counted(self.only_first, 'recording')} only "
            f"{first} recognised, {self.only_second} only {second} "
            f"(McNemar p = {self.p_value:.3g})" + f"; {self.trained_on}" * bool(self.trained_on)
        )


def assess(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    *,
    protocol: str,
    labels: Sequence[str] = (),
    notes: Sequence[str] = (),
    silent: NDArray[np.bool_] | None = None,
) -> Evaluation:
    """Metrics and confidence intervals of logits.

    Args:
        logits: One row per utterance, (N, C).
        utterances: The recordings.
        columns: Labels of the columns.
        protocol: The protocol of the evaluation, in a sentence.
        labels: The labels to choose from; by default `columns`.
        notes: Remarks.
        silent: Whether nobody speaks in each, (N,), which makes "silence" the answer.
    """
    names = tuple(labels) or tuple(columns)
    if silent is not None:
        known = len(columns)
        logits, columns = add_silence(logits, columns, silent, utterances)
        names = (*names, *columns[known:])
    truth, chosen = select_labels(logits, utterances, columns, names)
    report = score_logits(logits, utterances, columns, labels=names)
    groups, predicted = _groups(utterances), chosen.argmax(axis=1)
    intervals = [
        bootstrap_interval(truth, predicted, groups, metric, num_draws=NUM_DRAWS)
        for metric in (accuracy, unweighted_average_recall)
    ]
    return Evaluation(protocol, report, intervals[0], intervals[1], tuple(notes))


def compare(
    logits: Sequence[NDArray[np.float32]],
    columns: Sequence[Sequence[str]],
    utterances: Sequence[Utterance],
    *,
    names: Sequence[str],
    labels: Sequence[str],
) -> Comparison:
    """Two models on the same recordings, choosing from the same labels."""
    truth, chosen = select_labels(logits[0], utterances, columns[0], labels)
    first = chosen.argmax(axis=1)
    second = select_labels(logits[1], utterances, columns[1], labels)[1].argmax(axis=1)
    uars = unweighted_average_recall(truth, first), unweighted_average_recall(truth, second)
    differences = [
        unweighted_average_recall(truth[rows], first[rows])
        - unweighted_average_recall(truth[rows], second[rows])
        for rows in draw_groups(_groups(utterances), NUM_DRAWS, 0)
    ]
    low, high = np.quantile(differences, [0.025, 0.975])
    num_speakers = len({item.voice for item in utterances} - {None})
    only_first = int(((first == truth) & (second != truth)).sum())
    only_second = int(((first != truth) & (second == truth)).sum())
    return Comparison(
        (names[0], names[1]),
        uars,
        uars[0] - uars[1],
        (float(low), float(high)),
        "speakers" if num_speakers > 1 else "recordings",
        num_speakers,
        only_first,
        only_second,
        mcnemar(only_first, only_second),
    )


def mcnemar(first: int, second: int) -> float:
    """The p-value of the exact McNemar test: two counts at least as unequal by chance.

    Example:
        >>> mcnemar(0, 5), mcnemar(3, 3)
        (0.0625, 1.0)
    """
    total, fewer = first + second, min(first, second)
    tail = sum(math.comb(total, count) for count in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**total))


def mark_trained_on(evaluation: Evaluation, trained_on: str) -> Evaluation:
    """An evaluation whose protocol and figures say what the model was trained on, if anything."""
    if not trained_on:
        return evaluation
    report = replace(evaluation.report, trained_on=trained_on)
    return replace(evaluation, protocol=f"{evaluation.protocol}; but {trained_on}", report=report)


def to_markdown(
    evaluation: Evaluation, *, title: str, training: TrainingRecord | None = None
) -> str:
    """An evaluation as Markdown, with the training that led to it if it is given."""
    report = evaluation.report
    mark = TRAINED_ON * bool(report.trained_on)
    figures = [
        ["figure", "value", evaluation.interval_name],
        ["accuracy (WA)", _percent(report.accuracy) + mark, _range(evaluation.accuracy_interval)],
        ["recall averaged over classes (UA, UAR)", _percent(report.uar) + mark,
         _range(evaluation.uar_interval)],
        ["macro F1", _percent(report.macro_f1) + mark, ""],
        ["calibration error", f"{report.calibration_error:.3f}{mark}", ""],
    ]  # fmt: skip
    recalls = [
        _percent(row[place] / sum(row)) if sum(row) else "-"
        for place, row in enumerate(report.confusion)
    ]
    rows = confusion_table(report.labels, report.confusion)
    confusion = [[*row, end] for row, end in zip(rows, ["recall", *recalls], strict=True)]
    groups = {
        "corpus": report.per_corpus, "sex": report.per_sex, "speaker": report.per_speaker,
    }  # fmt: skip
    by_group = [
        [[name, "UAR"], *([key, _percent(value) + mark] for key, value in recalls_by.items())]
        for name, recalls_by in groups.items()
        if len([key for key in recalls_by if key]) > 1
    ]
    paragraphs = [
        f"# {markdown_text(title)}",
        f"Protocol: {markdown_text(evaluation.protocol)}.",
        "\n".join(f"- {markdown_text(note)}" for note in evaluation.notes),
        f"{report.size}.",
        *map(markdown_table, (figures, confusion, *by_group)),
        *([] if training is None else describe_training(training)),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def write_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    title: str,
    training: TrainingRecord | None = None,
    robustness: Robustness | None = None,
) -> None:
    """Write `report.md`, `report.json` and, if matplotlib is installed, `confusion.png`.

    With `robustness` also `robustness.png`.
    """
    values = evaluation.to_dict()
    values |= {} if training is None else {"training": training.to_dict()}
    text = to_markdown(evaluation, title=title, training=training)
    if robustness is not None:
        values |= {"robustness": robustness.to_dict()}
        text += f"\n{robustness.to_markdown()}"
    write_text(folder / MARKDOWN, text)
    write_text(folder / JSON, format_json(values, indent=2) + "\n")
    report = evaluation.report
    try:
        figure = plot_confusion(report.confusion, report.labels)
        value = _percent(report.uar) + TRAINED_ON * bool(report.trained_on)
        figure.axes[0].set_title(f"{plain_text(title)}\nUAR {value}", fontsize=9)
        save_figure(figure, folder / PICTURE)
        if robustness is not None:
            save_figure(plot_conditions(robustness.bars), folder / CONDITIONS)
    except ImportError:
        (folder / PICTURE).unlink(missing_ok=True)


def _groups(utterances: Sequence[Utterance]) -> list[object]:
    return [item.voice or index for index, item in enumerate(utterances)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
