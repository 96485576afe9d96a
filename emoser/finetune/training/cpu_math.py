"""Dropout and attention that train faster on a processor in half precision than torch's own.

torch 2.14 draws the zeros of dropout one double at a time, and the gradient of its fused
attention takes twice the time of plain matrix products. Inside `quick_math` both are done
otherwise: the same functions with other draws and other rounding. Knows nothing of models.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from emoser.finetune.config import FinetuneConfig

LEVELS = 1 << 16  # of chance: a draw has 16 bits
DRAWS = 4  # in an int64
FUSED_FRAMES = 512  # from which fused attention saves more memory than it costs in time


def quick_math(device: torch.device, config: FinetuneConfig) -> AbstractContextManager[Any]:
    """A block in which losses and their gradients are computed quickly, where that is a gain.

    float32 and other devices compute as ever. So does recomputing: torch leaves the block when
    it computes activations again, and would drop other values then.

    Args:
        device: Where the block computes.
        config: Its precision, and whether activations are recomputed.
    """
    quick = device.type == "cpu" and config.run.precision != "float32" and not config.run.recompute
    return _Shortcuts() if quick else nullcontext()


def drop(values: Tensor, chance: float) -> Tensor:
    """Zeros at random places, everything else larger, so that the mean stays.

    Args:
        values: Any shape.
        chance: Of a zero, in [0, 1); rounded to 1/65536.

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
    """Attention in plain matrix products.

    Args:
        query: (B, H, L, D), like key and value.
        key: What it is compared with.
        value: What is averaged.
        mask: True or 0 where a frame is heard, False or very negative where not; it broadcasts
            to (B, H, L, L).
        chance: Of leaving a weight out.
        scale: Of the products of query and key.
    """
    scores = (query * scale) @ key.transpose(-2, -1)  # (B, H, L, L)
    if mask is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    weights = functional.softmax(scores, dim=-1)
    return (drop(weights, chance) if chance else weights) @ value


class _Shortcuts(TorchFunctionMode):
    """Calls of torch's dropout and attention go to the functions above."""

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
