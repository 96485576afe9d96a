"""Decode audio to float32 mono samples at 16 kHz, whole or block by block.

Takes a path, bytes, a binary file object, a NumPy array or a torch tensor; torch is never
imported.
"""

from dataclasses import dataclass, field

import numpy as np

from emoser.audio.blocks import BLOCK_SECONDS, AudioBlocks, Channel
from emoser.audio.limits import MIN_SAMPLES, SAMPLING_RATE, AudioLimits, FloatArray
from emoser.audio.quality import FLAGS, QualityMeter
from emoser.audio.resampling import StreamResampler
from emoser.audio.sources import Source, describe_source
from emoser.errors import AudioError

__all__ = [
    "FLAGS",
    "MIN_SAMPLES",
    "SAMPLING_RATE",
    "AudioBlocks",
    "AudioLimits",
    "Channel",
    "QualityMeter",
    "Recording",
    "Source",
    "StreamResampler",
    "describe_source",
    "load_audio",
    "open_blocks",
    "read_recording",
]

_DEFAULT_LIMITS = AudioLimits()


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording in memory.

    Attributes:
        samples: Shape (T,), float32 mono at 16 kHz.
        duration: Seconds of the original that were decoded.
        quality: Flags out of `FLAGS`, in that order.
        name: The path or file name as it is; None for bytes and arrays.
        source_rate: Sampling rate of the original in Hz.
    """

    samples: FloatArray = field(repr=False)
    duration: float
    quality: tuple[str, ...]
    name: str | None
    source_rate: int


def load_audio(
    source: Source,
    *,
    sampling_rate: int | None = None,
    channel: Channel = "mix",
    limits: AudioLimits = _DEFAULT_LIMITS,
) -> FloatArray:
    """All samples of a recording, float32 mono at 16 kHz, shape (T,).

    The content of a file decides how it is decoded, not its extension. Values above 1.0 are kept.

    Args:
        source: A path, bytes, a binary file object (read from its position, which is restored),
            a NumPy array or a torch tensor of shape (T,), (channels, T) or (T, channels).
        sampling_rate: Rate of an array in Hz, required for arrays; files state their own and
            this is ignored for them.
        channel: "mix" for the mean over the channels, "left", "right", or an index.
        limits: Recordings beyond these are refused.

    Raises:
        AudioError: If it cannot be decoded, is empty, too long or too large, or holds NaN.
        OSError: FileNotFoundError, PermissionError, IsADirectoryError and similar.
        ValueError: If an array has no rate or an ambiguous layout, or a channel does not exist.
        TypeError: If `source` is none of the above.
        DependencyError: If the format needs the extra `media`.

    Example:
        >>> stereo = np.zeros((2, 44100), np.int16)
        >>> load_audio(stereo, sampling_rate=44100).shape
        (16000,)
    """
    return read_recording(
        source, sampling_rate=sampling_rate, channel=channel, limits=limits
    ).samples


def read_recording(
    source: Source,
    *,
    sampling_rate: int | None = None,
    channel: Channel = "mix",
    limits: AudioLimits = _DEFAULT_LIMITS,
) -> Recording:
    """A recording with its samples, duration and quality; arguments and errors of `load_audio`.

    Example:
        >>> tone = np.sin(np.arange(4000) * 0.1).astype(np.float32)
        >>> recording = read_recording(tone, sampling_rate=8000)
        >>> recording.duration, recording.quality
        (0.5, ('narrow-band',))
    """
    with open_blocks(source, sampling_rate=sampling_rate, channel=channel, limits=limits) as blocks:
        parts, num_samples = [], 0
        for block in blocks:
            parts.append(block)
            num_samples += len(block)
            if num_samples > limits.max_whole_seconds * SAMPLING_RATE:
                raise AudioError(
                    f"{describe_source(source)} is longer than {limits.max_whole_seconds:g} s, "
                    "too long to hold in one piece; read it with open_blocks or "
                    "EmotionClassifier.timeline, or pass AudioLimits with more max_whole_seconds"
                )
        samples = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return Recording(samples, blocks.duration, blocks.quality, blocks.name, blocks.source_rate)


def open_blocks(
    source: Source,
    *,
    sampling_rate: int | None = None,
    channel: Channel = "mix",
    limits: AudioLimits = _DEFAULT_LIMITS,
    block_seconds: float = BLOCK_SECONDS,
) -> AudioBlocks:
    """Read a recording of any length in constant memory; joined, what `load_audio` gives.

    Args:
        source: As for `load_audio`, like `sampling_rate`, `channel` and `limits`.
        sampling_rate: As for `load_audio`.
        channel: As for `load_audio`.
        limits: As for `load_audio`; `max_whole_seconds` is ignored.
        block_seconds: Seconds of every block but the last.

    Raises:
        ValueError: If `block_seconds` is not positive, and all that `load_audio` raises.

    Example:
        >>> hum = np.zeros(40_000, np.float32)
        >>> with open_blocks(hum, sampling_rate=16_000, block_seconds=1.0) as blocks:
        ...     [len(block) for block in blocks]
        [16000, 16000, 8000]
    """
    return AudioBlocks(
        source,
        sampling_rate=sampling_rate,
        channel=channel,
        limits=limits,
        block_seconds=block_seconds,
    )
