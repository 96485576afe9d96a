"""Score a model on labelled recordings: `evaluate(model, utterances) -> Report`.

Speakers and corpora are scored apart as well as together. Knows nothing of training; the
formulas are in `emoser.metrics`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emoser.finetune.data.batches import collate, length_batches
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.metrics import (
    accuracy,
    confusion_matrix,
    confusion_table,
    expected_calibration_error,
    macro_f1,
    unweighted_average_recall,
)
from emoser.models.model import EmotionModel
from emoser.text import aligned_table, counted


@dataclass(frozen=True)
class Report:
    """How well a model does on some recordings; all figures are between 0 and 1.

    Attributes:
        labels: The labels that were decided between, in the order of the confusion.
        num_utterances: How many recordings were scored.
        num_speakers: How many known speakers they have.
        accuracy: Part that was recognised ("WA").
        uar: Recall averaged over the classes that occur ("UA").
        macro_f1: F1 averaged over the same classes.
        calibration_error: Expected calibration error in 15 bins.
        confusion: True label (row) against predicted label (column), counts.
        per_corpus: UAR of each corpus.
        per_sex: UAR of each sex, where known.
        per_speaker: UAR of each speaker, as "corpus/speaker".
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

    @property
    def size(self) -> str:
        """How many recordings of how many known speakers, in words."""
        recordings = counted(self.num_utterances, "recording")
        return f"{recordings} of {counted(self.num_speakers, 'known speaker')}"

    @property
    def mean_corpus_uar(self) -> float:
        """UAR averaged over the corpora, large and small alike."""
        return float(np.mean(list(self.per_corpus.values())))

    def figure(self, selection: str) -> float:
        """The figure that chooses the best epoch: "uar" (over corpora alike) or "accuracy"."""
        return self.mean_corpus_uar if selection == "uar" else self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """A few lines for people: the figures and the confusion."""
        figures = (
            f"{self.size}: UAR {self.uar:.3f}, accuracy {self.accuracy:.3f}, "
            f"macro F1 {self.macro_f1:.3f}, calibration error {self.calibration_error:.3f}"
        )
        return f"{figures}\n{aligned_table(confusion_table(self.labels, self.confusion))}"


def evaluate(
    model: EmotionModel, utterances: Sequence[Utterance], *, labels: Sequence[str] = ()
) -> Report:
    """Score a model on recordings that it was not trained on.

    Args:
        model: Is put into eval mode while it is asked.
        utterances: Recordings; their labels must be among those decided between.
        labels: The labels to decide between, all of the model's unless given.

    Raises:
        ValueError: If there are no utterances, or a label is unknown.
        AudioError: If a recording cannot be decoded.

    Example:
        >>> from emoser.checkpoints.resolve import find_checkpoint
        >>> from emoser.checkpoints.save import load_model
        >>> model = load_model(find_checkpoint("emoser-tiny").folder)
        >>> report = evaluate(model, [Utterance("examples/audio/plain.wav", "neutral")])
        >>> report.num_utterances, 0.0 <= report.uar <= 1.0
        (1, True)
    """
    names = tuple(labels) or model.config.labels
    check_labels(utterances, names)
    logits = predict_logits(model, Recordings(utterances))
    return score_logits(logits, utterances, model.config.labels, labels=names)


def check_labels(utterances: Sequence[Utterance], labels: Sequence[str]) -> None:
    """Refuse utterances that cannot be scored.

    Raises:
        ValueError: If there are none, or one has a label that is not among the labels.
    """
    strange = sorted({item.label for item in utterances} - set(labels))
    if strange or not utterances:
        raise ValueError(
            f"{len(utterances)} utterances with the labels {', '.join(strange) or 'none'} that "
            f"are not among {', '.join(labels)}; pass at least one, and only such with these"
        )


def predict_logits(
    model: EmotionModel, recordings: Recordings, *, device: torch.device | None = None
) -> NDArray[np.float32]:
    """Logits of all recordings in their order, (N, C); batches are of like length.

    Args:
        model: Is in eval mode, and on the device, while it is asked.
        recordings: What it is asked about.
        device: Where to compute, where the model is unless given.
    """
    training, home = model.training, next(model.parameters()).device
    device = device or home
    model.to(device).eval()
    logits = np.zeros((len(recordings), len(model.config.labels)), dtype=np.float32)
    try:
        with torch.inference_mode():
            for batch in length_batches(recordings.num_samples):
                samples, lengths = collate([recordings[index] for index in batch])
                output = model(samples.to(device), lengths.to(device))
                logits[batch] = output.logits.cpu().numpy()
    finally:
        model.to(home).train(training)
    return logits


def score_logits(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    *,
    labels: Sequence[str],
) -> Report:
    """The report of logits (N, C) whose columns are named, deciding between some of them."""
    chosen = logits[:, [columns.index(label) for label in labels]].astype(np.float64)
    powers = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    truth = np.array([labels.index(item.label) for item in utterances])
    predicted = probabilities.argmax(axis=1)
    speakers = [_speaker_name(item) for item in utterances]
    corpora = [item.corpus or "" for item in utterances]
    return Report(
        labels=tuple(labels),
        num_utterances=len(utterances),
        num_speakers=len({speaker for speaker in speakers if speaker}),
        accuracy=accuracy(truth, predicted),
        uar=unweighted_average_recall(truth, predicted),
        macro_f1=macro_f1(truth, predicted),
        calibration_error=expected_calibration_error(truth, probabilities),
        confusion=tuple(map(tuple, confusion_matrix(truth, predicted, len(labels)).tolist())),
        per_corpus=_recall_by(corpora, truth, predicted),
        per_sex=_recall_by([item.sex or "" for item in utterances], truth, predicted),
        per_speaker=_recall_by(speakers, truth, predicted),
    )


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


def _speaker_name(utterance: Utterance) -> str:
    if utterance.speaker is None:
        return ""
    return f"{utterance.corpus}/{utterance.speaker}" if utterance.corpus else utterance.speaker
