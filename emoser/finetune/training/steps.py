"""One update of the weights: batch in, loss out, for any number of parts and processes.

A batch is computed in `accumulation` parts on every process, and the gradient is that of the
whole batch. If memory runs out, the parts are halved and the update is repeated.
"""

import logging
import resource
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from emoser.errors import DeviceError
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.cpu_math import quick_math
from emoser.finetune.data.inputs import DTYPES, Batch, Inputs, run_model
from emoser.finetune.training.distributed import ProcessGroup
from emoser.finetune.training.freezing import set_training
from emoser.finetune.training.loss import Targets, Teachers, TrainingLoss
from emoser.finetune.training.optimization import clip_gradients, rate_factor, set_rates
from emoser.finetune.training.seeding import seeded
from emoser.models.model import EmotionModel

logger = logging.getLogger(__name__)


class Update(NamedTuple):
    """Loss and accuracy of a batch before its update.

    Attributes:
        loss: Mean over the batch.
        hits: Number of clips that were classified correctly.
    """

    loss: float
    hits: int


class LossModule(nn.Module):
    """Model and loss as one module, which can be wrapped for several processes."""

    def __init__(
        self, model: EmotionModel, loss: TrainingLoss, padding: str, teachers: Teachers | None
    ) -> None:
        super().__init__()
        self.model, self.loss, self.padding = model, loss, padding
        self.teachers = teachers

    def forward(self, batch: Batch, targets: Targets) -> tuple[Tensor, Tensor]:
        """Mean loss of some clips, and the number that was classified correctly."""
        output = run_model(self.model, batch, padding=self.padding)
        soft = None if self.teachers is None else self.teachers.predict(batch, targets.allowed)
        loss = self.loss(output, targets, soft)
        return loss, count_hits(
            output.logits.detach(), targets, multi_label=self.model.config.multi_label
        )


def count_hits(logits: Tensor, targets: Targets, *, multi_label: bool = False) -> Tensor:
    """The number of clips that are classified correctly, a scalar; 0 without labels.

    Of independent labels (`multi_label`), all have to be right.
    """
    num_labels = targets.allowed.shape[1]
    if not num_labels:
        return torch.zeros((), device=logits.device)
    masked = logits[:, :num_labels].float().masked_fill(~targets.allowed, float("-inf"))
    if multi_label:
        return ((masked > 0) == (targets.shares > 0)).all(dim=1).sum()
    return (masked.argmax(dim=1) == targets.labels).sum()


def set_recompute(model: EmotionModel, *, active: bool) -> None:
    """Recompute the activations of the layers for the gradients, or keep them."""
    backbone: Any = model.encoder.backbone
    verb = "enable" if active else "disable"
    switch = getattr(backbone, f"activation_checkpointing_{verb}", None)  # since transformers 5.23
    (switch or getattr(backbone, f"gradient_checkpointing_{verb}"))()


@dataclass(kw_only=True)
class Stepper:
    """Makes updates of the weights; model, loss and teachers are on the device of this process."""

    model: EmotionModel
    loss: TrainingLoss
    optimizer: torch.optim.Optimizer
    config: FinetuneConfig
    processes: ProcessGroup
    num_steps: int
    teachers: Teachers | None = None

    def __post_init__(self) -> None:
        """Wrap model and loss for all processes."""
        module = LossModule(self.model, self.loss, self.config.model.padding, self.teachers)
        self.module = self.processes.wrap(module)
        self.parts = self.config.run.accumulation
        self.scaler = torch.amp.GradScaler(
            self.processes.device.type, enabled=self.config.run.precision == "float16"
        )

    def update(self, batch: Sequence[int], inputs: Inputs, targets: Targets, step: int) -> Update:
        """Update the weights with a batch: indices of clips, of all processes together.

        The number of the step and the seed determine everything random.

        Raises:
            DeviceError: If memory runs out with a single clip.
        """
        own = list(batch)[self.processes.rank :: self.processes.count]
        share = len(own) / len(batch) * self.processes.count
        own = own or [batch[0]]  # a process without a clip takes part with weight 0
        words = [self.config.run.seed, 2, step]
        words += [self.processes.rank] if self.processes.count > 1 else []
        loaded = inputs.load(own, np.random.default_rng(words))
        rows = targets.select(own)
        set_training(self.model, self.config)
        if self.config.schedule.decay != "newbob":
            set_rates(self.optimizer, rate_factor(step, self.num_steps, self.config))
        while True:
            try:
                loss, hits = self._accumulate(loaded, rows, share, step)
                break
            except torch.OutOfMemoryError as error:
                self._halve(len(own), error)
        self.scaler.unscale_(self.optimizer)
        clip_gradients(self.optimizer, self.config)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        total = self.processes.add(torch.stack([loss * share, hits * min(share, 1.0)]))
        return Update(float(total[0]) / self.processes.count, int(total[1]))

    def rates(self) -> dict[str, float]:
        """The current learning rates; that of the encoder's last layer stands for the encoder."""
        groups = sorted(self.optimizer.param_groups, key=lambda group: group["highest"])
        return {"encoder" if group["encoder"] else "head": group["lr"] for group in groups}

    def peak_bytes(self) -> int:
        """The peak memory of the GPU, or else of this process."""
        if self.processes.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.processes.device))
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "objective": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "parts": self.parts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.loss.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.parts = state["parts"]

    def _accumulate(
        self, batch: Batch, targets: Targets, share: float, step: int
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the whole batch, part by part; gives mean loss and hits."""
        count, device = len(batch.lengths), self.processes.device
        size = -(-count // min(self.parts, count))
        starts = range(0, count, size)
        loss, hits = torch.zeros((), device=device), torch.zeros((), device=device)
        random = seeded(self.config.run.seed, step + 1, rank=self.processes.rank, device=device)
        with random, quick_math(device, recompute=self.config.run.recompute):
            for start in starts:
                end = min(start + size, count)
                part = batch.select(start, end).to(device)
                rows = targets.select(range(start, end)).to(device)
                last = start == starts[-1]
                with nullcontext() if last else self.processes.without_exchange(self.module):
                    with self._autocast():
                        value, found = self.module(part, rows)
                    weight = (end - start) / count
                    self.scaler.scale(value * (weight * share)).backward()
                loss += value.detach() * weight
                hits += found
        return loss, hits

    def _autocast(self) -> Any:
        precision = self.config.run.precision
        kind = self.processes.device.type
        return torch.autocast(kind, DTYPES[precision], enabled=precision != "float32")

    def _halve(self, count: int, error: torch.OutOfMemoryError) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        whole = self.model.config.dimensions and self.config.optimisation.dimension_loss == "ccc"
        if self.processes.count > 1 or self.parts >= count or whole:
            raise DeviceError(
                f"out of memory with {-(-count // self.parts)} clips at once; increase "
                "accumulation"
                + " with dimension_loss='mse'" * bool(whole)
                + ", set recompute, or set crop_seconds for long recordings"
            ) from error
        if self.processes.device.type == "cuda":
            torch.cuda.empty_cache()
        self.parts *= 2
        logger.warning(
            "out of memory: a batch of %d clips is now computed in %d parts; the update is the "
            "same",
            self.config.data.batch_size,
            self.parts,
        )
