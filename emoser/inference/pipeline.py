"""One recording, heard along its time: windows and segments instead of one answer.

Brings together what hears (`hearing`), what makes windows of it (`telling`) and what makes
segments (`segmentation`). Knows nothing of checkpoints or label sets: the `Scorer` is handed in.
"""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from emoser.audio import Channel, Source, describe_source, open_blocks
from emoser.inference.batching import ChunkOutput, InferenceOptions, infer_chunks
from emoser.inference.chunking import Loudness, SilentChunk
from emoser.inference.options import TimelineOptions
from emoser.inference.scoring import ScoredWindow, Scorer, WindowScorer
from emoser.inference.segmentation import Segmenter, segment_rules
from emoser.inference.vad import SpeechRegion
from emoser.results.segments import Segment, TimelineWindow
from emoser.results.timeline import Timeline

EACH_CHANNEL = "each"


def build_timeline(
    source: Source,
    scorer: Scorer,
    options: TimelineOptions,
    *,
    sampling_rate: int | None = None,
    channel: Channel = "mix",
) -> Timeline:
    """The timeline of a recording; with channel "each", of every channel for itself.

    Raises:
        AudioError: If the recording cannot be read.
        OSError: If a file is missing or may not be read.
        ValueError: If the recording cannot be read once per channel, or as for `load_audio`.
    """
    if channel != EACH_CHANNEL:
        return _Listener(source, scorer, options, None).listen(sampling_rate, channel)
    if hasattr(source, "read") and not _is_seekable(source):
        raise ValueError(
            f"{describe_source(source)} can be read only once, and channel='each' reads it once "
            "per channel; save it to a file or pass its bytes"
        )
    with open_blocks(source, sampling_rate=sampling_rate) as blocks:
        num_channels = blocks.num_channels
    parts = [
        _Listener(source, scorer, options, index).listen(sampling_rate, index)
        for index in range(num_channels)
    ]
    return _join_channels(parts)


class _Listener:
    """Gathers what is said about one channel."""

    def __init__(
        self, source: Source, scorer: Scorer, options: TimelineOptions, index: int | None
    ) -> None:
        self.source = source
        self.scorer = scorer
        self.options = options
        self.index = index
        rules = segment_rules(
            options,
            scorer.labels,
            sampling_rate=scorer.sampling_rate,
            channel=index,
            dimensions=scorer.dimensions,
        )
        self.segmenter = Segmenter(rules)
        self.window_scorer = WindowScorer(scorer, index)
        self.windows: list[TimelineWindow] = []
        self.segments: list[Segment] = []
        self.peaks: list[npt.NDArray[np.float32]] = []

    def listen(self, sampling_rate: int | None, channel: Channel) -> Timeline:
        """Hear the recording to its end."""
        seconds = self.scorer.runtime.batch_seconds
        rate = self.scorer.sampling_rate
        hearing = InferenceOptions(
            window=self.options.window(rate),
            hop=self.options.hop(rate),
            vad=self.options.vad,
            sampling_rate=sampling_rate,
            channel=channel,
            batch_samples=None if seconds is None else round(seconds * rate),
        )
        for event in infer_chunks(self.source, self.scorer.runtime, hearing):
            if isinstance(event, Loudness):
                self.peaks.append(event.peaks)
            elif isinstance(event, SpeechRegion):
                self.segmenter.add_speech(event)
            elif isinstance(event, ChunkOutput):
                self._add(self.window_scorer.add(event.window, event.logits))
            elif isinstance(event, SilentChunk):
                self._add(self.window_scorer.add(event.window, None))
            else:
                end = event
            self.segments.extend(self.segmenter.settle())
        self._add(self.window_scorer.finish())
        self.segments.extend(self.segmenter.finish())
        return Timeline(
            windows=tuple(self.windows),
            segments=tuple(self.segments),
            duration=end.duration,
            labels=self.scorer.labels,
            dimensions=self.scorer.dimensions,
            quality=end.quality,
            channels=() if self.index is None else (self.index,),
            window_seconds=self.options.window_seconds,
            hop_seconds=self.options.hop_seconds,
            model=self.scorer.model,
            source=end.source,
            peaks=(np.concatenate(self.peaks),),
        )

    def _add(self, windows: Sequence[ScoredWindow]) -> None:
        for scored in windows:
            self.segmenter.add_window(scored.window, scored.values)
            self.windows.append(scored.shown)


def _join_channels(parts: Sequence[Timeline]) -> Timeline:
    """One timeline that holds those of all channels, in the order of time."""
    first = parts[0]
    flags = [flag for part in parts for flag in part.quality]
    return Timeline(
        windows=tuple(sorted((item for part in parts for item in part.windows), key=_by_time)),
        segments=tuple(sorted((item for part in parts for item in part.segments), key=_by_time)),
        duration=first.duration,
        labels=first.labels,
        dimensions=first.dimensions,
        quality=tuple(dict.fromkeys(flags)),
        channels=tuple(channel for part in parts for channel in part.channels),
        window_seconds=first.window_seconds,
        hop_seconds=first.hop_seconds,
        model=first.model,
        source=first.source,
        peaks=tuple(peaks for part in parts for peaks in part.peaks),
    )


def _by_time(item: Segment | TimelineWindow) -> tuple[float, int]:
    return item.start, item.channel or 0


def _is_seekable(file: object) -> bool:
    return isinstance(file, io.IOBase) and file.seekable()
