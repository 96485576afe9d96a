"""Voice activity detection: frames of 32 ms with or without speech, and regions made of them.

Works on a stream of samples in constant memory, with the same result for any block size.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from emoser.audio.silence import MAX_NOISE_DBFS, frame_levels

FRAME_SECONDS = 0.032  # the frame of silero-vad: 512 samples at 16 kHz
FRAMES_PER_SECOND = 1.0 / FRAME_SECONDS

# The loudest frame of the quietest of 8,543 clips lies at -54 dBFS, an idle line near -65.
MIN_LEVEL_DBFS = -60.0
# Above the floor by 12 dB, a quarter of the amplitude: the ends of words are quieter, and
# `MARGIN_FRAMES` keeps them.
LEVEL_OVER_FLOOR_DB = 12.0
# The floor follows a quieter frame at once and rises by 3 dB a second: it adapts to new noise in
# seconds, and a sentence without a pause raises it little.
FLOOR_RISE_DB = 3.0 / FRAMES_PER_SECOND
# Without the lower bound, digital silence would make the faintest noise count as speech; without
# the upper one, a loud voice without pauses would count as noise.
FLOOR_RANGE_DBFS = (MIN_LEVEL_DBFS - LEVEL_OVER_FLOOR_DB, MAX_NOISE_DBFS)

MIN_SPEECH_FRAMES = 3  # 0.1 s; a click is shorter, a syllable is not
MIN_SILENCE_FRAMES = 16  # 0.5 s; a pause between words is shorter, one between turns is not
MARGIN_FRAMES = 3  # 0.1 s added on either side of speech, for soft beginnings and ends

Frames = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


class VoiceDetector(Protocol):
    """Finds frames with speech, in the order of the recording."""

    def detect(self, frames: Frames) -> Flags:
        """Whether each frame has speech, (n, samples of a frame) -> (n,)."""
        ...


def count_frame_samples(sampling_rate: int) -> int:
    """Samples of a frame at a rate.

    Example:
        >>> count_frame_samples(16_000), count_frame_samples(8_000)
        (512, 256)
    """
    return max(1, round(FRAME_SECONDS * sampling_rate))


class EnergyDetector:
    """Speech is what exceeds the noise floor; needs no dependency.

    Example:
        >>> tone = np.sin(np.arange(1024, dtype=np.float32)).reshape(2, 512)
        >>> EnergyDetector().detect(tone * np.array([[0.0], [0.1]], np.float32)).tolist()
        [False, True]
    """

    def __init__(self) -> None:
        self._floor = FLOOR_RANGE_DBFS[0]

    def detect(self, frames: Frames) -> Flags:
        """Whether each frame is louder than the floor, (n, samples of a frame) -> (n,)."""
        levels = frame_levels(frames)
        lowest, highest = FLOOR_RANGE_DBFS
        flags = np.empty(len(levels), np.bool_)
        for place, level in enumerate(levels.tolist()):
            self._floor = min(max(min(level, self._floor + FLOOR_RISE_DB), lowest), highest)
            flags[place] = level > max(MIN_LEVEL_DBFS, self._floor + LEVEL_OVER_FLOOR_DB)
        return flags


class SpeechRegion(NamedTuple):
    """A stretch of the recording with speech or with silence, in samples."""

    start: int
    stop: int
    speaking: bool


class SpeechSmoother:
    """Turns flags of frames into regions of speech and silence that cover the recording.

    Speech shorter than `MIN_SPEECH_FRAMES` and silence shorter than `MIN_SILENCE_FRAMES` are
    merged into their surroundings. A region may come in several parts. The output lags behind
    the frames by at most `MIN_SILENCE_FRAMES`.

    Args:
        frame: Samples of a frame.

    Example:
        >>> smoother = SpeechSmoother(512)
        >>> runs = list(smoother.push(np.repeat([False, True], 20)))
        >>> runs += smoother.flush(40 * 512)
        >>> [(run.start // 512, run.stop // 512, run.speaking) for run in runs]
        [(0, 17, False), (17, 40, True)]
    """

    def __init__(self, frame: int) -> None:
        self._frame = frame
        self._num_frames = 0
        self._start = 0  # first frame of the next region
        self._speaking = False
        self._streak = 0  # frames at the end that contradict the state

    def push(self, flags: Flags) -> Iterator[SpeechRegion]:
        """The regions that the next frames complete."""
        for active in flags.tolist():
            self._num_frames += 1
            self._streak = self._streak + 1 if active != self._speaking else 0
            needed = MIN_SILENCE_FRAMES if self._speaking else MIN_SPEECH_FRAMES
            if self._streak == needed:
                yield from self._settle(self._change())
                self._speaking = not self._speaking
                self._streak = 0
        settled = min(self._num_frames, self._change())
        if self._start or self._speaking or settled >= MIN_SILENCE_FRAMES:
            yield from self._settle(settled)

    def flush(self, num_samples: int) -> Iterator[SpeechRegion]:
        """The last region of a recording of `num_samples` samples."""
        if self._start * self._frame < num_samples:
            yield SpeechRegion(self._start * self._frame, num_samples, self._speaking)

    def _change(self) -> int:
        """The first frame that is of the other kind if the streak continues."""
        first = self._num_frames - self._streak
        if self._speaking:
            return first + MARGIN_FRAMES
        first -= MARGIN_FRAMES
        # A short pause at the start of a recording is not silence.
        return first if self._start or first >= MIN_SILENCE_FRAMES else 0

    def _settle(self, stop: int) -> Iterator[SpeechRegion]:
        if stop > self._start:
            yield SpeechRegion(self._start * self._frame, stop * self._frame, self._speaking)
            self._start = stop
