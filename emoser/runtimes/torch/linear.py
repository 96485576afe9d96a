"""Fast linear layers of a transformer for inference on a CPU.

Frames (B, L, D) in and out, with the same numbers as the modules that they replace. Weights are
reordered once for oneDNN, which saves a matrix unit (AMX) a third of its time in bfloat16; in
float32 oneDNN is faster than MKL, torch's own choice, on processors not made by Intel. Query,
key and value of stock attention come from one product, and an activation is fused into the
product before it, or computed in place.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WHISPER_ATTENTION = "WhisperAttention"  # its keys have no bias
STOCK_ATTENTION = frozenset(
    {"Wav2Vec2Attention", "HubertAttention", "Data2VecAudioAttention", WHISPER_ATTENTION}
)
STOCK_FEED_FORWARD = {
    "Wav2Vec2FeedForward": ("intermediate_dense", "intermediate_act_fn"),
    "HubertFeedForward": ("intermediate_dense", "intermediate_act_fn"),
    "Data2VecAudioFeedForward": ("intermediate_dense", "intermediate_act_fn"),
    "WhisperEncoderLayer": ("fc1", "activation_fn"),
}
"""Names of the first linear layer and the activation behind it."""
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
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


class JointAttention(nn.Module):
    """Self-attention of transformers' speech encoders, its three projections in one product."""

    def __init__(self, attention: nn.Module) -> None:
        """Take over the weights of an attention for which `is_stock_attention` is true."""
        super().__init__()
        self.num_heads = int(attention.num_heads)  # type: ignore[arg-type]
        self.scaling = float(attention.scaling)  # type: ignore[arg-type]
        parts: list[nn.Linear] = [getattr(attention, name) for name in PROJECTIONS]
        weight = torch.cat([part.weight.data for part in parts])
        biases = [
            part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias.data
            for part in parts
        ]
        biased = any(part.bias is not None for part in parts)
        self.projections = pack_linear(weight, torch.cat(biases) if biased else None)
        out: nn.Linear = attention.out_proj  # type: ignore[assignment]
        self.out_proj = pack_linear(out.weight.data, None if out.bias is None else out.bias.data)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **unused: object
    ) -> tuple[Tensor, None]:
        """Attended frames (B, L, D), and None in place of attention weights.

        The mask is that which transformers passes to `scaled_dot_product_attention`.
        """
        joint = self.projections(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4)  # (B, H, L, D / H) each
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=self.scaling
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


class InPlaceGelu(nn.Module):
    """The exact GELU, computed in place."""

    def forward(self, frames: Tensor) -> Tensor:
        """The activated frames, in the memory of the input."""
        activated: Tensor = torch.ops.aten.gelu_(frames)
        return activated


def optimize_transformer(backbone: nn.Module) -> None:
    """Replace the linear layers of stock attention and feed-forward parts by faster ones.

    The encoder is on the CPU, in the precision that it will compute in.
    """
    for part in list(backbone.modules()):
        for name, child in list(part.named_children()):
            if is_stock_attention(child):
                setattr(part, name, JointAttention(child))
        if type(part).__name__ in STOCK_FEED_FORWARD:
            _optimize_feed_forward(part)


def is_stock_attention(module: nn.Module) -> bool:
    """Whether a module is plain self-attention of a wav2vec 2.0 encoder."""
    if type(module).__name__ not in STOCK_ATTENTION:
        return False
    parts = [getattr(module, name, None) for name in (*PROJECTIONS, "out_proj")]
    if not all(type(part) is nn.Linear for part in parts):
        return False
    alike = len({part.bias is None for part in parts[:3]}) == 1  # type: ignore[union-attr]
    return alike or type(module).__name__ == WHISPER_ATTENTION


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


def _optimize_feed_forward(part: nn.Module) -> None:
    """Replace both linear layers; the activation between them is fused into the first."""
    for name, child in list(part.named_children()):
        if type(child) is nn.Linear:
            bias = None if child.bias is None else child.bias.data
            setattr(part, name, pack_linear(child.weight.data, bias))
    first_name, activation_name = STOCK_FEED_FORWARD[type(part).__name__]
    first = getattr(part, first_name, None)
    activation: nn.Module = getattr(part, activation_name)
    known = name_activation(activation)
    if isinstance(first, PackedLinear) and known is not None:
        first.activation = known
        setattr(part, activation_name, nn.Identity())
    elif is_exact_gelu(activation):
        setattr(part, activation_name, InPlaceGelu())
