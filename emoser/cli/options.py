"""The options that several commands share, and the library's arguments for them.

A table of options maps the name of each to the arguments of `ArgumentParser.add_argument`.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.errors import AudioError
from emoser.inference.options import VADS, TimelineOptions
from emoser.text import printable_lines

if TYPE_CHECKING:
    from emoser.audio import Channel, Source
    from emoser.classifier import EmotionClassifier

Options: TypeAlias = Mapping[str, dict[str, Any]]


class Group(NamedTuple):
    """Options under a title of their own or, without a title, of which at most one is given."""

    options: Options
    title: str | None = None
    description: str | None = None


def parse_labels(text: str) -> str | dict[str, str] | list[str]:
    """A named set, a map, or names, as `EmotionClassifier.from_pretrained` takes them.

    Example:
        >>> parse_labels("ekman"), parse_labels("angry=bad, sad=bad"), parse_labels("calm,angry")
        ('ekman', {'angry': 'bad', 'sad': 'bad'}, ['calm', 'angry'])
    """
    parts = [part.strip() for part in text.split(",")]
    if all("=" in part for part in parts):
        pairs = (part.split("=", 1) for part in parts)
        return {key.strip(): name.strip() for key, name in pairs}
    return text if len(parts) == 1 else parts


def parse_channel(text: str) -> "Channel":
    """The value of --channel, an int if it is a channel index."""
    return int(text) if text.lstrip("-").isdigit() else text


def value(text: str, default: Any = None, **settings: Any) -> dict[str, Any]:
    """An option with a value; a default gives it its type and is shown after its help text."""
    if default is None:
        return {"help": text, **settings}
    shown = f"{text} (default: %(default)s)".lstrip()
    return {"help": shown, "default": default, "type": type(default), **settings}


def flag(text: str) -> dict[str, Any]:
    """An option without a value."""
    return {"action": "store_true", "help": text}


RUNTIME = ("--device", "--dtype", "--backend")
CLASSIFIER = ("--model", *RUNTIME, "--labels")
TIMELINE = ("--window", "--hop", "--smoothing", "--threshold", "--vad")
MODEL_HELP = "bundled name, folder or Hub id"
JSON_LINES = flag("print one JSON object per line")
VAD_CHOICES = [str(name).lower() for name in VADS]
SHARED: Options = {
    "model": value(MODEL_HELP, metavar="MODEL"),
    "--revision": value("branch, tag or commit of a Hub checkpoint"),
    "folder": value("output folder", metavar="FOLDER"),
    "--overwrite": flag("replace an existing folder"),
    "--model": value(MODEL_HELP, DEFAULT_MODEL),
    "--device": value("auto, cpu, cuda, cuda:1 or mps", "auto"),
    "--dtype": value("auto, float32, bfloat16 or float16", "auto"),
    "--backend": value("auto, torch, openvino or onnx", "auto"),
    "--labels": value(
        "ekman, iemocap4 or valence3; a map such as angry=bad,sad=bad; or a name for each output "
        "of a checkpoint that names none, such as calm,angry",
        type=parse_labels,
    ),
    "--channel": value("mix, left, right or a channel index", "mix", type=parse_channel),
    "--window": value("window length in seconds", TimelineOptions.window_seconds),
    "--hop": value("seconds from one window to the next", TimelineOptions.hop_seconds),
    "--smoothing": value(
        "lead in probability needed to change the emotion", TimelineOptions.smoothing
    ),
    "--threshold": value(
        "probability below which a segment is uncertain", TimelineOptions.threshold
    ),
    "--vad": value("voice activity detection", TimelineOptions.vad, choices=VAD_CHOICES),
    "--json": flag("print one JSON object"),
}


def shared(*names: str) -> Options:
    """Some of the shared options."""
    return {name: SHARED[name] for name in names}


def add_options(parser: Any, options: Options) -> None:
    """Add options to a parser or a group of it."""
    for name, settings in options.items():
        parser.add_argument(name, **settings)


def add_groups(parser: argparse.ArgumentParser, groups: Iterable[Group]) -> None:
    """Add groups of options to a parser."""
    for group in groups:
        if group.title is None:
            add_options(parser.add_mutually_exclusive_group(), group.options)
        else:
            add_options(parser.add_argument_group(group.title, group.description), group.options)


def select(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Some options as keyword arguments."""
    return {name: getattr(options, name) for name in names}


def given(options: argparse.Namespace, table: Options) -> dict[str, Any]:
    """The options of a table that have a value, as keyword arguments."""
    values = select(options, *(name.lstrip("-").replace("-", "_") for name in table))
    return {name: value for name, value in values.items() if value is not None}


def timeline_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `TIMELINE` as keyword arguments of the library."""
    return {
        "window_seconds": options.window,
        "hop_seconds": options.hop,
        "vad": None if options.vad == "none" else options.vad,
        **select(options, "smoothing", "threshold"),
    }


def open_classifier(options: argparse.Namespace, model: str | None = None) -> "EmotionClassifier":
    """The classifier for the options of `CLASSIFIER`, or another model with these options."""
    from emoser.classifier import EmotionClassifier

    return EmotionClassifier.from_pretrained(
        model or options.model, **select(options, "device", "dtype", "backend", "labels")
    )


def show(*lines: object) -> None:
    """Print lines of text in which no name of a file or a label controls the terminal."""
    for line in lines:
        print(printable_lines(str(line)))


def open_source(name: str) -> "Source":
    """The file of a name, or standard input for "-".

    Raises:
        AudioError: If standard input is closed.
    """
    return open_stdin() if name == "-" else Path(name)


def open_stdin() -> BinaryIO:
    """Standard input in binary mode.

    Raises:
        AudioError: If it is closed.
    """
    if sys.stdin is None:
        raise AudioError("standard input is closed; pipe a recording into the command")
    return sys.stdin.buffer
