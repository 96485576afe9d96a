"""A model as one graph for other engines: raw samples in, logits and embedding out.

All rows of a batch have the same length, so the graph has no lengths and no masks. Normalisation
of the input and the zeros after a clip that is shorter than the receptive field are part of it.

The convolutions become matrix products over frames with their channels adjacent, which spares
the engines transposing half a second of numbers per second of sound around the group norm. In a
wide encoder a recording passes through them in parts, so that memory does not grow with the width
of the first layer times the length. Nothing branches on the length: one trace serves every length.

An engine that compiles code for each new number of rows, as OpenVINO does, gets few such numbers:
layers compute a rounded number of frames, of which attention and pooling read the true ones.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.models.encoder import EncodedFrames
from emoser.models.model import EmotionModel
from emoser.runtimes.torch.convolutions import (
    Layer,
    are_stock,
    fold_weight_norms,
    measure_layers,
    read_layer,
    sum_squares,
)
from emoser.runtimes.torch.transformer import WHISPER_ATTENTION, is_stock_attention

INPUT = "samples"
OUTPUTS = ("logits", "embedding", "frames")
TRACED_SAMPLES = 24_000
WIDE = 256  # channels from which on a recording passes in parts
NUM_PARTS = 3  # of a recording in a wide encoder
FINE_STEPS = 16  # from this number of steps on, numbers of frames are rounded more coarsely


class InferenceGraph(nn.Module):
    """A model for inference only, with its weight norms folded.

    Attributes:
        outputs: Names of the outputs: "logits" and "embedding", and "frames" (the probabilities
            of every frame) of a model that classifies frames.
        row_step: As in the manifest.
    """

    def __init__(self, model: EmotionModel, *, row_step: int = 1) -> None:
        """Take ownership of a model; `build_graph` makes a copy first."""
        super().__init__()
        self.model = model
        self.row_step = row_step
        self.by_frame = model.config.frame_seconds is not None
        self.outputs = OUTPUTS if self.by_frame else OUTPUTS[:2]

    def forward(self, samples: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, C), embedding (B, D) and, by frames, probabilities (B, L, C)."""
        return self.finish(self.model.encode(lengthen(samples, self.model.encoder.min_samples)))

    def finish(self, encoded: EncodedFrames) -> tuple[Tensor, ...]:
        """The outputs of `forward`, from encoded frames."""
        output = self.model.classify(encoded)
        if not self.by_frame:
            return output.logits, output.embedding
        return output.logits, output.embedding, self.model.label_frames(encoded).softmax(dim=-1)


def build_graph(model: EmotionModel, *, doubles: bool = False, row_step: int = 1) -> InferenceGraph:
    """The graph of a copy of a model, which itself is not changed.

    Args:
        model: The model.
        doubles: Whether the engine has double precision.
        row_step: As in `round_up`, for layers on frames; 1 adds none.

    Example:
        >>> from emoser.checkpoints.resolve import find_checkpoint
        >>> from emoser.checkpoints.save import load_model
        >>> graph = build_graph(load_model(find_checkpoint("emoser-tiny").folder))
        >>> [tuple(output.shape) for output in graph(torch.zeros(2, 16_000))]
        [(2, 4), (2, 240)]
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    fold_weight_norms(copied)
    for module in copied.modules():
        # Tracing reads every attribute, and transformers prints a warning for a loss of no name.
        if getattr(module, "loss_type", "") is None:
            module.loss_type = "ForSequenceClassification"  # type: ignore[assignment]
    replace_convolutions(copied.encoder, doubles=doubles, row_step=row_step)
    rounded = row_step > 1 and not model.config.has_one_length
    replace_attention(copied.encoder.backbone, rounded=rounded)
    if rounded and round_layers(copied.encoder.backbone, row_step):
        return InferenceGraph(copied, row_step=row_step)
    return InferenceGraph(copied)


def example_samples() -> Tensor:
    """Noise to trace a graph with, (2, T)."""
    return torch.randn(2, TRACED_SAMPLES, generator=torch.Generator().manual_seed(0)) / 10


def lengthen(samples: Tensor, min_samples: int) -> Tensor:
    """Pad recordings (B, T) that are shorter than `min_samples` with zeros at their end.

    Written without a branch, so that one graph serves every length.

    Example:
        >>> lengthen(torch.ones(1, 2), 3), lengthen(torch.ones(1, 4), 3)
        (tensor([[1., 1., 0.]]), tensor([[1., 1., 1., 1.]]))
    """
    given = samples.shape[1]
    length = (given + min_samples + abs(given - min_samples)) // 2  # the larger of the two
    zeros = samples.new_zeros(samples.shape[0], min_samples)
    return torch.cat([samples, zeros], dim=1)[:, :length]


class GraphConvolutions(nn.Module):
    """A replacement in a graph for the feature encoder of transformers.

    Samples (B, T), valid to their end, in; features (B, D, L) out.
    """

    def __init__(
        self, extractor: nn.Module, *, num_parts: int, doubles: bool, row_step: int = 1
    ) -> None:
        """Take over the layers of an extractor for which `are_stock` is true.

        A recording passes through them in `num_parts` parts of as many frames as `round_up` gives.
        The group norm is computed in double precision if the engine has `doubles`, which takes a
        tenth of the time.
        """
        super().__init__()
        self.conv_layers = extractor.conv_layers
        self.num_parts = num_parts
        self.doubles = doubles
        self.row_step = row_step

    def forward(self, samples: Tensor) -> Tensor:
        """Features (B, D, L) of samples (B, T)."""
        layers = self.layers
        frames = samples[..., None]
        affine = self.measure_group_norm(samples)
        num_frames, stride, field = measure_layers(layers, samples.shape[1])
        if self.num_parts == 1:
            return pass_layers(frames, layers, affine).transpose(1, 2)
        size = (num_frames + self.num_parts - 1) // self.num_parts
        size = _smaller(round_up(size, self.row_step), num_frames)
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
        """The convolutions in order."""
        return [read_layer(layer) for layer in self.conv_layers]  # type: ignore[union-attr]

    def measure_group_norm(
        self, samples: Tensor, add_squares: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Scale and shift by the group norm of the first convolution, (B, 1, D) each.

        None if that convolution has no group norm.

        Args:
            samples: Valid to their end, (B, T).
            add_squares: Another way to compute what `_add_squares` does.
        """
        layer = self.layers[0]
        norm = layer.norm
        if not isinstance(norm, nn.GroupNorm):
            return None
        patches = _take_patches(samples[..., None], layer)  # (B, L, K)
        centre = patches.mean(dim=1, keepdim=True)
        centred = patches - centre  # subtracted here, where it loses no precision
        means = functional.linear(centre[:, 0], layer.weight, layer.bias)  # (B, D)
        squares = (add_squares or self._add_squares)(centred, layer.weight)
        variances = squares / torch.ones_like(patches[:1, :, 0]).sum()
        scale = norm.weight / torch.sqrt(variances + norm.eps)
        return scale[:, None], (norm.bias - means * scale)[:, None]

    def _add_squares(self, centred: Tensor, weight: Tensor) -> Tensor:
        """Sums of the squares of the outputs without their means, (B, L, K) to (B, D)."""
        if self.doubles:
            return sum_squares(centred.double(), weight.double()).to(weight.dtype)
        length = centred.shape[1]
        squares = centred.new_zeros(centred.shape[0], weight.shape[0])
        for place in range(self.num_parts):
            begin, end = length * place // self.num_parts, length * (place + 1) // self.num_parts
            part = functional.linear(centred[:, begin:end], weight)
            squares = squares + torch.linalg.vector_norm(part, dim=1).square()
        return squares


class GraphAttention(nn.Module):
    """Self-attention in a graph, of a wide encoder for some of the frames at a time.

    Of half a minute, the weights of all frames for one another are 100 MB in each layer.
    """

    def __init__(self, attention: nn.Module) -> None:
        """Take over an attention of transformers' speech encoders, which masks nothing."""
        super().__init__()
        self.attention = attention
        self.num_parts = NUM_PARTS if is_split(attention) else 1
        self.num_frames: int | None = None  # that are attended to; None for all

    def forward(self, hidden_states: Tensor, **unused: object) -> tuple[Tensor, None]:
        """Attended frames (B, L, D), and None in place of attention weights."""
        inner: Any = self.attention
        num_rows, length, _ = hidden_states.shape
        projections = (inner.q_proj, inner.k_proj, inner.v_proj)
        query, key, value = (
            project(hidden_states).view(num_rows, length, inner.num_heads, -1).transpose(1, 2)
            for project in projections
        )  # (B, H, L, D / H) each
        if self.num_frames is not None:
            key, value = key[:, :, : self.num_frames], value[:, :, : self.num_frames]
        ends = [length * place // self.num_parts for place in range(self.num_parts + 1)]
        parts = [
            functional.scaled_dot_product_attention(
                query[:, :, begin:end], key, value, scale=inner.scaling
            )
            for begin, end in itertools.pairwise(ends)
        ]
        attended = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        return inner.out_proj(attended.transpose(1, 2).reshape(num_rows, length, -1)), None


class RoundedLayer(nn.Module):
    """What `round_layers` adds to a transformer layer: it computes a rounded number of frames.

    Zeros follow the recording's frames inside; attention does not read them.
    """

    row_step: int

    def forward(self, frames: Tensor, *others: object, **named: object) -> Any:
        """What the layer gives for frames (B, L, D)."""
        num_frames = frames.shape[1]
        for child in self.children():
            if isinstance(child, GraphAttention):
                child.num_frames = num_frames
        missing = round_up(num_frames, self.row_step) - num_frames
        output = super().forward(functional.pad(frames, (0, 0, 0, missing)), *others, **named)
        if isinstance(output, tuple):
            return output[0][:, :num_frames], *output[1:]
        return output[:, :num_frames]


def is_split(attention: nn.Module) -> bool:
    """Whether an attention is that of a wide encoder for recordings of any length."""
    wide: bool = getattr(attention, "embed_dim", 0) >= WIDE
    return wide and type(attention).__name__ != WHISPER_ATTENTION


def replace_attention(backbone: nn.Module, *, rounded: bool = False) -> None:
    """Replace stock attention that is split, or all of it where frames are `rounded`."""
    for part in list(backbone.modules()):
        for name, child in list(part.named_children()):
            if is_stock_attention(child) and (rounded or is_split(child)):
                setattr(part, name, GraphAttention(child))


def round_layers(backbone: nn.Module, step: int) -> bool:
    """Let layers with replaced attention compute rounded numbers of frames; whether there are any.

    They become a subclass of their own class, by which transformers finds the layers whose output
    it returns as hidden states.
    """
    found = False
    for layer in list(backbone.modules()):
        if any(isinstance(child, GraphAttention) for child in layer.children()):
            kind = type(layer)
            layer.__class__ = type(kind.__name__, (RoundedLayer, kind), {"row_step": step})
            found = True
    return found


def round_up(length: int, step: int) -> int:
    """The next multiple of a step, of a larger one for large numbers, so that there are few.

    Written without a branch, as `lengthen`.

    Example:
        >>> [round_up(length, 32) for length in (32, 33, 511, 513)], round_up(33, 1)
        ([32, 64, 512, 576], 33)
    """
    if step == 1:
        return length
    step = step * (1 + length // (FINE_STEPS * step))
    return (length + step - 1) // step * step


def replace_convolutions(encoder: nn.Module, *, doubles: bool, row_step: int = 1) -> None:
    """Replace the convolutions of an encoder if they are those of wav2vec 2.0."""
    extractor = getattr(encoder, "feature_extractor", None)
    if isinstance(extractor, nn.Module) and are_stock(extractor):
        layers = [read_layer(layer) for layer in extractor.conv_layers]  # type: ignore[union-attr]
        wide = max(len(layer.weight) for layer in layers) >= WIDE
        _, _, needed = measure_layers(layers[1:], 1)  # outputs of the first layer for one feature
        parts = NUM_PARTS if wide and needed >= NUM_PARTS else 1
        encoder.feature_extractor = GraphConvolutions(
            extractor, num_parts=parts, doubles=doubles, row_step=row_step
        )


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
    """The inputs of each output of a convolution, concatenated, (B, L, C) -> (B, L', K * C)."""
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
