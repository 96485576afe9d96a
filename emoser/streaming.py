"""`EmotionStream`: the timeline of live audio, block by block.

Blocks of any size go in; segments come out as they end, the same that
`EmotionClassifier.timeline` finds in the whole recording. Memory use is constant.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from emoser.audio import StreamResampler
from emoser.audio.arrays import BlockMixer
from emoser.errors import AudioError
from emoser.inference.batching import OutputEvent, infer_each
from emoser.inference.chunking import Chunker, ChunkEvent
from emoser.inference.options import TimelineOptions
from emoser.inference.pipeline import TimelineBuilder, TimelineUpdate
from emoser.results.segments import Segment, TimelineWindow

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier


class EmotionStream:
    """Segments of emotion in live audio.

    A segment is returned once it has ended; `current` is the one that has not, `latest` the last
    window. A moment of speech shows in `latest` when the window around it is full: after half a
    window and up to a hop (`delay_seconds`), plus the time that the model takes. With a model
    that classifies frames, `latest` is the last cell of about 0.2 s and comes a hop later.

    Args:
        classifier: The model.
        sampling_rate: Rate of the blocks in Hz; they are resampled as they arrive.
        window_seconds: As for `EmotionClassifier.timeline`, like all that follow.
        hop_seconds: Time from one window to the next.
        smoothing: Lead in probability that another emotion needs to replace the present one.
        threshold: Probability below which a segment is "uncertain".
        vad: Voice activity detection: "energy", "silero", or None.

    Raises:
        DependencyError: If `vad` needs a package that is not installed.
        ValueError: If an option is out of its range.

    Example:
        >>> from emoser import EmotionClassifier
        >>> classifier = EmotionClassifier.from_pretrained()
        >>> with EmotionStream(classifier, sampling_rate=8000) as stream:
        ...     print(stream.push(np.zeros(8000, np.float32)), *stream.flush())
        [] 0:00.00 - 0:01.00  silence
        >>> stream = EmotionStream(classifier, sampling_rate=8000)
        >>> for segment in stream.iterate([np.zeros(4000, np.float32)] * 6):
        ...     print(segment)
        0:00.00 - 0:03.00  silence
    """

    def __init__(
        self,
        classifier: "EmotionClassifier",
        *,
        sampling_rate: int,
        window_seconds: float = TimelineOptions.window_seconds,
        hop_seconds: float = TimelineOptions.hop_seconds,
        smoothing: float = TimelineOptions.smoothing,
        threshold: float = TimelineOptions.threshold,
        vad: str | None = TimelineOptions.vad,
    ) -> None:
        longest = classifier.info.max_seconds
        options = TimelineOptions(window_seconds, hop_seconds, smoothing, threshold, vad, longest)
        self._scorer = classifier._predictor.scorer
        rate = self._scorer.sampling_rate
        self._options = options
        self._source_rate = sampling_rate
        self._mixer = BlockMixer()
        self._resampler = StreamResampler(sampling_rate, target_rate=rate)
        self._chunker = Chunker(
            window=options.window(rate), hop=options.hop(rate), vad=vad, sampling_rate=rate
        )
        self._builder = TimelineBuilder(self._scorer, options)
        self._windows: list[TimelineWindow] = []  # of the last push
        self._latest: TimelineWindow | None = None
        self._num_frames = 0  # at the rate of the blocks
        self._ended = False

    def push(self, samples: Any) -> list[Segment]:
        """Process the next block; the segments that ended with it, mostly none.

        Args:
            samples: Shape (n,), (n, channels) or (channels, n), where channels are averaged;
                floats in [-1, 1] or integers scaled by their range. Any length is allowed, once
                a block of more than 64 samples has shown which axis holds the channels; the
                block is not kept.

        Raises:
            AudioError: If it holds NaN or infinity.
            TypeError: If it holds no real numbers, or is bytes.
            ValueError: If it has another shape or one that could mean two things, holds masked
                values, or the stream has ended.
        """
        if self._ended:
            raise ValueError("this stream has ended; use a new EmotionStream for each stream")
        block = self._mixer.mix(samples)
        if not np.isfinite(block).all():
            seconds = self._num_frames / self._source_rate
            raise AudioError(f"the block at {seconds:.3f} s holds NaN or infinity; leave it out")
        self._num_frames += len(block)
        self._windows = []
        return self._process(self._chunker.push(self._resampler.push(block)))

    def flush(self) -> list[Segment]:
        """End the stream; the remaining segments, the last one included.

        Raises:
            ValueError: If the stream has ended already.
        """
        if self._ended:
            raise ValueError("this stream has ended already")
        self._ended = True
        self._windows = []
        segments = self._process(self._chunker.push(self._resampler.flush()))
        segments += self._process(self._chunker.flush())
        return segments + self._add(self._builder.finish())

    def iterate(self, blocks: Iterable[Any]) -> Iterator[Segment]:
        """Push every block, then flush; yields each segment as soon as it has ended."""
        for block in blocks:
            yield from self.push(block)
        yield from self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """End the stream; call `flush` first to get the last segments."""
        self._ended = True

    @property
    def current(self) -> Segment | None:
        """The segment that has not ended, as far as it is known; None before the first."""
        return self._builder.current

    @property
    def latest(self) -> TimelineWindow | None:
        """The last window, without scores and dimensions if it has no speech; None at first."""
        return self._latest

    @property
    def windows(self) -> tuple[TimelineWindow, ...]:
        """The windows that the last `push` or `flush` completed, in order; mostly one or none."""
        return tuple(self._windows)

    @property
    def seconds(self) -> float:
        """How much has been pushed, in seconds."""
        return self._num_frames / self._source_rate

    @property
    def delay_seconds(self) -> float:
        """The most seconds until speech shows in `latest`, computing time not included."""
        num_hops = 1 if self._scorer.frame_seconds is None else 2  # cells wait for the next chunk
        return self._options.window_seconds / 2 + num_hops * self._options.hop_seconds

    def _process(self, events: Iterable[ChunkEvent]) -> list[Segment]:
        segments: list[Segment] = []
        outputs: Iterator[OutputEvent] = infer_each(events, self._scorer.runtime)
        for event in outputs:
            segments += self._add(self._builder.add(event))
        return segments

    def _add(self, update: TimelineUpdate) -> list[Segment]:
        if update.windows:
            self._windows += update.windows
            self._latest = update.windows[-1]
        return update.segments
