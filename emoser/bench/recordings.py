"""The clips that engines are timed with: noise that swells, as loud as speech.

What an engine makes of them does not matter, and how long it takes does not depend on it.
"""

import numpy as np
import numpy.typing as npt

RATE = 16_000
SECONDS = 4.0  # of the clip whose latency is told
MIXED_SECONDS = (0.7, 1.0, 1.6, 2.2, 2.9, 4.0, 5.5, 8.0)


def make_clip(seconds: float, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """A clip of so many seconds, (T,), at 16 kHz.

    Example:
        >>> make_clip(0.5).shape
        (8000,)
    """
    generator = np.random.default_rng(seed)
    count = round(seconds * RATE)
    swell = 0.02 + 0.1 * np.abs(np.sin(np.linspace(0, 3 * seconds, count)))
    return (generator.standard_normal(count) * swell).astype(np.float32)


def mixed_clips() -> list[npt.NDArray[np.float32]]:
    """Clips of many lengths, in no order."""
    clips = [make_clip(seconds, seed=place) for place, seconds in enumerate(MIXED_SECONDS)]
    order = np.random.default_rng(0).permutation(len(clips))
    return [clips[place] for place in order]
