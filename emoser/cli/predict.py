"""`emoser predict`: files, folders, patterns or standard input in; one row per recording out."""

import argparse
import glob
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.audio.folders import find_recordings, parse_shard
from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.errors import AudioError, EmoserError
from emoser.results.rows import as_csv, as_line, as_row, csv_header
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.audio import Channel, Source

MAX_NAME_WIDTH = 60  # longer names keep their end


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
    add_folder_options(parser)
    parser.set_defaults(run=run)
    return parser


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for folders of any size."""
    group = parser.add_argument_group(
        "whole folders", "With --output, FILE is one folder; the same command goes on after a stop."
    )
    group.add_argument("--output", help="write rows as they come: .jsonl, .csv or .parquet")
    group.add_argument(
        "--shard", default="1/1", metavar="I/N", help="do the I-th of N parts (%(default)s)"
    )
    group.add_argument("--engine", default="local", help="local, or ray for Ray Data actors")
    group.add_argument("--actors", type=_positive_int, help="actors of Ray; all it has room for")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a checkpoint and how it runs."""
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="bundled name, folder or Hub id (%(default)s)"
    )
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a checkpoint runs."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--backend", default="auto", help="auto, torch, openvino or onnx")


def run(options: argparse.Namespace) -> int:
    """Predict and print; 3 when a recording could not be read."""
    if options.output:
        return _run_folder(options)
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
        channel=parse_channel(options.channel),
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


def _run_folder(options: argparse.Namespace) -> int:
    """Predict a folder into a file; 3 when a recording could not be read."""
    from emoser.bulk import BulkJob, predict_folder

    if len(options.files) != 1 or options.json or options.csv or options.top_k:
        raise ValueError(
            "with --output, pass one folder and neither --json, --csv nor --top-k; the suffix of "
            "the output says what is written"
        )
    job = BulkJob(
        folder=options.files[0],
        output=options.output,
        model=options.model,
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
        labels=options.labels,
        channel=parse_channel(options.channel),
        batch_seconds=options.batch_seconds,
        shard=parse_shard(options.shard),
        engine=options.engine,
        num_actors=options.actors,
    )
    summary = predict_folder(job, progress=True)
    before = f", {summary.num_before} of them before" if summary.num_before else ""
    failed = f", {summary.num_errors} could not be read" if summary.num_errors else ""
    print(
        f"emoser: {summary.num_files} recordings in {job.output}{before}{failed}", file=sys.stderr
    )
    return AudioError.exit_code if summary.num_errors else 0


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
            yield from find_recordings(path)
        elif glob.has_magic(name) and not path.exists():
            found = sorted(item for item in glob.glob(name, recursive=True) if Path(item).is_file())
            if not found:
                raise AudioError(f"no file matches {name!r}")
            yield from found
        else:
            yield name


def _open(name: str) -> "Source":
    return sys.stdin.buffer if name == "-" else Path(name)


def _choose_writer(options: argparse.Namespace, labels: Sequence[str], names: Sequence[str]) -> Any:
    if options.json:
        return lambda name, answer: print(json.dumps(as_row(name, answer, options.top_k)))
    if options.csv:
        print(csv_header(labels), end="")
        return lambda name, answer: print(as_csv(name, answer, labels), end="")
    width = min(max(len(printable(name)) for name in names), MAX_NAME_WIDTH)
    return lambda name, answer: print(
        as_line(name, answer, width=width, labels=labels, top_k=options.top_k)
    )


def parse_channel(text: str) -> "Channel":
    """The channel that an option names: an index where it is a number."""
    return int(text) if text.lstrip("-").isdigit() else text


def _positive_int(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value
