"""Live sessions: sound that arrives in pieces, and the windows and segments found in it.

Audio stays in memory, for at most the length of a window.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from emoser.audio.limits import AudioLimits
from emoser.audio.live import PcmFormat, open_live
from emoser.results.segments import Segment, TimelineWindow
from emoser.streaming import EmotionStream

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier

MAX_WAITING_BYTES = 2**20  # received and not decoded yet; a faster sender has to wait
SAMPLING_RATES = (8_000, 192_000)  # lowest and highest, in Hz
MAX_LOST_SECONDS = 60.0  # of silence that stands for audio that never arrived
MAX_CHANNELS = 8


class LiveUpdate(NamedTuple):
    """What one piece of sound completes, and the state after it.

    Attributes:
        windows: Scores over time, mostly one or none.
        segments: The segments that ended, mostly none.
        current: The segment that has not ended, as far as it is known.
        seconds: How much has been analysed.
    """

    windows: tuple[TimelineWindow, ...]
    segments: tuple[Segment, ...]
    current: Segment | None
    seconds: float


class LiveSession:
    """A microphone that is on.

    Args:
        classifier: The model.
        sampling_rate: Rate of the samples in Hz.
        options: Options of `EmotionStream`, such as hop_seconds.

    Raises:
        ValueError: If the rate or an option is out of its range.

    Example:
        >>> from emoser import EmotionClassifier
        >>> session = LiveSession(EmotionClassifier.from_pretrained(), sampling_rate=8000)
        >>> update = session.push(np.zeros(8000, np.int16), lost=8000)
        >>> update.seconds, session.finish().segments[0].kind
        (2.0, 'silence')
    """

    def __init__(
        self, classifier: "EmotionClassifier", *, sampling_rate: int, **options: Any
    ) -> None:
        check_rate(sampling_rate)
        self._rate = sampling_rate
        self.stream = EmotionStream(classifier, sampling_rate=sampling_rate, **options)

    def push(self, samples: npt.NDArray[Any], *, lost: int = 0) -> LiveUpdate:
        """Analyse a mono block, (n,), after silence for `lost` samples before it."""
        segments: list[Segment] = []
        windows: tuple[TimelineWindow, ...] = ()
        if lost:
            silence = np.zeros(min(lost, round(MAX_LOST_SECONDS * self._rate)), np.int16)
            segments += self.stream.push(silence)
            windows = self.stream.windows
        segments += self.stream.push(samples)
        return self._update((*windows, *self.stream.windows), segments)

    def finish(self) -> LiveUpdate:
        """End the session; the last windows and segments."""
        segments = self.stream.flush()
        return self._update(self.stream.windows, segments)

    def _update(self, windows: tuple[TimelineWindow, ...], segments: list[Segment]) -> LiveUpdate:
        return LiveUpdate(windows, tuple(segments), self.stream.current, self.stream.seconds)


def check_rate(sampling_rate: int) -> None:
    """Raise a ValueError for a sampling rate that no microphone has."""
    low, high = SAMPLING_RATES
    if not low <= sampling_rate <= high:
        raise ValueError(
            f"the sampling rate of the microphone is {sampling_rate} Hz; it must be between {low} "
            f"and {high} Hz"
        )


Emit: TypeAlias = Callable[[LiveUpdate], None]


def analyse_live(
    pipe: "BytePipe",
    start: Callable[[int], LiveSession],
    emit: Emit,
    pcm: PcmFormat | None,
    max_seconds: float,
) -> bool:
    """Decode what arrives in a pipe and analyse it until the pipe ends.

    Args:
        pipe: The bytes.
        start: Opens the session for a sampling rate.
        emit: Called with everything that was found.
        pcm: The format of raw samples; None for a container.
        max_seconds: Longest session.

    Returns:
        Whether the sound was damaged and ended early.

    Raises:
        AudioError: As `open_live`.
        DependencyError: As `open_live`.
        ValueError: As `LiveSession`.
    """
    low, high = SAMPLING_RATES
    limits = AudioLimits(
        max_seconds=max_seconds,
        max_channels=MAX_CHANNELS,
        min_sampling_rate=low,
        max_sampling_rate=high,
    )
    with open_live(pipe, pcm, limits=limits) as sound:
        session = start(sound.sampling_rate)
        for block in sound.blocks:
            emit(session.push(block.mean(axis=1, dtype=np.float32)))
        emit(session.finish())
        return sound.truncated


class BytePipe:
    """Bytes that one thread writes and another one reads.

    Example:
        >>> pipe = BytePipe()
        >>> pipe.write(b"abc")
        >>> pipe.close()
        >>> pipe.read(2), pipe.read(2), pipe.read(2)
        (b'ab', b'c', b'')
    """

    def __init__(self, on_space: Callable[[], None] = lambda: None) -> None:
        """Make an empty pipe; `on_space` is called by the reading thread after it has read."""
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()
        self._on_space = on_space

    @property
    def is_full(self) -> bool:
        """Whether the writer should wait."""
        return self._size >= MAX_WAITING_BYTES

    def write(self, data: bytes) -> None:
        """Add bytes; never waits."""
        with self._changed:
            self._pieces.append(data)
            self._size += len(data)
            self._changed.notify()

    def close(self, *, discard: bool = False) -> None:
        """End the data, after what was written or, with `discard`, at once."""
        with self._changed:
            self._closed = True
            if discard:
                self._pieces.clear()
                self._size = 0
            self._changed.notify()

    def read(self, size: int = -1, /) -> bytes:
        """Wait for data; one to `size` bytes, or none at the end."""
        with self._changed:
            while not self._size and not self._closed:
                self._changed.wait()
            piece = b""
            while self._pieces and not piece:
                piece = self._pieces.popleft()
            if 0 <= size < len(piece):
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            self._size -= len(piece)
        self._on_space()
        return piece
