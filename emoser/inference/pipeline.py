"""From the events of a recording to the windows and segments of its timeline.

`TimelineBuilder` is the one event loop for files and streams; `build_timeline` collects what it
gives for a whole file.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emoser.audio import AudioBlocks, AudioLimits, Channel, Source, describe_source
from emoser.audio.limits import DEFAULT_LIMITS
from emoser.inference.batching import (
    ChunkOutput,
    InferenceOptions,
    OutputEvent,
    RecordingEnd,
    infer_chunks,
)
from emoser.inference.chunking import Loudness, SilentChunk
from emoser.inference.options import TimelineOptions
from emoser.inference.scoring import ScoredWindow, Scorer, WindowScorer
from emoser.inference.segmentation import Segmenter, SegmentRules
from emoser.inference.vad import SpeechRegion
from emoser.results.segments import Segment, TimelineWindow
from emoser.results.timeline import Timeline

EACH_CHANNEL = "each"


class TimelineUpdate(NamedTuple):
    """The windows that one event completes, mostly one or none, and the segments, mostly none."""

    windows: list[TimelineWindow]
    segments: list[Segment]


class TimelineBuilder:
    """Turns the events of one channel, in order, into windows and segments; constant memory.

    Args:
        scorer: Scores the outputs of the model.
        options: How the recording is cut and segmented.
        channel: Index of the channel that windows and segments name, or None.
    """

    def __init__(
        self, scorer: Scorer, options: TimelineOptions, channel: int | None = None
    ) -> None:
        self._window_scorer = WindowScorer(scorer, channel)
        self._segmenter = Segmenter(
            SegmentRules(
                labels=scorer.labels,
                smoothing=options.smoothing,
                threshold=options.threshold,
                channel=channel,
                sampling_rate=scorer.sampling_rate,
                dimensions=scorer.dimensions,
            )
        )

    def add(self, event: OutputEvent) -> TimelineUpdate:
        """The windows and segments that the next event completes."""
        windows: list[TimelineWindow] = []
        if isinstance(event, SpeechRegion):
            self._segmenter.add_speech(event)
        elif isinstance(event, ChunkOutput):
            windows = self._add(self._window_scorer.add(event.window, event.logits))
        elif isinstance(event, SilentChunk):
            windows = self._add(self._window_scorer.add(event.window, None))
        return TimelineUpdate(windows, list(self._segmenter.settle()))

    def finish(self) -> TimelineUpdate:
        """The windows and segments that are left after the last event."""
        windows = self._add(self._window_scorer.finish())
        return TimelineUpdate(windows, list(self._segmenter.finish()))

    @property
    def current(self) -> Segment | None:
        """The segment that has not ended, as far as it is known; None before the first."""
        return self._segmenter.current

    def _add(self, scored: Sequence[ScoredWindow]) -> list[TimelineWindow]:
        for item in scored:
            self._segmenter.add_window(item.window, item.values)
        return [item.shown for item in scored]


def build_timeline(
    source: Source,
    scorer: Scorer,
    options: TimelineOptions,
    *,
    sampling_rate: int | None = None,
    channel: Channel = "mix",
    limits: AudioLimits = DEFAULT_LIMITS,
) -> Timeline:
    """The timeline of a recording; with channel "each", of every channel separately.

    Raises as `load_audio`, and a ValueError if channel is "each" and the source can be read only
    once.
    """
    seconds, rate = scorer.runtime.batch_seconds, scorer.sampling_rate
    inference = InferenceOptions(
        window=options.window(rate),
        hop=options.hop(rate),
        vad=options.vad,
        model_rate=rate,
        sampling_rate=sampling_rate,
        channel=channel,
        batch_samples=None if seconds is None else round(seconds * rate),
        limits=limits,
    )
    if channel != EACH_CHANNEL:
        return _build_channel(source, scorer, options, inference, None)
    refuse_single_pass(source, "channel='each' reads it once per channel")
    with AudioBlocks(source, sampling_rate=sampling_rate, limits=limits) as blocks:
        num_channels = blocks.num_channels
    parts = [
        _build_channel(source, scorer, options, replace(inference, channel=index), index)
        for index in range(num_channels)
    ]
    return _join_channels(parts)


def refuse_single_pass(source: Source, reason: str) -> None:
    """Raise a ValueError for a file object that can be read only once."""
    if hasattr(source, "read") and not _is_seekable(source):
        raise ValueError(
            f"{describe_source(source)} can be read only once, and {reason}; save it to a file or "
            "pass its bytes"
        )


def _build_channel(
    source: Source,
    scorer: Scorer,
    options: TimelineOptions,
    inference: InferenceOptions,
    index: int | None,
) -> Timeline:
    builder = TimelineBuilder(scorer, options, index)
    windows: list[TimelineWindow] = []
    segments: list[Segment] = []
    peaks: list[npt.NDArray[np.float32]] = []
    for event in infer_chunks(source, scorer.runtime, inference):
        update = builder.add(event)
        windows += update.windows
        segments += update.segments
        if isinstance(event, Loudness):
            peaks.append(event.peaks)
        elif isinstance(event, RecordingEnd):
            end = event
    rest = builder.finish()
    return Timeline(
        windows=(*windows, *rest.windows),
        segments=(*segments, *rest.segments),
        duration=end.duration,
        labels=scorer.labels,
        dimensions=scorer.dimensions,
        quality=end.quality,
        channels=() if index is None else (index,),
        window_seconds=options.window_seconds,
        hop_seconds=options.hop_seconds,
        model=scorer.model,
        source=end.source,
        peaks=(np.concatenate(peaks),),
    )


def _join_channels(parts: Sequence[Timeline]) -> Timeline:
    """One timeline of all channels, sorted by time."""
    flags = [flag for part in parts for flag in part.quality]
    return replace(
        parts[0],
        windows=tuple(sorted((item for part in parts for item in part.windows), key=_by_time)),
        segments=tuple(sorted((item for part in parts for item in part.segments), key=_by_time)),
        quality=tuple(dict.fromkeys(flags)),
        channels=tuple(channel for part in parts for channel in part.channels),
        peaks=tuple(peaks for part in parts for peaks in part.peaks),
    )


def _by_time(item: Segment | TimelineWindow) -> tuple[float, int]:
    return item.start, item.channel or 0


def _is_seekable(file: object) -> bool:
    return isinstance(file, io.IOBase) and file.seekable()
