"""Cut blocks of samples into chunks for the model, and find speech and silence.

Gives the same events for any block size, in constant memory, for files and live audio.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from emoser.audio import SAMPLING_RATE
from emoser.audio.silence import frame_levels, is_silent
from emoser.inference.options import check_vad
from emoser.inference.vad import (
    EnergyDetector,
    SpeechRegion,
    SpeechSmoother,
    VoiceDetector,
    count_frame_samples,
)
from emoser.inference.windows import WindowCutter

Samples = npt.NDArray[np.float32]


def open_detector(vad: str | None, *, sampling_rate: int = SAMPLING_RATE) -> VoiceDetector | None:
    """A new detector by its name in `VADS`; None for none."""
    check_vad(vad)
    if vad is None:
        return None
    if vad == "energy":
        return EnergyDetector()
    from emoser.inference.silero import SileroDetector

    return SileroDetector(sampling_rate)


class Chunk(NamedTuple):
    """The samples of a window that the model gets."""

    window: slice
    samples: Samples


class SilentChunk(NamedTuple):
    """A window of silence or without speech, which the model does not get."""

    window: slice


class Loudness(NamedTuple):
    """The peak of each further frame of 32 ms, (n,)."""

    peaks: Samples


ChunkEvent: TypeAlias = Chunk | SilentChunk | SpeechRegion | Loudness


class Chunker:
    """Cuts one recording into windows and detects speech and silence.

    Every window comes in order, as a `Chunk`, or as a `SilentChunk` if none of its frames has
    speech or it is silence by the rule for whole recordings. The `SpeechRegion`s also come in
    order and cover the recording.

    Args:
        window: Samples of a window.
        hop: Samples from one window to the next.
        vad: "energy", "silero", or None for no detection.
        sampling_rate: Of the samples, in Hz.

    Raises:
        ValueError: If `vad` is none of these or does not work at this rate, or `hop` is not in
            [1, window].
        DependencyError: If `vad` needs a package that is not installed.

    Example:
        >>> chunker = Chunker(window=8000, hop=8000, vad="energy")
        >>> events = [*chunker.push(np.zeros(16000, np.float32)), *chunker.flush()]
        >>> [event.window.start for event in events if isinstance(event, SilentChunk)]
        [0, 8000]
    """

    def __init__(
        self, *, window: int, hop: int, vad: str | None, sampling_rate: int = SAMPLING_RATE
    ) -> None:
        self._cutter = WindowCutter(window=window, hop=hop)
        self._detector = open_detector(vad, sampling_rate=sampling_rate)
        self._frame = count_frame_samples(sampling_rate)
        self._smoother = SpeechSmoother(self._frame)
        self._rest = np.zeros(0, np.float32)  # less than a frame
        self._num_frames = self._num_samples = 0
        # Of the frames that a window may still need: the number of the first, whether each has
        # speech, and its level.
        self._first = 0
        self._active = np.zeros(0, np.bool_)
        self._levels = np.zeros(0)

    def push(self, block: Samples) -> Iterator[ChunkEvent]:
        """The events of the next samples, shape (n,); exhaust them before the next call."""
        if self._detector is None and len(block):
            yield SpeechRegion(self._num_samples, self._num_samples + len(block), True)
        self._num_samples += len(block)
        joined = np.concatenate([self._rest, block])
        num_framed = len(joined) // self._frame * self._frame
        self._rest = joined[num_framed:].copy()
        if num_framed:
            yield from self._scan(joined[:num_framed].reshape(-1, self._frame))
        for window, samples in self._cutter.push(block):
            # The last frame may be incomplete and is not counted.
            yield self._choose(window, samples, window.stop // self._frame)

    def flush(self) -> Iterator[ChunkEvent]:
        """The last window and region; nothing without samples."""
        if len(self._rest):
            frame = np.full((1, self._frame), self._rest.mean(), np.float32)
            frame[0, : len(self._rest)] = self._rest
            yield from self._scan(frame)
        for window, samples in self._cutter.flush():
            yield self._choose(window, samples, self._num_frames)
        if self._detector is not None:
            yield from self._smoother.flush(self._num_samples)

    def _scan(self, frames: Samples) -> Iterator[ChunkEvent]:
        """Whole frames, (n, samples); the last of a recording is padded with its mean."""
        yield Loudness(np.abs(frames).max(axis=1))
        if self._detector is not None:
            flags = self._detector.detect(frames)
            self._active = np.concatenate([self._active, flags])
            self._levels = np.concatenate([self._levels, frame_levels(frames)])
            self._num_frames += len(frames)
            yield from self._smoother.push(flags)

    def _choose(self, window: slice, samples: Samples, end_frame: int) -> Chunk | SilentChunk:
        if self._detector is None:
            return Chunk(window, samples)
        first = window.start // self._frame
        frames = slice(first - self._first, end_frame - self._first)
        num_whole = max(self._num_samples // self._frame - self._first, 1)
        levels = self._levels[frames][: num_whole - frames.start]
        has_speech = self._active[frames].any() and not is_silent(levels)
        # The last window may begin before this one, by less than a window.
        forget = max(frames.start - len(samples) // self._frame - 1, 0)
        self._first += forget
        self._active, self._levels = self._active[forget:], self._levels[forget:]
        return Chunk(window, samples) if has_speech else SilentChunk(window)
