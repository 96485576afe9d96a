"""Heads: pooled vectors (B, D) to logits (B, C)."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emoser.models.config import ModelConfig

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "none": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}


class LinearHead(nn.Module):
    """One linear layer, after a linear projection if `projection_size` is given.

    transformers applies the projection to every frame. Mean pooling commutes with linear maps, so
    it is applied to the pooled vector here, with the same result.
    """

    def __init__(self, size: int, num_labels: int, *, projection_size: int | None = None) -> None:
        super().__init__()
        self.projector = None if projection_size is None else nn.Linear(size, projection_size)
        self.classifier = nn.Linear(projection_size or size, num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits (B, C) of pooled vectors (B, D)."""
        if self.projector is not None:
            pooled = self.projector(pooled)
        logits: Tensor = self.classifier(pooled)
        return logits


class DenseHead(nn.Module):
    """A linear layer, an activation, and another linear layer."""

    def __init__(
        self, size: int, num_labels: int, *, projection_size: int, activation: str
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(size, projection_size)
        self.activation = ACTIVATIONS[activation]()
        self.classifier = nn.Linear(projection_size, num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits (B, C) of pooled vectors (B, D)."""
        logits: Tensor = self.classifier(self.activation(self.dense(pooled)))
        return logits


class MlpHead(nn.Module):
    """Hidden layers, each linear, layer norm and ReLU, and a linear layer."""

    def __init__(
        self, size: int, num_labels: int, *, projection_size: int, num_layers: int
    ) -> None:
        super().__init__()
        widths = [size] + [projection_size] * num_layers
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU())
            for before, after in itertools.pairwise(widths)
        )
        self.classifier = nn.Linear(projection_size, num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits (B, C) of pooled vectors (B, D)."""
        for layer in self.hidden:
            pooled = layer(pooled)
        logits: Tensor = self.classifier(pooled)
        return logits


class PointwiseFrames(nn.Module):
    """Three linear layers with ReLU in between, applied to every frame before pooling."""

    def __init__(self, size: int, projection_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(size if index == 0 else projection_size, projection_size)
            for index in range(3)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, L, D) -> (B, L, projection_size)."""
        for layer in self.layers[:-1]:
            frames = torch.relu(layer(frames))
        last: Tensor = self.layers[-1](frames)
        return last


def build_pointwise(config: ModelConfig, size: int) -> nn.Module | None:
    """The layers over single frames with `size` features before pooling; None without any."""
    if config.projection_size is not None and config.head == "pointwise":
        return PointwiseFrames(size, config.projection_size)
    if config.projection_size is not None and config.head == "framewise":
        return nn.Sequential(nn.Linear(size, config.projection_size), nn.ReLU())
    return None


def build_head(config: ModelConfig, size: int) -> nn.Module:
    """The head of a configuration for pooled vectors with `size` features."""
    num_outputs, width = len(config.outputs), config.projection_size
    if config.head == "dense" and width is not None:
        return DenseHead(size, num_outputs, projection_size=width, activation=config.activation)
    if config.head == "mlp" and width is not None:
        return MlpHead(size, num_outputs, projection_size=width, num_layers=config.head_layers)
    if config.head == "pointwise" and width is not None:
        return DenseHead(size, num_outputs, projection_size=width, activation="relu")
    if config.head == "framewise":
        return LinearHead(size, num_outputs)
    return LinearHead(size, num_outputs, projection_size=width)
