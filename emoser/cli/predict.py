"""`emoser predict`: print or write one row per recording."""

import argparse
import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emoser.cli.options import (
    CLASSIFIER,
    JSON_LINES,
    Group,
    flag,
    open_classifier,
    open_source,
    select,
    shared,
    value,
)
from emoser.cli.turns import TURN_WRITERS, run_turns
from emoser.errors import AudioError, EmoserError
from emoser.json_text import format_json
from emoser.results.rows import as_csv, as_line, as_row, csv_header
from emoser.text import printable

MAX_NAME_WIDTH = 60  # longer names are cut at their beginning
JOB_OPTIONS = (
    "output", "model", "device", "dtype", "backend", "labels", "channel", "batch_seconds",
    "engine", "num_actors",
)  # fmt: skip


def _positive_int(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


DESCRIPTION = (
    "Print the emotion of recordings. If a recording cannot be read, its row holds the error, and "
    "the command exits with code 3 after the last recording."
)
OPTIONS = {
    "files": value(
        "an audio file, a folder, a glob pattern, or - for standard input",
        nargs="+",
        metavar="FILE",
    ),
    **shared(*CLASSIFIER, "--channel"),
    "--top-k": value("print the K most probable labels", type=_positive_int),
    "--batch-seconds": value("seconds of audio per batch, including padding", type=float),
}
FORMATS = {
    "--json": JSON_LINES,
    "--csv": flag("print CSV with a header"),
    "--format": value("format of turns", choices=TURN_WRITERS),
}
TURNS = {
    "--turns": value(
        "the turns: RTTM, SRT, WebVTT, TextGrid, EAF, CSV, or JSON of WhisperX", metavar="TURNS"
    ),
    "--diarize": flag("find them: a speaker per channel, or pyannote.audio for one channel"),
}
TURN_OUTPUT = {
    "--vad": value("how --diarize finds speech", "energy", choices=("energy", "silero")),
    "--adapt-speakers": flag(
        "adapt to each speaker with at least 8 turns with speech; makes answers worse for one "
        "whose turns all carry the same emotion"
    ),
    "--plot": value("draw a .png, .svg or .pdf picture", metavar="IMAGE"),
    "--theme": value("theme of the picture: light or dark", "light"),
}
PIECE = {
    "--start": value("start of the piece in seconds", type=float),
    "--end": value("end of the piece in seconds", type=float),
}
FOLDER = {
    "--output": value("write rows to a .jsonl, .csv or .parquet file"),
    "--shard": value("process the I-th of N shards", "1/1", metavar="I/N"),
    "--engine": value("local, or ray for Ray Data", "local"),
    "--actors": value(
        "number of Ray actors (default: as many as fit)",
        type=_positive_int,
        dest="num_actors",
        metavar="N",
    ),
}
GROUPS = (
    Group(FORMATS),
    Group(PIECE, "a piece of a recording", "FILE is one recording."),
    Group(TURNS),
    Group(
        TURN_OUTPUT,
        "conversations",
        "With --turns or --diarize, FILE is one recording, and each turn has a row; with --channel "
        "each, every turn is taken from its own channel.",
    ),
    Group(
        FOLDER,
        "large folders",
        "With --output, FILE is one folder. Repeat the command to resume an interrupted run.",
    ),
)


def run(options: argparse.Namespace) -> int:
    """Predict and print; returns 3 if a recording could not be read."""
    if options.output:
        return _run_folder(options)
    if options.turns or options.diarize:
        return run_turns(options)
    if options.format or options.plot or options.adapt_speakers:
        raise ValueError(
            "--format, --plot and --adapt-speakers are for turns; pass --turns or --diarize"
        )
    if options.start is not None or options.end is not None:
        return _run_piece(options)
    names = list(expand_names(options.files))
    classifier = open_classifier(options)
    results = classifier.iter_predictions(
        map(open_source, names),
        **select(options, "channel", "batch_seconds"),
        on_error="return",
    )
    columns = (*classifier.labels, *classifier.dimensions)
    write = _choose_writer(options, columns, names)
    failed = 0
    for name, result in zip(names, results, strict=True):
        failed += isinstance(result, EmoserError)
        write(name, result)
    if failed and len(names) > 1:
        print(f"emoser: {failed} of {len(names)} recordings could not be read", file=sys.stderr)
    return AudioError.exit_code if failed else 0


def _run_piece(options: argparse.Namespace) -> int:
    """Predict a piece of one recording."""
    if len(options.files) != 1 or Path(options.files[0]).is_dir():
        raise ValueError("--start and --end take one recording")
    name = options.files[0]
    classifier = open_classifier(options)
    found = classifier.predict(open_source(name), **select(options, "channel", "start", "end"))
    _choose_writer(options, (*classifier.labels, *classifier.dimensions), [name])(name, found)
    return 0


def _run_folder(options: argparse.Namespace) -> int:
    """Predict a folder into a file; returns 3 if a recording could not be read."""
    from emoser.audio.folders import parse_shard
    from emoser.bulk import BulkJob, predict_folder

    others = (
        "json", "csv", "format", "top_k", "turns", "diarize", "plot", "adapt_speakers", "start",
        "end",
    )  # fmt: skip
    if len(options.files) != 1 or any(getattr(options, name) for name in others):
        raise ValueError(
            "--output takes one folder and cannot be combined with --json, --csv, --format, "
            "--top-k, turns or pieces; the format follows from the suffix of the output file"
        )
    shard = parse_shard(options.shard)
    job = BulkJob(folder=options.files[0], shard=shard, **select(options, *JOB_OPTIONS))
    summary = predict_folder(job, progress=True)
    before = f", {summary.num_before} of them before" if summary.num_before else ""
    failed = f", {summary.num_errors} could not be read" if summary.num_errors else ""
    shown = f"emoser: {summary.num_files} recordings in {job.output}{before}{failed}"
    print(shown, file=sys.stderr)
    return AudioError.exit_code if summary.num_errors else 0


def expand_names(names: Sequence[str]) -> Iterator[str]:
    """Search folders, expand glob patterns, and pass other names on unchanged."""
    from emoser.audio.folders import find_recordings, match_files

    for name in names:
        path = Path(name)
        if name != "-" and path.is_dir():
            yield from find_recordings(path)
        elif glob.has_magic(name) and not path.exists():
            found = match_files(name)
            if not found:
                raise AudioError(f"no file matches {name!r}")
            yield from found
        else:
            yield name


def _choose_writer(options: argparse.Namespace, labels: Sequence[str], names: Sequence[str]) -> Any:
    if options.json:
        return lambda name, result: print(format_json(as_row(name, result, options.top_k)))
    if options.csv:
        print(csv_header(labels), end="")
        return lambda name, result: print(as_csv(name, result, labels), end="")
    width = min(max(len(printable(name)) for name in names), MAX_NAME_WIDTH)
    return lambda name, result: print(
        as_line(name, result, width=width, labels=labels, top_k=options.top_k)
    )
