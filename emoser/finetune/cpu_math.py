"""Dropout, attention, linear layers and convolutions that are faster on a CPU than torch's own.

torch 2.14 draws one double per value for dropout; the gradient of its fused attention takes twice
the time of plain matrix products in half precision; its products in float32 come from MKL, which
takes twice the time of oneDNN on processors not made by Intel; and its convolutions in groups take
twice the time of those with the channels last. Inside `quick_math` they are replaced: the same
functions with other random numbers and other rounding.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from emoser.runtimes.processor import read_processor
from emoser.runtimes.torch.linear import can_pack

LEVELS = 1 << 16  # values of a random number of 16 bits
DRAWS = 4  # random numbers in an int64
FUSED_FRAMES = 512  # from here on fused attention saves more memory than it costs time
LEAST_ROWS = 128  # of a product, for which it is left to oneDNN
FINE_STEPS = 16  # numbers of rows between a power of two and the next; each has its own code


def quick_math(device: torch.device, *, recompute: bool = False) -> AbstractContextManager[Any]:
    """A block with faster dropout, attention, linear layers and convolutions, on a CPU.

    Args:
        device: Where is computed; on others, torch's own functions stay.
        recompute: Whether activations are recomputed for the gradient, by torch outside of the
            block. Its own functions stay then, too, as it would drop other values.
    """
    quick = device.type == "cpu" and not recompute
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


def multiply(frames: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear` in float32 by oneDNN, with its gradient.

    Args:
        frames: (..., D).
        weight: (D', D).
        bias: (D',).
    """
    product: Tensor = _Product.apply(frames.flatten(0, -2), weight, bias)
    return product.view(*frames.shape[:-1], len(weight))


class _Product(torch.autograd.Function):
    """Rows (M, D) times a weight (D', D), plus a bias (D',)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        product = _run_product(_round_rows(rows), weight, bias)
        return product.resize_(len(rows), len(weight))  # a slice could not be changed in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        rounded = _round_rows(gradient)
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            _run_product(rounded, weight.t())[: len(rows)] if of_rows else None,
            _run_product(rounded.t(), _round_rows(rows).t()) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def _run_product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def _round_rows(rows: Tensor) -> Tensor:
    """Rows (M, D) and zeros after them, so that oneDNN generates code for few numbers of rows."""
    step = max(1, (1 << len(rows).bit_length() - 1) // FINE_STEPS)
    missing = -len(rows) % step
    return functional.pad(rows, (0, 0, 0, missing)) if missing else rows


@cache
def multiplies_faster() -> bool:
    """Whether oneDNN has faster products in float32 than torch's own choice."""
    return can_pack(torch.float32) and "Intel" not in read_processor()[0]


class _FastFunctions(TorchFunctionMode):
    """Replaces torch's functions by those of this module where these are faster."""

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
        if func is functional.linear:
            return _linear(*args, **kwargs)
        if func is functional.conv1d:
            return _convolution(*args, **kwargs)
        return func(*args, **kwargs)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if inplace or not 0.0 < p < 1.0 or not training:
        return functional.dropout(input, p, training, inplace)
    return drop(input, p)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    num_rows = input.numel() // max(input.shape[-1], 1)
    single = input.dtype == weight.dtype == torch.float32
    quick = single and num_rows >= LEAST_ROWS and multiplies_faster()
    if not quick or torch.is_autocast_enabled("cpu"):
        return functional.linear(input, weight, bias)
    return multiply(input, weight, bias)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolutions in groups, as that of positions, run with the channels as the last axis."""
    stated = (
        isinstance(stride, tuple) and isinstance(padding, tuple) and isinstance(dilation, tuple)
    )
    if not stated or input.ndim != 3 or groups == 1 or weight.shape[1] == 1:
        return functional.conv1d(input, weight, bias, stride, padding, dilation, groups)
    image, kernel = (
        item[:, :, None].contiguous(memory_format=torch.channels_last) for item in (input, weight)
    )
    output = functional.conv2d(
        image, kernel, bias, (1, *stride), (0, *padding), (1, *dilation), groups
    )
    return output[:, :, 0]


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
