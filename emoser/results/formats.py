"""Segments in the formats of other programs: subtitles, annotation tools, tables.

Labels come from checkpoints, so each format escapes what would break it.
"""

import html
from collections.abc import Iterable, Iterator, Sequence

from emoser.results.segments import Segment
from emoser.text import csv_line, guard_cell, printable

NO_NAME = "recording"


def write_srt(segments: Iterable[Segment]) -> str:
    r"""SubRip subtitles; silence has none.

    Example:
        >>> write_srt([Segment(0.5, 2, "emotion", "sad", 0.75)])
        '1\n00:00:00,500 --> 00:00:02,000\nsad 75 %\n'
    """
    cues = [
        f"{number}\n{timestamp(start, ',')} --> {timestamp(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(_cues(segments), start=1)
    ]
    return "\n".join(cues)


def write_webvtt(segments: Iterable[Segment]) -> str:
    r"""Subtitles for the web (WebVTT); silence has none.

    Example:
        >>> write_webvtt([Segment(0.5, 2, "emotion", "sad", 0.75)])
        'WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nsad 75 %\n'
    """
    cues = [
        f"\n{timestamp(start, '.')} --> {timestamp(end, '.')}\n{html.escape(text, quote=False)}\n"
        for start, end, text in _cues(segments)
    ]
    return "WEBVTT\n" + "".join(cues)


def write_rttm(segments: Iterable[Segment], *, name: str = NO_NAME) -> str:
    r"""Rich Transcription Time Marked, with the emotion in the place of the speaker.

    Channels are numbered from 1. The score is in the confidence field. Silence has no line.

    Example:
        >>> write_rttm([Segment(0.5, 2, "emotion", "sad", 0.75)], name="a call")
        'SPEAKER a_call 1 0.500 1.500 <NA> <NA> sad 0.750 <NA>\n'
    """
    lines = []
    for segment in segments:
        if segment.kind != "silence":
            score = "<NA>" if segment.score is None else f"{segment.score:.3f}"
            times = f"{segment.start:.3f} {segment.end - segment.start:.3f}"
            head = f"SPEAKER {word(name)} {(segment.channel or 0) + 1} {times}"
            lines.append(f"{head} <NA> <NA> {word(segment.name)} {score} <NA>\n")
    return "".join(lines)


def write_textgrid(segments: Sequence[Segment], *, duration: float) -> str:
    """A Praat TextGrid with one interval tier per channel; silence is an interval too.

    Example:
        >>> print(write_textgrid([Segment(0, 2, "silence")], duration=2).splitlines()[-1].strip())
        text = "silence"
    """
    channels = sorted({segment.channel for segment in segments}, key=lambda item: item or 0)
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {duration:.6f}",
        "tiers? <exists>",
        f"size = {len(channels)}",
        "item []:",
    ]
    for number, channel in enumerate(channels, start=1):
        tier = [segment for segment in segments if segment.channel == channel]
        lines += [f"    item [{number}]:", *_tier(tier, channel, duration)]
    return "\n".join(lines) + "\n"


def write_audacity(segments: Iterable[Segment]) -> str:
    r"""A label track of Audacity: start, end and name, tab-separated.

    Example:
        >>> write_audacity([Segment(0.5, 2, "silence")])
        '0.500000\t2.000000\tsilence\n'
    """
    return "".join(
        f"{segment.start:.6f}\t{segment.end:.6f}\t{_title(segment)}\n" for segment in segments
    )


def write_csv(
    segments: Iterable[Segment], *, labels: Sequence[str], dimensions: Sequence[str] = ()
) -> str:
    r"""A table with one row per segment and one column per label, then per dimension.

    Example:
        >>> write_csv([Segment(0.5, 2, "silence")], labels=["sad"])
        'start,end,channel,kind,label,score,sad\n0.500,2.000,,silence,,,\n'
    """
    head = ["start", "end", "channel", "kind", "label", "score"]
    lines = [csv_line([*head, *map(guard_cell, (*labels, *dimensions))])]
    for segment in segments:
        values = {**(segment.scores or {}), **(segment.dimensions or {})}
        times = [f"{segment.start:.3f}", f"{segment.end:.3f}"]
        channel = "" if segment.channel is None else str(segment.channel)
        label = "" if segment.label is None else guard_cell(segment.label)
        columns = [decimal(values.get(name)) for name in (*labels, *dimensions)]
        row = [*times, channel, segment.kind, label, decimal(segment.score), *columns]
        lines.append(csv_line(row))
    return "".join(lines)


def decimal(value: float | None) -> str:
    """A number with six decimals; "" for None."""
    return "" if value is None else f"{value:.6f}"


def _cues(segments: Iterable[Segment]) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds, and the text; a cue must last at least one."""
    for segment in segments:
        start, end = round(segment.start * 1000), round(segment.end * 1000)
        if segment.kind != "silence" and end > start:
            yield start, end, _title(segment)


def _title(segment: Segment) -> str:
    channel = "" if segment.channel is None else f"channel {segment.channel}: "
    score = "" if segment.score is None else f" {segment.score:.0%}".replace("%", " %")
    return f"{channel}{printable(segment.name)}{score}".replace("-->", "->")


def word(text: str) -> str:
    """Text without the spaces that separate fields."""
    return "_".join(printable(text).split()) or NO_NAME


def timestamp(milliseconds: int, point: str) -> str:
    """A time of subtitles, with the mark before its milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{point}{rest:03d}"


def _tier(segments: Sequence[Segment], channel: int | None, duration: float) -> Iterator[str]:
    name = "emotion" if channel is None else f"channel {channel}"
    yield '        class = "IntervalTier"'
    yield f'        name = "{name}"'
    yield "        xmin = 0"
    yield f"        xmax = {duration:.6f}"
    yield f"        intervals: size = {len(segments)}"
    for number, segment in enumerate(segments, start=1):
        last = number == len(segments)
        text = printable(segment.name).replace('"', '""')
        yield f"        intervals [{number}]:"
        yield f"            xmin = {segment.start:.6f}"
        yield f"            xmax = {duration if last else segment.end:.6f}"
        yield f'            text = "{text}"'
