"""NumPy arrays and torch tensors as recordings: scaled to float32, with channels identified.

Never imports torch (a tensor is recognised by its methods) and never writes to its input.
"""

from collections.abc import Iterator, Sequence
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


def is_array(source: object) -> bool:
    """Whether `source` is a NumPy array or a torch tensor."""
    return isinstance(source, np.ndarray) or is_tensor(source)


def is_tensor(source: object) -> bool:
    """Whether `source` is a torch tensor, by its methods."""
    return all(hasattr(source, name) for name in ("detach", "cpu", "numpy", "dtype"))


def open_array(source: Any, sampling_rate: int | None, limits: AudioLimits) -> NativeAudio:
    """An array or tensor of shape (T,), (channels, T) or (T, channels), converted by blocks.

    Raises a ValueError if the rate is missing or out of range or the layout is ambiguous, and a
    TypeError for a dtype that is not one of audio.
    """
    values = array_values(source)
    rate = _checked_rate(values, sampling_rate, limits)
    frames = frames_first(values)
    if frames.shape[1] > limits.max_channels:
        raise ValueError(
            f"array of shape {values.shape} has {frames.shape[1]} channels; "
            f"{limits.max_channels} are allowed"
        )
    return NativeAudio(rate, frames.shape[1], len(frames) / rate, _scaled_blocks(frames))


class BlockMixer:
    """The blocks of a stream as mono samples.

    The first block of two dimensions whose shape is certain decides which axis holds the
    channels, and how many there are.

    Example:
        >>> mixer = BlockMixer()
        >>> mixer.mix(np.ones((800, 2), np.float32)).shape, mixer.mix(np.ones((5, 2))).shape
        ((800,), (5,))
    """

    def __init__(self) -> None:
        self._axis = -1  # of the channels
        self._num_channels = 0  # unknown

    def mix(self, block: Any) -> FloatArray:
        """The mean over the channels, (n,).

        Raises:
            TypeError: If the block holds no numbers, or is one of bytes.
            ValueError: If its shape could mean two things, or another number of channels.
        """
        values = _block_values(block)
        if values.ndim == 1:
            return scale_to_float(values)
        if values.ndim != 2:
            raise ValueError(
                f"a block of shape {values.shape} was pushed; (n,), (n, channels) or "
                "(channels, n) is allowed"
            )
        if not values.size:
            return np.empty(0, np.float32)
        return mix_frames(values if self._place_channels(values.shape) else values.T)

    def _place_channels(self, shape: tuple[int, ...]) -> bool:
        """Whether the channels are on the last axis."""
        if not self._num_channels:
            self._axis = _channel_axis(shape, is_block=True)
            self._num_channels = shape[self._axis]
        if shape[self._axis] != self._num_channels:
            expected = ["n", "n"]
            expected[self._axis] = str(self._num_channels)
            raise ValueError(
                f"a block of shape {shape} follows blocks of shape ({', '.join(expected)}); "
                "all blocks of a stream must have the same channels"
            )
        return self._axis == 1


def mix_frames(frames: NDArray[Any]) -> FloatArray:
    """The mean over the channels of frames in any dtype of audio, (n, channels) -> (n,)."""
    samples = scale_to_float(frames)
    if samples.shape[1] == 1:
        return samples[:, 0]
    with np.errstate(over="ignore"):  # overflow gives infinity, which is refused
        mean: FloatArray = samples.mean(axis=1, dtype=np.float32)
    return mean


def _block_values(block: Any) -> NDArray[Any]:
    if is_array(block):
        return array_values(block)
    if isinstance(block, bytes | bytearray | memoryview):
        raise TypeError(
            "a block of bytes was pushed, whose sample format is not known; pass an array, such as "
            "numpy.frombuffer(block, numpy.int16) for 16-bit PCM"
        )
    if not isinstance(block, Sequence) or isinstance(block, str | tuple):
        raise TypeError(f"the block is a {type(block).__name__}; pass a NumPy array of samples")
    return array_values(np.asarray(block))


def array_values(source: Any) -> NDArray[Any]:
    """The values of an array or tensor that holds audio.

    Integers of 64 bits that all fit 16 bits become 16-bit samples. Raises a ValueError for masked
    values and for others of 64 bits, and a TypeError for a dtype that is not one of audio.
    """
    values = _tensor_values(source) if is_tensor(source) else source
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            raise ValueError(
                f"array of shape {values.shape} has {int(np.ma.getmaskarray(values).sum())} masked "
                "values; cut them out, or fill them with .filled(0)"
            )
        values = values.data
    values = np.asarray(values)
    if values.dtype == np.int64:
        values = _as_16_bit(values)
    scale_to_float(np.empty(0, values.dtype))  # refuses a wrong dtype first
    return values


def _as_16_bit(values: NDArray[Any]) -> NDArray[Any]:
    if values.size and not -(2**15) <= values.min() <= values.max() < 2**15:
        raise ValueError(
            f"array of shape {values.shape} holds int64 numbers beyond 16 bits, whose full scale "
            "is unknown; convert them to int32 at full scale, or to floats in [-1, 1]"
        )
    return values.astype(np.int16)


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


def frames_first(values: NDArray[Any]) -> NDArray[Any]:
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
    return values if _channel_axis(values.shape, is_block=False) else values.T


def _channel_axis(shape: tuple[int, ...], *, is_block: bool) -> int:
    """Which of two axes holds the channels; the one of samples must be much longer.

    One sample of a stereo stream and two samples of a mono stream have equal shapes, so that a
    block of a single row must be longer than a recording.
    """
    rows, columns = shape
    if columns == 1 or (columns <= MAX_CHANNEL_AXIS < rows):
        return 1
    if (rows == 1 and not is_block) or (rows <= MAX_CHANNEL_AXIS < columns):
        return 0
    kind = "a block" if is_block else "array"
    raise ValueError(
        f"{kind} of shape {shape}: which axis holds the channels is ambiguous; it must be "
        f"the only one of at most {MAX_CHANNEL_AXIS}. Pass one channel, or the mean over them"
    )


def _scaled_blocks(frames: NDArray[Any]) -> Iterator[FloatArray]:
    step = max(1, MAX_BLOCK_VALUES // frames.shape[1])
    for start in range(0, len(frames), step):
        yield scale_to_float(frames[start : start + step])
