"""Dropout and attention that train faster on a CPU in half precision than torch's own.

torch 2.14 draws one double per value for dropout, and the gradient of its fused attention takes
twice the time of plain matrix products. Inside `quick_math` both are replaced: the same functions
with other random numbers and other rounding.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from emoser.finetune.config import FinetuneConfig

LEVELS = 1 << 16  # values of a random number of 16 bits
DRAWS = 4  # random numbers in an int64
FUSED_FRAMES = 512  # from here on fused attention saves more memory than it costs time


def quick_math(device: torch.device, config: FinetuneConfig) -> AbstractContextManager[Any]:
    """A block with faster dropout and attention, on a CPU in half precision.

    It has no effect in float32, on other devices and with recomputation: torch leaves the block
    before it recomputes activations, and would drop other values then.
    """
    quick = device.type == "cpu" and config.run.precision != "float32" and not config.run.recompute
    return _FastFunctions() if quick else nullcontext()


def drop(values: Tensor, chance: float) -> Tensor:
    """Dropout: random values become zero, and the others are scaled to keep the mean.

    Args:
        values: Any shape.
        chance: Probability of a zero, in [0, 1); rounded to 1/65536.

    Example:
        >>> kept = drop(torch.ones(100_000), 0.2) > 0
        >>> round(float(kept.float().mean()), 2)
        0.8
    """
    cut, count = round(chance * LEVELS), values.numel()
    words = torch.empty(-(-count // DRAWS), dtype=torch.int64, device=values.device)
    draws = words.random_(-(1 << 63), None).view(torch.int16)[:count].view(values.shape)
    factors = torch.empty_like(draws, dtype=values.dtype)
    torch.ge(draws, cut - LEVELS // 2, out=factors)
    return values * factors.mul_(LEVELS / (LEVELS - cut))


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, chance: float, scale: float
) -> Tensor:
    """Attention in plain matrix products, of query, key and value (B, H, L, D).

    The mask is True or 0 at frames that are attended to, False or very negative at others, and
    broadcasts to (B, H, L, L). Weights are dropped with the probability `chance`.
    """
    scores = (query * scale) @ key.transpose(-2, -1)  # (B, H, L, L)
    if mask is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    weights = functional.softmax(scores, dim=-1)
    return (drop(weights, chance) if chance else weights) @ value


class _FastFunctions(TorchFunctionMode):
    """Replaces torch's dropout and attention by the functions above."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout:
            return _dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if inplace or not 0.0 < p < 1.0 or not training:
        return functional.dropout(input, p, training, inplace)
    return drop(input, p)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    **special: Any,
) -> Tensor:
    scale = special.pop("scale", None)
    quick = query.requires_grad and (dropout_p > 0.0 or key.shape[-2] < FUSED_FRAMES)
    if not quick or any(special.values()):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, scale=scale, **special
        )
    if scale is None:
        scale = query.shape[-1] ** -0.5
    return attend(query, key, value, attn_mask, chance=dropout_p, scale=scale)
