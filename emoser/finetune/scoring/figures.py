"""The figures of a model on labelled recordings: `score_logits(...)` -> `Report`.

The metrics are those of `emoser.metrics`.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.dimensions import list_figures, pair_values, score_values
from emoser.finetune.scoring.votes import NAMES as VOTES
from emoser.finetune.scoring.votes import (
    YES,
    exact_matches,
    f1_by_label,
    flag_labels,
    mean_f1,
    recall_labels,
    score_votes,
    share_votes,
)
from emoser.metrics import (
    accuracy,
    confusion_matrix,
    confusion_table,
    expected_calibration_error,
    macro_f1,
    unweighted_average_recall,
)
from emoser.results.segments import SILENCE
from emoser.text import aligned_table, counted

Metric: TypeAlias = Callable[[Any, Any], float]


NOT_SCORED: Mapping[str, Any] = {
    **dict.fromkeys(("accuracy", "uar", "macro_f1", "calibration_error"), math.nan),
    "confusion": (),
    **{name: {} for name in ("per_corpus", "per_sex", "per_speaker")},
}
"""What stands in a report for the figures of labels where there are none."""


@dataclass(frozen=True)
class Report:
    """Metrics of a model on labelled recordings.

    Those of labels are in [0, 1], and NaN where only dimensions are scored.

    Attributes:
        labels: The labels that the model chose from, in the order of `confusion`; empty where
            only dimensions are scored.
        num_utterances: Number of recordings.
        num_speakers: Number of known speakers.
        accuracy: Share of correct predictions ("WA").
        uar: Recall averaged over the classes that occur ("UA").
        macro_f1: F1 averaged over the same classes.
        calibration_error: Expected calibration error in 15 bins.
        confusion: Counts of true label (row) against predicted label (column).
        per_corpus: UAR of each corpus.
        per_sex: UAR of each sex, where known.
        per_speaker: UAR of each speaker, as "corpus/speaker".
        dimensions: For each dimension "ccc" (concordance), "pearson" (correlation), and "mae"
            (mean absolute error, on a scale of 0 to 1); see `emoser.metrics`.
        votes: Where there are votes of annotators: "divergence" (of the probabilities from the
            shares of votes, KL in nats), "agreement" (share of votes for the answer), and
            "ceiling" (share of votes for the majority, which is the highest agreement).
        f1_by_label: Where several labels may apply at once: F1 of each. Then the accuracy is the
            share of recordings with all labels right, the UAR the recall averaged over yes and
            no of each label, and there is no confusion matrix.
        num_unreadable: Number of recordings that were left out, because they cannot be read.
        trained_on: What the model was trained on of these recordings, in a sentence; empty if
            nothing is known.
    """

    labels: tuple[str, ...]
    num_utterances: int
    num_speakers: int
    accuracy: float
    uar: float
    macro_f1: float
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]
    per_corpus: Mapping[str, float]
    per_sex: Mapping[str, float]
    per_speaker: Mapping[str, float]
    dimensions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    votes: Mapping[str, float] = field(default_factory=dict)
    f1_by_label: Mapping[str, float] = field(default_factory=dict)
    num_unreadable: int = 0
    trained_on: str = ""

    @property
    def size(self) -> str:
        """The number of recordings and of known speakers, as text."""
        recordings = counted(self.num_utterances, "recording")
        left_out = f" ({self.num_unreadable:,} unreadable left out)" * bool(self.num_unreadable)
        return f"{recordings} of {counted(self.num_speakers, 'known speaker')}{left_out}"

    @property
    def mean_corpus_uar(self) -> float:
        """Unweighted mean of the corpora's UARs."""
        return float(np.mean(list(self.per_corpus.values())))

    @property
    def mean_ccc(self) -> float:
        """Mean concordance of the dimensions."""
        return float(np.mean([figures["ccc"] for figures in self.dimensions.values()]))

    @property
    def curve(self) -> dict[str, Any]:
        """The figures of an epoch, rounded."""
        figures: dict[str, Any] = {}
        if self.labels:
            by_corpus = {key: round(value, 4) for key, value in self.per_corpus.items()}
            figures = {"uar": self.uar, "accuracy": self.accuracy, "uar_per_corpus": by_corpus}
        if self.votes:
            figures["divergence"] = self.votes["divergence"]
        if self.dimensions:
            by_name = {name: round(found["ccc"], 4) for name, found in self.dimensions.items()}
            figures |= {"ccc": self.mean_ccc, "ccc_per_dimension": by_name}
        return {key: round(v, 4) if isinstance(v, float) else v for key, v in figures.items()}

    def figure(self, selection: str) -> float:
        """The metric that selects the best epoch.

        "uar" (mean over corpora), "accuracy" or "ccc" (mean over dimensions). Where labels and
        dimensions are scored, the first two are averaged with the third; where only dimensions
        are, the third stands for them.
        """
        if selection == "ccc" or not self.labels:
            return self.mean_ccc
        figure = self.mean_corpus_uar if selection == "uar" else self.accuracy
        return (figure + self.mean_ccc) / 2 if self.dimensions else figure

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The metrics and the confusion matrix, in a few lines."""
        lines = [f"{self.size}"]
        if self.labels:
            lines[0] += (
                f": UAR {self.uar:.3f}, accuracy {self.accuracy:.3f}, macro F1 "
                f"{self.macro_f1:.3f}, calibration error {self.calibration_error:.3f}"
            )
        lines += [self.trained_on] * bool(self.trained_on)
        if self.confusion:
            lines.append(aligned_table(confusion_table(self.labels, self.confusion)))
        if self.f1_by_label:
            rows = [[name, f"{value:.3f}"] for name, value in self.f1_by_label.items()]
            lines.append(aligned_table([["label", "F1"], *rows]))
        lines += [f"{name}: {self.votes[key]:.3f}" for key, name in VOTES.items() if self.votes]
        if self.dimensions:
            lines.append(aligned_table(list_figures(self.dimensions)))
        return "\n".join(lines)


def with_silence(labels: Sequence[str], added: Sequence[str]) -> tuple[str, ...]:
    """The labels to choose from, with those that `add_silence` added; () if there are none."""
    return tuple(dict.fromkeys((*labels, *added))) if labels else ()


def score_logits(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    *,
    labels: Sequence[str],
    dimensions: Sequence[str] = (),
) -> Report:
    """The report of logits (N, C) whose columns are `columns`, choosing only from `labels`.

    `dimensions` are those that are scored, of recordings that state their scale.
    """
    speakers = ["/".join(filter(None, item.voice or ())) for item in utterances]
    figures = _score_labels(logits, utterances, columns, labels, speakers) if labels else NOT_SCORED
    return Report(
        labels=tuple(labels),
        num_utterances=len(utterances),
        num_speakers=len({speaker for speaker in speakers if speaker}),
        **figures,
        dimensions=score_values(pair_values(logits, utterances, columns, dimensions)),
    )


def _score_labels(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    labels: Sequence[str],
    speakers: Sequence[str],
) -> dict[str, Any]:
    """The fields of a report that are of labels; `speakers` of the recordings, "" if unknown."""
    truth, chosen = select_labels(logits, utterances, columns, labels)
    predicted, recall = decide(truth, chosen), choose_metrics(truth)[1]
    figures: dict[str, Any] = {"uar": recall(truth, predicted)}
    if truth.ndim == 2:
        by_label = f1_by_label(truth, predicted, labels)
        yes = np.exp(chosen).ravel()
        probabilities = np.stack([1.0 - yes, yes], axis=1)
        figures |= {
            "macro_f1": mean_f1(truth, predicted),
            "f1_by_label": by_label,
        }
        figures |= {"accuracy": exact_matches(truth, predicted), "confusion": ()}
    else:
        probabilities = _share_out(chosen)
        confusion = confusion_matrix(truth, predicted, len(labels)).tolist()
        figures |= {"macro_f1": macro_f1(truth, predicted), "accuracy": accuracy(truth, predicted)}
        figures["confusion"] = tuple(map(tuple, confusion))
    if any(item.votes for item in utterances):
        kept = [place for place, label in enumerate(labels) if label != SILENCE]
        shares = share_votes(utterances, [labels[place] for place in kept])
        figures["votes"] = score_votes(shares, _share_out(chosen[:, kept]))
    corpora = [item.corpus or "" for item in utterances]
    sexes = [item.sex or "" for item in utterances]
    return {
        **figures,
        "calibration_error": expected_calibration_error(truth.ravel(), probabilities),
        "per_corpus": _recall_by(corpora, truth, predicted),
        "per_sex": _recall_by(sexes, truth, predicted),
        "per_speaker": _recall_by(speakers, truth, predicted),
    }


def decide(truth: NDArray[np.int64], chosen: NDArray[np.float64]) -> NDArray[np.int64]:
    """The answers of scores (N, C) in the form of the truth, see `select_labels`."""
    if truth.ndim == 2:
        return (np.exp(chosen) >= YES).astype(np.int64)
    return np.asarray(chosen.argmax(axis=1))


def choose_metrics(truth: NDArray[np.int64]) -> tuple[Metric, Metric]:
    """Accuracy and recall for a truth of one label each, or of several."""
    if truth.ndim == 2:
        return exact_matches, recall_labels
    return accuracy, unweighted_average_recall


def _share_out(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The softmax of logits, (N, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def select_labels(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    labels: Sequence[str],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """True classes (N,) and logits (N, len(labels)), both in the order of `labels`.

    Where several labels may apply at once, the truth is whether each does, (N, len(labels)).
    """
    chosen = logits[:, [list(columns).index(label) for label in labels]].astype(np.float64)
    if any(item.labels is not None for item in utterances):
        return flag_labels(utterances, labels), chosen
    return np.array([list(labels).index(item.label) for item in utterances]), chosen


def _recall_by(
    groups: Sequence[str], truth: NDArray[np.int64], predicted: NDArray[np.int64]
) -> dict[str, float]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    recall = choose_metrics(truth)[1]
    return {
        group: recall(truth[indices], predicted[indices])
        for group, indices in sorted(members.items())
        if group or len(members) == 1
    }
