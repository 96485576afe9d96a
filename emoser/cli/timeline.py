"""`emoser timeline`: one recording in; its windows and segments out, in many notations."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.cli.predict import add_model_options, parse_channel
from emoser.inference.options import (
    DEFAULT_HOP_SECONDS,
    DEFAULT_SMOOTHING,
    DEFAULT_THRESHOLD,
    DEFAULT_WINDOW_SECONDS,
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
        description="Print the emotions of a recording over time. The recording may be of any "
        "length: it is read piece by piece.",
    )
    parser.add_argument("file", metavar="FILE", help="an audio file, or - for standard input")
    add_model_options(parser)
    add_timeline_options(parser)
    parser.add_argument(
        "--channel",
        default="mix",
        help="mix (default), left, right, the index of a channel, or each for all of them apart",
    )
    parser.add_argument("--plot", metavar="IMAGE", help="draw it into a .png, .svg or .pdf file")
    parser.add_argument("--theme", default="light", help="of the picture: light or dark")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=WRITERS, default="text", help="(%(default)s)")
    form.add_argument(
        "--json", dest="format", action="store_const", const="json", help="one JSON object"
    )
    parser.set_defaults(run=run)
    return parser


def add_timeline_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a recording is cut and judged along its time."""
    parser.add_argument("--labels", help="answer in another set: ekman, iemocap4 or valence3")
    parser.add_argument(
        "--window",
        type=float,
        default=DEFAULT_WINDOW_SECONDS,
        help="seconds heard at once (%(default)s)",
    )
    parser.add_argument(
        "--hop",
        type=float,
        default=DEFAULT_HOP_SECONDS,
        help="seconds between windows (%(default)s)",
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        default=DEFAULT_SMOOTHING,
        help="by how much another emotion must be ahead to take over (%(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        help="probability below which nothing is certain (%(default)s)",
    )
    parser.add_argument(
        "--vad", default="energy", choices=("energy", "silero", "none"), help="(%(default)s)"
    )


def timeline_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_timeline_options` as arguments of the library."""
    return {
        "window_seconds": options.window,
        "hop_seconds": options.hop,
        "smoothing": options.smoothing,
        "threshold": options.threshold,
        "vad": None if options.vad == "none" else options.vad,
    }


def open_classifier(options: argparse.Namespace) -> Any:
    """The classifier that the options of the model ask for."""
    from emoser.classifier import EmotionClassifier

    return EmotionClassifier.from_pretrained(
        options.model,
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
        labels=options.labels,
    )


def run(options: argparse.Namespace) -> int:
    """Print the timeline, and draw it if asked to."""
    source = sys.stdin.buffer if options.file == "-" else Path(options.file)
    timeline: Timeline = open_classifier(options).timeline(
        source, channel=parse_channel(options.channel), **timeline_arguments(options)
    )
    if options.plot:
        timeline.plot(options.plot, theme=options.theme)
    print(WRITERS[options.format](timeline), end="")
    return 0


def _table(timeline: "Timeline") -> str:
    """The segments, one a line, and how much of the time each emotion fills."""
    shares = "  ".join(f"{name} {share:.0%}" for name, share in timeline.shares().items())
    flags = f"  [{' '.join(timeline.quality)}]" if timeline.quality else ""
    lines = [*str(timeline).splitlines(), f"{shares}{flags}"]
    return "".join(f"{printable(line)}\n" for line in lines)
