"""Resample mono samples, by default to 16 kHz, whole or in blocks, with identical results.

The resampler is soxr at its HQ setting: the alias of a 9 kHz tone is 140 dB down, and blocks of
any size give bit-identical samples.
"""

import numpy as np
import soxr

from emoser.audio.limits import SAMPLING_RATE, FloatArray


class StreamResampler:
    """Resamples a stream of blocks; the joined outputs equal those of a single call.

    Holds the filter's memory, so one object serves one stream. The output of `push` lags
    behind its input by a few milliseconds; `flush` gives the rest and ends the stream. Blocks
    that have the wanted rate already pass through unchanged.

    Args:
        sampling_rate: Rate of the blocks in Hz.
        target_rate: Rate of the result in Hz.

    Raises:
        ValueError: If a rate is not positive, or samples follow after `flush`.

    Example:
        >>> resampler = StreamResampler(48_000)
        >>> first = resampler.push(np.zeros(24_000, np.float32))
        >>> last = resampler.flush()
        >>> len(first) + len(last)
        8000
    """

    def __init__(self, sampling_rate: int, *, target_rate: int = SAMPLING_RATE) -> None:
        if sampling_rate <= 0 or target_rate <= 0:
            raise ValueError(
                f"sampling_rate is {sampling_rate} Hz and target_rate {target_rate} Hz; pass "
                "positive rates"
            )
        self._stream = None
        self._ended = False
        if sampling_rate != target_rate:
            self._stream = soxr.ResampleStream(
                sampling_rate, target_rate, 1, dtype="float32", quality="HQ"
            )

    def push(self, block: FloatArray) -> FloatArray:
        """The next samples, (T,) at `sampling_rate` -> (n,) at `target_rate`; n may be 0."""
        return self._resample(block, last=False)

    def flush(self) -> FloatArray:
        """What the filter still holds, shape (n,); the stream ends here."""
        return self._resample(np.empty(0, np.float32), last=True)

    def _resample(self, block: FloatArray, *, last: bool) -> FloatArray:
        if self._ended:
            raise ValueError("this stream has been flushed; use one StreamResampler per stream")
        self._ended = last
        if self._stream is None:
            return block
        resampled: FloatArray = self._stream.resample_chunk(block, last=last)
        return resampled
