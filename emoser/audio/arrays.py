"""NumPy arrays and torch tensors as recordings: scaled to float32, with channels identified.

Never imports torch (a tensor is recognised by its methods) and never writes to its input.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.audio.limits import (
    MAX_BLOCK_VALUES,
    AudioLimits,
    FloatArray,
    NativeAudio,
    scale_to_float,
)
from emoser.errors import AudioError

# The most channels an axis may have, and one less than the fewest samples it may have, for
# the layout of a two-dimensional array to be certain.
MAX_CHANNEL_AXIS = 64


def is_tensor(source: object) -> bool:
    """Whether `source` is a torch tensor, by its methods."""
    return all(hasattr(source, name) for name in ("detach", "cpu", "numpy", "dtype"))


def open_array(source: Any, sampling_rate: int | None, limits: AudioLimits) -> NativeAudio:
    """An array or tensor of shape (T,), (channels, T) or (T, channels), converted by blocks.

    Raises a ValueError if the rate is missing or out of range or the layout is ambiguous, and a
    TypeError for a dtype that is not one of audio.
    """
    values = _tensor_values(source) if is_tensor(source) else np.asarray(source)
    scale_to_float(np.empty(0, values.dtype))  # refuses a wrong dtype first
    rate = _checked_rate(values, sampling_rate, limits)
    frames = _frames_first(values)
    if frames.shape[1] > limits.max_channels:
        raise ValueError(
            f"array of shape {values.shape} has {frames.shape[1]} channels; "
            f"{limits.max_channels} are allowed"
        )
    return NativeAudio(rate, frames.shape[1], len(frames) / rate, _scaled_blocks(frames))


def _tensor_values(tensor: Any) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such type
        tensor = tensor.float()
    values: NDArray[Any] = tensor.numpy()
    return values


def _checked_rate(values: NDArray[Any], sampling_rate: int | None, limits: AudioLimits) -> int:
    if sampling_rate is None:
        raise ValueError(
            f"sampling_rate is required when source is an array of shape {values.shape}; "
            "pass sampling_rate=16000 if that is the rate of the array"
        )
    if isinstance(sampling_rate, bool) or not isinstance(sampling_rate, int | np.integer):
        raise TypeError(
            f"sampling_rate is {sampling_rate!r}; pass a whole number of Hz such as 16000"
        )
    if not limits.min_sampling_rate <= sampling_rate <= limits.max_sampling_rate:
        raise ValueError(
            f"sampling_rate is {sampling_rate} Hz; {limits.min_sampling_rate} to "
            f"{limits.max_sampling_rate} Hz is allowed"
        )
    return int(sampling_rate)


def _frames_first(values: NDArray[Any]) -> NDArray[Any]:
    """A view of shape (T, channels); the only place that decides which axis is which."""
    if values.ndim not in (1, 2):
        raise ValueError(
            f"array of shape {values.shape} has {values.ndim} dimensions; pass (samples,), "
            "(channels, samples) or (samples, channels), one recording at a time"
        )
    if values.size == 0:
        raise AudioError(f"array of shape {values.shape} holds no samples")
    if values.ndim == 1:
        return values[:, np.newaxis]
    rows, columns = values.shape
    if columns == 1 or (columns <= MAX_CHANNEL_AXIS < rows):
        return values
    if rows == 1 or (rows <= MAX_CHANNEL_AXIS < columns):
        return values.T
    raise ValueError(
        f"array of shape {values.shape}: which axis holds the channels is ambiguous; it must be "
        f"the only one of at most {MAX_CHANNEL_AXIS}. Pass one channel, or the mean over them"
    )


def _scaled_blocks(frames: NDArray[Any]) -> Iterator[FloatArray]:
    step = max(1, MAX_BLOCK_VALUES // frames.shape[1])
    for start in range(0, len(frames), step):
        yield scale_to_float(frames[start : start + step])
