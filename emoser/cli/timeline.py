"""`emoser timeline`: print the segments of one recording, in one of several formats."""

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from emoser.cli.options import (
    CLASSIFIER,
    SHARED,
    TIMELINE,
    Group,
    open_classifier,
    open_source,
    parse_channel,
    shared,
    timeline_arguments,
    value,
)
from emoser.json_text import format_json
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.results.timeline import Timeline

WRITERS: Mapping[str, "Callable[[Timeline], str]"] = {
    "text": lambda timeline: _table(timeline),
    "json": lambda timeline: format_json(timeline.to_dict()) + "\n",
    "csv": lambda timeline: timeline.to_csv(),
    "srt": lambda timeline: timeline.to_srt(),
    "vtt": lambda timeline: timeline.to_webvtt(),
    "rttm": lambda timeline: timeline.to_rttm(),
    "textgrid": lambda timeline: timeline.to_textgrid(),
    "audacity": lambda timeline: timeline.to_audacity(),
}
DESCRIPTION = (
    "Print the emotions of a recording over time. Recordings of any length are processed in "
    "constant memory."
)
OPTIONS = {
    "file": value("an audio file, or - for standard input", metavar="FILE"),
    **shared(*CLASSIFIER, *TIMELINE),
    "--channel": value(
        "mix, left, right, a channel index, or each for every channel", "mix", type=parse_channel
    ),
    "--plot": value("draw a .png, .svg or .pdf picture", metavar="IMAGE"),
    "--theme": value("theme of the picture: light or dark", "light"),
}
FORMATS = {
    "--format": value("", "text", choices=WRITERS),
    "--json": {**SHARED["--json"], "dest": "format", "action": "store_const", "const": "json"},
}
GROUPS = (Group(FORMATS),)


def run(options: argparse.Namespace) -> int:
    """Print the timeline and draw it if requested."""
    timeline = open_classifier(options).timeline(
        open_source(options.file), channel=options.channel, **timeline_arguments(options)
    )
    if options.plot:
        timeline.plot(options.plot, theme=options.theme)
    print(WRITERS[options.format](timeline), end="")
    return 0


def _table(timeline: "Timeline") -> str:
    """One line per segment, then the share of each emotion."""
    shares = "  ".join(f"{name} {share:.0%}" for name, share in timeline.shares().items())
    flags = f"  [{' '.join(timeline.quality)}]" if timeline.quality else ""
    lines = [*str(timeline).splitlines(), f"{shares}{flags}"]
    return "".join(f"{printable(line)}\n" for line in lines)
