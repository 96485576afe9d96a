"""Decode audio to float32 mono samples, by default at 16 kHz, whole or block by block.

Takes a path, bytes, a binary file object, a NumPy array or a torch tensor; torch is never
imported.
"""

import numpy as np

from emoser.audio.blocks import AudioBlocks, Channel
from emoser.audio.limits import DEFAULT_LIMITS, SAMPLING_RATE, AudioLimits, FloatArray
from emoser.audio.resampling import StreamResampler
from emoser.audio.sources import Source, describe_source
from emoser.errors import AudioError

__all__ = [
    "SAMPLING_RATE",
    "AudioBlocks",
    "AudioLimits",
    "Channel",
    "Source",
    "StreamResampler",
    "describe_source",
    "load_audio",
]


def load_audio(
    source: Source,
    *,
    sampling_rate: int | None = None,
    channel: Channel = "mix",
    limits: AudioLimits = DEFAULT_LIMITS,
    target_rate: int = SAMPLING_RATE,
) -> FloatArray:
    """All samples of a recording, float32 mono at `target_rate`, shape (T,).

    The content of a file decides how it is decoded, not its extension. Values above 1.0 are kept.

    Args:
        source: A path, bytes, a binary file object (read from its position, which is restored),
            a NumPy array or a torch tensor of shape (T,), (channels, T) or (T, channels), in
            floats or in integers of full scale (64 bits hold samples of 16). Or what holds one:
            a dictionary or row as `datasets` gives it, its AudioDecoder, a pair of a rate and an
            array, an UploadFile of FastAPI, or an AudioSegment of pydub.
        sampling_rate: Rate of an array in Hz, required for arrays; files state their own and
            this is ignored for them.
        channel: "mix" for the mean over the channels, "left", "right", or an index.
        limits: Recordings beyond these are refused.
        target_rate: Rate of the result in Hz; 16 kHz is that of most models.

    Raises:
        AudioError: If it cannot be decoded, is empty, too long or too large, or holds NaN.
        OSError: An AudioError, too: a FileNotFoundError, PermissionError, IsADirectoryError and
            similar.
        ValueError: If an array has no rate, an ambiguous layout or masked values, or a channel
            does not exist.
        TypeError: If `source` is none of the above.
        DependencyError: If the format needs the extra `media`.

    Example:
        >>> stereo = np.zeros((2, 44100), np.int16)
        >>> load_audio(stereo, sampling_rate=44100).shape
        (16000,)
    """
    parts, num_samples = [], 0
    with AudioBlocks(
        source,
        sampling_rate=sampling_rate,
        channel=channel,
        limits=limits,
        target_rate=target_rate,
    ) as blocks:
        for block in blocks:
            parts.append(block)
            num_samples += len(block)
            if num_samples > limits.max_whole_seconds * target_rate:
                raise AudioError(
                    f"{describe_source(source)} is longer than {limits.max_whole_seconds:g} s, "
                    "too long to hold in one piece; read it with AudioBlocks or "
                    "EmotionClassifier.timeline, or pass AudioLimits with more max_whole_seconds"
                )
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
