"""One update of the weights: batch in, loss out, however many parts and processes it takes.

A batch is computed in `accumulation` parts on every process, and the gradient is that of the
whole batch. Where memory runs out, the parts are halved and the update is made again. Knows
nothing of epochs, files or validation.
"""

import logging
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from emoser.errors import DeviceError
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.inputs import DTYPES, Batch, Inputs, run_model
from emoser.finetune.training.cpu_math import quick_math
from emoser.finetune.training.distillation import Teachers
from emoser.finetune.training.distributed import Processes
from emoser.finetune.training.freezing import set_training
from emoser.finetune.training.loss import Objective, Targets
from emoser.finetune.training.optimization import clip_gradients, rate_factor, set_rates
from emoser.finetune.training.seeding import seeded
from emoser.models.model import EmotionModel

logger = logging.getLogger(__name__)


class Update(NamedTuple):
    """What an update said about its batch.

    Attributes:
        loss: Mean over the batch.
        hits: How many clips were recognised.
    """

    loss: float
    hits: int


class LossModule(nn.Module):
    """Model and objective as one module, whose forward pass several processes can share."""

    def __init__(
        self,
        model: EmotionModel,
        objective: Objective,
        wrapper: str,
        teachers: Teachers | None = None,
    ) -> None:
        super().__init__()
        self.model, self.objective, self.wrapper = model, objective, wrapper
        self.teachers = teachers

    def forward(self, batch: Batch, targets: Targets) -> tuple[Tensor, Tensor]:
        """Mean loss of some clips, and how many were recognised."""
        output = run_model(self.model, batch, wrapper=self.wrapper)
        guesses = output.logits.detach().float().masked_fill(~targets.allowed, float("-inf"))
        taught = None if self.teachers is None else self.teachers.answer(batch, targets.allowed)
        loss = self.objective(output, targets, taught)
        return loss, (guesses.argmax(dim=1) == targets.labels).sum()


def set_recompute(model: EmotionModel, *, active: bool) -> None:
    """Compute the activations of the layers again for the gradients, or keep them."""
    backbone: Any = model.encoder.backbone
    word = "enable" if active else "disable"
    switch = getattr(backbone, f"activation_checkpointing_{word}", None)  # since transformers 5.23
    (switch or getattr(backbone, f"gradient_checkpointing_{word}"))()


class Stepper:
    """Makes updates; holds the optimiser and how many parts a batch is computed in."""

    def __init__(
        self,
        model: EmotionModel,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        config: FinetuneConfig,
        processes: Processes,
        num_steps: int,
        teachers: Teachers | None = None,
    ) -> None:
        """Prepare the module for all processes.

        Args:
            model: On the device of this process.
            objective: On the same.
            optimizer: Of the weights that learn.
            config: All settings.
            processes: Who shares the run.
            num_steps: Updates in the whole run, for the schedule.
            teachers: On the device too.
        """
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.config, self.processes, self.num_steps = config, processes, num_steps
        self.module = processes.wrap(LossModule(model, objective, config.model.padding, teachers))
        self.parts = config.run.accumulation
        kind = processes.device.type
        self.scaler = torch.amp.GradScaler(kind, enabled=config.run.precision == "float16")

    def update(self, batch: Sequence[int], inputs: Inputs, targets: Targets, step: int) -> Update:
        """Learn from a batch.

        Args:
            batch: Which clips, of all processes together.
            inputs: Gives the clips.
            targets: Of all clips.
            step: Number of the update; makes everything random about it.

        Raises:
            DeviceError: If the memory does not hold a single clip.
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
        """The learning rates of now."""
        groups = self.optimizer.param_groups
        return {"encoder" if group["encoder"] else "head": group["lr"] for group in groups}

    def peak_bytes(self) -> int:
        """The most memory that has been in use: of the GPU, or else of this process."""
        if self.processes.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.processes.device))
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def state(self) -> dict[str, Any]:
        """What the rest of the run depends on."""
        return {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "parts": self.parts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.parts = state["parts"]

    @contextmanager
    def progress(self, batches: Sequence[Sequence[int]], title: str) -> Iterator[Any]:
        """A bar over the batches of an epoch, on a terminal and in the first process alone."""
        hidden = not (self.processes.first and sys.stderr.isatty())
        with tqdm(batches, title, leave=False, disable=hidden) as bar:
            yield bar

    def show(self, bar: Any, losses: Sequence[float], hits: int, batch_size: int) -> None:
        """Put loss and accuracy of the epoch so far beside the bar."""
        if not bar.disable:
            accuracy = hits / (len(losses) * batch_size)
            bar.set_postfix(loss=f"{np.mean(losses):.3f}", WA=f"{accuracy:.3f}")

    def _accumulate(
        self, batch: Batch, targets: Targets, share: float, step: int
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the whole batch, part by part; gives mean loss and hits."""
        count, device = len(batch.lengths), self.processes.device
        size = -(-count // min(self.parts, count))
        starts = range(0, count, size)
        loss, hits = torch.zeros((), device=device), torch.zeros((), device=device)
        random = seeded(self.config.run.seed, step + 1, rank=self.processes.rank, device=device)
        with random, quick_math(device, self.config):
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
        if self.processes.count > 1 or self.parts >= count:
            raise DeviceError(
                f"the memory does not hold {-(-count // self.parts)} clips at once; set "
                "accumulation or recompute, or crop_seconds for long recordings"
            ) from error
        if self.processes.device.type == "cuda":
            torch.cuda.empty_cache()
        self.parts *= 2
        logger.warning(
            "out of memory: a batch of %d clips is now computed in %d parts, which is the same "
            "update",
            self.config.data.batch_size,
            self.parts,
        )
