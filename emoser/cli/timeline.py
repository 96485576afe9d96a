"""`emoser timeline`: print the segments of one recording, in one of several formats."""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from emoser.cli.options import (
    CLASSIFIER,
    TIMELINE,
    add_options,
    open_classifier,
    open_source,
    timeline_arguments,
)
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.results.timeline import Timeline

WRITERS: Mapping[str, "Callable[[Timeline], str]"] = {
    "text": lambda timeline: _table(timeline),
    "json": lambda timeline: json.dumps(timeline.to_dict()) + "\n",
    "csv": lambda timeline: timeline.to_csv(),
    "srt": lambda timeline: timeline.to_srt(),
    "vtt": lambda timeline: timeline.to_webvtt(),
    "rttm": lambda timeline: timeline.to_rttm(),
    "textgrid": lambda timeline: timeline.to_textgrid(),
    "audacity": lambda timeline: timeline.to_audacity(),
}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "timeline",
        help="print the emotions of a long recording over time",
        description="Print the emotions of a recording over time. Recordings of any length are "
        "processed in constant memory.",
    )
    parser.add_argument("file", metavar="FILE", help="an audio file, or - for standard input")
    add_options(parser, *CLASSIFIER, *TIMELINE)
    add_options(
        parser, "--channel", help="mix, left, right, a channel index, or each for every channel"
    )
    parser.add_argument("--plot", metavar="IMAGE", help="draw a .png, .svg or .pdf picture")
    parser.add_argument(
        "--theme",
        default="light",
        help="theme of the picture: light or dark (default: %(default)s)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=WRITERS, default="text", help="(default: %(default)s)")
    add_options(form, "--json", dest="format", action="store_const", const="json")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the timeline and draw it if requested."""
    timeline = open_classifier(options).timeline(
        open_source(options.file),
        channel=options.channel,
        **timeline_arguments(options),
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
