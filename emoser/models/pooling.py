"""Pooling of frames (B, L, D) with valid lengths to one vector per recording (B, D)."""

import torch
from torch import Tensor, nn

DEVIATION_FLOOR = 1e-5
LAYER_NORM_EPS = 1e-5


def frame_mask(num_frames: Tensor, length: int) -> Tensor:
    """Mask of valid frames, (B, L): False for padding.

    Example:
        >>> frame_mask(torch.tensor([1, 3]), 3).int().tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    positions = torch.arange(length, device=num_frames.device)
    return positions[None, :] < num_frames[:, None]


def mean_pool(frames: Tensor, num_frames: Tensor | None) -> Tensor:
    """Mean over the valid frames, (B, L, D) -> (B, D); over all L without lengths.

    Example:
        >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
        >>> mean_pool(frames, torch.tensor([2]))
        tensor([[2.]])
    """
    if num_frames is None:
        return frames.mean(dim=1)
    summed = sum_pool(frames, num_frames)
    return summed / num_frames.unsqueeze(-1).to(summed.dtype)


def sum_pool(frames: Tensor, num_frames: Tensor | None) -> Tensor:
    """Sum over the valid frames, (B, L, D) -> (B, D)."""
    if num_frames is None:
        return frames.sum(dim=1)
    mask = frame_mask(num_frames, frames.shape[1]).unsqueeze(-1)
    return frames.masked_fill(~mask, 0.0).sum(dim=1)


def max_pool(frames: Tensor, num_frames: Tensor | None) -> Tensor:
    """Largest value of each feature over the valid frames, (B, L, D) -> (B, D)."""
    if num_frames is None:
        return frames.amax(dim=1)
    mask = frame_mask(num_frames, frames.shape[1]).unsqueeze(-1)
    return frames.masked_fill(~mask, float("-inf")).amax(dim=1)


def normalize_frames(frames: Tensor, num_frames: Tensor | None) -> Tensor:
    """Layer norm over the valid frames and features of each recording together, (B, L, D).

    Example:
        >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
        >>> normalize_frames(frames, torch.tensor([2]))[0, :2, 0].round(decimals=3).tolist()
        [-1.0, 1.0]
    """
    if num_frames is None:
        centred = frames - frames.mean(dim=(1, 2), keepdim=True)
        variance = centred.square().mean(dim=(1, 2), keepdim=True)
        return centred / torch.sqrt(variance + LAYER_NORM_EPS)
    mask = frame_mask(num_frames, frames.shape[1])[:, :, None]
    count = (num_frames * frames.shape[2]).to(frames.dtype)[:, None, None]
    mean = frames.masked_fill(~mask, 0.0).sum(dim=(1, 2), keepdim=True) / count
    centred = (frames - mean).masked_fill(~mask, 0.0)
    variance = centred.square().sum(dim=(1, 2), keepdim=True) / count
    return centred / torch.sqrt(variance + LAYER_NORM_EPS)


def statistics_pool(frames: Tensor, num_frames: Tensor | None) -> Tensor:
    """Mean and standard deviation over the valid frames, (B, L, D) -> (B, 2 D).

    The deviation is that of the frames themselves (divided by their number, not by one less),
    and at least sqrt(1e-5), so that a single frame has one and a gradient.

    Example:
        >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
        >>> statistics_pool(frames, torch.tensor([2]))
        tensor([[2., 1.]])
    """
    mean = mean_pool(frames, num_frames)
    variance = mean_pool((frames - mean[:, None]).square(), num_frames)
    return torch.cat([mean, variance.clamp(min=DEVIATION_FLOOR).sqrt()], dim=1)


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation of the frames, weighted by learned attention.

    h = tanh(sap_linear(x)), w = softmax over the valid frames of h @ attention,
    mean = sum(w x), deviation = sqrt(max(sum(w x^2) - mean^2, 1e-5)), concatenated. The variance
    is computed as sum(w (x - mean)^2), which is equal and numerically stable.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.sap_linear = nn.Linear(size, size)
        self.attention = nn.Parameter(torch.empty(size, 1))
        nn.init.normal_(self.attention)

    def forward(self, frames: Tensor, num_frames: Tensor | None) -> Tensor:
        """Statistics of frames, (B, L, D) -> (B, 2 D)."""
        scores = torch.tanh(self.sap_linear(frames)) @ self.attention  # (B, L, 1)
        if num_frames is not None:
            mask = frame_mask(num_frames, frames.shape[1]).unsqueeze(-1)
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=1)
        mean = (frames * weights).sum(dim=1)
        variance = ((frames - mean.unsqueeze(1)).square() * weights).sum(dim=1)
        return torch.cat([mean, variance.clamp(min=DEVIATION_FLOOR).sqrt()], dim=1)
