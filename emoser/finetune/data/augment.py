"""Augmentation of training clips: float32 samples (T,) at the rate of the model.

Each variation is a pure function; `augment` draws from an explicit generator which to apply.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from emoser.audio import SAMPLING_RATE
from emoser.finetune.config import Augmentation
from emoser.models import torchaudio_guard

MU_LAW_LEVELS = 256  # ITU-T G.711
TELEPHONE_BAND = (300.0, 3400.0)  # Hz, ITU-T G.712
REFERENCE_HERTZ = 1000.0  # where a tilt has 0 dB
LOWEST_HERTZ = 50.0  # below it, tilts and noise colours are flat
SILENCE = 1e-8
LEVEL_SECONDS = 0.02  # of frames whose peak is measured
QUIET = 0.08  # of the peak of the clip, -22 dB; quieter ends are trimmed

Samples = NDArray[np.float32]


def drop_quiet_ends(
    samples: Samples,
    augmentation: Augmentation,
    generator: np.random.Generator,
    *,
    sampling_rate: int = SAMPLING_RATE,
) -> Samples:
    """Trim the quiet ends of a clip at random; applied before the clip is cropped."""
    if generator.random() >= augmentation.trim_probability:
        return samples
    before, behind = generator.uniform(0.0, augmentation.trim_seconds, size=2)
    return trim_ends(samples, before=before, behind=behind, sampling_rate=sampling_rate)


def augment(
    samples: Samples,
    augmentation: Augmentation,
    generator: np.random.Generator,
    *,
    sampling_rate: int = SAMPLING_RATE,
) -> Samples:
    """A random variation of a clip; a change of speed changes its length.

    Example:
        >>> tone = np.sin(np.arange(16000, dtype=np.float32) / 10)
        >>> varied = augment(tone, Augmentation(), np.random.default_rng(0))
        >>> bool(np.array_equal(varied, augment(tone, Augmentation(), np.random.default_rng(0))))
        True
    """
    rate = {"sampling_rate": sampling_rate}
    if generator.random() < augmentation.speed_probability:
        change = augmentation.speed_change
        samples = change_speed(samples, 1.0 + generator.uniform(-change, change))
    if generator.random() < augmentation.reverb_probability:
        samples = add_reverb(
            samples, generator.uniform(*augmentation.reverb_seconds), generator, **rate
        )
    if generator.random() < augmentation.tilt_probability:
        tilt = augmentation.tilt_decibels
        samples = tilt_spectrum(samples, generator.uniform(-tilt, tilt), **rate)
    if generator.random() < augmentation.noise_probability:
        samples = add_noise(
            samples, generator.uniform(*augmentation.noise_decibels), generator, **rate
        )
    if generator.random() < augmentation.telephone_probability:
        samples = simulate_telephone(samples, **rate)
    if generator.random() < augmentation.clipping_probability:
        samples = clip_peaks(samples, generator.uniform(*augmentation.clipping_decibels))
    gain = generator.uniform(-augmentation.gain_decibels, augmentation.gain_decibels)
    return apply_gain(samples, gain)


def trim_ends(
    samples: Samples,
    *,
    before: float = 0.0,
    behind: float = 0.0,
    sampling_rate: int = SAMPLING_RATE,
) -> Samples:
    """Trim the quiet ends of a clip.

    Args:
        samples: The clip, (T,).
        before: Most seconds to keep before the first loud frame.
        behind: Most seconds to keep after the last loud frame.
        sampling_rate: In Hz.

    Example:
        >>> clip = np.zeros(16_000, np.float32)
        >>> clip[4_800:8_000] = 0.1
        >>> len(trim_ends(clip)), len(trim_ends(clip, before=0.1, behind=9.0))
        (3200, 12800)
    """
    loud = find_loud(samples, sampling_rate=sampling_rate)
    begin = loud.start - round(before * sampling_rate)
    return samples[max(begin, 0) : loud.stop + round(behind * sampling_rate)]


def find_loud(samples: Samples, *, sampling_rate: int = SAMPLING_RATE) -> slice:
    """The samples from the first to the last loud frame of a clip; all of them in silence.

    Example:
        >>> clip = np.zeros(16_000, np.float32)
        >>> clip[4_900:8_000] = 0.1
        >>> find_loud(clip)
        slice(4800, 8000, None)
    """
    if not len(samples):
        return slice(0, 0)
    frame = round(LEVEL_SECONDS * sampling_rate)
    peaks = np.maximum.reduceat(np.abs(samples), np.arange(0, len(samples), frame))
    loud = np.flatnonzero(peaks > QUIET * peaks.max())
    if not len(loud):
        return slice(0, len(samples))
    return slice(int(loud[0]) * frame, min(int(loud[-1] + 1) * frame, len(samples)))


def apply_gain(samples: Samples, decibels: float) -> Samples:
    """Change the level of a clip.

    Example:
        >>> apply_gain(np.ones(2, np.float32), 20.0)
        array([10., 10.], dtype=float32)
    """
    return samples * np.float32(10.0 ** (decibels / 20.0))


def clip_peaks(samples: Samples, decibels: float) -> Samples:
    """Clip the samples this far below the highest peak, as an overdriven input does.

    Example:
        >>> clip_peaks(np.array([0.05, -1.0, 0.5], np.float32), 20.0).tolist()
        [0.05000000074505806, -0.10000000149011612, 0.10000000149011612]
    """
    limit = np.float32(np.abs(samples).max(initial=0.0) * 10.0 ** (-decibels / 20.0))
    return np.clip(samples, -limit, limit)


def change_speed(samples: Samples, factor: float) -> Samples:
    """Play a clip `factor` times as fast, which changes its pitch too.

    Raises:
        ValueError: If the factor is not above 0.

    Example:
        >>> len(change_speed(np.zeros(8000, np.float32), 1.25))
        6400
    """
    if not factor > 0.0:
        raise ValueError(f"factor is {factor}, must be above 0")
    changed = soxr.resample(samples, factor * SAMPLING_RATE, SAMPLING_RATE, quality="MQ")
    return np.asarray(changed, dtype=np.float32)


def add_noise(
    samples: Samples,
    decibels: float,
    generator: np.random.Generator,
    *,
    sampling_rate: int = SAMPLING_RATE,
) -> Samples:
    """Add stationary noise at a signal-to-noise ratio of `decibels`.

    Its colour is random, from white (flat) to brown (-6 dB per octave).
    """
    octaves = _octaves(_fast_length(len(samples)), sampling_rate)
    drawn = generator.standard_normal(2 * len(octaves), dtype=np.float32).view(np.complex64)
    noise = _invert(drawn * np.exp2(octaves * np.float32(-generator.random())), len(samples))
    level = _root_mean_square(samples) * 10.0 ** (-decibels / 20.0)
    return samples + noise * np.float32(level / max(_root_mean_square(noise), SILENCE))


def tilt_spectrum(
    samples: Samples, decibels_per_octave: float, *, sampling_rate: int = SAMPLING_RATE
) -> Samples:
    """Tilt the spectrum of a clip around 1 kHz."""
    octaves = _octaves(_fast_length(len(samples)), sampling_rate)
    return _filter(samples, np.exp2(octaves * np.float32(decibels_per_octave / 6.0206)))


def limit_band(
    samples: Samples, low: float, high: float, *, sampling_rate: int = SAMPLING_RATE
) -> Samples:
    """Remove frequencies below `low` and above `high` Hz."""
    frequencies = np.fft.rfftfreq(_fast_length(len(samples)), 1.0 / sampling_rate)
    return _filter(samples, ((frequencies >= low) & (frequencies <= high)).astype(np.float32))


def simulate_telephone(samples: Samples, *, sampling_rate: int = SAMPLING_RATE) -> Samples:
    """Limit a clip to the telephone band and quantise it to the 256 levels of mu-law.

    Raises:
        DependencyError: If torchaudio cannot be imported.
    """
    torchaudio_guard.require_torchaudio("the telephone augmentation")
    import torch
    from torchaudio.functional import mu_law_decoding, mu_law_encoding

    low, high = TELEPHONE_BAND
    line = limit_band(samples, low, high, sampling_rate=sampling_rate)
    limited = torch.from_numpy(line).clamp(-1.0, 1.0)
    decoded = mu_law_decoding(mu_law_encoding(limited, MU_LAW_LEVELS), MU_LAW_LEVELS)
    return np.asarray(decoded.numpy(), dtype=np.float32)


def add_reverb(
    samples: Samples,
    seconds: float,
    generator: np.random.Generator,
    *,
    sampling_rate: int = SAMPLING_RATE,
) -> Samples:
    """Convolve a clip with a synthetic room: an impulse and decaying noise of equal power.

    Args:
        samples: The clip, (T,).
        seconds: Reverberation time (decay by 60 dB).
        generator: Source of the noise.
        sampling_rate: In Hz.
    """
    size = max(int(seconds * sampling_rate), 1)
    decay = np.exp2(np.linspace(0.0, -3.0 * np.log2(10.0), size, dtype=np.float32))
    room = generator.standard_normal(size, dtype=np.float32) * decay
    room /= max(float(np.sqrt(np.square(room).sum())), SILENCE)
    room[0] += 1.0
    length = _fast_length(len(samples) + size - 1)
    return _invert(np.fft.rfft(samples, length) * np.fft.rfft(room, length), len(samples))


def _root_mean_square(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


@lru_cache(maxsize=64)
def _octaves(length: int, sampling_rate: int) -> Samples:
    """Frequencies of a spectrum, in octaves above 1 kHz."""
    frequencies = np.fft.rfftfreq(length, 1.0 / sampling_rate)
    ratios = np.maximum(frequencies, LOWEST_HERTZ) / REFERENCE_HERTZ
    octaves: Samples = np.log2(ratios).astype(np.float32)
    octaves.flags.writeable = False
    return octaves


def _filter(samples: Samples, gains: Samples) -> Samples:
    spectrum = np.fft.rfft(samples, _fast_length(len(samples)))
    return _invert(spectrum * gains, len(samples))


def _invert(spectrum: NDArray[Any], size: int) -> Samples:
    """The first `size` samples of the inverse FFT of even length."""
    samples: Samples = np.fft.irfft(spectrum)[:size].astype(np.float32, copy=False)
    return samples


def _fast_length(length: int) -> int:
    """An even length of at least `length`, for which the FFT is fast."""
    step = 2 << max(length.bit_length() - 5, 0)
    return max(-(-length // step) * step, 2)
