"""Optimizers and parameter groups, the schedule of the rates, and the average of the weights."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.settings import ScheduleSettings
from emoser.models.model import EmotionModel

AVERAGE_WARMUP = 10  # about as many first steps have a smaller decay of the average
NEWBOB_FACTOR = 0.9
NEWBOB_THRESHOLD = 0.0025
SMALL = 0.1  # of the median size of an encoder's weights
OVERWRITTEN = 0.5  # change of a weight in an epoch, relative to its size
MATRIX_RATE = 2.5  # learning rate of Muon relative to that of AdamW beside it


class OptimizerPair(torch.optim.Optimizer):
    """Two optimizers of different weights that act as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        """Use the groups of optimizers without common weights."""
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of both."""
        for part, saved in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class KernelMuon(torch.optim.Muon):
    """Muon that also updates convolution kernels, each as a matrix of one row per filter."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        """Take groups of matrices (O, I) and of kernels (O, I, K)."""
        with as_matrices(weight for group in groups for weight in group["params"]):
            super().__init__(groups, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step all weights."""
        with as_matrices(weight for group in self.param_groups for weight in group["params"]):
            super().step()  # type: ignore[no-untyped-call]


@contextmanager
def as_matrices(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Weights (O, ...) and their gradients are matrices (O, N) inside the block."""
    shapes = [(weight, weight.shape) for weight in weights if weight.ndim > 2]
    try:
        for weight, shape in shapes:
            _reshape(weight, (shape[0], -1))
        yield
    finally:
        for weight, shape in shapes:
            _reshape(weight, shape)


def _reshape(weight: nn.Parameter, shape: tuple[int, ...]) -> None:
    gradient, weight.grad = weight.grad, None
    weight.data = weight.data.reshape(shape)
    weight.grad = None if gradient is None else gradient.reshape(shape)


def build_optimizer(
    model: EmotionModel, loss: nn.Module, config: FinetuneConfig
) -> torch.optim.Optimizer:
    """AdamW, Adam or Muon with learning rates for encoder and rest; biases and norms do not decay.

    Adam updates every weight separately, so one optimizer with two rates equals the paper's two.
    Muon updates the matrices and the convolution kernels of the encoder, and AdamW all other
    weights, including kernels in two factors (weight norm). The loss has weights of its own.

    Raises:
        ValueError: If no weight of the model requires a gradient.
    """
    settings = config.optimisation
    groups: dict[tuple[bool, bool, float, float], list[nn.Parameter]] = {}
    factors = _layer_factors(model, settings.layer_decay)
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    kernels = {id(part.weight) for part in model.encoder.modules() if isinstance(part, nn.Conv1d)}
    for parameter in [*model.parameters(), *loss.parameters()]:
        if not parameter.requires_grad:
            continue
        inside = id(parameter) in encoder
        rows = parameter.ndim == 2 or id(parameter) in kernels
        matrix = settings.optimizer == "muon" and inside and rows
        decays = settings.optimizer != "adam" and parameter.ndim > 1
        decay = settings.weight_decay if decays else 0.0
        factor = factors.get(id(parameter), 1.0)
        groups.setdefault((matrix, inside, decay, factor), []).append(parameter)
    if not groups:
        raise ValueError("no weight of the model requires a gradient; there is nothing to train")
    rates = {True: settings.encoder_learning_rate, False: settings.head_learning_rate}
    split: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for (matrix, inside, decay, factor), parameters in groups.items():
        rate = rates[inside] * factor * (MATRIX_RATE if matrix else 1.0)
        group = {"params": parameters, "weight_decay": decay, "encoder": inside}
        split[matrix].append({**group, "lr": rate, "highest": rate})
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    parts: list[torch.optim.Optimizer] = []
    if split[False]:
        parts.append(kind(split[False], betas=settings.betas, fused=True))
    if split[True]:
        parts.append(KernelMuon(split[True]))
    return parts[0] if len(parts) == 1 else OptimizerPair(*parts)


def _layer_factors(model: EmotionModel, decay: float) -> dict[int, float]:
    """Factors of the encoder's learning rate by the identity of each weight that has one."""
    parts = model.encoder.parts()
    depth = len(parts.layers)
    factors = {
        id(weight): decay ** (depth - 1 - place)
        for place, layer in enumerate(parts.layers)
        for weight in layer.parameters()
    }
    below = [weight for part in (*parts.convolutions, *parts.stem) for weight in part.parameters()]
    return {id(weight): decay**depth for weight in below} | factors


def find_overwritten(model: EmotionModel, config: FinetuneConfig, epoch_steps: int) -> str | None:
    """A warning about encoder weights that the first epoch would overwrite, or None.

    A step of Adam changes every weight by about the learning rate, whatever its size. A front end
    of long filters, whose weights are far smaller than all others, is overwritten long before the
    rest has learned anything.
    """
    sizes = {
        name: float(weight.detach().square().mean().sqrt())
        for name, weight in model.encoder.named_parameters()
        if weight.requires_grad and weight.ndim > 1 and "lora_" not in name
    }
    usual = float(np.median(list(sizes.values()))) if sizes else 0.0
    rate = config.optimisation.encoder_learning_rate
    moved = rate * epoch_steps
    lost = [
        (size, name)
        for name, size in sizes.items()
        if 0.0 < size < SMALL * usual and moved > OVERWRITTEN * size
    ]
    if not lost:
        return None
    size, name = min(lost)
    return (
        f"the weights {name} are about {size:.1g}, and an epoch of {epoch_steps} updates at the "
        f"rate {rate:g} changes them by up to {moved:.1g}, which overwrites them; use mode "
        "'partial', or a lower encoder_learning_rate"
    )


def clip_gradients(optimizer: torch.optim.Optimizer, config: FinetuneConfig) -> None:
    """Limit the norm of the gradients of all weights, or of encoder and head separately."""
    parts: dict[bool, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        key = group["encoder"] if config.optimisation.clipping == "separate" else True
        parts.setdefault(key, []).extend(group["params"])
    for parameters in parts.values():
        nn.utils.clip_grad_norm_(parameters, config.optimisation.max_grad_norm)


def anneal(optimizer: torch.optim.Optimizer, before: float | None, error: float) -> None:
    """NewBob: lower the learning rates if the error has not fallen enough since the last epoch.

    `before` is the validation error of the last epoch, or None in the first epoch.
    """
    if before is None:
        return
    improvement = (before - error) / before if before else 0.0
    if improvement < NEWBOB_THRESHOLD:
        for group in optimizer.param_groups:
            group["lr"] *= NEWBOB_FACTOR


def rate_factor(step: int, num_steps: int, config: FinetuneConfig) -> float:
    """Factor of the highest learning rates at a step, between 0 and 1.

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
    """Set the learning rate of every group to its highest one times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * factor


class WeightAverage:
    """The weights that are validated and saved: averaged over updates, or drawn to the start.

    Attributes:
        tensors: Exponential moving average of the trained weights; empty with decay 0.
    """

    def __init__(self, model: EmotionModel, settings: ScheduleSettings) -> None:
        """Start with the pretrained weights of the model."""
        self.decay, self.share = settings.ema_decay, settings.pretrained_share
        learning = [item for item in model.parameters() if item.requires_grad]
        self._learning = learning if self.decay or self.share else []
        self.tensors = [item.detach().clone() for item in self._learning if self.decay]
        encoder = {id(item) for item in model.encoder.parameters()} if self.share else set()
        self._starts = [
            item.detach().clone() if id(item) in encoder else None for item in self._learning
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the current weights."""
        decay = min(self.decay, (1 + step) / (AVERAGE_WARMUP + step))
        if self.tensors:
            for average, parameter in zip(self.tensors, self._learning, strict=True):
                average.lerp_(parameter, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the model has these weights."""
        trained = [parameter.detach().clone() for parameter in self._learning]
        with torch.no_grad():
            places = zip(self._learning, self.tensors or trained, self._starts, strict=True)
            for parameter, average, start in places:
                parameter.copy_(average if start is None else average.lerp(start, self.share))
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._learning, trained, strict=True):
                    parameter.copy_(value)

    def load(self, tensors: list[Tensor]) -> None:
        """Restore saved averages."""
        for average, saved in zip(self.tensors, tensors, strict=True):
            average.copy_(saved)
