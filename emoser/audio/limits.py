"""Limits of a recording, and the container of a decoded one."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.errors import AudioError

SAMPLING_RATE = 16_000  # Hz; what every encoder was trained on

# Values (frames times channels) decoded at a time: 8 MB of float32, whatever the header says.
MAX_BLOCK_VALUES = 2**21

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class AudioLimits:
    """The limits beyond which a recording is refused.

    Attributes:
        max_seconds: Longest recording, by decoded samples and not by its header.
        max_bytes: Largest file, and the most that is copied from a stream that cannot seek.
        max_channels: Largest number of channels.
        min_sampling_rate: Lowest sampling rate in Hz.
        max_sampling_rate: Highest sampling rate in Hz.
        max_whole_seconds: Longest recording that is held in memory as a whole.

    Raises:
        ValueError: If a limit is not a positive number, or the lowest rate is above the highest.

    Example:
        >>> AudioLimits(max_seconds=60.0).max_channels
        64
    """

    max_seconds: float = 24 * 3600.0
    max_bytes: int = 4 * 2**30
    max_channels: int = 64
    min_sampling_rate: int = 1_000
    max_sampling_rate: int = 768_000
    max_whole_seconds: float = 3600.0

    def __post_init__(self) -> None:
        bad = [field.name for field in fields(self) if not getattr(self, field.name) > 0]
        if bad:
            raise ValueError(f"limits must be positive numbers; not positive: {', '.join(bad)}")
        if self.min_sampling_rate > self.max_sampling_rate:
            raise ValueError(
                f"min_sampling_rate {self.min_sampling_rate} is above max_sampling_rate "
                f"{self.max_sampling_rate}; swap them"
            )


DEFAULT_LIMITS = AudioLimits()


@dataclass
class NativeAudio:
    """A recording being decoded, at its own sampling rate and with all its channels."""

    sampling_rate: int  # Hz
    num_channels: int
    declared_seconds: float | None  # length according to the header; None if it has none
    blocks: Iterator[FloatArray]  # (n, num_channels), C order, any n >= 1
    truncated: bool = False  # less was decoded than declared; final once `blocks` is exhausted


def check_shape(sampling_rate: int, num_channels: int, limits: AudioLimits, name: str) -> None:
    """Raise an AudioError if the sampling rate or the channels are outside the limits."""
    faults = []
    if not limits.min_sampling_rate <= sampling_rate <= limits.max_sampling_rate:
        faults.append(
            f"a sampling rate of {sampling_rate} Hz "
            f"({limits.min_sampling_rate} to {limits.max_sampling_rate} Hz is allowed)"
        )
    if not 1 <= num_channels <= limits.max_channels:
        faults.append(f"{num_channels} channels (1 to {limits.max_channels} are allowed)")
    if faults:
        raise AudioError(f"{name} has {' and '.join(faults)}; convert it or pass other limits")


def scale_to_float(values: NDArray[Any]) -> FloatArray:
    """Integers to [-1, 1) by their full scale, floats as they are, to float32 in C order.

    Never writes to `values`. A float64 beyond float32 becomes infinite, which is refused later.
    Any other dtype raises a TypeError.

    Example:
        >>> scale_to_float(np.array([-32768, 16384], np.int16)).tolist()
        [-1.0, 0.5]
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "f" and size <= 8:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, np.float32)
    if (kind, size) == ("i", 2):
        return np.ascontiguousarray(values, np.float32) * np.float32(2.0**-15)
    if (kind, size) == ("i", 4):  # through float64, which holds every int32
        return (np.ascontiguousarray(values, np.float64) * 2.0**-31).astype(np.float32)
    if (kind, size) == ("i", 1):
        return np.ascontiguousarray(values, np.float32) * np.float32(2.0**-7)
    if (kind, size) == ("u", 1):
        return (np.ascontiguousarray(values, np.float32) - np.float32(128)) / np.float32(128)
    raise TypeError(
        f"samples are {values.dtype} numbers; float16, float32, float64, int8, int16, int32 or "
        "uint8 are allowed: convert them with .astype"
    )
