"""How weights move: parameter groups, the schedule of the rates, the average of the weights.

Works on a model and its configuration; knows nothing of audio or of epochs.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emoser.finetune.config import FinetuneConfig
from emoser.models.model import EmotionModel

AVERAGE_WARMUP = 10  # the average forgets faster in about so many first steps
NEWBOB_FACTOR = 0.9
NEWBOB_THRESHOLD = 0.0025
SMALL = 0.1  # of the size that the weights of an encoder usually have
OVERWRITTEN = 0.5  # of its size, moved in an epoch
MATRIX_RATE = 2.5  # by which Muon's matrices move faster than what AdamW moves beside them


class OptimizerPair(torch.optim.Optimizer):
    """Two optimizers of different weights that step as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        """Join them; their groups become the groups of the pair.

        Args:
            parts: Optimizers that share no weight.
        """
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from saved states."""
        for part, saved in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class KernelMuon(torch.optim.Muon):
    """Muon that also moves convolution kernels, each as a matrix of one row per filter."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        """Take groups of matrices (O, I) and of kernels (O, I, K)."""
        with see_matrices(weight for group in groups for weight in group["params"]):
            super().__init__(groups, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of all."""
        with see_matrices(weight for group in self.param_groups for weight in group["params"]):
            super().step()  # type: ignore[no-untyped-call]


@contextmanager
def see_matrices(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let weights (O, ...) and their gradients look like matrices (O, ...) for a while."""
    shapes = [(weight, weight.shape) for weight in weights if weight.ndim > 2]
    try:
        for weight, _ in shapes:
            reshape(weight, torch.Size([len(weight), weight[0].numel()]))
        yield
    finally:
        for weight, shape in shapes:
            reshape(weight, shape)


def reshape(weight: nn.Parameter, shape: torch.Size) -> None:
    """Give a weight and its gradient another shape, in place."""
    gradient, weight.grad = weight.grad, None
    weight.data = weight.data.reshape(shape)
    weight.grad = None if gradient is None else gradient.reshape(shape)


def build_optimizer(
    model: EmotionModel, objective: nn.Module, config: FinetuneConfig
) -> torch.optim.Optimizer:
    """AdamW, Adam or Muon with two rates, encoder and rest, and no decay of biases and norms.

    Adam treats every weight apart, so that one of them with two rates is the paper's two. Muon
    moves the matrices and the convolution kernels of the encoder, and AdamW all other weights
    beside it, kernels that are a product of length and direction (weight norm) among them.

    Raises:
        ValueError: If no weight of the model requires a gradient.
    """
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    kernels = {id(part.weight) for part in model.encoder.modules() if isinstance(part, nn.Conv1d)}
    for parameter in [*model.parameters(), *objective.parameters()]:
        if not parameter.requires_grad:
            continue
        inside = id(parameter) in encoder
        rows = parameter.ndim == 2 or id(parameter) in kernels
        matrix = config.optimisation.optimizer == "muon" and inside and rows
        decays = config.optimisation.optimizer != "adam" and parameter.ndim > 1
        decay = config.optimisation.weight_decay if decays else 0.0
        groups.setdefault((matrix, inside, decay), []).append(parameter)
    if not groups:
        raise ValueError("no weight of the model requires a gradient; there is nothing to train")
    rates = {True: config.optimisation.encoder_learning_rate, False: config.optimisation.head_learning_rate}
    split: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for (matrix, inside, decay), parameters in groups.items():
        rate = rates[inside] * (MATRIX_RATE if matrix else 1.0)
        split[matrix].append(
            {
                "params": parameters,
                "lr": rate,
                "highest": rate,
                "encoder": inside,
                "weight_decay": decay,
            }
        )
    kind = torch.optim.Adam if config.optimisation.optimizer == "adam" else torch.optim.AdamW
    adam = kind(split[False], betas=config.optimisation.betas, fused=True) if split[False] else None
    muon = KernelMuon(split[True]) if split[True] else None
    parts = [part for part in (adam, muon) if part is not None]
    return parts[0] if len(parts) == 1 else OptimizerPair(*parts)


def find_overwritten(model: EmotionModel, config: FinetuneConfig, epoch_steps: int) -> str | None:
    """A sentence about encoder weights that an epoch would overwrite, or None.

    A step of Adam moves every weight by about the learning rate, however small the weight is. A
    front end of long filters, whose weights are far smaller than all others, is gone long before
    the rest has learned anything.

    Args:
        model: Its weights before the first step.
        config: Says how fast they move.
        epoch_steps: Updates in an epoch.
    """
    sizes = {
        name: float(weight.detach().square().mean().sqrt())
        for name, weight in model.encoder.named_parameters()
        if weight.requires_grad and weight.ndim > 1 and "lora_" not in name
    }
    usual = float(np.median(list(sizes.values()))) if sizes else 0.0
    moved = config.optimisation.encoder_learning_rate * epoch_steps
    lost = {
        name: size
        for name, size in sizes.items()
        if 0.0 < size < SMALL * usual and moved > OVERWRITTEN * size
    }
    if not lost:
        return None
    name, size = min(lost.items(), key=lambda item: item[1])
    return (
        f"the weights {name} are about {size:.1g}, and an epoch of {epoch_steps} updates at the "
        f"rate {config.optimisation.encoder_learning_rate:g} moves them by up to {moved:.1g}: the base was "
        "made to keep them; take mode 'partial', or a lower rate for the encoder"
    )


def clip_gradients(optimizer: torch.optim.Optimizer, config: FinetuneConfig) -> None:
    """Shorten the gradients of all weights together, or of encoder and head apart."""
    parts: dict[bool, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        key = group["encoder"] if config.optimisation.clipping == "separate" else True
        parts.setdefault(key, []).extend(group["params"])
    for parameters in parts.values():
        nn.utils.clip_grad_norm_(parameters, config.optimisation.max_grad_norm)


def anneal(optimizer: torch.optim.Optimizer, before: float | None, error: float) -> None:
    """NewBob: lower the rates where the error has not fallen enough since the epoch before.

    Args:
        optimizer: Its rates are changed.
        before: Validation error of the epoch before, None in the first.
        error: Validation error of this epoch.
    """
    if before is None:
        return
    improvement = (before - error) / before if before else 0.0
    if improvement < NEWBOB_THRESHOLD:
        for group in optimizer.param_groups:
            group["lr"] *= NEWBOB_FACTOR


def rate_factor(step: int, num_steps: int, config: FinetuneConfig) -> float:
    """What the highest learning rates are multiplied by at a step, between 0 and 1.

    Example:
        >>> config = FinetuneConfig(warmup=0.5)
        >>> [round(rate_factor(step, 4, config), 2) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    warmup = int(num_steps * config.schedule.warmup)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule.decay != "cosine":
        return 1.0
    progress = (step - warmup) / max(num_steps - warmup, 1)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to its highest rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * factor


class WeightAverage:
    """Exponential moving average of the weights that learn; with decay 0 there is none."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._learning = [item for item in model.parameters() if item.requires_grad and decay]
        self.tensors = [parameter.detach().clone() for parameter in self._learning]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights of now."""
        decay = min(self.decay, (1 + step) / (AVERAGE_WARMUP + step))
        for average, parameter in zip(self.tensors, self._learning, strict=True):
            average.lerp_(parameter, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def load(self, tensors: list[Tensor]) -> None:
        """Continue from saved averages."""
        for average, saved in zip(self.tensors, tensors, strict=True):
            average.copy_(saved)

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, parameter in zip(self.tensors, self._learning, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)
