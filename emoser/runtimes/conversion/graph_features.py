"""The convolutions of a speech encoder as matrix products in a graph for other engines.

Samples (B, T), valid to their end, in; features (B, D, L) out, as transformers' feature encoder
gives them. Frames lie behind one another with their channels together, which spares the engines
from turning half a second of numbers per second of sound around before and behind the group
norm. In a wide encoder a recording passes through in parts, so that memory does not grow with
the width of its first layer times its length. Everything is written without a branch on the
length, so that one trace serves every length. Knows nothing of the engines.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.runtimes.torch.convolutions import Layer, are_stock, measure_layers, read_layer

WIDE = 256  # channels from which on a recording passes in parts
NUM_PARTS = 3  # of a recording in a wide encoder


class GraphConvolutions(nn.Module):
    """Stands in the place of a feature encoder of transformers in a graph."""

    def __init__(self, extractor: nn.Module, *, num_parts: int) -> None:
        """Take over the layers of a feature encoder that `are_stock` has approved of."""
        super().__init__()
        self.conv_layers = extractor.conv_layers
        self.num_parts = num_parts

    def forward(self, samples: Tensor) -> Tensor:
        """Features (B, D, L) of samples (B, T)."""
        layers = self.layers
        frames = samples[..., None]
        affine = self.measure_group_norm(samples)
        num_frames, stride, field = measure_layers(layers, samples.shape[1])
        if self.num_parts == 1:
            return pass_layers(frames, layers, affine).transpose(1, 2)
        size = (num_frames + self.num_parts - 1) // self.num_parts
        parts = []
        for place in range(self.num_parts):
            begin = _smaller(place * size, num_frames - size) * stride
            part = frames[:, begin : begin + (size - 1) * stride + field]
            parts.append(pass_layers(part, layers, affine))
        wanted = torch.arange(num_frames, device=samples.device)
        part_of = wanted // size
        begins = torch.minimum(part_of * size, torch.zeros_like(wanted) + (num_frames - size))
        places = part_of * size + wanted - begins  # the last parts overlap where L is no multiple
        return torch.cat(parts, dim=1).index_select(1, places).transpose(1, 2)

    @property
    def layers(self) -> list[Layer]:
        """The convolutions in their order."""
        return [read_layer(layer) for layer in self.conv_layers]  # type: ignore[union-attr]

    def measure_group_norm(self, samples: Tensor) -> tuple[Tensor, Tensor] | None:
        """What the norm of the first convolution multiplies by and adds, (B, 1, D) each.

        None where that convolution has no group norm.
        """
        layer = self.layers[0]
        norm = layer.norm
        if not isinstance(norm, nn.GroupNorm):
            return None
        patches = _take_patches(samples[..., None], layer)  # (B, L, K)
        centre = patches.mean(dim=1, keepdim=True)
        centred = patches - centre  # before the product, which would cancel badly behind it
        means = functional.linear(centre[:, 0], layer.weight, layer.bias)  # (B, D)
        length = patches.shape[1]
        squares = torch.zeros_like(means)
        for place in range(self.num_parts):
            begin, end = length * place // self.num_parts, length * (place + 1) // self.num_parts
            part = functional.linear(centred[:, begin:end], layer.weight)
            squares = squares + torch.linalg.vector_norm(part, dim=1).square()
        variances = squares / torch.ones_like(patches[:1, :, 0]).sum()
        scale = norm.weight / torch.sqrt(variances + norm.eps)
        return scale[:, None], (norm.bias - means * scale)[:, None]


def replace_convolutions(encoder: nn.Module) -> None:
    """Replace the convolutions of an encoder where they are those of wav2vec 2.0."""
    extractor = getattr(encoder, "feature_extractor", None)
    if isinstance(extractor, nn.Module) and are_stock(extractor):
        layers = [read_layer(layer) for layer in extractor.conv_layers]  # type: ignore[union-attr]
        wide = max(len(layer.weight) for layer in layers) >= WIDE
        roomy = _count_first_frames(layers) >= NUM_PARTS  # of the shortest recording
        parts = NUM_PARTS if wide and roomy else 1
        encoder.feature_extractor = GraphConvolutions(extractor, num_parts=parts)


def _count_first_frames(layers: Sequence[Layer]) -> int:
    """Outputs of the first layer that one feature needs."""
    _, _, field = measure_layers(layers[1:], 1)
    return field


def pass_layers(
    frames: Tensor, layers: Sequence[Layer], affine: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Frames (B, L, C) through all layers, (B, L', D)."""
    for layer in layers:
        hidden = functional.linear(_take_patches(frames, layer), layer.weight, layer.bias)
        if isinstance(layer.norm, nn.GroupNorm) and affine is not None:
            hidden = hidden * affine[0] + affine[1]
        elif layer.norm is not None:
            hidden = layer.norm(hidden)
        frames = layer.activation(hidden)
    return frames


def _take_patches(frames: Tensor, layer: Layer) -> Tensor:
    """What each output of a convolution reads, side by side, (B, L, C) -> (B, L', K * C)."""
    num_out = (frames.shape[1] - layer.kernel) // layer.stride + 1
    if layer.kernel % layer.stride == 0 and (frames.shape[2] == 1 or layer.kernel == layer.stride):
        width = num_out * layer.stride
        taps = [
            frames[:, tap : tap + width].reshape(frames.shape[0], num_out, -1)
            for tap in range(0, layer.kernel, layer.stride)
        ]
        return torch.cat(taps, dim=-1) if len(taps) > 1 else taps[0]
    starts = torch.arange(num_out, device=frames.device)[:, None] * layer.stride
    places = (starts + torch.arange(layer.kernel, device=frames.device)).flatten()
    return frames.index_select(1, places).reshape(frames.shape[0], num_out, -1)


def _smaller(one: int, other: int) -> int:
    """`min`, without a branch."""
    return (one + other - abs(one - other)) // 2
