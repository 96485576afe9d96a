"""From frames (B, L, D) and their valid lengths to one vector per recording (B, D).

Knows nothing of encoders, labels or files.
"""

import torch
from torch import Tensor


def frame_mask(num_frames: Tensor, length: int) -> Tensor:
    """True where a frame belongs to the recording and False where it is padding, (B, L).

    Example:
        >>> frame_mask(torch.tensor([1, 3]), 3).int().tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    positions = torch.arange(length, device=num_frames.device)
    return positions[None, :] < num_frames[:, None]


def mean_pool(frames: Tensor, num_frames: Tensor | None) -> Tensor:
    """Mean over the valid frames, (B, L, D) -> (B, D); over all of them without lengths.

    Example:
        >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
        >>> mean_pool(frames, torch.tensor([2]))
        tensor([[2.]])
    """
    if num_frames is None:
        return frames.mean(dim=1)
    mask = frame_mask(num_frames, frames.shape[1]).unsqueeze(-1)
    summed = frames.masked_fill(~mask, 0.0).sum(dim=1)
    return summed / num_frames.unsqueeze(-1).to(summed.dtype)
