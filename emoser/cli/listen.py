"""`emoser listen`: print segments of the microphone or of a raw PCM stream as they end."""

import argparse
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from emoser.cli.options import (
    CLASSIFIER,
    JSON_LINES,
    TIMELINE,
    open_classifier,
    open_stdin,
    shared,
    timeline_arguments,
    value,
)
from emoser.json_text import format_json
from emoser.results.segments import Segment, clock
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.streaming import EmotionStream

BAR_WIDTH = 20
NUM_SHOWN = 3  # labels in the status line
CLEAR_LINE = "\r\x1b[2K"
DESCRIPTION = (
    "Print the emotions of the microphone, or of raw PCM from standard input: ffmpeg -i rtsp://... "
    "-f s16le -ac 1 -ar 16000 - | emoser listen -"
)
OPTIONS = {
    "file": value("read raw PCM from standard input", nargs="?", metavar="-"),
    **shared(*CLASSIFIER, *TIMELINE),
    "--rate": value("sampling rate in Hz", 16_000),
    "--sample-format": value("raw PCM: u8, s16le, s32le, f32le or f64le", "s16le"),
    "--channels": value("raw PCM: number of channels to average", 1),
    "--microphone": value("name or number of the input device"),
    "--json": JSON_LINES,
}


def run(options: argparse.Namespace) -> int:
    """Print each finished segment until the stream ends or the user presses Ctrl-C."""
    if options.file not in (None, "-"):
        raise ValueError(
            f"listen reads the microphone, or standard input with '-', not {options.file!r}; use "
            "emoser timeline for files"
        )
    from emoser.audio.arrays import mix_frames
    from emoser.streaming import EmotionStream

    stream = EmotionStream(
        open_classifier(options), sampling_rate=options.rate, **timeline_arguments(options)
    )
    with ExitStack() as opened:
        blocks = _open_blocks(options, opened)
        screen = _Screen(stream, blocks, as_json=options.json)
        try:
            for block in blocks:
                screen.show(stream.push(mix_frames(block)))
        except KeyboardInterrupt:
            screen.note(f"stopped at {clock(stream.seconds)}")
        screen.show(stream.flush())
        screen.close()
    return 0


def _open_blocks(options: argparse.Namespace, opened: ExitStack) -> Iterable[Any]:
    from emoser.audio.microphone import Microphone, read_pcm

    if options.file == "-":
        return read_pcm(
            open_stdin(),
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

    def show(self, segments: list[Segment]) -> None:
        """Print finished segments and update the status line."""
        self._status(CLEAR_LINE)
        for segment in segments:
            line = format_json(segment.to_dict()) if self.as_json else printable(str(segment))
            print(line, flush=True)
        self._status(self._line())

    def note(self, text: str) -> None:
        """Print a message to standard error in place of the status line."""
        self._status(CLEAR_LINE)
        print(f"emoser: {text}", file=sys.stderr)

    def close(self) -> None:
        """Remove the status line and report lost blocks."""
        if self._num_dropped:
            self.note(f"{self._num_dropped} blocks of audio were lost")
        else:
            self._status(CLEAR_LINE)

    @property
    def _num_dropped(self) -> int:
        return int(getattr(self.blocks, "num_dropped", 0))  # reading a pipe drops nothing

    def _status(self, text: str) -> None:
        if sys.stderr.isatty():
            print(text, end="", file=sys.stderr, flush=True)

    def _line(self) -> str:
        time, latest = clock(self.stream.seconds), self.stream.latest
        lost = f"  lost {self._num_dropped}" if self._num_dropped else ""
        if latest is None:
            return f"{time}  ...{lost}"
        ranked = sorted(latest.scores.items(), key=lambda item: -item[1])[:NUM_SHOWN]
        ranked += (latest.dimensions or {}).items()
        if not ranked:
            return f"{time}  silence{lost}"
        bar = "█" * round(BAR_WIDTH * min(max(ranked[0][1], 0.0), 1.0))
        names = "  ".join(f"{printable(label)} {score:.2f}" for label, score in ranked)
        return f"{time}  {bar:<{BAR_WIDTH}}  {names}{lost}"
