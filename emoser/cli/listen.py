"""`emoser listen`: print segments of the microphone or of a raw PCM stream as they end."""

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TextIO

from emoser.cli.options import (
    CLASSIFIER,
    JSON_LINES,
    TIMELINE,
    add_options,
    open_classifier,
    timeline_arguments,
)
from emoser.results.segments import Segment, clock
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.streaming import EmotionStream

BAR_WIDTH = 20
NUM_SHOWN = 3  # labels in the status line
CLEAR_LINE = "\r\x1b[2K"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "listen",
        help="print the emotions of live speech",
        description="Print the emotions of the microphone, or of raw PCM from standard input: "
        "ffmpeg -i rtsp://... -f s16le -ac 1 -ar 16000 - | emoser listen -",
    )
    parser.add_argument("file", nargs="?", metavar="-", help="read raw PCM from standard input")
    add_options(parser, *CLASSIFIER, *TIMELINE)
    parser.add_argument(
        "--rate", type=int, default=16_000, help="sampling rate in Hz (default: %(default)s)"
    )
    parser.add_argument(
        "--sample-format",
        default="s16le",
        help="raw PCM: u8, s16le, s32le, f32le or f64le (default: %(default)s)",
    )
    parser.add_argument(
        "--channels",
        type=int,
        default=1,
        help="raw PCM: number of channels to average (default: %(default)s)",
    )
    parser.add_argument("--microphone", help="name or number of the input device")
    add_options(parser, "--json", help=JSON_LINES)
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print each finished segment until the stream ends or the user presses Ctrl-C."""
    if options.file not in (None, "-"):
        raise ValueError(
            f"listen reads the microphone, or standard input with '-', not {options.file!r}; use "
            "emoser timeline for files"
        )
    from emoser.streaming import EmotionStream

    stream = EmotionStream(
        open_classifier(options), sampling_rate=options.rate, **timeline_arguments(options)
    )
    with ExitStack() as opened:
        blocks = _open_blocks(options, opened)
        screen = _Screen(stream, blocks, as_json=options.json)
        try:
            for block in blocks:
                screen.show(stream.push(block))
        except KeyboardInterrupt:
            screen.note("stopped")
        screen.show(stream.flush())
        screen.close()
    return 0


def _open_blocks(options: argparse.Namespace, opened: ExitStack) -> Iterable[Any]:
    from emoser.audio.microphone import Microphone, read_pcm

    if options.file == "-":
        return read_pcm(
            sys.stdin.buffer,
            sampling_rate=options.rate,
            sample_format=options.sample_format,
            num_channels=options.channels,
        )
    name = options.microphone
    device = int(name) if name is not None and name.isdigit() else name
    return opened.enter_context(Microphone(sampling_rate=options.rate, device=device))


class _Screen:
    """Prints segments to standard output and, on a terminal, a status line below them."""

    def __init__(self, stream: "EmotionStream", blocks: Any, *, as_json: bool) -> None:
        self.stream = stream
        self.blocks = blocks
        self.as_json = as_json
        self.status: TextIO | None = sys.stderr if sys.stderr.isatty() else None

    def show(self, segments: list[Segment]) -> None:
        """Print finished segments and update the status line."""
        self._clear()
        for segment in segments:
            line = json.dumps(segment.to_dict()) if self.as_json else printable(str(segment))
            print(line, flush=True)
        if self.status is not None:
            print(self._line(), end="", file=self.status, flush=True)

    def note(self, text: str) -> None:
        """Print a message to standard error."""
        self._clear()
        print(f"emoser: {text} at {clock(self.stream.seconds)}", file=sys.stderr)

    def close(self) -> None:
        """Remove the status line and report lost blocks."""
        self._clear()
        if self._num_dropped:
            print(f"emoser: {self._num_dropped} blocks of audio were lost", file=sys.stderr)

    @property
    def _num_dropped(self) -> int:
        return int(getattr(self.blocks, "num_dropped", 0))  # reading a pipe drops nothing

    def _clear(self) -> None:
        if self.status is not None:
            print(CLEAR_LINE, end="", file=self.status, flush=True)

    def _line(self) -> str:
        latest = self.stream.latest
        lost = f"  lost {self._num_dropped}" if self._num_dropped else ""
        if latest is None:
            return f"{clock(self.stream.seconds)}  ...{lost}"
        ranked = sorted(latest.scores.items(), key=lambda item: -item[1])[:NUM_SHOWN]
        ranked += (latest.dimensions or {}).items()
        if not ranked:
            return f"{clock(self.stream.seconds)}  silence{lost}"
        bar = "█" * round(BAR_WIDTH * min(max(ranked[0][1], 0.0), 1.0))
        names = "  ".join(f"{printable(label)} {score:.2f}" for label, score in ranked)
        return f"{clock(self.stream.seconds)}  {bar:<{BAR_WIDTH}}  {names}{lost}"
