"""Evaluations with confidence intervals over speakers, as Markdown, JSON and a plot.

Every report states its protocol.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emoser.checkpoints.atomic import write_text
from emoser.finetune.data.annotations import note_scale
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.dimensions import (
    Intervals,
    Pairs,
    find_intervals,
    list_intervals,
    pair_values,
)
from emoser.finetune.scoring.evaluation import (
    Report,
    score_logits,
    select_labels,
    with_silence,
)
from emoser.finetune.scoring.logits import add_silence
from emoser.finetune.scoring.record import TrainingRecord, describe_training
from emoser.finetune.scoring.robustness import Robustness
from emoser.json_text import format_json
from emoser.metrics import (
    accuracy,
    bootstrap_interval,
    concordance,
    confusion_table,
    draw_groups,
    name_interval,
    unweighted_average_recall,
)
from emoser.results.plots import (
    plain_text,
    plot_conditions,
    plot_confusion,
    plot_values,
    save_figure,
)
from emoser.text import counted, markdown_table, markdown_text

if TYPE_CHECKING:
    from emoser.results.figures import Picture

NUM_DRAWS = 1000
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


@dataclass(frozen=True)
class Comparison:
    """Two models on the same recordings.

    The figures of labels are NaN and 0 where only dimensions are compared.

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
        dimensions: For each dimension the CCC of both models, and the 95 % interval of the first
            minus the second.
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
    dimensions: Mapping[str, tuple[float, float, tuple[float, float]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The comparison in a sentence for the labels, and one for each dimension."""
        first, second = self.names
        lines = [] if math.isnan(self.difference) else [self._describe_labels()]
        for name, (ours, theirs, (low, high)) in self.dimensions.items():
            figures = f"CCC of {name} {ours:.3f} ({first}) against {theirs:.3f} ({second})"
            interval = f"{name_interval(self.num_speakers)} {low:+.3f} to {high:+.3f}"
            ending = f"; {self.trained_on}" * bool(self.trained_on)
            lines.append(f"{figures}: {ours - theirs:+.3f}, {interval}{ending}")
        return "\n".join(lines)

    def _describe_labels(self) -> str:
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
        labelled = any(item.label for item in utterances)
        labels = [name for name in columns if name not in dimensions] if labelled else []
    names = tuple(labels)
    if silent is not None:
        known = len(columns)
        logits, columns = add_silence(logits, columns, silent, utterances)
        names = with_silence(names, columns[known:])
    report = score_logits(logits, utterances, columns, labels=names, dimensions=dimensions)
    groups = _groups(utterances)
    accuracies = uars = (math.nan, math.nan)
    if names:
        truth, chosen = select_labels(logits, utterances, columns, names)
        accuracies, uars = (
            bootstrap_interval(truth, chosen.argmax(axis=1), groups, metric, num_draws=NUM_DRAWS)
            for metric in (accuracy, unweighted_average_recall)
        )
    values = pair_values(logits, utterances, columns, dimensions)
    return Evaluation(
        protocol,
        report,
        accuracies,
        uars,
        (*notes, *note_scale(utterances)),
        find_intervals(values, groups, num_draws=NUM_DRAWS),
        values,
    )


def compare(
    logits: Sequence[NDArray[np.float32]],
    columns: Sequence[Sequence[str]],
    utterances: Sequence[Utterance],
    *,
    names: Sequence[str],
    labels: Sequence[str],
    dimensions: Sequence[str] = (),
) -> Comparison:
    """Two models on the same recordings, choosing from the same labels."""
    draws = draw_groups(_groups(utterances), NUM_DRAWS, 0)
    num_speakers = len({item.voice for item in utterances} - {None})
    figures: dict[str, Any] = {
        "uars": (math.nan, math.nan), "difference": math.nan, "interval": (math.nan, math.nan),
        "only_first": 0, "only_second": 0, "p_value": math.nan,
    }  # fmt: skip
    if labels:
        truth, chosen = select_labels(logits[0], utterances, columns[0], labels)
        first = chosen.argmax(axis=1)
        second = select_labels(logits[1], utterances, columns[1], labels)[1].argmax(axis=1)
        *uars, interval = _contrast(truth, first, second, unweighted_average_recall, draws)
        only_first = int(((first == truth) & (second != truth)).sum())
        only_second = int(((first != truth) & (second == truth)).sum())
        figures = {
            "uars": tuple(uars), "difference": uars[0] - uars[1], "interval": interval,
            "only_first": only_first, "only_second": only_second,
            "p_value": mcnemar(only_first, only_second),
        }  # fmt: skip
    ours, theirs = (
        pair_values(rows, utterances, outputs, dimensions)
        for rows, outputs in zip(logits, columns, strict=True)
    )
    return Comparison(
        (names[0], names[1]),
        drawn="speakers" if num_speakers > 1 else "recordings",
        num_speakers=num_speakers,
        dimensions={
            name: _contrast(*ours[name], theirs[name][1], concordance, draws) for name in dimensions
        },
        **figures,
    )


def _contrast(
    truth: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    metric: Callable[[Any, Any], float],
    draws: Sequence[NDArray[np.int64]],
) -> tuple[float, float, tuple[float, float]]:
    """A metric of both, and the 95 % interval of the first minus the second."""
    differences = [
        metric(truth[rows], first[rows]) - metric(truth[rows], second[rows]) for rows in draws
    ]
    low, high = np.quantile(differences, [0.025, 0.975])
    return metric(truth, first), metric(truth, second), (float(low), float(high))


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
    return [figures, confusion, *by_group]


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
    if report.labels:
        figure = plot_confusion(report.confusion, report.labels)
        heading = f"{plain_text(title)}\nUAR {_percent(report.uar)}{mark}"
        figure.axes[0].set_title(heading, fontsize=9)
        yield confusion, figure
    if evaluation.values:
        cccs = {name: f"CCC {found['ccc']:.2f}{mark}" for name, found in report.dimensions.items()}
        yield scatter, plot_values(evaluation.values, cccs)
    if robustness is not None:
        yield conditions, plot_conditions(robustness.bars)


def _groups(utterances: Sequence[Utterance]) -> list[object]:
    return [item.voice or index for index, item in enumerate(utterances)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
