"""Evaluations with confidence intervals over speakers, as Markdown, JSON and a plot.

Every report states its protocol.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emoser.checkpoints.atomic import write_text
from emoser.finetune.data.annotations import note_scale
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.comparison import group_speakers
from emoser.finetune.scoring.dimensions import (
    Intervals,
    Pairs,
    find_intervals,
    list_intervals,
    pair_values,
)
from emoser.finetune.scoring.figures import (
    Report,
    choose_metrics,
    decide,
    score_logits,
    select_labels,
    with_silence,
)
from emoser.finetune.scoring.logits import add_silence
from emoser.finetune.scoring.record import TrainingRecord, describe_training
from emoser.finetune.scoring.shifts import Robustness
from emoser.finetune.scoring.votes import NAMES as VOTES
from emoser.finetune.scoring.votes import note_ties
from emoser.json_text import format_json
from emoser.metrics import (
    bootstrap_interval,
    confusion_table,
    name_interval,
)
from emoser.results.plots import (
    plain_text,
    plot_conditions,
    plot_confusion,
    plot_values,
    save_figure,
)
from emoser.text import markdown_table, markdown_text

if TYPE_CHECKING:
    from emoser.results.figures import Picture

TRAINED_ON = " (trained on)"  # beside each figure of an evaluation that is not independent
MARKDOWN, JSON = "report.md", "report.json"
PICTURES = ("confusion.png", "dimensions.png", "robustness.png")

Table: TypeAlias = list[list[str]]


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a test set, with confidence intervals.

    Attributes:
        protocol: The protocol of the evaluation, in a sentence.
        report: The metrics.
        accuracy_interval: 95 % interval of the accuracy over speakers, see `interval_name`.
        uar_interval: 95 % interval of the UAR over speakers, see `interval_name`.
        notes: Remarks, such as on recordings that were left out.
        dimension_intervals: 95 % intervals of the metrics of each dimension.
        values: True and predicted values of each dimension, (N,) each; not part of `to_dict`.
    """

    protocol: str
    report: Report
    accuracy_interval: tuple[float, float]
    uar_interval: tuple[float, float]
    notes: tuple[str, ...] = ()
    dimension_intervals: Intervals = field(default_factory=dict)
    values: Pairs = field(default_factory=dict, repr=False, compare=False)

    @property
    def interval_name(self) -> str:
        """What the intervals are, such as "95 % interval over 12 speakers"."""
        return name_interval(self.report.num_speakers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "values"}

    def describe_intervals(self) -> list[str]:
        """The main figures with their intervals, a line each."""
        lines = []
        if self.report.labels:
            uar, interval = _percent(self.report.uar), _range(self.uar_interval)
            lines.append(f"UAR {uar} ({self.interval_name}: {interval})")
        for name, intervals in self.dimension_intervals.items():
            low, high = intervals["ccc"]
            ccc = self.report.dimensions[name]["ccc"]
            lines.append(f"CCC of {name} {ccc:.3f} ({self.interval_name}: {low:.3f} to {high:.3f})")
        return lines


def assess(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    *,
    protocol: str,
    labels: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    silent: NDArray[np.bool_] | None = None,
) -> Evaluation:
    """Metrics and confidence intervals of logits, of all columns that are annotated.

    Args:
        logits: One row per utterance, (N, C).
        utterances: The recordings.
        columns: Labels and dimensions of the columns.
        protocol: The protocol of the evaluation, in a sentence.
        labels: The labels to choose from, () to score none; by default all `columns` that are no
            dimensions, if there are labelled recordings.
        notes: Remarks.
        silent: Whether nobody speaks in each, (N,), which makes "silence" the answer.
    """
    dimensions = [name for name in columns if all(name in item.dimensions for item in utterances)]
    if labels is None:
        labelled = any(item.is_labelled for item in utterances)
        labels = [name for name in columns if name not in dimensions] if labelled else []
    names = tuple(labels)
    if silent is not None:
        known = len(columns)
        logits, columns = add_silence(logits, columns, silent, utterances)
        names = with_silence(names, columns[known:])
    report = score_logits(logits, utterances, columns, labels=names, dimensions=dimensions)
    groups = group_speakers(utterances)
    accuracies = uars = (math.nan, math.nan)
    if names:
        truth, chosen = select_labels(logits, utterances, columns, names)
        accuracies, uars = (
            bootstrap_interval(truth, decide(truth, chosen), groups, metric)
            for metric in choose_metrics(truth)
        )
    values = pair_values(logits, utterances, columns, dimensions)
    remarks = note_scale(utterances) * bool(dimensions) + note_ties(utterances) * bool(names)
    return Evaluation(
        protocol,
        report,
        accuracies,
        uars,
        (*notes, *remarks),
        find_intervals(values, groups),
        values,
    )


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
    paragraphs = [
        f"# {markdown_text(title)}",
        f"Protocol: {markdown_text(evaluation.protocol)}.",
        "\n".join(f"- {markdown_text(note)}" for note in evaluation.notes),
        f"{evaluation.report.size}.",
        *map(markdown_table, _list_tables(evaluation)),
        *([] if training is None else describe_training(training)),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def _list_tables(evaluation: Evaluation) -> list[Table]:
    """The figures of labels and of dimensions, with intervals."""
    report, tables = evaluation.report, []
    mark = TRAINED_ON * bool(report.trained_on)
    if report.labels:
        tables += _list_labels(evaluation, mark)
    if report.dimensions:
        tables.append(
            list_intervals(
                report.dimensions,
                evaluation.dimension_intervals,
                interval_name=evaluation.interval_name,
                mark=mark,
            )
        )
    return tables


def _list_labels(evaluation: Evaluation, mark: str) -> list[Table]:
    """The figures of labels with intervals, the confusion matrix, and the recall of groups."""
    report = evaluation.report
    accuracy, recall = "accuracy (WA)", "recall averaged over classes (UA, UAR)"
    if report.f1_by_label:
        accuracy, recall = "all labels right", "recall averaged over yes and no of each label (UAR)"
    figures = [
        ["figure", "value", evaluation.interval_name],
        [accuracy, _percent(report.accuracy) + mark, _range(evaluation.accuracy_interval)],
        [recall, _percent(report.uar) + mark,
         _range(evaluation.uar_interval)],
        ["macro F1", _percent(report.macro_f1) + mark, ""],
        ["calibration error", f"{report.calibration_error:.3f}{mark}", ""],
        *([name, f"{report.votes[key]:.3f}{mark}", ""]
          for key, name in VOTES.items() if report.votes),
    ]  # fmt: skip
    recalls = [
        _percent(row[place] / sum(row)) if sum(row) else "-"
        for place, row in enumerate(report.confusion)
    ]
    tables = [figures]
    if report.confusion:
        rows = confusion_table(report.labels, report.confusion)
        tables.append([[*row, end] for row, end in zip(rows, ["recall", *recalls], strict=True)])
    if report.f1_by_label:
        by_label = [[name, f"{value:.3f}{mark}"] for name, value in report.f1_by_label.items()]
        tables.append([["label", "F1"], *by_label])
    groups = {
        "corpus": report.per_corpus, "sex": report.per_sex, "speaker": report.per_speaker,
    }  # fmt: skip
    by_group = [
        [[name, "UAR"], *([key, _percent(value) + mark] for key, value in recalls_by.items())]
        for name, recalls_by in groups.items()
        if len([key for key in recalls_by if key]) > 1
    ]
    return [*tables, *by_group]


def write_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    title: str,
    training: TrainingRecord | None = None,
    robustness: Robustness | None = None,
) -> None:
    """Write `report.md`, `report.json` and, if matplotlib is installed, pictures.

    These are `confusion.png` of labels, `dimensions.png` of dimensions, and `robustness.png`.
    """
    values = evaluation.to_dict()
    values |= {} if training is None else {"training": training.to_dict()}
    text = to_markdown(evaluation, title=title, training=training)
    if robustness is not None:
        values |= {"robustness": robustness.to_dict()}
        text += f"\n{robustness.to_markdown()}"
    write_text(folder / MARKDOWN, text)
    write_text(folder / JSON, format_json(values, indent=2) + "\n")
    for name in PICTURES:
        (folder / name).unlink(missing_ok=True)
    with suppress(ImportError):
        for name, figure in _draw(evaluation, title, robustness):
            save_figure(figure, folder / name)


def _draw(
    evaluation: Evaluation, title: str, robustness: Robustness | None
) -> Iterator[tuple[str, "Picture"]]:
    """The pictures with the names of their files."""
    report = evaluation.report
    mark = TRAINED_ON * bool(report.trained_on)
    confusion, scatter, conditions = PICTURES
    if report.confusion:
        figure = plot_confusion(report.confusion, report.labels)
        heading = f"{plain_text(title)}\nUAR {_percent(report.uar)}{mark}"
        figure.axes[0].set_title(heading, fontsize=9)
        yield confusion, figure
    if evaluation.values:
        cccs = {name: f"CCC {found['ccc']:.2f}{mark}" for name, found in report.dimensions.items()}
        yield scatter, plot_values(evaluation.values, cccs)
    if robustness is not None:
        yield conditions, plot_conditions(robustness.bars)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
