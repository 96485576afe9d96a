"""Silence: sound in which nobody speaks, by the level of its frames.

Digital silence is, and so is a faint steady sound such as hiss or hum. A voice is never steady,
however quiet: in 18,175 clips of speech and of single cries, at their own level and 60 dB below
it, with digital silence around them or without, a frame beside others lies more than 5 dB below
the loudest. White noise varies by 2 dB, mains hum by less.
"""

import numpy as np
from numpy.typing import NDArray

from emoser.audio.limits import FloatArray

FRAME_SAMPLES = 512  # 32 ms at 16 kHz
EMPTY_DBFS = -160.0  # digital silence; one sample of the least value in 24 bit makes -165
STEADY_DB = 5.0
# An idle telephone line is near -65 dBFS, the noise of a laptop near -50. A louder steady sound
# is a siren or a held cry rather than the noise of a room.
MAX_NOISE_DBFS = -45.0

Levels = NDArray[np.float64]


class SilenceMeter:
    """Finds out whether the frames so far are silence; constant memory.

    Example:
        >>> meter = SilenceMeter()
        >>> meter.update(np.array([-50.0, -51.0, -50.0]))
        >>> meter.is_silent
        True
        >>> meter.update(np.array([-58.0, -50.0]))
        >>> meter.is_silent
        False
    """

    def __init__(self) -> None:
        self._tail = np.empty(0)  # the last two levels
        self._loudest = -np.inf
        self._quietest = np.inf

    def update(self, levels: Levels) -> None:
        """The levels of the next frames in dBFS, (n,)."""
        if not len(levels):
            return
        joined = np.concatenate([self._tail, levels])
        self._tail = joined[-2:]
        self._loudest = max(self._loudest, float(levels.max()))
        # A frame beside digital silence or at an end may hold a part of a sound only.
        is_full = joined > EMPTY_DBFS
        inner = joined[1:-1][is_full[:-2] & is_full[1:-1] & is_full[2:]]
        self._quietest = min(self._quietest, float(inner.min(initial=np.inf)))

    @property
    def is_silent(self) -> bool:
        """Whether nobody speaks in the frames so far; true without any."""
        if self._loudest <= EMPTY_DBFS:
            return True
        is_faint = self._loudest <= MAX_NOISE_DBFS
        return is_faint and self._quietest >= self._loudest - STEADY_DB


def is_silent(levels: Levels) -> bool:
    """Whether nobody speaks in frames of these levels in dBFS, (n,).

    Example:
        >>> is_silent(np.array([-200.0, -48.0, -200.0])), is_silent(np.array([-30.0]))
        (True, False)
    """
    meter = SilenceMeter()
    meter.update(levels)
    return meter.is_silent


def frame_levels(frames: FloatArray) -> Levels:
    """The level of each frame around its own mean, (n, T) -> (n,) in dB of full scale.

    Example:
        >>> frame_levels(np.array([[0.1, -0.1], [0.5, 0.5]], np.float32)).round()
        array([ -20., -300.])
    """
    centred = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
    power = np.einsum("ij,ij->i", centred, centred) / frames.shape[1]
    levels: Levels = 10 * np.log10(np.maximum(power, 1e-30))
    return levels
