"""Fast transformer layers of a speech encoder for inference on a CPU, with the same numbers.

Query, key and value of stock attention come from one product, and an activation is fused into the
product before it, or computed in place. Without a matrix unit, attention in bfloat16 is computed
as batched products, for which oneDNN takes half as long as torch's own attention.
"""

from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.runtimes.processor import read_processor
from emoser.runtimes.torch.linear import (
    FRAMES_STEP,
    PackedLinear,
    can_pack,
    is_exact_gelu,
    name_activation,
    pack_linear,
)

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
SCORES = 2**22
packed_frames: ContextVar[list[int] | None] = ContextVar("packed_frames", default=None)
"""Numbers of frames of the recordings that lie one after another in a row; None if it is one."""


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
        self.multiplies = _multiplies_attention(weight.dtype)
        out: nn.Linear = attention.out_proj  # type: ignore[assignment]
        self.out_proj = pack_linear(out.weight.data, None if out.bias is None else out.bias.data)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **unused: object
    ) -> tuple[Tensor, None]:
        """Attended frames (B, L, D), and None in place of attention weights.

        The mask is that which transformers passes to `scaled_dot_product_attention`.
        """
        joint, counts = self.projections(hidden_states), packed_frames.get()
        if counts is None:
            return self.out_proj(self._attend(joint, attention_mask)), None
        attended = [self._attend(part, None) for part in joint.split(counts, dim=1)]
        return self.out_proj(torch.cat(attended, dim=1)), None

    def _attend(self, joint: Tensor, mask: Tensor | None) -> Tensor:
        if self.multiplies and mask is None:
            return attend(joint, self.num_heads, self.scaling)
        query, key, value = _split_heads(joint, self.num_heads)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.scaling
        )
        return attended.transpose(1, 2).flatten(2)


def attend(joint: Tensor, num_heads: int, scaling: float) -> Tensor:
    """Attended frames (B, L, D) from queries, keys and values side by side, (B, L, 3 * D).

    Only for a few numbers of frames, as in the linear layers: scores of the zeros after the frames
    are minus infinity. As many queries as fill `SCORES` numbers are computed at once.
    """
    num_frames = joint.shape[1]
    parts = _split_heads(joint, num_heads)
    padded = functional.pad(parts, (0, 0, 0, -num_frames % FRAMES_STEP))
    query, key, value = padded.flatten(1, 2)  # (B * H, L', D / H) each
    query *= scaling
    attended = torch.empty_like(query)
    step = max(1, SCORES // (len(key) * key.shape[1] * FRAMES_STEP)) * FRAMES_STEP
    for begin in range(0, key.shape[1], step):
        scores = query[:, begin : begin + step] @ key.transpose(1, 2)
        scores[..., num_frames:] = -torch.inf
        attended[:, begin : begin + step] = scores.softmax(dim=-1) @ value
    heads = attended.view(len(joint), num_heads, *attended.shape[1:])[:, :, :num_frames]
    return heads.transpose(1, 2).flatten(2)


def _split_heads(joint: Tensor, num_heads: int) -> Tensor:
    """(3, B, H, L, D / H) of queries, keys and values side by side, (B, L, 3 * D)."""
    return joint.reshape(*joint.shape[:2], 3, num_heads, -1).permute(2, 0, 3, 1, 4)


def _multiplies_attention(dtype: torch.dtype) -> bool:
    """Whether batched products are faster than torch's attention on this processor."""
    return dtype == torch.bfloat16 and can_pack(dtype) and "amx_bf16" not in read_processor()[1]


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
