"""Train a model on utterances: `train(...)` -> the best checkpoint in a folder.

Validation follows every epoch, on speakers that the training set does not have. Everything
random is drawn from (seed, step), so that a run which is killed and started again goes on to
the same weights. Knows nothing of corpora or of how figures are computed.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from emoser.checkpoints.native import save_model
from emoser.finetune.augment import augment
from emoser.finetune.batches import collate, crop, plan_epoch
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.evaluation import Report, check_labels, predict_logits, score_logits
from emoser.finetune.objective import Objective, Targets, build_targets
from emoser.finetune.optimization import (
    WeightAverage,
    build_optimizer,
    freeze,
    rate_factor,
    set_rates,
    set_training,
)
from emoser.finetune.recordings import SAMPLING_RATE, Recordings
from emoser.finetune.state import fingerprint, load_state, save_state, write_log, write_settings
from emoser.finetune.statistics import describe_clip, standardize_statistics
from emoser.finetune.utterance import Utterance
from emoser.model import EmotionModel

BEST = "best"


@dataclass(frozen=True)
class TrainingResult:
    """How a run went.

    Attributes:
        folder: The checkpoint of the best epoch.
        best_epoch: Its number, from 1.
        report: Its validation figures.
        epochs: One record per epoch: loss, validation UAR per corpus, seconds.
    """

    folder: Path
    best_epoch: int
    report: Report
    epochs: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def train(
    utterances: Sequence[Utterance],
    validation: Sequence[Utterance],
    *,
    model: EmotionModel,
    config: FinetuneConfig,
    output: str | Path,
) -> TrainingResult:
    """Train, or continue a run that was interrupted; the best epoch is saved and left in `model`.

    The best epoch is the one with the highest validation UAR, averaged over the corpora.

    Args:
        utterances: The training set.
        validation: Recordings of other speakers.
        model: Begins with these weights and ends with the best ones; on the CPU.
        config: All settings.
        output: Folder of the run: `best/` (the checkpoint), `log.jsonl`, `state.pt`.

    Raises:
        ValueError: If a speaker is on both sides, a label is unknown, or the model is not on
            the CPU.
        AudioError: If a recording cannot be decoded.
        CheckpointError: If the folder holds the state of another run, or a damaged one.
    """
    places = {parameter.device.type for parameter in model.parameters()}
    if places != {"cpu"}:
        raise ValueError(f"the model is on {', '.join(places)}; train() runs on the CPU")
    check_speakers(utterances, validation)
    check_labels(validation, config.evaluation_labels or model.config.labels)
    targets = build_targets(utterances, model.config.labels, restricted=config.restricted_labels)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    name = fingerprint(utterances, validation, model.config, config)
    saved = load_state(folder, name)
    write_settings(folder, config)
    data = _Data.decode(utterances, validation, targets, config)
    run = _Run(model, data, config, folder, name)
    if saved is not None:
        run.restore(saved)
    for epoch in range(run.epoch, config.epochs):
        run.train_epoch(epoch)
    return run.finish()


def check_speakers(utterances: Sequence[Utterance], validation: Sequence[Utterance]) -> None:
    """Refuse a validation set whose speakers are trained on.

    Raises:
        ValueError: If there is nothing to train or validate on, or a speaker is on both sides.
    """
    if not utterances or not validation:
        raise ValueError(
            f"{len(utterances)} utterances to train on and {len(validation)} to validate on; "
            "both need at least one"
        )
    voices = {item.voice for item in utterances} & {item.voice for item in validation}
    shared = sorted(f"{corpus or ''}/{speaker}" for corpus, speaker in voices - {None})  # type: ignore[misc]
    if shared:
        raise ValueError(
            f"the speakers {', '.join(shared)} are trained and validated on; "
            "keep all recordings of a speaker on one side"
        )


@dataclass(frozen=True)
class _Data:
    """Both sides of a run, decoded."""

    utterances: Sequence[Utterance]
    validation: Sequence[Utterance]
    recordings: Recordings
    validation_recordings: Recordings
    targets: Targets

    @classmethod
    def decode(
        cls,
        utterances: Sequence[Utterance],
        validation: Sequence[Utterance],
        targets: Targets,
        config: FinetuneConfig,
    ) -> "_Data":
        terminal = sys.stderr.isatty()
        recordings = Recordings(utterances, progress=terminal)
        if config.statistics_weight > 0.0:
            indices = tqdm(range(len(recordings)), "statistics", leave=False, disable=not terminal)
            rows = np.stack([describe_clip(recordings[index]) for index in indices])
            voices = [item.voice or item.corpus for item in utterances]
            statistics = torch.from_numpy(standardize_statistics(rows, voices))
            targets = targets._replace(statistics=statistics)
        held_out = Recordings(validation, progress=terminal)
        return cls(utterances, validation, recordings, held_out, targets)


class _Run:
    """A run in progress: everything that changes from step to step."""

    def __init__(
        self, model: EmotionModel, data: _Data, config: FinetuneConfig, folder: Path, name: str
    ) -> None:
        self.model, self.data, self.config = model, data, config
        self.folder, self.name = folder, name
        freeze(model, config.mode)
        with seeded(config.seed, 0):
            self.objective = Objective(
                model.encoder.hidden_size,
                data.targets.statistics.shape[1],
                statistics_weight=config.statistics_weight,
                smoothing=config.label_smoothing,
            )
        self.optimizer = build_optimizer(model, self.objective, config)
        self.average = WeightAverage(model, config.ema_decay)
        self.best_weights = [tensor.clone() for tensor in self.average.tensors]
        self.epoch, self.step = 0, 0
        self.losses: list[float] = []
        self.records: list[dict[str, Any]] = []
        self.best_report: Report | None = None
        num_clips = config.epoch_clips or len(data.utterances)
        self.epoch_steps = -(-num_clips // config.batch_size)

    def train_epoch(self, epoch: int) -> None:
        """The steps of an epoch that are still to do, then validation."""
        began = time.monotonic()
        batches = plan_epoch(
            self.data.utterances, self.data.recordings.num_samples, self.config, epoch=epoch
        )
        todo = batches[self.step - epoch * self.epoch_steps :]
        title = f"epoch {epoch + 1} of {self.config.epochs}"
        for batch in tqdm(todo, title, leave=False, disable=not sys.stderr.isatty()):
            self.losses.append(self.train_step(batch))
            self.step += 1
            if self.step % self.config.save_every_steps == 0:
                self.save()
        with self.average.applied():
            self.validate(epoch, time.monotonic() - began)
        self.epoch, self.losses = epoch + 1, []
        self.save()
        write_log(self.folder, self.records)

    def train_step(self, batch: Sequence[int]) -> float:
        """One update; gives the loss."""
        config = self.config
        generator = np.random.default_rng([config.seed, 2, self.step])
        samples, lengths = collate([self.vary(index, generator) for index in batch])
        set_training(self.model, config.mode)
        set_rates(self.optimizer, rate_factor(self.step, config.epochs * self.epoch_steps, config))
        with seeded(config.seed, self.step + 1):
            output = self.model(samples, lengths)
            loss = self.objective(output, self.data.targets.select(batch))
            loss.backward()
        learning = [item for group in self.optimizer.param_groups for item in group["params"]]
        nn.utils.clip_grad_norm_(learning, config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.step)
        return float(loss.detach())

    def vary(self, index: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """A crop of a training clip, augmented; cropped before, for speed, and after."""
        config = self.config
        size = int(config.crop_seconds * SAMPLING_RATE)
        wide = int(size * (1.0 + config.augmentation.speed_change)) + 1
        clip = crop(self.data.recordings[index], wide, generator)
        return crop(augment(clip, config.augmentation, generator), size, generator)

    def validate(self, epoch: int, seconds: float) -> None:
        """Score the model as it is, keep it if it is the best, and record the epoch."""
        logits = predict_logits(self.model, self.data.validation_recordings)
        labels = self.config.evaluation_labels or self.model.config.labels
        report = score_logits(logits, self.data.validation, self.model.config.labels, labels=labels)
        best = self.best_report
        if best is None or report.mean_corpus_uar > best.mean_corpus_uar:
            self.best_report = report
            self.best_weights = [
                item.detach().clone() for item in self.model.parameters() if item.requires_grad
            ]
            save_model(self.model, self.folder / BEST, overwrite=True)
        self.records.append(
            {
                "epoch": epoch + 1,
                "step": self.step,
                "loss": round(float(np.mean(self.losses)), 5),
                "uar": round(report.uar, 4),
                "uar_per_corpus": {key: round(val, 4) for key, val in report.per_corpus.items()},
                "best": report is self.best_report,
                "seconds": round(seconds, 1),
            }
        )

    def save(self) -> None:
        """Write everything that the rest of the run depends on."""
        report = self.best_report
        state = {
            "fingerprint": self.name,
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "records": self.records,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.tensors,
            "best_weights": self.best_weights,
            "best_report": None if report is None else report.to_dict(),
        }
        save_state(self.folder, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.losses, self.records = state["losses"], state["records"]
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"])
        self.best_weights = state["best_weights"]
        if state["best_report"] is not None:
            self.best_report = Report(**state["best_report"])

    def finish(self) -> TrainingResult:
        """Put the best weights into the model and tell how the run went."""
        learning = [item for item in self.model.parameters() if item.requires_grad]
        with torch.no_grad():
            for parameter, best in zip(learning, self.best_weights, strict=True):
                parameter.copy_(best)
        self.model.eval()
        save_model(self.model, self.folder / BEST, overwrite=True)
        best_epoch = max(record["epoch"] for record in self.records if record["best"])
        report = self.best_report
        if report is None:
            raise RuntimeError("a run without an epoch has no result")
        return TrainingResult(self.folder / BEST, best_epoch, report, tuple(self.records))


@contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """The global generators of torch and NumPy begin at (seed, step), and are put back.

    Dropout draws from torch's; the masks of transformers from NumPy's.
    """
    word = int(np.random.SeedSequence([seed, 3, step]).generate_state(1)[0])
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(word)
        np.random.seed(word)
        try:
            yield
        finally:
            np.random.set_state(before)
