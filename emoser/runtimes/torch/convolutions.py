"""Fast convolutions of a speech encoder for inference on a CPU, with the same numbers.

Samples (B, T), valid to their end, in; features (B, D, L) out, as from transformers' feature
encoder. Three things differ from running its modules one by one. The channels of a frame are
adjacent in memory, so that a convolution is one matrix product with a weight in the layout of
oneDNN, or else one or two products without a copy of the input. The group norm of the first
convolution is folded into its weights for each recording: the mean and variance of its output
follow from those of the samples. And a chunk of the recording passes through all layers before
the next one does, so that intermediate results stay in the processor's cache and memory does not
grow with the length of the recording.

Convolutions over frames or a spectrogram, inside the transformer, have packed weights too. Each
kind of product is computed for few numbers of frames only, as oneDNN generates code for every new
number, which can take half as long as the prediction.
"""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from emoser.runtimes.torch.linear import (
    FRAMES_STEP,
    PackedLinear,
    can_pack,
    is_exact_gelu,
    name_activation,
)

CHUNK_FRAMES = 64  # features computed at once, 1.3 s: 8 MB in the first layer
LAST_STEP = 8  # the number of features in the last chunk is a multiple of it
GROUPED_FRAMES = 128  # outputs of a grouped convolution that are computed at once

_buffers = threading.local()  # memory that each thread reuses


class Layer(NamedTuple):
    """One convolution, its weight as a matrix over all taps, (D, K * C)."""

    weight: Tensor
    bias: Tensor | None
    kernel: int
    stride: int
    norm: nn.Module | None
    activation: nn.Module
    product: nn.Module | None = None  # weight, bias and, without a norm, activation, packed


class FastConvolutions(nn.Module):
    """A replacement for the feature encoder of transformers, whose layers it keeps."""

    def __init__(self, extractor: nn.Module) -> None:
        """Take over the layers of a feature encoder for which `are_stock` is true."""
        super().__init__()
        self.conv_layers = extractor.conv_layers
        for layer in self.conv_layers:  # type: ignore[union-attr]
            weight = layer.conv.weight.data
            taps = weight.permute(0, 2, 1).contiguous()  # (D, K, C): one row per output
            layer.conv.weight.data = taps.permute(0, 2, 1)
        self.products = nn.ModuleList()

    def pack(self) -> None:
        """Pack the weights that do not change, in their current precision."""
        layers = [read_layer(layer) for layer in self.conv_layers]  # type: ignore[union-attr]
        if can_pack(layers[0].weight.dtype):
            # A group norm is folded into the first weight, anew for each recording.
            folding = isinstance(layers[0].norm, nn.GroupNorm)
            self.products = nn.ModuleList(_pack(layer) for layer in layers[folding:])

    def forward(self, samples: Tensor) -> Tensor:
        """Features (B, D, L) of samples (B, T)."""
        layers = [read_layer(layer) for layer in self.conv_layers]  # type: ignore[union-attr]
        for place, product in enumerate(self.products, start=len(layers) - len(self.products)):
            layers[place] = layers[place]._replace(product=product)
        packed = len(self.products) > 0
        rows = [_extract(row[:, None], layers, packed=packed) for row in samples.unbind()]
        return torch.stack(rows).transpose(1, 2)


class PackedConvolution(nn.Module):
    """A convolution without groups as one matrix product, with its weight in oneDNN's layout."""

    def __init__(self, convolution: nn.Conv1d) -> None:
        """Take over a convolution of C channels to D."""
        super().__init__()
        self.out_channels = convolution.out_channels
        self.kernel = convolution.kernel_size[0]
        self.stride = convolution.stride  # a tuple, which stock Whisper reads
        self.padding = int(convolution.padding[0])
        bias = None if convolution.bias is None else convolution.bias.data
        self.product = PackedLinear(convolution.weight.data.permute(0, 2, 1).flatten(1), bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """What the convolution gives for (B, C, L), (B, D, L')."""
        num_out = _count_outputs(hidden.shape[2], self.kernel, self.stride[0], self.padding)
        rest = -num_out % FRAMES_STEP
        ends = (0, 0, self.padding, self.padding + rest * self.stride[0])
        frames = functional.pad(hidden.transpose(1, 2), ends).contiguous()
        size = frames.shape[2]
        patches = frames.as_strided(
            (len(frames), num_out + rest, self.kernel * size),
            (frames.stride(0), self.stride[0] * size, 1),
            frames.storage_offset(),
        )
        outputs: Tensor = self.product(patches)
        return outputs[:, :num_out].transpose(1, 2)


class GroupedConvolution(nn.Module):
    """A convolution in groups, of stride 1, on chunks of one length, for which it is packed.

    A product with a packed weight is a hundred times slower for some other lengths (torch 2.11).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, groups: int, padding: int) -> None:
        """Pack a weight (D, C / groups, K); a bias (D,)."""
        super().__init__()
        self.out_channels, width, self.kernel = weight.shape
        self.groups, self.padding, self.bias = groups, padding, bias
        shape = [1, groups * width, 1, GROUPED_FRAMES + self.kernel - 1]
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight[:, :, None], [0, 0], [1, 1], [1, 1], groups, shape
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """What the convolution gives for (B, C, L), (B, D, L')."""
        num_out = _count_outputs(hidden.shape[2], self.kernel, 1, self.padding)
        ends = (0, 0, self.padding, self.padding + -num_out % GROUPED_FRAMES)
        frames = functional.pad(hidden.transpose(1, 2), ends)
        chunks = frames.unfold(1, GROUPED_FRAMES + self.kernel - 1, GROUPED_FRAMES)
        rows = [
            torch.cat([self._convolve(chunk[None, :, None]) for chunk in row], dim=3)
            for row in chunks  # (chunks, C, field) each
        ]
        return torch.cat(rows)[:, :, 0, :num_out]

    def _convolve(self, chunk: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.mkldnn._convolution_pointwise(
            chunk, self.packed, self.bias, [0, 0], [1, 1], [1, 1], self.groups, "none", [], "none"
        )
        return outputs

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = partial(GroupedConvolution, groups=self.groups, padding=self.padding)
        return rebuild, (self.packed.to_dense()[:, :, 0], self.bias)


def _count_outputs(length: int, kernel: int, stride: int, padding: int) -> int:
    return (length + 2 * padding - kernel) // stride + 1


def fold_weight_norms(module: nn.Module) -> None:
    """Replace every weight norm inside a module by a plain weight, which renames its tensors.

    torch's own `remove_parametrizations` modifies the class of the part, which copies of a module
    share, and so breaks the copies; this function leaves them intact.
    """
    for part in list(module.modules()):
        if parametrize.is_parametrized(part, "weight"):
            weight: Tensor = part.weight.detach().clone()  # type: ignore[operator]
            part.__class__ = parametrize.type_before_parametrizations(part)
            del part.parametrizations
            part.weight = nn.Parameter(weight, requires_grad=False)


def optimize_convolutions(encoder: nn.Module) -> None:
    """Replace the convolutions of an encoder if they are those of wav2vec 2.0."""
    extractor = getattr(encoder, "feature_extractor", None)
    if isinstance(extractor, nn.Module) and are_stock(extractor):
        encoder.feature_extractor = FastConvolutions(extractor)


def pack_convolutions(backbone: nn.Module) -> None:
    """Replace the convolutions over frames inside a transformer that are faster packed."""
    for part in list(backbone.modules()):
        for name, child in list(part.named_children()):
            if type(child) is not nn.Conv1d or not _is_plain(child):
                continue
            if child.groups == 1 and can_pack(child.weight.dtype):
                setattr(part, name, PackedConvolution(child))
            elif child.weight.dtype == torch.bfloat16 and _is_grouped(child):
                bias = None if child.bias is None else child.bias.data
                packed = GroupedConvolution(
                    child.weight.data, bias, groups=child.groups, padding=int(child.padding[0])
                )
                setattr(part, name, packed)


def _is_plain(convolution: nn.Conv1d) -> bool:
    """Whether zeros surround the frames, none are skipped, and nobody else reads the input."""
    hooked = convolution._forward_pre_hooks or convolution._forward_hooks
    numeric = not isinstance(convolution.padding, str) and convolution.padding_mode == "zeros"
    return numeric and convolution.dilation == (1,) and not hooked


def _is_grouped(convolution: nn.Conv1d) -> bool:
    """Whether it has groups of several channels, and outputs as often as inputs."""
    several = 1 < convolution.groups < convolution.in_channels
    return several and convolution.stride == (1,) and can_pack(convolution.weight.dtype)


def are_stock(extractor: nn.Module) -> bool:
    """Whether the layers are those of transformers' wav2vec 2.0 and can be replaced."""
    layers = getattr(extractor, "conv_layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    return all(_is_stock(layer, first=place == 0) for place, layer in enumerate(layers))


def _is_stock(layer: nn.Module, *, first: bool) -> bool:
    parts = dict(layer.named_children())
    convolution, norm = parts.get("conv"), parts.get("layer_norm")
    if set(parts) - {"conv", "layer_norm", "activation"} or "activation" not in parts:
        return False
    if type(convolution) is not nn.Conv1d or convolution.groups != 1:
        return False
    if convolution.padding != (0,) or convolution.dilation != (1,):
        return False
    if isinstance(norm, nn.GroupNorm):
        return first and norm.num_groups == norm.num_channels == convolution.out_channels
    return norm is None or type(norm) is nn.LayerNorm


def read_layer(layer: nn.Module) -> Layer:
    """A layer of a feature encoder for which `are_stock` is true."""
    convolution: nn.Conv1d = layer.conv  # type: ignore[assignment]
    norm: nn.Module | None = getattr(layer, "layer_norm", None)
    activation: nn.Module = layer.activation  # type: ignore[assignment]
    weight = convolution.weight.permute(0, 2, 1).flatten(1)
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    return Layer(weight, convolution.bias, kernel, stride, norm, activation)


def _pack(layer: Layer) -> PackedLinear:
    activation = name_activation(layer.activation) if layer.norm is None else None
    return PackedLinear(layer.weight, layer.bias, activation or "none")


def _extract(samples: Tensor, layers: Sequence[Layer], *, packed: bool) -> Tensor:
    """Features (L, D) of the samples (T, 1) of one recording.

    If the weights are packed, zeros follow the samples, for a last chunk of few possible lengths.
    """
    samples = samples.contiguous()
    first, *others = layers
    if isinstance(first.norm, nn.GroupNorm):
        first = _fold_group_norm(first, first.norm, samples)
        if packed:
            first = first._replace(product=_pack(first))
    chain = [first, *others]
    num_frames, stride, field = measure_layers(chain, len(samples))
    rounded = num_frames + (-num_frames % LAST_STEP if packed else 0)
    samples = functional.pad(samples, (0, 0, 0, (rounded - num_frames) * stride))
    features = samples.new_empty(rounded, len(chain[-1].weight))
    buffers = _take_buffers(chain, min(CHUNK_FRAMES, rounded), samples.dtype)
    for begin in range(0, rounded, CHUNK_FRAMES):
        part = features[begin : begin + CHUNK_FRAMES]
        frames = samples[begin * stride : (begin + len(part) - 1) * stride + field]
        for place, layer in enumerate(chain):
            frames = _apply(layer, frames, buffers[place % 2])
        part.copy_(frames)
    return features[:num_frames]


def _take_buffers(chain: Sequence[Layer], num_frames: int, dtype: torch.dtype) -> list[Tensor]:
    """Two buffers of this thread for the outputs of alternate layers.

    Allocating memory at every layer would cost a twentieth of the time in page faults.
    """
    sizes = [0, 0]
    for place in reversed(range(len(chain))):
        layer = chain[place]
        if layer.product is None:
            sizes[place % 2] = max(sizes[place % 2], num_frames * len(layer.weight))
        num_frames = (num_frames - 1) * layer.stride + layer.kernel
    by_dtype: dict[torch.dtype, list[Tensor]] = _buffers.__dict__.setdefault("held", {})
    buffers = by_dtype.get(dtype)
    if buffers is None or any(len(buffers[place]) < sizes[place] for place in range(2)):
        with torch.inference_mode(False):  # writable in any mode
            buffers = by_dtype[dtype] = [torch.empty(size, dtype=dtype) for size in sizes]
    return buffers


def measure_layers(layers: Sequence[Layer], num_samples: int) -> tuple[int, int, int]:
    """The number of frames, the samples from one frame to the next, and those of one frame."""
    field, step = 1, 1
    for layer in layers:
        num_samples = (num_samples - layer.kernel) // layer.stride + 1
        field += (layer.kernel - 1) * step
        step *= layer.stride
    return num_samples, step, field


def _apply(layer: Layer, frames: Tensor, buffer: Tensor) -> Tensor:
    """One convolution with norm and activation, (L, C) -> (L', D), in a buffer of the thread."""
    num_out = (len(frames) - layer.kernel) // layer.stride + 1
    if layer.product is not None:
        hidden: Tensor = layer.product(_take(frames, layer, num_out, 0, layer.kernel))
        if layer.norm is None and name_activation(layer.activation) is not None:
            return hidden  # the activation was fused
    else:
        hidden = buffer[: num_out * len(layer.weight)].view(num_out, len(layer.weight))
        _convolve(frames, layer, hidden)
    normed = hidden if layer.norm is None else layer.norm(hidden)
    if is_exact_gelu(layer.activation):
        return torch.ops.aten.gelu_(normed)  # type: ignore[no-any-return]
    activated: Tensor = layer.activation(normed)
    return activated


def _convolve(frames: Tensor, layer: Layer, hidden: Tensor) -> None:
    """One convolution as matrix products over taps that do not overlap, (L, C) -> (L', D)."""
    num_channels = frames.shape[1]
    for tap in range(0, layer.kernel, layer.stride):
        width = min(layer.stride, layer.kernel - tap)
        taken = _take(frames, layer, len(hidden), tap, width)
        part = layer.weight[:, tap * num_channels : (tap + width) * num_channels].t()
        if tap:
            hidden.addmm_(taken, part)
        elif layer.bias is not None:
            torch.addmm(layer.bias, taken, part, out=hidden)
        else:
            torch.mm(taken, part, out=hidden)


def _take(frames: Tensor, layer: Layer, num_out: int, tap: int, width: int) -> Tensor:
    """The inputs of each output at some of the taps, concatenated, (L, C) -> (L', width * C)."""
    num_channels = frames.shape[1]
    steps = (layer.stride * num_channels, 1)
    offset = frames.storage_offset() + tap * num_channels
    return frames.as_strided((num_out, width * num_channels), steps, offset)


def sum_squares(centred: Tensor, weight: Tensor) -> Tensor:
    """Sums over the frames (..., L, K) of the squares of their products with a weight, (..., D).

    These are the quadratic forms of the weight (D, K) with the K x K products of the frames, so
    that none of the L x D products is computed. In double precision, as they may cancel.
    """
    products = centred.transpose(-1, -2) @ centred  # (..., K, K)
    return ((weight @ products) * weight).sum(dim=-1)


def _fold_group_norm(layer: Layer, norm: nn.GroupNorm, samples: Tensor) -> Layer:
    """The first convolution with its norm over this recording folded in, in double precision.

    Each output is a weighted sum of K samples, so its mean over the recording is that sum of
    the K means, and its variance the quadratic form of the weights with their covariance.
    """
    patches = samples[:, 0].unfold(0, layer.kernel, layer.stride).double()  # (L, K)
    means = patches.mean(dim=0)
    centred = patches - means
    weight = layer.weight.double()  # (D, K)
    variance = sum_squares(centred, weight) / len(patches)
    scale = norm.weight.double() / torch.sqrt(variance + norm.eps)
    shift = norm.bias.double() - (weight @ means) * scale
    folded = (weight * scale[:, None]).to(layer.weight.dtype)
    return layer._replace(weight=folded, bias=shift.to(layer.weight.dtype), norm=None)
