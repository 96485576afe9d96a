"""`Timeline`: the emotions of a long recording, by window and by segment.

A frozen result of plain values and NumPy arrays. The formats of other programs are in `formats`,
pictures in `svg` and `plots`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from emoser.results.formats import (
    NO_NAME,
    write_audacity,
    write_csv,
    write_rttm,
    write_srt,
    write_textgrid,
    write_webvtt,
)
from emoser.results.segments import TIME_DIGITS, Segment, TimelineWindow
from emoser.results.svg import draw_timeline


@dataclass(frozen=True)
class Timeline:
    """The emotions of a recording over time.

    Attributes:
        windows: The scores over time; together they cover the recording. A model that classifies
            frames has adjacent cells of about 0.2 s.
        segments: Stretches of one emotion, of silence, of uncertainty, or (for a model without
            labels) of speech; those of a channel are adjacent and cover the recording.
        duration: Length of the recording in seconds.
        labels: The labels that scores are for.
        quality: Problems of the recording, as in `Prediction`.
        channels: Indices of the channels with channel="each", else empty. Windows and segments
            then name their channel, and `per_channel` separates them.
        window_seconds: Length of the chunks that the model got.
        hop_seconds: Time from one chunk to the next.
        model: Name of the checkpoint.
        source: The file, or a short description of the input.
        peaks: Highest amplitude in each 32 ms, one row per channel, for pictures.
        dimensions: Names of the dimensions of windows and segments, mostly none.

    Example:
        >>> timeline = Timeline((), (Segment(0.0, 2.0, "silence"),), duration=2.0, labels=("sad",))
        >>> print(timeline)
        0:00.00 - 0:02.00  silence
        >>> timeline.shares()
        {'silence': 1.0}
    """

    windows: tuple[TimelineWindow, ...]
    segments: tuple[Segment, ...]
    duration: float
    labels: tuple[str, ...]
    quality: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    window_seconds: float = 0.0
    hop_seconds: float = 0.0
    model: str = ""
    source: str = field(default="", compare=False)
    peaks: tuple[npt.NDArray[np.float32], ...] = field(default=(), repr=False, compare=False)
    dimensions: tuple[str, ...] = ()

    def per_channel(self) -> "list[Timeline]":
        """One timeline per channel with channel="each"; else only this one.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> timeline.per_channel() == [timeline]  # the channels were mixed
            True
        """
        if not self.channels:
            return [self]
        return [
            replace(
                self,
                windows=tuple(item for item in self.windows if item.channel == channel),
                segments=tuple(item for item in self.segments if item.channel == channel),
                channels=(channel,),
                peaks=self.peaks[place : place + 1],
            )
            for place, channel in enumerate(self.channels)
        ]

    def shares(self) -> Mapping[str, float]:
        """The share of time of each emotion, silence and "uncertain"; sums to 1.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> timeline.shares()
            {'sad': 1.0}
        """
        total: dict[str, float] = {}
        for segment in self.segments:
            total[segment.name] = total.get(segment.name, 0.0) + segment.duration
        whole = sum(total.values())
        ranked = sorted(total.items(), key=lambda item: -item[1])
        return {name: seconds / whole for name, seconds in ranked if whole}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> timeline.to_dict()["segments"][0]["label"]
            'sad'
        """
        return {
            "source": self.source,
            "duration": round(self.duration, TIME_DIGITS),
            "labels": list(self.labels),
            "dimensions": list(self.dimensions),
            "quality": list(self.quality),
            "channels": list(self.channels),
            "window_seconds": self.window_seconds,
            "hop_seconds": self.hop_seconds,
            "model": self.model,
            "segments": [segment.to_dict() for segment in self.segments],
            "windows": [window.to_dict() for window in self.windows],
        }

    def to_csv(self) -> str:
        """The segments as a table with one column per label and dimension.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> print(timeline.to_csv().splitlines()[0])
            start,end,channel,kind,label,score,sad
        """
        return write_csv(self.segments, labels=self.labels, dimensions=self.dimensions)

    def to_srt(self) -> str:
        """The segments as SubRip subtitles; silence has none.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> print(timeline.to_srt().strip())
            1
            00:00:00,000 --> 00:00:02,000
            sad 75 %
        """
        return write_srt(self.segments)

    def to_webvtt(self) -> str:
        """The segments as WebVTT subtitles; silence has none.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> print(timeline.to_webvtt().splitlines()[0])
            WEBVTT
        """
        return write_webvtt(self.segments)

    def to_rttm(self) -> str:
        """The segments as RTTM, the emotion in the place of the speaker; silence has no line.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> print(timeline.to_rttm().split()[7])
            sad
        """
        return write_rttm(self.segments, name=PurePath(self.source).stem or NO_NAME)

    def to_textgrid(self) -> str:
        """The segments as a Praat TextGrid with one tier per channel.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> print(timeline.to_textgrid().splitlines()[1])
            Object class = "TextGrid"
        """
        return write_textgrid(self.segments, duration=self.duration)

    def to_audacity(self) -> str:
        """The segments as a label track of Audacity.

        Example:
            >>> timeline = Timeline((), (Segment(0.0, 2.0, "emotion", "sad", 0.75),), 2.0, ("sad",))
            >>> print(timeline.to_audacity().split()[2])
            sad
        """
        return write_audacity(self.segments)

    def plot(self, path: str | os.PathLike[str], *, theme: str = "light") -> None:
        """Draw probabilities and segments under the waveform into an image file.

        Args:
            path: The file; its suffix chooses the format, such as .png, .svg or .pdf.
            theme: "light" or "dark".

        Raises:
            DependencyError: If matplotlib is not installed.
            ValueError: If the theme or the suffix is unknown.

        Example:
            >>> import tempfile
            >>> from emoser import EmotionClassifier
            >>> timeline = EmotionClassifier.from_pretrained().timeline("examples/audio/loud.flac")
            >>> with tempfile.TemporaryDirectory() as place:
            ...     timeline.plot(f"{place}/picture.svg", theme="dark")
        """
        # Imported late, because matplotlib is optional and slow to import.
        from emoser.results.plots import plot_timeline, save_figure

        save_figure(plot_timeline(self, theme=theme), path)

    def __str__(self) -> str:
        """One line per segment."""
        return "\n".join(map(str, self.segments))

    def _repr_html_(self) -> str:
        return draw_timeline(self)
