"""Acoustic statistics of clips (pitch, level, spectrum): targets of an auxiliary task."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

from emoser.audio import SAMPLING_RATE

FRAME, HOP, FFT = 512, 160, 1024  # samples: 32 ms, 10 ms
LOWEST_PITCH, HIGHEST_PITCH = 75.0, 600.0  # Hz
VOICED = 0.5  # normalised autocorrelation of a voiced frame
NUM_BANDS, NUM_CEPSTRA = 32, 8
BANDS = ((50, 1000), (1000, 5000), (250, 650), (2000, 8000))  # Hz
FLOOR = 1e-10
CLIPPED = 4.0  # standard deviations

Vector = NDArray[np.float64]


def describe_clip(samples: NDArray[np.float32], *, sampling_rate: int = SAMPLING_RATE) -> Vector:
    """Statistics of a clip's pitch, voicing, level, spectral slopes and cepstrum, (D,).

    The level is relative to the loudest frame, so the gain has no effect.

    Example:
        >>> tone = np.sin(2 * np.pi * 200 / 16000 * np.arange(16000)).astype(np.float32)
        >>> round(float(np.exp2(describe_clip(tone)[0])))  # median pitch
        200
    """
    if sampling_rate != SAMPLING_RATE:
        samples = soxr.resample(samples, sampling_rate, SAMPLING_RATE)
    power, level, pitch, periodicity = _analyze(samples)
    loud = level > level.max() - 35.0
    voiced = (periodicity > VOICED) & loud
    statistics = [
        _spread(pitch[voiced]),
        [voiced.mean(), periodicity[loud].mean(), periodicity[loud].std()],
        [np.abs(np.diff(voiced.astype(float))).mean()],
        _spread((level - level.max())[loud]),
        [loud.mean(), np.abs(np.diff(level)).mean()],
        _describe_spectrum(power[loud]),
    ]
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in statistics])


def track_voice(samples: NDArray[np.float32]) -> Vector:
    """Pitch, periodicity and level of every 10 ms of a clip, (L, 3); frame i starts at i * HOP.

    Pitch is in octaves above 1 Hz (in unvoiced frames, of the strongest period), periodicity in
    [0, 1], and level in dB relative to the loudest frame.

    Example:
        >>> tone = np.sin(2 * np.pi * 200 / 16000 * np.arange(16000)).astype(np.float32)
        >>> [round(float(value), 1) for value in track_voice(tone)[40]]
        [7.6, 1.0, -0.0]
    """
    _, level, pitch, periodicity = _analyze(samples)
    return np.stack([pitch, periodicity, level - level.max()], axis=1)


def standardize_statistics(statistics: Vector, voices: Sequence[Hashable]) -> NDArray[np.float32]:
    """Z-scores of statistics (N, D), over all clips and over each speaker's clips, (N, 2 D).

    Args:
        statistics: One row per clip.
        voices: The speaker of each clip.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, voice in enumerate(voices):
        members[voice].append(index)
    own = np.zeros_like(statistics)
    for indices in members.values():
        own[indices] = _standardize(statistics[indices])
    targets = np.concatenate([_standardize(statistics), own], axis=1)
    clipped: NDArray[np.float32] = np.clip(targets, -CLIPPED, CLIPPED).astype(np.float32)
    return clipped


def _analyze(samples: NDArray[np.float32]) -> tuple[Vector, Vector, Vector, Vector]:
    """Power (L, FFT / 2 + 1), level in dB, pitch in octaves and periodicity of every frame."""
    frames = _cut_frames(samples) * np.hanning(FRAME)  # (L, FRAME)
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2 + FLOOR
    return power, 10.0 * np.log10(power.sum(axis=1)), *_track_pitch(power)


def _standardize(rows: Vector) -> Vector:
    standardized: Vector = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-6)
    return standardized


def _spread(values: Vector) -> list[float]:
    """Median, three percentile ranges, and the mean absolute difference of successive values."""
    if len(values) < 2:
        return [0.0] * 5
    low, lower, middle, upper, high = np.percentile(values, [5, 20, 50, 80, 95])
    step = np.abs(np.diff(values)).mean()
    return [middle, high - low, upper - middle, middle - lower, step]


def _cut_frames(samples: NDArray[np.float32]) -> Vector:
    short = max(FRAME + HOP - len(samples), 0)
    padded = np.pad(samples.astype(np.float64), (0, short))
    return np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]


def _track_pitch(power: Vector) -> tuple[Vector, Vector]:
    """Octaves above 1 Hz and periodicity of each frame.

    The autocorrelation is divided by that of the window (Boersma 1993).
    """
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(FRAME), FFT)) ** 2)
    correlation = np.fft.irfft(power, axis=1)
    correlation = correlation / correlation[:, :1] / np.maximum(window / window[0], 0.05)
    lags = np.arange(int(SAMPLING_RATE / HIGHEST_PITCH), int(SAMPLING_RATE / LOWEST_PITCH) + 1)
    strength = correlation[:, lags] - 0.02 * np.log2(lags / lags[0])  # short periods first
    best = strength.argmax(axis=1)
    periodicity = correlation[np.arange(len(power)), lags[best]]
    return np.log2(SAMPLING_RATE / lags[best]), np.clip(periodicity, 0.0, 1.0)


def _describe_spectrum(power: Vector) -> Vector:
    frequencies = np.fft.rfftfreq(FFT, 1.0 / SAMPLING_RATE)
    bands = [
        power[:, (frequencies >= low) & (frequencies < high)].sum(axis=1) for low, high in BANDS
    ]
    ratios = 10.0 * np.log10(np.stack([bands[0] / bands[1], bands[2] / bands[3]], axis=1))
    centroid = (power @ frequencies / power.sum(axis=1) / 1000.0)[:, None]
    cepstra = np.log(power @ _mel_bands() + FLOOR) @ _cosines().T  # (L, NUM_CEPSTRA)
    features = np.concatenate([ratios, centroid, cepstra], axis=1)
    steps = np.abs(np.diff(features, axis=0, prepend=features[:1])).mean(axis=0)
    return np.concatenate([features.mean(axis=0), features.std(axis=0), steps])


def _mel_bands() -> Vector:
    """Triangular mel filters from 60 to 7600 Hz, (FFT / 2 + 1, NUM_BANDS)."""
    from transformers.audio_utils import mel_filter_bank

    bank: Vector = mel_filter_bank(FFT // 2 + 1, NUM_BANDS, 60.0, 7600.0, SAMPLING_RATE)
    return bank


def _cosines() -> Vector:
    """Rows 1 to NUM_CEPSTRA of the DCT, (NUM_CEPSTRA, NUM_BANDS)."""
    positions = (np.arange(NUM_BANDS) + 0.5) * np.pi / NUM_BANDS
    cosines: Vector = np.cos(np.outer(np.arange(1, NUM_CEPSTRA + 1), positions)) / NUM_BANDS
    return cosines
