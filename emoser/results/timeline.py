"""`Timeline`: the emotions of a long recording, by window and by segment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        >>> sad = Segment(0, 2, "emotion", "sad", 0.75, {"sad": 0.75})
        >>> silence = Segment(2, 4, "silence")
        >>> timeline = Timeline((), (sad, silence), duration=4, labels=("sad",))
        >>> print(timeline)
        0:00.00 - 0:02.00  sad 0.75
        0:02.00 - 0:04.00  silence
        >>> timeline.shares(), timeline.to_dict()["segments"][0]["label"]
        ({'sad': 0.5, 'silence': 0.5}, 'sad')
        >>> timeline.per_channel() == [timeline]  # the channels were mixed
        True
        >>> print(timeline.to_csv().splitlines()[1])
        0.000,2.000,,emotion,sad,0.750000,0.750000
        >>> timeline.to_srt().splitlines()[1], timeline.to_webvtt().splitlines()[0]
        ('00:00:00,000 --> 00:00:02,000', 'WEBVTT')
        >>> timeline.to_rttm().split()[7], timeline.to_audacity().split()[2]
        ('sad', 'sad')
        >>> timeline.to_textgrid().splitlines()[1]
        'Object class = "TextGrid"'
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
        """One timeline per channel with channel="each"; else only this one."""
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
        """The share of time of each emotion, silence and "uncertain"; sums to 1."""
        total: dict[str, float] = {}
        for segment in self.segments:
            total[segment.name] = total.get(segment.name, 0.0) + segment.duration
        whole = sum(total.values())
        ranked = sorted(total.items(), key=lambda item: -item[1])
        return {name: seconds / whole for name, seconds in ranked if whole}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
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
        """The segments as a table with one column per label and dimension."""
        return write_csv(self.segments, labels=self.labels, dimensions=self.dimensions)

    def to_srt(self) -> str:
        """The segments as SubRip subtitles; silence has none."""
        return write_srt(self.segments)

    def to_webvtt(self) -> str:
        """The segments as WebVTT subtitles; silence has none."""
        return write_webvtt(self.segments)

    def to_rttm(self) -> str:
        """The segments as RTTM, the emotion in the place of the speaker; silence has no line."""
        return write_rttm(self.segments, name=PurePath(self.source).stem or NO_NAME)

    def to_textgrid(self) -> str:
        """The segments as a Praat TextGrid with one tier per channel."""
        return write_textgrid(self.segments, duration=self.duration)

    def to_audacity(self) -> str:
        """The segments as a label track of Audacity."""
        return write_audacity(self.segments)

    def plot(self, path: str | os.PathLike[str] | None = None, *, theme: str = "light") -> "Figure":
        """Draw probabilities and segments under the waveform.

        A notebook displays the returned figure if it is the last value of its cell.

        Args:
            path: The image file to write, if any; its suffix chooses the format, such as .png,
                .svg or .pdf.
            theme: "light" or "dark".

        Raises:
            DependencyError: If matplotlib is not installed.
            ValueError: If the theme or the suffix is unknown.

        Example:
            >>> import tempfile
            >>> from emoser import EmotionClassifier
            >>> timeline = EmotionClassifier.from_pretrained().timeline("examples/audio/loud.flac")
            >>> with tempfile.TemporaryDirectory() as place:
            ...     figure = timeline.plot(f"{place}/picture.svg", theme="dark")
        """
        # Imported late, because matplotlib is optional and slow to import.
        from emoser.results.plots import plot_timeline, save_figure

        figure = plot_timeline(self, theme=theme)
        if path is not None:
            save_figure(figure, path)
        return figure

    def __str__(self) -> str:
        """One line per segment."""
        return "\n".join(map(str, self.segments))

    def _repr_html_(self) -> str:
        return draw_timeline(self)
