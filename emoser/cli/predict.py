"""`emoser predict`: files, folders, patterns or standard input in; one row per recording out."""

import argparse
import csv
import glob
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from emoser.checkpoints.location import DEFAULT_MODEL
from emoser.errors import AudioError, EmoserError
from emoser.prediction import Prediction

if TYPE_CHECKING:
    from emoser.audio import Channel, Source

AUDIO_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .caf .au .w64 "
    ".m4a .mp4 .aac .webm .mka .mkv .amr .wma .mov".split()
)
MAX_NAME_WIDTH = 60  # longer names keep their end
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would execute


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "predict",
        help="print the emotion of recordings",
        description="Print the emotion of recordings. A recording that cannot be read gets its "
        "error in its row, and the exit code is 3 at the end.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="an audio file, a folder to search, a pattern, or - for standard input",
    )
    add_model_options(parser)
    parser.add_argument("--labels", help="answer in another set: ekman, iemocap4 or valence3")
    parser.add_argument(
        "--channel", default="mix", help="mix (default), left, right or the index of a channel"
    )
    parser.add_argument("--top-k", type=_positive_int, help="print the K most probable labels")
    parser.add_argument(
        "--batch-seconds", type=float, help="seconds of audio in one batch, padding included"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per line")
    form.add_argument("--csv", action="store_true", help="comma-separated values with a header")
    parser.set_defaults(run=run)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a checkpoint and how it runs."""
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="bundled name, folder or Hub id (%(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--backend", default="auto", help="auto or torch")


def run(options: argparse.Namespace) -> int:
    """Predict and print; 3 when a recording could not be read."""
    from emoser.classifier import EmotionClassifier

    names = list(expand_names(options.files))
    classifier = EmotionClassifier.from_pretrained(
        options.model,
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
        labels=options.labels,
    )
    answers = classifier.iter_predictions(
        (_open(name) for name in names),
        channel=_channel(options.channel),
        batch_seconds=options.batch_seconds,
        on_error="return",
    )
    columns = (*classifier.labels, *classifier.dimensions)
    write = _choose_writer(options, columns, names)
    failed = 0
    for name, answer in zip(names, answers, strict=True):
        failed += isinstance(answer, EmoserError)
        write(name, answer)
    if failed and len(names) > 1:
        print(f"emoser: {failed} of {len(names)} recordings could not be read", file=sys.stderr)
    return AudioError.exit_code if failed else 0


def expand_names(names: Sequence[str]) -> Iterator[str]:
    """Files of the names: folders are searched, patterns expanded, the rest taken as it is.

    Raises:
        AudioError: If a folder holds no audio file or a pattern matches none.
    """
    for name in names:
        path = Path(name)
        if name == "-" or path.is_file():
            yield name
        elif path.is_dir():
            yield from _search(path)
        elif glob.has_magic(name) and not path.exists():
            found = sorted(item for item in glob.glob(name, recursive=True) if Path(item).is_file())
            if not found:
                raise AudioError(f"no file matches {name!r}")
            yield from found
        else:
            yield name


def _search(folder: Path) -> Iterator[str]:
    found = sorted(
        item
        for item in folder.rglob("*")
        if item.suffix.lower() in AUDIO_SUFFIXES and item.is_file()
    )
    if not found:
        raise AudioError(f"{folder} holds no audio file; name a file to have it read all the same")
    yield from map(str, found)


def _open(name: str) -> "Source":
    return sys.stdin.buffer if name == "-" else Path(name)


def _choose_writer(options: argparse.Namespace, labels: Sequence[str], names: Sequence[str]) -> Any:
    if options.json:
        return lambda name, answer: print(json.dumps(as_row(name, answer, options.top_k)))
    if options.csv:
        return _CsvWriter(sys.stdout, labels)
    width = min(max(len(printable(name)) for name in names), MAX_NAME_WIDTH)
    return lambda name, answer: print(as_line(name, answer, width, labels, options.top_k))


def as_row(name: str, answer: Prediction | EmoserError, top_k: int | None = None) -> dict[str, Any]:
    """The answer as plain values; an error has the key "error" and no label."""
    if isinstance(answer, EmoserError):
        return {"source": name, "error": str(answer)}
    return {**answer.to_dict(), "source": name, "scores": dict(answer.top(top_k))}


def as_line(
    name: str,
    answer: Prediction | EmoserError,
    width: int,
    labels: Sequence[str],
    top_k: int | None,
) -> str:
    """The answer as one aligned line for people."""
    shown = printable(name)
    shown = f"{shown if len(shown) <= width else '…' + shown[1 - width :]:<{width}}"
    if isinstance(answer, EmoserError):
        return f"{shown}  error: {printable(str(answer))}"
    label_width = max(len(label) for label in labels)
    first, *others = [*answer.top(top_k), *(answer.dimensions or {}).items()]
    rest = "  ".join(f"{label} {score:.2f}" for label, score in others)
    line = f"{shown}  {first[0]:<{label_width}}  {first[1]:.2f}  {answer.duration:6.1f} s  {rest}"
    return f"{line}  [{' '.join(answer.quality)}]" if answer.quality else line.rstrip()


def printable(text: str) -> str:
    r"""Text that cannot steer a terminal: control characters are shown as escapes.

    Example:
        >>> print(printable("a\x1b[31m\n"))
        a\x1b[31m\x0a
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class _CsvWriter:
    def __init__(self, file: TextIO, labels: Sequence[str]) -> None:
        self.labels = labels
        self.writer = csv.writer(file, lineterminator="\n")
        self.writer.writerow(["source", "label", "score", *labels, "duration", "quality", "error"])

    def __call__(self, name: str, answer: Prediction | EmoserError) -> None:
        if isinstance(answer, EmoserError):
            blanks = [""] * (len(self.labels) + 4)
            self.writer.writerow([_cell(name), *blanks, _cell(str(answer))])
            return
        values = {**answer.scores, **(answer.dimensions or {})}
        scores = [f"{values[label]:.6f}" for label in self.labels]
        self.writer.writerow(
            [
                _cell(name),
                answer.label or "",
                "" if answer.score is None else f"{answer.score:.6f}",
                *scores,
                f"{answer.duration:.3f}",
                " ".join(answer.quality),
                "",
            ]
        )


def _cell(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULA) else text


def _channel(text: str) -> "Channel":
    return int(text) if text.lstrip("-").isdigit() else text


def _positive_int(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value
