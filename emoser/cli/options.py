"""Options that several commands share, declared once, and what the library takes for them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.inference.options import (
    DEFAULT_HOP_SECONDS,
    DEFAULT_SMOOTHING,
    DEFAULT_THRESHOLD,
    DEFAULT_VAD,
    DEFAULT_WINDOW_SECONDS,
    VADS,
)

if TYPE_CHECKING:
    from emoser.audio import Channel, Source
    from emoser.classifier import EmotionClassifier

MODEL_HELP = "bundled name, folder or Hub id"
NO_VAD = "none"


def add_checkpoint_arguments(
    parser: argparse.ArgumentParser, *, default: str | None = None
) -> None:
    """Add MODEL, optional if it has a default, and --revision."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?" if default else None,
        default=default,
        help=MODEL_HELP + (" (default: %(default)s)" if default else ""),
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub checkpoint")


def add_output_folder(parser: argparse.ArgumentParser) -> None:
    """Add FOLDER and --overwrite."""
    parser.add_argument("folder", metavar="FOLDER", help="output folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing folder")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add --model."""
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"{MODEL_HELP} (default: %(default)s)"
    )


def add_runtime_options(parser: argparse.ArgumentParser) -> None:
    """Add --device, --dtype and --backend."""
    for name, values in {
        "--device": "auto, cpu, cuda, cuda:1 or mps",
        "--dtype": "auto, float32, bfloat16 or float16",
        "--backend": "auto, torch, openvino or onnx",
    }.items():
        parser.add_argument(name, default="auto", help=f"{values} (default: %(default)s)")


def add_classifier_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `open_classifier`."""
    add_model_option(parser)
    add_runtime_options(parser)
    parser.add_argument("--labels", help="map to another label set: ekman, iemocap4 or valence3")


def add_channel_option(parser: argparse.ArgumentParser, *, each: bool = False) -> None:
    """Add --channel.

    Args:
        parser: The parser of a command.
        each: Whether the command can take the channels one by one.
    """
    values = "mix, left, right, a channel index" + (", or each for every channel" if each else "")
    parser.add_argument("--channel", default="mix", help=f"{values} (default: %(default)s)")


def add_timeline_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `timeline_arguments`."""
    for name, default, text in (
        ("--window", DEFAULT_WINDOW_SECONDS, "window length in seconds"),
        ("--hop", DEFAULT_HOP_SECONDS, "seconds from one window to the next"),
        ("--smoothing", DEFAULT_SMOOTHING, "lead in probability needed to change the emotion"),
        ("--threshold", DEFAULT_THRESHOLD, "probability below which a segment is uncertain"),
    ):
        parser.add_argument(
            name, type=float, default=default, help=f"{text} (default: %(default)s)"
        )
    parser.add_argument(
        "--vad",
        default=DEFAULT_VAD,
        choices=[name or NO_VAD for name in VADS],
        help="voice activity detection (default: %(default)s)",
    )


def add_json_option(parser: Any, *, lines: bool = False) -> None:
    """Add --json.

    Args:
        parser: The parser of a command, or a group of it.
        lines: Whether the command prints one object per line.
    """
    shown = "print one JSON object per line" if lines else "print one JSON object"
    parser.add_argument("--json", action="store_true", help=shown)


def open_classifier(options: argparse.Namespace) -> "EmotionClassifier":
    """The classifier for the options of `add_classifier_options`."""
    from emoser.classifier import EmotionClassifier

    return EmotionClassifier.from_pretrained(
        options.model,
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
        labels=options.labels,
    )


def open_source(name: str) -> "Source":
    """The file of a name, or standard input for "-"."""
    return sys.stdin.buffer if name == "-" else Path(name)


def parse_channel(text: str) -> "Channel":
    """The value of --channel, an int if it is a channel index."""
    return int(text) if text.lstrip("-").isdigit() else text


def timeline_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_timeline_options` as keyword arguments of the library."""
    return {
        "window_seconds": options.window,
        "hop_seconds": options.hop,
        "smoothing": options.smoothing,
        "threshold": options.threshold,
        "vad": None if options.vad == NO_VAD else options.vad,
    }


def positive_int(text: str) -> int:
    """The value of an option that is a count.

    Raises:
        argparse.ArgumentTypeError: If it is not a whole number of at least 1.
    """
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value
