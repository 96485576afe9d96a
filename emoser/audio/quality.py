"""Quality flags of a recording, from its samples in blocks.

Measures the channel (or mix) that the model gets. The thresholds were set on 8,543 clips of acted
and read speech (five corpora) and on copies that were clipped or limited to the telephone band;
the comment at each gives the measured values.
"""

import numpy as np
from numpy.typing import NDArray

from emoser.audio.limits import SAMPLING_RATE, FloatArray
from emoser.audio.silence import FRAME_SAMPLES, SilenceMeter, frame_levels

FLAGS = ("silence", "clipped", "dc", "narrow-band", "short", "truncated")  # order of reports

# A sample is on a plateau when its neighbours 1/16000 s away differ by less than 8 steps of
# 16 bit; a recording is clipped when this share of it lies on plateaus within 2 % of its peak.
# Speech: at most 0.03 % (one clip, itself clipped, 0.08 %). Driven 6 dB over full scale: 0.5 %
# in the median. Lossy coding afterwards hides plateaus: found in two of three Opus files, no MP3.
CLIPPED_SHARE = 0.0005
PLATEAU_STEP = 2.0**-12
PLATEAU_PEAK_RATIO = 0.98
MIN_CLIPPED_PEAK = 0.05  # below it, the steps of 16 bit themselves look like plateaus
# Speech: at most 0.0013 of full scale.
DC_OFFSET = 0.01
# Speech has 4.5-7.5 kHz peaks at most 46 dB below its 0.3-3.4 kHz peaks; a telephone band
# brought to 16 kHz by a good resampler and stored in 16 bit has them at least 52 dB below.
# Linear interpolation leaves images at -25 dB and is not found.
NARROW_BAND_DB = -49.0
NARROW_BAND_RATE = 12_000  # Hz; at a lower rate there is nothing above 6 kHz
# Two syllables; labels of shorter clips in the corpora are at chance level.
SHORT_SECONDS = 0.5

_BIN_RATIO = 1.005  # levels of plateaus are counted in steps of half a per cent
# Levels two steps below the counted plateaus are skipped: the peak can only grow.
_COUNTED_PEAK_RATIO = PLATEAU_PEAK_RATIO / _BIN_RATIO**2
_MAX_LEVEL = 16.0
_NUM_BINS = int(np.log(_MAX_LEVEL / MIN_CLIPPED_PEAK) / np.log(_BIN_RATIO)) + 2
_LOW_BAND = slice(300 * FRAME_SAMPLES // SAMPLING_RATE, 3400 * FRAME_SAMPLES // SAMPLING_RATE)
_HIGH_BAND = slice(4500 * FRAME_SAMPLES // SAMPLING_RATE, 7500 * FRAME_SAMPLES // SAMPLING_RATE)
_WINDOW = np.hanning(FRAME_SAMPLES).astype(np.float32).astype(np.float64)


class QualityMeter:
    """Measures the quality of a recording in constant memory.

    Pass every block twice: as recorded to `update`, and at 16 kHz to `update_resampled`.

    Example:
        >>> meter = QualityMeter(16_000)
        >>> meter.update(np.zeros(16_000, np.float32))
        >>> meter.update_resampled(np.zeros(16_000, np.float32))
        >>> meter.flags()
        ('silence',)
    """

    def __init__(self, sampling_rate: int) -> None:
        self._sampling_rate = sampling_rate
        self._num_samples = 0
        self._sum = 0.0
        self._plateaus = _PlateauCounter(max(1, round(sampling_rate / SAMPLING_RATE)))
        self._frames = _FrameMeter()

    def update(self, samples: FloatArray) -> None:
        """The next samples at the recording's own rate, shape (T,), before resampling."""
        self._num_samples += len(samples)
        self._sum += float(samples.sum(dtype=np.float64))
        self._plateaus.update(samples)

    def update_resampled(self, samples: FloatArray) -> None:
        """The next samples at 16 kHz, shape (T,)."""
        self._frames.update(samples)

    def flags(self, *, truncated: bool = False) -> tuple[str, ...]:
        """The flags of the samples so far, in the order of `FLAGS`."""
        seconds = self._num_samples / self._sampling_rate
        silent = self._frames.is_silent()
        narrow = self._sampling_rate < NARROW_BAND_RATE or (
            not silent and self._frames.band_ratio_db() < NARROW_BAND_DB
        )
        holds = {
            "silence": silent,
            "clipped": not silent and self._plateaus.share() > CLIPPED_SHARE,
            "dc": abs(self._sum) > DC_OFFSET * max(1, self._num_samples),
            "narrow-band": narrow,
            "short": seconds < SHORT_SECONDS,
            "truncated": truncated,
        }
        return tuple(flag for flag in FLAGS if holds[flag])


class _PlateauCounter:
    """Counts samples on plateaus by level; the peak level is known only at the end."""

    def __init__(self, lag: int) -> None:
        self._lag = lag  # samples; 1/16000 s, so that the result does not depend on the rate
        self._tail = np.empty(0, np.float32)
        self._peak = 0.0
        self._num_samples = 0
        self._counts = np.zeros(_NUM_BINS, np.int64)

    def update(self, samples: FloatArray) -> None:
        if not len(samples):
            return
        self._num_samples += len(samples)
        joined = np.concatenate([self._tail, samples])
        levels = np.abs(joined)
        if (peak := float(levels.max())) > _MAX_LEVEL:  # larger values would overflow
            joined, levels = joined.clip(-_MAX_LEVEL, _MAX_LEVEL), levels.clip(max=_MAX_LEVEL)
        self._peak = max(self._peak, min(peak, _MAX_LEVEL))
        self._tail = joined[-2 * self._lag :].copy()
        lowest = max(MIN_CLIPPED_PEAK, self._peak * _COUNTED_PEAK_RATIO)
        places = self._lag + np.flatnonzero(levels[self._lag : -self._lag] >= lowest)
        if not len(places):  # the usual case: few samples are near the peak
            return
        centres = joined[places]
        still = np.abs(centres - joined[places - self._lag]) <= PLATEAU_STEP
        still &= np.abs(joined[places + self._lag] - centres) <= PLATEAU_STEP
        self._counts += np.bincount(_level_bins(levels[places[still]]), minlength=_NUM_BINS)

    def share(self) -> float:
        """Samples on plateaus near the peak, as a share of all."""
        if self._peak < MIN_CLIPPED_PEAK:
            return 0.0
        first = int(_level_bins(np.array([self._peak * PLATEAU_PEAK_RATIO], np.float32))[0])
        return float(self._counts[first:].sum()) / self._num_samples


def _level_bins(levels: FloatArray) -> NDArray[np.int64]:
    above = np.maximum(levels, MIN_CLIPPED_PEAK) / MIN_CLIPPED_PEAK
    bins: NDArray[np.int64] = (np.log(above) / np.log(_BIN_RATIO)).astype(np.int64)
    return bins


class _FrameMeter:
    """Measures silence, and the loudest frame in each of two bands, at 16 kHz."""

    def __init__(self) -> None:
        self._tail = np.empty(0, np.float32)
        self._seen_frame = False
        self._silence = SilenceMeter()
        self._low = 0.0
        self._high = 0.0

    def update(self, samples: FloatArray) -> None:
        joined = np.concatenate([self._tail, samples])
        num_framed = len(joined) // FRAME_SAMPLES * FRAME_SAMPLES
        self._tail = joined[num_framed:].copy()
        if num_framed:
            self._measure(joined[:num_framed].reshape(-1, FRAME_SAMPLES))

    def is_silent(self) -> bool:
        """Whether nobody speaks; an incomplete last frame does not count."""
        self._measure_lone_tail()
        return self._silence.is_silent

    def band_ratio_db(self) -> float:
        """Peak of the high band over the peak of the low band, in dB."""
        self._measure_lone_tail()
        return 10 * float(np.log10(max(self._high, 1e-30) / max(self._low, 1e-30)))

    def _measure(self, frames: FloatArray) -> None:
        """Frames of shape (n, 512)."""
        self._seen_frame = True
        self._silence.update(frame_levels(frames))
        centred = frames.astype(np.float64)
        centred -= centred.mean(axis=1, keepdims=True)
        centred *= _WINDOW
        spectrum = np.fft.rfft(centred, axis=1)  # (n, 257)
        self._low = max(self._low, _peak_power(spectrum[:, _LOW_BAND]))
        self._high = max(self._high, _peak_power(spectrum[:, _HIGH_BAND]))

    def _measure_lone_tail(self) -> None:
        """Measure a recording shorter than a frame as one frame, padded with its mean."""
        if not self._seen_frame and len(self._tail):
            frame = np.full(FRAME_SAMPLES, self._tail.mean(), np.float32)
            frame[: len(self._tail)] = self._tail
            self._measure(frame[np.newaxis])


def _sum_squares(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows)
    return sums


def _peak_power(spectrum: NDArray[np.complex128]) -> float:
    """Power of the strongest frame in a band, (n, bins)."""
    return float(_sum_squares(spectrum.view(np.float64)).max())
