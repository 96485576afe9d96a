"""The options that several commands share, and the library's arguments for them."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.inference.options import VADS, TimelineOptions

if TYPE_CHECKING:
    from emoser.audio import Channel, Source
    from emoser.classifier import EmotionClassifier

RUNTIME = ("--device", "--dtype", "--backend")
CLASSIFIER = ("--model", *RUNTIME, "--labels")
TIMELINE = ("--window", "--hop", "--smoothing", "--threshold", "--vad")
MODEL_HELP = "bundled name, folder or Hub id"
JSON_LINES = "print one JSON object per line"
VAD_CHOICES = [str(name).lower() for name in VADS]


def parse_channel(text: str) -> "Channel":
    """The value of --channel, an int if it is a channel index."""
    return int(text) if text.lstrip("-").isdigit() else text


def _number(field: str, shown: str) -> dict[str, Any]:
    return {"type": float, "default": getattr(TimelineOptions, field), "help": shown}


SHARED: Mapping[str, Mapping[str, Any]] = {
    "model": {"metavar": "MODEL", "help": MODEL_HELP},
    "--revision": {"help": "branch, tag or commit of a Hub checkpoint"},
    "folder": {"metavar": "FOLDER", "help": "output folder"},
    "--overwrite": {"action": "store_true", "help": "replace an existing folder"},
    "--model": {"default": DEFAULT_MODEL, "help": MODEL_HELP},
    "--device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1 or mps"},
    "--dtype": {"default": "auto", "help": "auto, float32, bfloat16 or float16"},
    "--backend": {"default": "auto", "help": "auto, torch, openvino or onnx"},
    "--labels": {"help": "map to another label set: ekman, iemocap4 or valence3"},
    "--channel": {
        "type": parse_channel,
        "default": "mix",
        "help": "mix, left, right or a channel index",
    },
    "--window": _number("window_seconds", "window length in seconds"),
    "--hop": _number("hop_seconds", "seconds from one window to the next"),
    "--smoothing": _number("smoothing", "lead in probability needed to change the emotion"),
    "--threshold": _number("threshold", "probability below which a segment is uncertain"),
    "--vad": {
        "choices": VAD_CHOICES,
        "default": TimelineOptions.vad,
        "help": "voice activity detection",
    },
    "--json": {"action": "store_true", "help": "print one JSON object"},
}


def add_options(parser: Any, *names: str, **changes: Any) -> None:
    """Add shared options to a parser or a group of it.

    Args:
        parser: The parser of a command.
        names: Keys of `SHARED`.
        changes: Settings that replace those of `SHARED`.
    """
    for name in names:
        settings = {**SHARED[name], **changes}
        if "default" in settings:
            settings["help"] += " (default: %(default)s)"
        parser.add_argument(name, **settings)


def select(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Some options as keyword arguments."""
    return {name: getattr(options, name) for name in names}


def timeline_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `TIMELINE` as keyword arguments of the library."""
    return {
        "window_seconds": options.window,
        "hop_seconds": options.hop,
        "vad": None if options.vad == "none" else options.vad,
        **select(options, "smoothing", "threshold"),
    }


def open_classifier(options: argparse.Namespace) -> "EmotionClassifier":
    """The classifier for the options of `CLASSIFIER`."""
    from emoser.classifier import EmotionClassifier

    return EmotionClassifier.from_pretrained(
        options.model, **select(options, "device", "dtype", "backend", "labels")
    )


def open_source(name: str) -> "Source":
    """The file of a name, or standard input for "-"."""
    return sys.stdin.buffer if name == "-" else Path(name)
