"""Vary training clips: samples (T,) at 16 kHz in, new float32 samples out.

Each variation is a pure function; `augment` draws which ones from an explicit generator.
Knows nothing of models, labels or files.
"""

import numpy as np
import soxr
from numpy.typing import NDArray

from emoser import torchaudio_guard
from emoser.finetune.config import Augmentation

SAMPLING_RATE = 16_000
MU_LAW_LEVELS = 256  # ITU-T G.711
TELEPHONE_BAND = (300.0, 3400.0)  # Hz, ITU-T G.712
REFERENCE_HERTZ = 1000.0  # where a tilt changes nothing
LOWEST_HERTZ = 50.0  # tilts and colours are flat below
SILENCE = 1e-8

Samples = NDArray[np.float32]


def augment(
    samples: Samples, augmentation: Augmentation, generator: np.random.Generator
) -> Samples:
    """A random variation of a clip; its length changes with its speed.

    Example:
        >>> tone = np.sin(np.arange(16000, dtype=np.float32) / 10)
        >>> varied = augment(tone, Augmentation(), np.random.default_rng(0))
        >>> bool(np.array_equal(varied, augment(tone, Augmentation(), np.random.default_rng(0))))
        True
    """
    if generator.random() < augmentation.speed_probability:
        change = augmentation.speed_change
        samples = change_speed(samples, 1.0 + generator.uniform(-change, change))
    if generator.random() < augmentation.reverb_probability:
        samples = add_reverb(samples, generator.uniform(*augmentation.reverb_seconds), generator)
    if generator.random() < augmentation.tilt_probability:
        tilt = augmentation.tilt_decibels
        samples = tilt_spectrum(samples, generator.uniform(-tilt, tilt))
    if generator.random() < augmentation.noise_probability:
        samples = add_noise(samples, generator.uniform(*augmentation.noise_decibels), generator)
    if generator.random() < augmentation.telephone_probability:
        samples = simulate_telephone(samples)
    gain = generator.uniform(-augmentation.gain_decibels, augmentation.gain_decibels)
    return apply_gain(samples, gain)


def apply_gain(samples: Samples, decibels: float) -> Samples:
    """The clip at another level.

    Example:
        >>> apply_gain(np.ones(2, np.float32), 20.0)
        array([10., 10.], dtype=float32)
    """
    return samples * np.float32(10.0 ** (decibels / 20.0))


def change_speed(samples: Samples, factor: float) -> Samples:
    """The clip `factor` times as fast, its pitch changed with it.

    Raises:
        ValueError: If the factor is not above 0.

    Example:
        >>> len(change_speed(np.zeros(8000, np.float32), 1.25))
        6400
    """
    if not factor > 0.0:
        raise ValueError(f"factor is {factor}, a speed must be above 0")
    changed = soxr.resample(samples, factor * SAMPLING_RATE, SAMPLING_RATE, quality="MQ")
    return np.asarray(changed, dtype=np.float32)


def add_noise(samples: Samples, decibels: float, generator: np.random.Generator) -> Samples:
    """The clip with stationary noise whose power is `decibels` below that of the clip.

    The colour is drawn too, from white (flat) to brown (6 dB less per octave).
    """
    noise = generator.standard_normal(len(samples), dtype=np.float32)
    noise = tilt_spectrum(noise, -6.02 * generator.random())
    level = _root_mean_square(samples) * 10.0 ** (-decibels / 20.0)
    return samples + noise * np.float32(level / max(_root_mean_square(noise), SILENCE))


def tilt_spectrum(samples: Samples, decibels_per_octave: float) -> Samples:
    """The clip with a straight line added to its spectrum in decibels over octaves."""
    frequencies = np.maximum(_frequencies(samples), LOWEST_HERTZ)
    gains = (frequencies / REFERENCE_HERTZ) ** (decibels_per_octave / 6.0206)
    return _filter(samples, gains)


def limit_band(samples: Samples, low: float, high: float) -> Samples:
    """The clip without what lies below `low` or above `high` Hz."""
    frequencies = _frequencies(samples)
    return _filter(samples, ((frequencies >= low) & (frequencies <= high)).astype(np.float64))


def simulate_telephone(samples: Samples) -> Samples:
    """The clip as a telephone line carries it: its band, and the 256 levels of mu-law.

    Raises:
        DependencyError: If torchaudio, whose mu-law this is, does not load.
    """
    torchaudio_guard.require_torchaudio("the telephone augmentation")
    import torch
    from torchaudio.functional import mu_law_decoding, mu_law_encoding

    limited = torch.from_numpy(limit_band(samples, *TELEPHONE_BAND)).clamp(-1.0, 1.0)
    decoded = mu_law_decoding(mu_law_encoding(limited, MU_LAW_LEVELS), MU_LAW_LEVELS)
    return np.asarray(decoded.numpy(), dtype=np.float32)


def add_reverb(samples: Samples, seconds: float, generator: np.random.Generator) -> Samples:
    """The clip in a synthetic room: the direct sound and decaying noise of equal power.

    Args:
        samples: The clip, (T,).
        seconds: Time in which the room's answer falls by 60 dB.
        generator: Makes the room.
    """
    size = max(int(seconds * SAMPLING_RATE), 1)
    decay = 10.0 ** (-3.0 * np.arange(size) / size)
    room = generator.standard_normal(size) * decay
    room /= max(float(np.sqrt(np.square(room).sum())), SILENCE)
    room[0] += 1.0
    length = _fast_length(len(samples) + size - 1)
    spectrum = np.fft.rfft(samples, length) * np.fft.rfft(room, length)
    return np.fft.irfft(spectrum, length)[: len(samples)].astype(np.float32)


def _root_mean_square(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def _frequencies(samples: Samples) -> NDArray[np.float64]:
    return np.fft.rfftfreq(_fast_length(len(samples)), 1.0 / SAMPLING_RATE).astype(np.float64)


def _filter(samples: Samples, gains: NDArray[np.float64]) -> Samples:
    length = _fast_length(len(samples))
    spectrum = np.fft.rfft(samples, length) * gains.astype(np.float32)
    return np.fft.irfft(spectrum, length)[: len(samples)].astype(np.float32, copy=False)


def _fast_length(length: int) -> int:
    """The next multiple of a power of two near the length, for which the FFT is fast."""
    step = 1 << max(length.bit_length() - 4, 0)
    return max(-(-length // step) * step, 1)
