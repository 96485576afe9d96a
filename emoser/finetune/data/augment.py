"""Vary training clips: samples (T,) at 16 kHz in, new float32 samples out.

Each variation is a pure function; `augment` draws which ones from an explicit generator.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from emoser.finetune.config import Augmentation
from emoser.models import torchaudio_guard

SAMPLING_RATE = 16_000
MU_LAW_LEVELS = 256  # ITU-T G.711
TELEPHONE_BAND = (300.0, 3400.0)  # Hz, ITU-T G.712
REFERENCE_HERTZ = 1000.0  # where a tilt changes nothing
LOWEST_HERTZ = 50.0  # tilts and colours are flat below
SILENCE = 1e-8
LEVEL_SAMPLES = 320  # 20 ms, of which the peak is taken
QUIET = 0.08  # of the peak of the clip, -22 dB: what lies before and behind it is no voice

Samples = NDArray[np.float32]


def drop_quiet_ends(
    samples: Samples, augmentation: Augmentation, generator: np.random.Generator
) -> Samples:
    """The clip, at random without its quiet ends; applied before the clip is cropped."""
    if generator.random() >= augmentation.trim_probability:
        return samples
    before, behind = generator.uniform(0.0, augmentation.trim_seconds, size=2)
    return trim_ends(samples, before=before, behind=behind)


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


def trim_ends(samples: Samples, *, before: float = 0.0, behind: float = 0.0) -> Samples:
    """The clip from where its voice begins to where it ends, by its level.

    Args:
        samples: The clip, (T,).
        before: Seconds that stay before it, where there are so many.
        behind: Seconds that stay behind it.

    Example:
        >>> clip = np.zeros(16_000, np.float32)
        >>> clip[4_800:8_000] = 0.1
        >>> len(trim_ends(clip)), len(trim_ends(clip, before=0.1, behind=9.0))
        (3200, 12800)
    """
    if not len(samples):
        return samples
    starts = np.arange(0, len(samples), LEVEL_SAMPLES)
    peaks = np.maximum.reduceat(np.abs(samples), starts)
    loud = np.flatnonzero(peaks > QUIET * peaks.max())
    if not len(loud):
        return samples
    begin = loud[0] * LEVEL_SAMPLES - round(before * SAMPLING_RATE)
    end = (loud[-1] + 1) * LEVEL_SAMPLES + round(behind * SAMPLING_RATE)
    return samples[max(begin, 0) : end]


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
    octaves = _octaves(_fast_length(len(samples)))
    drawn = generator.standard_normal(2 * len(octaves), dtype=np.float32).view(np.complex64)
    noise = _sound(drawn * np.exp2(octaves * np.float32(-generator.random())), len(samples))
    level = _root_mean_square(samples) * 10.0 ** (-decibels / 20.0)
    return samples + noise * np.float32(level / max(_root_mean_square(noise), SILENCE))


def tilt_spectrum(samples: Samples, decibels_per_octave: float) -> Samples:
    """The clip with a straight line added to its spectrum in decibels over octaves."""
    octaves = _octaves(_fast_length(len(samples)))
    return _filter(samples, np.exp2(octaves * np.float32(decibels_per_octave / 6.0206)))


def limit_band(samples: Samples, low: float, high: float) -> Samples:
    """The clip without what lies below `low` or above `high` Hz."""
    frequencies = np.fft.rfftfreq(_fast_length(len(samples)), 1.0 / SAMPLING_RATE)
    return _filter(samples, ((frequencies >= low) & (frequencies <= high)).astype(np.float32))


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
    decay = np.exp2(np.linspace(0.0, -3.0 * np.log2(10.0), size, dtype=np.float32))
    room = generator.standard_normal(size, dtype=np.float32) * decay
    room /= max(float(np.sqrt(np.square(room).sum())), SILENCE)
    room[0] += 1.0
    length = _fast_length(len(samples) + size - 1)
    return _sound(np.fft.rfft(samples, length) * np.fft.rfft(room, length), len(samples))


def _root_mean_square(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


@lru_cache(maxsize=64)
def _octaves(length: int) -> Samples:
    """Where the frequencies of a spectrum lie, in octaves above 1 kHz."""
    frequencies = np.fft.rfftfreq(length, 1.0 / SAMPLING_RATE)
    ratios = np.maximum(frequencies, LOWEST_HERTZ) / REFERENCE_HERTZ
    octaves: Samples = np.log2(ratios).astype(np.float32)
    octaves.flags.writeable = False
    return octaves


def _filter(samples: Samples, gains: Samples) -> Samples:
    spectrum = np.fft.rfft(samples, _fast_length(len(samples)))
    return _sound(spectrum * gains, len(samples))


def _sound(spectrum: NDArray[Any], size: int) -> Samples:
    """The first samples of what has a spectrum, whose length `_fast_length` made even."""
    samples: Samples = np.fft.irfft(spectrum)[:size].astype(np.float32, copy=False)
    return samples


def _fast_length(length: int) -> int:
    """The next multiple of a power of two near the length, even, for which the FFT is fast."""
    step = 2 << max(length.bit_length() - 5, 0)
    return max(-(-length // step) * step, 2)
