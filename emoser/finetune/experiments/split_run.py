"""One split from encoder to checkpoint: a model is built, trained, calibrated, tested and saved."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.save import save_model
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.experiments.start import build_initial_model
from emoser.finetune.protocols import Split
from emoser.finetune.scoring.calibration import fit_temperature
from emoser.finetune.scoring.dimensions import calibrate_values, pair_values
from emoser.finetune.scoring.logits import predict_logits
from emoser.finetune.scoring.mean_logits import measure_mean_logits
from emoser.finetune.scoring.provenance import describe_training
from emoser.finetune.scoring.report import Evaluation, assess, mark_trained_on
from emoser.finetune.scoring.votes import flag_labels, share_votes
from emoser.finetune.training.distributed import ProcessGroup
from emoser.finetune.training.freezing import merge_lora
from emoser.finetune.training.run import BEST, train
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel

LARGEST_LOG = -1e-9  # of a probability, so that its complement has a logarithm


@dataclass(frozen=True)
class SplitSetup:
    """What a split is trained with.

    Attributes:
        config: All settings.
        base: The checkpoint of `config.base`.
        outputs: Labels and dimensions of the model.
        processes: The processes that share the run.
        recordings: Decoded clips, shared by the splits.
    """

    config: FinetuneConfig
    base: CheckpointFiles
    outputs: ModelConfig
    processes: ProcessGroup
    recordings: Recordings = field(default_factory=Recordings)


@dataclass(frozen=True)
class FinetuneResult:
    """The result of a split, as `finetune` returns it.

    Attributes:
        folder: The checkpoint, for `EmotionClassifier.from_pretrained` and for transformers.
        best_epoch: The epoch that the validation set chose.
        temperature: Fitted on the validation set and stored in the checkpoint; 1 without
            calibration or labels.
        evaluation: The test figures with their protocol.
        epochs: One record per epoch, see `TrainingResult`.
    """

    folder: Path
    best_epoch: int
    temperature: float
    evaluation: Evaluation
    epochs: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **asdict(self),
            "folder": str(self.folder),
            "evaluation": self.evaluation.to_dict(),
        }


def run_split(
    split: Split,
    setup: SplitSetup,
    folder: Path,
    *,
    name: str,
    calibrate: bool = False,
    notes: Sequence[str] = (),
    trained_on: str = "",
) -> tuple[FinetuneResult, NDArray[np.float32]]:
    """Train on a split, or resume it, test once, and save the checkpoint with its card.

    Returns the result and the logarithms of the scores of the test set, (N, C).

    Args:
        split: Training, validation and test set.
        setup: What it is trained with.
        folder: Folder of the run.
        name: Name of the checkpoint on its card.
        calibrate: Whether to fit the temperature on the validation set, and to measure the mean
            logits of the training speakers, which `EmotionClassifier.adapt` needs.
        notes: Remarks beside the figures.
        trained_on: What the base was trained on of the test set, in a sentence; empty if nothing.

    Raises:
        ValueError: If a side is empty or a label is unknown.
        AudioError: If a recording cannot be decoded.
        CheckpointError: If the encoder does not load, or the folder holds another run.
    """
    config, outputs, processes = setup.config, setup.outputs, setup.processes
    model = build_initial_model(config, outputs, files=setup.base)
    trained = train(
        split.training,
        split.validation,
        model=model,
        config=config,
        output=folder,
        device=processes,
        share_speakers=True,
        recordings=setup.recordings,
    )
    if calibrate:
        notes = [*notes, *_calibrate(model, split, setup)]
    logits = _predict(model, split.test, setup)
    silent = setup.recordings.select(split.test).find_silent()
    evaluation = assess(
        logits,
        split.test,
        outputs.outputs,
        protocol=split.protocol,
        notes=notes,
        silent=silent,
    )
    evaluation = mark_trained_on(evaluation, trained_on)
    training = describe_training(config, split, evaluation, base=setup.base)
    model.config = replace(model.config, training=training)
    processes.write(lambda: save_model(merge_lora(model), folder / BEST, overwrite=True, name=name))
    temperature = model.config.temperature
    result = FinetuneResult(
        folder / BEST, trained.best_epoch, temperature, evaluation, trained.epochs
    )
    return result, logits


def _calibrate(model: EmotionModel, split: Split, setup: SplitSetup) -> list[str]:
    """Calibrate probabilities and values on the validation set; gives remarks on the values."""
    outputs = setup.outputs
    logits = _predict(model, split.validation, setup)
    if outputs.labels:
        temperature = _fit_temperature(logits, split.validation, outputs)
        means = measure_mean_logits(
            model, setup.recordings, split.training, device=setup.processes.device
        )
        model.config = replace(model.config, temperature=temperature, mean_logits=means)
    pairs = pair_values(logits, split.validation, outputs.outputs, outputs.dimensions)
    return calibrate_values(model, pairs)


def _fit_temperature(
    logits: NDArray[np.float32], utterances: Sequence[Utterance], outputs: ModelConfig
) -> float:
    """The temperature for one label, for the votes, or for each of several labels."""
    scores = logits[:, : len(outputs.labels)].astype(np.float64)
    if outputs.multi_label:
        odds = (scores - np.log(-np.expm1(np.minimum(scores, LARGEST_LOG)))).ravel()
        truth = flag_labels(utterances, outputs.labels).ravel()
        return fit_temperature(np.stack([np.zeros_like(odds), odds], axis=1), truth)
    if any(item.votes for item in utterances):
        return fit_temperature(scores, share_votes(utterances, outputs.labels))
    truth = np.array([outputs.labels.index(item.label) for item in utterances])
    return fit_temperature(scores, truth)


def _predict(
    model: EmotionModel, utterances: Sequence[Utterance], setup: SplitSetup
) -> NDArray[np.float32]:
    clips = setup.recordings.select(utterances)
    return predict_logits(model, clips, device=setup.processes.device)
