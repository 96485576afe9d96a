"""`EmotionStream`: a voice that is still speaking, block by block.

Blocks of any size go in, segments come out as they end: those that `EmotionClassifier.timeline`
finds in the whole recording. Memory stays the same for ever. Knows nothing of microphones.
"""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from emoser.audio import StreamResampler
from emoser.audio.limits import scale_to_float
from emoser.errors import AudioError
from emoser.inference.chunking import Chunk, Chunker, ChunkEvent, Loudness
from emoser.inference.options import (
    DEFAULT_HOP_SECONDS,
    DEFAULT_SMOOTHING,
    DEFAULT_THRESHOLD,
    DEFAULT_VAD,
    DEFAULT_WINDOW_SECONDS,
    TimelineOptions,
)
from emoser.inference.scoring import Logits, ScoredWindow, Scorer, WindowScorer
from emoser.inference.segmentation import Segmenter, segment_rules
from emoser.inference.vad import SpeechRegion
from emoser.results.segments import Segment, TimelineWindow

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier


class EmotionStream:
    """Tells the emotions of a live voice.

    A segment is given out once it has ended; `current` shows the one that goes on, `latest` the
    last window. What is said at a moment shows in `latest` when the window around it is full:
    after half a window and up to a hop, and the time the model takes (`delay_seconds`). With a
    model that classifies frames, `latest` is the last short cell, and comes a hop later.

    Args:
        classifier: What hears.
        sampling_rate: Rate in Hz of the blocks; they are resampled as they come.
        window_seconds: As for `EmotionClassifier.timeline`, like the others.
        hop_seconds: Time from one window to the next.
        smoothing: By how much another emotion must be ahead to take over.
        threshold: Probability below which nothing is certain.
        vad: "energy", "silero", or None for no silence.

    Raises:
        DependencyError: If `vad` needs a package that is not installed.
        ValueError: If an option is out of its range.

    Example:
        >>> from emoser import EmotionClassifier
        >>> with EmotionStream(EmotionClassifier.from_pretrained(), sampling_rate=8000) as stream:
        ...     blocks = [np.zeros(4000, np.float32)] * 6
        ...     for segment in stream.iterate(blocks):
        ...         print(segment)
        0:00.00 - 0:03.00  silence
    """

    def __init__(
        self,
        classifier: "EmotionClassifier",
        *,
        sampling_rate: int,
        window_seconds: float = DEFAULT_WINDOW_SECONDS,
        hop_seconds: float = DEFAULT_HOP_SECONDS,
        smoothing: float = DEFAULT_SMOOTHING,
        threshold: float = DEFAULT_THRESHOLD,
        vad: str | None = DEFAULT_VAD,
    ) -> None:
        longest = classifier.info.max_seconds
        options = TimelineOptions(window_seconds, hop_seconds, smoothing, threshold, vad, longest)
        self._scorer: Scorer = classifier._scorer
        rate = self._scorer.sampling_rate
        self._options = options
        self._source_rate = sampling_rate
        self._resampler = StreamResampler(sampling_rate)
        self._chunker = Chunker(window=options.window(rate), hop=options.hop(rate), vad=vad)
        self._window_scorer = WindowScorer(self._scorer)
        rules = segment_rules(
            options, self._scorer.labels, sampling_rate=rate, dimensions=self._scorer.dimensions
        )
        self._segmenter = Segmenter(rules)
        self._latest: TimelineWindow | None = None
        self._num_frames = 0  # at the rate of the blocks
        self._ended = False

    def push(self, samples: Any) -> list[Segment]:
        """Hear the next block; the segments that ended by it, mostly none.

        Args:
            samples: Shape (n,), or (n, channels), which are averaged; floats in [-1, 1] or
                integers by their full scale. It may be of any length and is not kept.

        Raises:
            AudioError: If it holds NaN or infinity.
            TypeError: If it holds no real numbers.
            ValueError: If it has another shape, or the stream has ended.

        Example:
            >>> from emoser import EmotionClassifier
            >>> stream = EmotionStream(EmotionClassifier.from_pretrained(), sampling_rate=16000)
            >>> stream.push(np.zeros(16000, np.float32))  # nothing has ended yet
            []
        """
        if self._ended:
            raise ValueError("this stream has ended; make an EmotionStream per stream")
        block = _as_mono(np.asarray(samples))
        if not np.isfinite(block).all():
            seconds = self._num_frames / self._source_rate
            raise AudioError(f"the block at {seconds:.3f} s holds NaN or infinity; leave it out")
        self._num_frames += len(block)
        return self._hear(self._chunker.push(self._resampler.push(block)))

    def flush(self) -> list[Segment]:
        """End the stream; the segments that are left, the last one included.

        Raises:
            ValueError: If the stream has ended already.

        Example:
            >>> from emoser import EmotionClassifier
            >>> stream = EmotionStream(EmotionClassifier.from_pretrained(), sampling_rate=16000)
            >>> stream.push(np.zeros(16000, np.float32))
            []
            >>> print(*stream.flush())
            0:00.00 - 0:01.00  silence
        """
        if self._ended:
            raise ValueError("this stream has ended already")
        self._ended = True
        segments = self._hear(self._chunker.push(self._resampler.flush()))
        segments += self._hear(self._chunker.flush())
        self._add(self._window_scorer.finish())
        segments += self._segmenter.finish()
        return segments

    def iterate(self, blocks: Iterable[Any]) -> Iterator[Segment]:
        """Push every block, then flush; each segment as soon as it has ended.

        Example:
            >>> from emoser import EmotionClassifier
            >>> stream = EmotionStream(EmotionClassifier.from_pretrained(), sampling_rate=16000)
            >>> for segment in stream.iterate([np.zeros(8000, np.float32)] * 4):
            ...     print(segment)
            0:00.00 - 0:02.00  silence
        """
        for block in blocks:
            yield from self.push(block)
        yield from self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the stream; call `flush` before if the last segments are wanted."""
        self._ended = True

    @property
    def current(self) -> Segment | None:
        """The segment that goes on, as far as it is known; None before the first."""
        return self._segmenter.current

    @property
    def latest(self) -> TimelineWindow | None:
        """The last window, with neither scores nor dimensions if nobody spoke; None before it."""
        return self._latest

    @property
    def seconds(self) -> float:
        """How much has been pushed, in seconds."""
        return self._num_frames / self._source_rate

    @property
    def delay_seconds(self) -> float:
        """How long after it was said an emotion shows in `latest` at most, without computing."""
        num_hops = 1 if self._scorer.frame_seconds is None else 2  # cells wait for the next piece
        return self._options.window_seconds / 2 + num_hops * self._options.hop_seconds

    def _hear(self, events: Iterable[ChunkEvent]) -> list[Segment]:
        segments: list[Segment] = []
        for event in events:
            if isinstance(event, Loudness):
                continue
            if isinstance(event, SpeechRegion):
                self._segmenter.add_speech(event)
            else:
                said = self._infer(event.samples) if isinstance(event, Chunk) else None
                self._add(self._window_scorer.add(event.window, said))
            segments.extend(self._segmenter.settle())
        return segments

    def _infer(self, samples: npt.NDArray[np.float32]) -> Logits:
        said: Logits = self._scorer.runtime.infer([samples]).logits[0]
        return said

    def _add(self, verdicts: Sequence[ScoredWindow]) -> None:
        for verdict in verdicts:
            self._segmenter.add_window(verdict.window, verdict.values)
            self._latest = verdict.shown


def _as_mono(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if values.ndim not in (1, 2):
        raise ValueError(
            f"a block of shape {values.shape} was pushed; (n,) or (n, channels) is allowed"
        )
    samples = scale_to_float(values)
    return samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)
