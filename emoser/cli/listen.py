"""`emoser listen`: the microphone, or raw sound from a pipe; one moving line, and the segments."""

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TextIO

from emoser.cli.predict import add_model_options
from emoser.cli.timeline import add_timeline_options, open_classifier, timeline_arguments
from emoser.results.segments import Segment, clock
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.streaming import EmotionStream

BAR_WIDTH = 20
NUM_SHOWN = 3  # labels on the moving line
CLEAR_LINE = "\r\x1b[2K"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "listen",
        help="show the emotions of a live voice",
        description="Show the emotions of the microphone, or of raw sound from standard input: "
        "ffmpeg -i rtsp://... -f s16le -ac 1 -ar 16000 - | emoser listen -",
    )
    parser.add_argument("file", nargs="?", metavar="-", help="read raw sound from standard input")
    add_model_options(parser)
    add_timeline_options(parser)
    parser.add_argument(
        "--rate", type=int, default=16_000, help="Hz of the sound that comes in (%(default)s)"
    )
    parser.add_argument(
        "--sample-format", default="s16le", help="of raw sound: u8, s16le, s32le, f32le or f64le"
    )
    parser.add_argument(
        "--channels", type=int, default=1, help="of raw sound; they are averaged (%(default)s)"
    )
    parser.add_argument("--microphone", help="name or number of the input device")
    parser.add_argument("--json", action="store_true", help="one JSON object per segment")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Listen until the sound ends or Ctrl-C, printing each segment that has ended."""
    if options.file not in (None, "-"):
        raise ValueError(
            f"listen reads the microphone or '-', not {options.file!r}; use emoser timeline"
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
    """Segments on the standard output; on a terminal, one moving line beneath them."""

    def __init__(self, stream: "EmotionStream", blocks: Any, *, as_json: bool) -> None:
        self.stream = stream
        self.blocks = blocks
        self.as_json = as_json
        self.moving: TextIO | None = sys.stderr if sys.stderr.isatty() else None

    def show(self, segments: list[Segment]) -> None:
        """Print segments that have ended, and move on."""
        self._clear()
        for segment in segments:
            line = json.dumps(segment.to_dict()) if self.as_json else printable(str(segment))
            print(line, flush=True)
        if self.moving is not None:
            print(self._line(), end="", file=self.moving, flush=True)

    def note(self, text: str) -> None:
        """A word on the standard error."""
        self._clear()
        print(f"emoser: {text} at {clock(self.stream.seconds)}", file=sys.stderr)

    def close(self) -> None:
        """Remove the moving line, and say what was lost."""
        self._clear()
        if self._num_dropped:
            print(f"emoser: {self._num_dropped} blocks of sound were lost", file=sys.stderr)

    @property
    def _num_dropped(self) -> int:
        return int(getattr(self.blocks, "num_dropped", 0))  # a pipe waits and loses nothing

    def _clear(self) -> None:
        if self.moving is not None:
            print(CLEAR_LINE, end="", file=self.moving, flush=True)

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
