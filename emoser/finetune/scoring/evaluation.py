"""Score a model on labelled recordings: `evaluate(model, utterances) -> Report`.

Recordings are decoded, cut into windows and scored by the code of `EmotionClassifier.predict`,
the calibration temperature included. Speakers and corpora are scored apart as well as together;
the formulas are in `emoser.metrics`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from emoser.audio import SAMPLING_RATE, Source
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.batches import collate, length_batches
from emoser.finetune.data.inputs import Inputs, run_model
from emoser.finetune.data.recordings import Recordings, read_clips
from emoser.finetune.data.utterance import Utterance
from emoser.inference.batching import InferenceOptions, RecordingOutput, infer_recordings
from emoser.metrics import (
    accuracy,
    confusion_matrix,
    confusion_table,
    expected_calibration_error,
    macro_f1,
    unweighted_average_recall,
)
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.runtimes import InferenceOutput, Runtime
from emoser.text import aligned_table, counted

if TYPE_CHECKING:
    from emoser.finetune.training.distributed import ProcessGroup

BATCH_SECONDS = 30.0  # of a batch on a GPU, padding included


@dataclass(frozen=True)
class Report:
    """The figures of a model on labelled recordings, all between 0 and 1.

    Attributes:
        labels: The labels that the model chose from, in the order of the confusion.
        num_utterances: How many recordings were scored.
        num_speakers: How many known speakers they have.
        accuracy: Share of recordings whose label was predicted ("WA").
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
        """The numbers of recordings and of known speakers, in words."""
        recordings = counted(self.num_utterances, "recording")
        return f"{recordings} of {counted(self.num_speakers, 'known speaker')}"

    @property
    def mean_corpus_uar(self) -> float:
        """UAR averaged over the corpora, each with the same weight."""
        return float(np.mean(list(self.per_corpus.values())))

    def figure(self, selection: str) -> float:
        """The figure that selects the best epoch: "uar" (mean over corpora) or "accuracy"."""
        return self.mean_corpus_uar if selection == "uar" else self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The figures and the confusion matrix, in a few lines."""
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
        model: Put into eval mode for the evaluation, and back afterwards.
        utterances: Recordings; their labels must be among `labels`.
        labels: The labels to choose from; all labels of the model unless given.

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
    logits = predict_logits(model, utterances)
    return score_logits(logits, utterances, model.config.labels, labels=names)


def check_labels(utterances: Sequence[Utterance], labels: Sequence[str]) -> None:
    """Refuse utterances that cannot be scored.

    Raises:
        ValueError: If there are none, or one has a label that is not among the labels.
    """
    strange = sorted({item.label for item in utterances} - set(labels))
    if strange or not utterances:
        num_strange = sum(item.label in strange for item in utterances)
        raise ValueError(
            f"{num_strange} of {len(utterances)} utterances have the labels "
            f"{', '.join(strange) or 'none'} that are not among {', '.join(labels)}; pass at "
            "least one utterance, and only those with these labels"
        )


def predict_logits(
    model: EmotionModel,
    clips: Recordings | Sequence[Utterance],
    *,
    device: torch.device | None = None,
) -> NDArray[np.float32]:
    """Log-probabilities of all clips in their order, (N, C); see `infer_logits`.

    Args:
        model: Put into eval mode, and on the device, for the prediction, and back afterwards.
        clips: Decoded recordings, or utterances that are decoded on the way.
        device: Where to compute; where the model is unless given.
    """
    training, home = model.training, next(model.parameters()).device
    device = device or home
    model.to(device).eval()
    try:
        return infer_logits(_ModelRuntime(model, device), model.config, clips)
    finally:
        model.to(home).train(training)


def infer_logits(
    runtime: Runtime, config: ModelConfig, clips: Recordings | Sequence[Utterance]
) -> NDArray[np.float32]:
    """Logarithms of the scores that `predict` gives all clips, (N, C), in their order.

    The softmax of a row is those scores again; dimensions are left out. Utterances are decoded
    on the way.

    Raises:
        AudioError: If a recording cannot be decoded.
    """
    order: list[int] = []

    def read() -> Iterator[Source]:
        numbered: Iterable[tuple[int, Source]] = (
            enumerate(clips) if isinstance(clips, Recordings) else read_clips(clips)
        )
        for place, source in numbered:
            order.append(place)
            yield source

    seconds = runtime.batch_seconds
    options = InferenceOptions(
        window=round(config.max_seconds * config.sampling_rate),
        sampling_rate=SAMPLING_RATE,
        batch_samples=None if seconds is None else round(seconds * config.sampling_rate),
    )
    logits = np.zeros((len(clips), len(config.labels)), dtype=np.float32)
    for number, output in enumerate(infer_recordings(read(), runtime, options)):
        if isinstance(output, RecordingOutput):
            logits[order[number]] = _join_windows(output.logits, output.weights, config)
    return logits


def score_epoch(
    model: EmotionModel,
    inputs: Inputs,
    utterances: Sequence[Utterance],
    config: FinetuneConfig,
    processes: "ProcessGroup",
) -> Report:
    """The figures of a model on its validation set, with the scores that `predict` gives.

    The model is put into eval mode; the processes share the work.
    """
    model.eval()
    windows = inputs.windows
    batches = [[index] for index in range(len(windows))]  # on a CPU padding does not pay
    if processes.device.type != "cpu":
        batches = length_batches(windows.num_samples)
    own = batches[processes.rank :: processes.count]
    rows: list[tuple[list[int], list[list[float]]]] = []
    with torch.inference_mode():
        for batch in own:
            loaded = inputs.load_windows(batch).to(processes.device)
            output = run_model(model, loaded, padded=len(batch) > 1)
            rows.append((batch, output.logits.float().cpu().tolist()))
    by_window = np.zeros((len(windows), len(model.config.outputs)), dtype=np.float32)
    for indices, values in processes.gather(rows):
        by_window[indices] = values
    logits = np.zeros((len(utterances), len(model.config.labels)), dtype=np.float32)
    for place, pieces in enumerate(windows.pieces):
        logits[place] = _join_windows(by_window[pieces], windows.weights[pieces], model.config)
    labels = config.data.evaluation_labels or model.config.labels
    return score_logits(logits, utterances, model.config.labels, labels=labels)


def score_logits(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    *,
    labels: Sequence[str],
) -> Report:
    """The report of logits (N, C) with the labels `columns`, choosing from `labels` alone."""
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


class _ModelRuntime:
    """An engine around a model that goes on training: the model stays as it is."""

    group_size = 1

    def __init__(self, model: EmotionModel, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.batch_seconds = None if device.type == "cpu" else BATCH_SECONDS

    def infer(self, recordings: Sequence[NDArray[np.float32]]) -> InferenceOutput:
        """Logits and embeddings of recordings of any lengths."""
        samples, lengths = collate(recordings)
        valid = None if len(recordings) == 1 else lengths.to(self.device)
        with torch.inference_mode():
            output = self.model(samples.to(self.device), valid)
        return InferenceOutput(
            output.logits.float().cpu().numpy(), output.embedding.float().cpu().numpy()
        )


def _join_windows(
    logits: NDArray[np.float32], weights: NDArray[np.float64], config: ModelConfig
) -> NDArray[np.float64]:
    """Logarithm of the weighted mean over windows of softmax(logits / temperature), (N, C) -> (C,).

    The formula of `EmotionClassifier.predict`.
    """
    scaled = logits[:, : len(config.labels)].astype(np.float64) / config.temperature
    scores = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
    joined: NDArray[np.float64] = np.logaddexp.reduce(scores + np.log(weights)[:, None], axis=0)
    return joined


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
