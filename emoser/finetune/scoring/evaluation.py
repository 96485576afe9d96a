"""Score a model on labelled recordings: `evaluate(model, utterances) -> Report`.

Recordings are decoded, cut into windows and scored by the code of `EmotionClassifier.predict`,
including the calibration temperature. The metrics are those of `emoser.metrics`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.annotations import find_dimensions, state_scale
from emoser.finetune.data.batches import length_batches
from emoser.finetune.data.inputs import Inputs, run_model
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.models import Model
from emoser.finetune.progress import Progress
from emoser.finetune.scoring.dimensions import list_figures, pair_values, score_values
from emoser.finetune.scoring.leakage import refuse_overlap
from emoser.finetune.scoring.logits import add_silence, join_windows
from emoser.finetune.scoring.scored_model import opened
from emoser.metrics import (
    accuracy,
    confusion_matrix,
    confusion_table,
    expected_calibration_error,
    macro_f1,
    unweighted_average_recall,
)
from emoser.models.model import EmotionModel
from emoser.results.segments import SILENCE
from emoser.text import aligned_table, counted, join_words, shorten

if TYPE_CHECKING:
    from emoser.finetune.training.distributed import ProcessGroup

BATCH_SECONDS = 30.0  # on a GPU, padding included
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
        if self.labels:
            lines.append(aligned_table(confusion_table(self.labels, self.confusion)))
        if self.dimensions:
            lines.append(aligned_table(list_figures(self.dimensions)))
        return "\n".join(lines)


def evaluate(
    model: Model,
    utterances: Sequence[Utterance],
    *,
    labels: Sequence[str] = (),
    skip_unreadable: bool = False,
    allow_trained_on: bool = False,
) -> Report:
    """Score a model on recordings that it was not trained on.

    What both have is scored: labels, dimensions, or both. Values without a stated scale are on
    that of the model if it states one, else on one that is found from them.

    Args:
        model: A bundled name, a folder, a Hub id, an `EmotionClassifier`, which is scored with its
            own engine and labels, or a model of torch; the mode of that is restored afterwards.
        utterances: Recordings whose labels, if any, are all among `labels`. Where a classifier
            gives the labels of its checkpoint other names, so they are given here.
        labels: The labels to choose from; by default all labels of the model.
        skip_unreadable: Whether to leave out recordings that cannot be read; the report counts
            them.
        allow_trained_on: Whether the model may have been trained on recordings or speakers among
            these, as far as it states that; the report counts them.

    Raises:
        ValueError: If there are no utterances, one has another label, or they have nothing that
            the model gives.
        AudioError: Naming all recordings that cannot be read, unless they are left out; or if
            none is left.
        CheckpointError: If the model cannot be loaded.
        LeakageError: If it, its base or a teacher was trained on some of these recordings or
            speakers, and that is not allowed.

    Example:
        >>> report = evaluate("emoser-tiny", [Utterance("examples/audio/plain.wav", "neutral")])
        >>> report.num_utterances, 0.0 <= report.uar <= 1.0
        (1, True)
    """
    with opened(model) as scored:
        utterances = state_scale(scored.rename(utterances), scored.config.dimension_scale)
        names, dimensions = find_common(
            utterances, tuple(labels) or scored.labels, scored.config.dimensions
        )
        trained_on = refuse_overlap([scored.compare(utterances)], allowed=allow_trained_on)
        inferred = scored.infer(utterances, skip_unreadable=skip_unreadable)
        outputs = scored.outputs
    logits, columns = add_silence(inferred.logits, outputs, inferred.silent, inferred.utterances)
    report = score_logits(
        logits,
        inferred.utterances,
        columns,
        labels=with_silence(names, columns[len(outputs) :]),
        dimensions=dimensions,
    )
    return replace(report, num_unreadable=len(inferred.faults), trained_on=trained_on)


def find_common(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    dimensions: Sequence[str],
    *,
    advice: str = "leave these out",
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels and dimensions of a model that can be scored on these recordings.

    Raises:
        ValueError: As `check_labels`; or if there are none, or some recordings lack a dimension
            that others have.
    """
    found = find_dimensions(utterances)
    common = tuple(name for name in dimensions if name in found)
    unlabelled = [item.path for item in utterances if not item.label]
    if labels and len(unlabelled) < len(utterances):
        if unlabelled:
            raise ValueError(f"these recordings have no label: {shorten(unlabelled)}; {advice}")
        check_labels(utterances, labels, advice=advice)
        return tuple(labels), common
    if not utterances:
        raise ValueError("no utterances to score; pass some with labels or dimensions")
    if not common:
        given = [*found, *["labels"] * (not unlabelled)]
        raise ValueError(
            f"the recordings are annotated with {join_words(given)} and the model gives "
            f"{join_words([*['labels'] * bool(labels), *dimensions])}; pass recordings with these"
        )
    return (), common


def with_silence(labels: Sequence[str], added: Sequence[str]) -> tuple[str, ...]:
    """The labels to choose from, with those that `add_silence` added; () if there are none."""
    return tuple(dict.fromkeys((*labels, *added))) if labels else ()


def check_labels(
    utterances: Sequence[Utterance], labels: Sequence[str], *, advice: str = "leave these out"
) -> None:
    """Check that there are utterances, and that all have one of the labels, or are silence.

    `advice` is what the message suggests.

    Raises:
        ValueError: If there are none, or one has another label.
    """
    if not utterances:
        raise ValueError(f"no utterances to score; pass some with the labels {', '.join(labels)}")
    unknown = [item.label for item in utterances if item.label not in (*labels, SILENCE)]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {counted(len(utterances), 'recording')} "
            f"{'has' if len(unknown) == 1 else 'have'} labels that the model lacks "
            f"({', '.join(sorted(set(unknown)))}); it knows {', '.join(labels)}; "
            f"{advice}"
        )


def score_epoch(
    model: EmotionModel,
    inputs: Inputs,
    utterances: Sequence[Utterance],
    config: FinetuneConfig,
    processes: "ProcessGroup",
) -> Report:
    """Metrics of a model on its validation set, from the same scores as in `predict`.

    Puts the model into eval mode. The processes share the work.
    """
    model.eval()
    windows = inputs.windows
    batches = [[index] for index in range(len(windows))]  # padding is slower on a CPU
    if processes.device.type != "cpu":
        batches = length_batches(windows.num_samples)
    own = batches[processes.rank :: processes.count]
    rows: list[tuple[list[int], list[list[float]]]] = []
    with torch.inference_mode():
        for batch in Progress(own, "validation, batches", show=processes.first):
            loaded = inputs.load_windows(batch).to(processes.device)
            output = run_model(model, loaded, padded=len(batch) > 1)
            rows.append((batch, output.logits.float().cpu().tolist()))
    by_window = np.zeros((len(windows), len(model.config.outputs)), dtype=np.float32)
    for indices, values in processes.gather(rows):
        by_window[indices] = values
    outputs = model.config.outputs
    logits = np.zeros((len(utterances), len(outputs)), dtype=np.float32)
    for place, pieces in enumerate(windows.pieces):
        logits[place] = join_windows(by_window[pieces], windows.weights[pieces], model.config)
    labels = config.data.evaluation_labels or model.config.labels
    logits, columns = add_silence(logits, outputs, inputs.silent, utterances)
    return score_logits(
        logits,
        utterances,
        columns,
        labels=with_silence(labels, columns[len(outputs) :]),
        dimensions=model.config.dimensions,
    )


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
    figures = _score_labels(logits, utterances, columns, labels) if labels else NOT_SCORED
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
) -> dict[str, Any]:
    """The fields of a report that are of labels."""
    truth, chosen = select_labels(logits, utterances, columns, labels)
    powers = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    speakers = ["/".join(filter(None, item.voice or ())) for item in utterances]
    corpora = [item.corpus or "" for item in utterances]
    sexes = [item.sex or "" for item in utterances]
    return {
        "accuracy": accuracy(truth, predicted),
        "uar": unweighted_average_recall(truth, predicted),
        "macro_f1": macro_f1(truth, predicted),
        "calibration_error": expected_calibration_error(truth, probabilities),
        "confusion": tuple(map(tuple, confusion_matrix(truth, predicted, len(labels)).tolist())),
        "per_corpus": _recall_by(corpora, truth, predicted),
        "per_sex": _recall_by(sexes, truth, predicted),
        "per_speaker": _recall_by(speakers, truth, predicted),
    }


def select_labels(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    labels: Sequence[str],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """True classes (N,) and logits (N, len(labels)), both in the order of `labels`."""
    chosen = logits[:, [list(columns).index(label) for label in labels]].astype(np.float64)
    return np.array([list(labels).index(item.label) for item in utterances]), chosen


def _recall_by(
    groups: Sequence[str], truth: NDArray[np.int64], predicted: NDArray[np.int64]
) -> dict[str, float]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    return {
        group: unweighted_average_recall(truth[indices], predicted[indices])
        for group, indices in sorted(members.items())
        if group or len(members) == 1
    }
