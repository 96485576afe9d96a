"""Train a model on utterances: `train(...)` -> the best checkpoint in a folder.

Validation follows every epoch. Everything random depends on (seed, step), so that a run which is
killed and started again ends with the same weights.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emoser.checkpoints.save import save_model
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.annotations import find_common_scale
from emoser.finetune.data.batches import plan_epoch
from emoser.finetune.data.content import hash_recordings
from emoser.finetune.data.inputs import Inputs, PooledLayers, build_inputs
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.models import Model, load_weights
from emoser.finetune.progress import Progress
from emoser.finetune.scoring.evaluation import score_epoch
from emoser.finetune.scoring.figures import Report
from emoser.finetune.training.distributed import ProcessGroup, join_processes
from emoser.finetune.training.freezing import freeze, merge_lora
from emoser.finetune.training.loss import Teachers, build_loss
from emoser.finetune.training.optimization import (
    WeightAverage,
    anneal,
    build_optimizer,
    find_overwritten,
)
from emoser.finetune.training.preparation import (
    TrainingData,
    check_start,
    check_whole_batches,
    decode_sides,
    follow_teachers,
    state_scales,
)
from emoser.finetune.training.resume import (
    clear_leftovers,
    fingerprint,
    load_state,
    save_state,
    write_log,
    write_settings,
)
from emoser.finetune.training.steps import Stepper, set_recompute
from emoser.finetune.training.tensorboard import write_events
from emoser.models.model import EmotionModel
from emoser.models.training_stage import TrainingStage

BEST = "best"
PLAIN = ("epoch", "step", "losses", "hits", "records", "last_error")  # saved as they are

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        folder: The checkpoint of the best epoch.
        best_epoch: Number of that epoch, from 1.
        report: Its validation figures.
        epochs: One record per epoch: loss, training accuracy, validation figures, learning rates,
            seconds, and peak memory so far.
    """

    folder: Path
    best_epoch: int
    report: Report
    epochs: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def train(  # noqa: PLR0913  # the public signature of the project
    utterances: Sequence[Utterance],
    validation: Sequence[Utterance],
    *,
    model: Model,
    config: FinetuneConfig,
    output: str | Path,
    device: str | ProcessGroup = "auto",
    share_speakers: bool = False,
    teachers: Sequence[Model] = (),
    recordings: Recordings | None = None,
) -> TrainingResult:
    """Train a model, or resume an interrupted run; the best epoch is saved and left in `model`.

    The best epoch is the one with the highest validation figure, averaged over the corpora.
    All processes that `accelerate launch` starts share the run.

    Args:
        utterances: The training set.
        validation: Recordings of other speakers.
        model: A model of torch on the CPU, which starts with its weights and ends with the best
            ones; or a bundled name, a folder, a Hub id or an `EmotionClassifier`, whose weights
            are loaded and stay as they are.
        config: All settings.
        output: Folder of the run: `best/` (the checkpoint), `log.jsonl`, `config.json`,
            `states/`, and `tensorboard/` if set.
        device: "auto" (a GPU if there is one), "cpu" or "cuda"; or the processes that the caller
            has started.
        share_speakers: Whether speakers may be on both sides, as in a speaker-dependent split.
        teachers: Trained models, given as `model` is, with its labels; it learns from their mean
            probabilities. They end on the CPU, in eval mode. If they were trained on the
            validation speakers, the figures are not speaker-independent.
        recordings: Holds decoded clips that need not be decoded again, as several runs on the
            same files may share; what it lacks is decoded and added.

    Raises:
        ValueError: If a speaker is on both sides, a label is unknown, a teacher has other labels,
            or the model is not on the CPU.
        AudioError: If a recording cannot be decoded.
        CheckpointError: If the folder holds the state of another run, or a damaged one.
        DeviceError: If there is no such device, or memory runs out with a single clip.
        DependencyError: If a package that the settings need is not installed.

    Example:
        >>> import tempfile
        >>> calls = [Utterance("examples/audio/plain.wav", "neutral", speaker="anna")]
        >>> others = [Utterance("examples/audio/slow.ogg", "neutral", speaker="bert")]
        >>> config = FinetuneConfig(mode="frozen", epochs=1, masking=False)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     train(calls, others, model="emoser-tiny", config=config, output=place).best_epoch
        1
    """
    model = load_weights(model)
    utterances, validation = state_scales(utterances, validation, model.config)
    scale = find_common_scale((*utterances, *validation)) if model.config.dimensions else ()
    model.config = replace(  # the rest is of the weights before
        model.config, dimension_scale=scale, mean_logits=(), adapted_recordings=0
    )
    config = config.for_width(model.encoder.hidden_size)
    check_start(utterances, validation, model, config, share_speakers=share_speakers)
    loaded = [load_weights(teacher) for teacher in teachers]
    followed = follow_teachers(loaded, model.config, config)
    processes, folder = join_processes(device), Path(output)
    check_whole_batches(model.config, config, processes.count)
    folder.mkdir(parents=True, exist_ok=True)
    data = decode_sides(utterances, validation, model.config, config, recordings)
    name = fingerprint(
        utterances,
        validation,
        model.config,
        config,
        teachers="" if followed is None else followed.digest(),
        sound=(data.recordings.fingerprint, data.validation_recordings.fingerprint),
    )
    model.trained_on = _list_stages(model, loaded, (*utterances, *validation))
    processes.write(lambda: clear_leftovers(folder))
    saved = load_state(folder, name, num_processes=processes.count)
    processes.write(lambda: write_settings(folder, config))
    run = _Run(
        model=model,
        data=data,
        config=config,
        folder=folder,
        name=name,
        processes=processes,
        teachers=followed,
    )
    if saved is not None:
        run.restore(saved)
    for epoch in range(run.epoch, config.schedule.epochs):
        run.train_epoch(epoch)
    return run.finish()


def _list_stages(
    model: EmotionModel, teachers: Sequence[EmotionModel], utterances: Sequence[Utterance]
) -> tuple[TrainingStage, ...]:
    """This training, and those of the model and its teachers before."""
    contents = hash_recordings(item.path for item in utterances)
    voices = [item.voice for item in utterances if item.voice]
    stages = [TrainingStage.of(contents.values(), voices), *model.trained_on]
    stages += [stage for teacher in teachers for stage in teacher.trained_on]
    return tuple(dict.fromkeys(stages))


@dataclass(kw_only=True)
class _Run:
    """A run in progress: everything that changes from epoch to epoch."""

    model: EmotionModel
    data: TrainingData
    config: FinetuneConfig
    folder: Path
    name: str
    processes: ProcessGroup
    teachers: Teachers | None = None
    epoch: int = 0
    step: int = 0
    hits: int = 0
    losses: list[float] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    best_weights: list[Tensor] = field(default_factory=list)
    best_report: Report | None = None
    last_error: float | None = None

    def __post_init__(self) -> None:
        """Freeze and move the model, compute what is kept of the clips, and build the optimizer."""
        model, config, processes = self.model, self.config, self.processes
        freeze(model, config)
        model.to(processes.device).eval()
        if self.teachers:
            self.teachers.to(processes.device)
        self.inputs, self.validation_inputs = self._build_inputs()
        loss = build_loss(
            config,
            self.data.targets,
            size=model.encoder.hidden_size,
            num_labels=len(model.config.labels),
            multi_label=model.config.multi_label,
        ).to(processes.device)
        num_clips = config.data.epoch_clips or len(self.data.utterances)
        self.epoch_steps = -(-num_clips // config.data.batch_size)
        optimizer = build_optimizer(model, loss, config)
        self.average = WeightAverage(model, config.schedule)
        self.stepper = Stepper(
            model=model,
            loss=loss,
            optimizer=optimizer,
            config=config,
            processes=processes,
            num_steps=config.schedule.epochs * self.epoch_steps,
            teachers=self.teachers,
        )
        if config.run.recompute:
            set_recompute(model, active=True)
        warning = find_overwritten(model, config, self.epoch_steps)
        if warning and processes.first:
            logger.warning("%s", warning)

    def train_epoch(self, epoch: int) -> None:
        """The remaining updates of an epoch, then validation."""
        began = time.monotonic()
        durations = self.inputs.num_samples
        batches = plan_epoch(self.data.utterances, durations, self.config, epoch=epoch)
        todo = batches[self.step - epoch * self.epoch_steps :]
        title = f"epoch {epoch + 1} of {self.config.schedule.epochs}"
        progress = Progress(todo, f"{title}, updates", show=self.processes.first)
        progress.note = self._describe_epoch
        for batch in progress:
            self.train_step(batch)
            if self.step % self.config.run.save_every_steps == 0:
                self.save()
        with self.average.applied():
            self.validate(epoch, time.monotonic() - began)
        self.epoch, self.losses, self.hits = epoch + 1, [], 0
        self.processes.write(self._write_logs)  # before the state, from which it is written again
        self.save()

    def train_step(self, batch: Sequence[int]) -> None:
        """One update."""
        done = self.stepper.update(batch, self.inputs, self.data.targets, self.step)
        self.average.update(self.step)
        self.losses.append(done.loss)
        self.hits += done.hits
        self.step += 1

    def validate(self, epoch: int, seconds: float) -> None:
        """Score the model, keep its weights if they are the best, and record the epoch."""
        report = score_epoch(
            self.model, self.validation_inputs, self.data.validation, self.config, self.processes
        )
        best, selection = self.best_report, self.config.schedule.selection
        if best is None or selection == "last" or report.figure(selection) > best.figure(selection):
            self.best_report = report
            self.best_weights = [item.detach().clone() for item in self._learning()]
            if not isinstance(self.inputs, PooledLayers):  # then saving would take longest
                self.processes.write(self._save_best)
        self.records.append(
            {
                "epoch": epoch + 1,
                "step": self.step,
                "loss": round(float(np.mean(self.losses)), 8),
                "training_accuracy": self._training_accuracy(),
                **report.curve,
                "rates": self.stepper.rates(),
                "best": report is self.best_report,
                "seconds": round(seconds, 4),
                "peak_bytes": self.stepper.peak_bytes(),
            }
        )
        if self.config.schedule.decay == "newbob":
            anneal(self.stepper.optimizer, self.last_error, 1.0 - report.figure("accuracy"))
        self.last_error = 1.0 - report.figure("accuracy")

    def save(self) -> None:
        """Write everything that the rest of the run depends on."""
        report = self.best_report
        state = {
            **{name: getattr(self, name) for name in PLAIN},
            "model": self._changing_tensors(),
            "average": self.average.tensors,
            "best_weights": self.best_weights,
            "best_report": None if report is None else report.to_dict(),
            **self.stepper.state(),
        }
        count = self.processes.count
        self.processes.write(
            lambda: save_state(
                self.folder, state, name=self.name, step=self.step, num_processes=count
            )
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        for name in PLAIN:
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"], strict=False)
        self.stepper.restore(state)
        self.average.load(state["average"])
        device = self.processes.device
        self.best_weights = [tensor.to(device) for tensor in state["best_weights"]]
        if state["best_report"] is not None:
            self.best_report = Report(**state["best_report"])

    def finish(self) -> TrainingResult:
        """Put the best weights into the model and return the result."""
        with torch.no_grad():
            for parameter, best in zip(self._learning(), self.best_weights, strict=True):
                parameter.copy_(best)
        if self.config.run.recompute:
            set_recompute(self.model, active=False)
        self.model.to("cpu").eval()
        if self.teachers:
            self.teachers.to(torch.device("cpu"))
        self.processes.write(self._save_best)
        best_epoch = max(record["epoch"] for record in self.records if record["best"])
        report = self.best_report
        if report is None:
            raise RuntimeError("a run without an epoch has no result")
        return TrainingResult(self.folder / BEST, best_epoch, report, tuple(self.records))

    def _describe_epoch(self) -> str:
        if not self.losses:
            return ""
        accuracy = self._training_accuracy()
        shown = "" if accuracy is None else f", WA {accuracy:.3f}"
        return f"loss {np.mean(self.losses):.3f}{shown}"

    def _training_accuracy(self) -> float | None:
        if not self.model.config.labels:
            return None
        return round(self.hits / self._num_seen(), 4)

    def _learning(self) -> list[nn.Parameter]:
        return [item for item in self.model.parameters() if item.requires_grad]

    def _changing_tensors(self) -> dict[str, Tensor]:
        """The trained weights and all buffers of the model."""
        frozen = {name for name, item in self.model.named_parameters() if not item.requires_grad}
        tensors = self.model.state_dict()
        return {name: tensor for name, tensor in tensors.items() if name not in frozen}

    def _write_logs(self) -> None:
        write_log(self.folder, self.records)
        if self.config.run.tensorboard:
            write_events(self.folder, self.records)

    def _save_best(self) -> None:
        save_model(merge_lora(self.model), self.folder / BEST, overwrite=True)

    def _num_seen(self) -> int:
        seen = len(self.losses) * self.config.data.batch_size
        return min(seen, self.config.data.epoch_clips or len(self.data.utterances))

    def _build_inputs(self) -> tuple[Inputs, Inputs]:
        data, folder = self.data, self.folder
        trained = self.config.replace(cache="off") if self.teachers else self.config
        with self.processes.first_alone():
            return (
                build_inputs(self.model, data.recordings, trained, folder / "training.features"),
                build_inputs(
                    self.model, data.validation_recordings, self.config,
                    folder / "validation.features", varied=False,
                ),
            )  # fmt: skip
