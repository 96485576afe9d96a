"""Fast linear layers for inference on a CPU.

Frames (B, L, D) in and out, with the same numbers as the modules that they replace. Weights are
reordered once for oneDNN, which saves a matrix unit (AMX) a third of its time in bfloat16; in
float32 oneDNN is faster than MKL, torch's own choice, on processors not made by Intel. An
activation can be fused into the product before it.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EXACT = "none"  # approximation of the GELU
TYPICAL_FRAMES = 256  # 5 s; the layout works for any number of frames and is best for this one
FRAMES_STEP = 32  # oneDNN generates code for each new number of frames, and keeps most of it


class PackedLinear(nn.Module):
    """A linear layer with its weight in the layout of oneDNN, in bfloat16 or float32."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: str = "none", *, step: int = 1
    ) -> None:
        """Reorder a weight (D', D); "relu" or "gelu" follow the product and a bias (D',).

        The number of frames is rounded up to a multiple of `step` inside.
        """
        super().__init__()
        self.activation = activation
        self.step = step
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), TYPICAL_FRAMES)
        self.bias = bias

    def forward(self, frames: Tensor) -> Tensor:
        """Products (..., L, D') of frames (..., L, D)."""
        num_frames = frames.shape[-2]
        rows = _add_rows(frames, -num_frames % self.step)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self.packed, self.bias, self.activation, [], EXACT
        )
        return product[..., :num_frames, :]

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.packed.to_dense(), self.bias, self.activation)
        return partial(PackedLinear, step=self.step), arguments


def is_exact_gelu(activation: nn.Module) -> bool:
    """Whether an activation is the exact GELU, not an approximation."""
    if type(activation) is nn.GELU:
        return activation.approximate == "none"
    stock = type(activation).__name__ == "GELUActivation"
    return stock and getattr(activation, "act", None) is functional.gelu


def name_activation(activation: nn.Module) -> str | None:
    """The name in oneDNN of an activation that it can fuse; None for any other."""
    if is_exact_gelu(activation):
        return "gelu"
    return "relu" if type(activation) is nn.ReLU else None


def pack_linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """The fastest linear layer with a weight (D', D) on this processor."""
    if can_pack(weight.dtype):
        return PackedLinear(weight, bias, step=FRAMES_STEP)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN is available and fastest for products in a precision on this processor."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]


def _add_rows(frames: Tensor, num_rows: int) -> Tensor:
    """Frames (..., L, D) with any numbers in rows after them, (..., L + num_rows, D).

    The product before these frames may have left such rows in their memory, which saves a copy.
    """
    if num_rows == 0:
        return frames
    shape = (*frames.shape[:-2], frames.shape[-2] + num_rows, frames.shape[-1])
    end = frames.storage_offset() + shape[-2] * shape[-1]
    held = frames.untyped_storage().nbytes() // frames.element_size()
    if frames.is_contiguous() and frames.numel() == frames.shape[-2] * shape[-1] and end <= held:
        return frames.as_strided(shape, frames.stride())
    longer = frames.new_empty(shape)
    longer[..., : frames.shape[-2], :] = frames
    return longer
