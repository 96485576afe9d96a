"""`emoser finetune`: from a table of the user's own recordings to a checkpoint with its report."""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.cli.options import MODEL_HELP, add_options
from emoser.finetune.corpora import READERS
from emoser.finetune.settings import MODES, PRECISIONS

if TYPE_CHECKING:
    from emoser.finetune import FinetuneConfig, Utterance

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "epochs": {"type": int, "help": "passes over the training set"},
    "batch_size": {"type": int, "help": "clips per update"},
    "encoder_learning_rate": {"type": float, "help": "highest learning rate of the encoder"},
    "head_learning_rate": {"type": float, "help": "highest learning rate of the head"},
    "precision": {"choices": PRECISIONS, "help": "data type of matrix products"},
    "accumulation": {"type": int, "help": "parts that a batch is computed in, to save memory"},
    "recompute": {"action": "store_true", "help": "recompute activations, to save memory"},
    "tensorboard": {"action": "store_true", "help": "write a log for TensorBoard"},
    "seed": {"type": int, "help": "seed of the split, the order and the model"},
}
"""Settings that are options of the training commands."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "finetune",
        help="train on your own recordings",
        description="Train on your own recordings: a CSV or JSONL table with the columns path "
        "and label, and optionally speaker, split, start and end. Run the same command again to "
        "resume an interrupted run.",
    )
    add_corpus_options(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the run")
    parser.add_argument(
        "--base",
        default=DEFAULT_MODEL,
        help=f"encoder: {MODEL_HELP} (default: %(default)s)",
    )
    parser.add_argument(
        "--mode",
        default="partial",
        choices=MODES,
        help="parts of the encoder to train (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        default="auto",
        choices=("auto", "speakers", "column", "random"),
        help="test set: whole speakers, the column split, or random clips (default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only check whether the model can overfit 32 clips"
    )
    add_training_options(parser)
    add_options(parser, "--json")
    parser.set_defaults(run=run)
    return parser


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose recordings."""
    parser.add_argument(
        "corpus",
        help="a table (CSV, JSONL), an audio folder with metadata.csv, a folder saved by "
        f"`datasets`, or, with --root, the name of a corpus: {', '.join(READERS)}",
    )
    parser.add_argument(
        "--root", type=Path, help="folder of the named corpus, or of relative paths"
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that change single settings."""
    for name, option in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, **option)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def changed_settings(options: argparse.Namespace, *others: str) -> dict[str, Any]:
    """The settings given on the command line: those of `SETTINGS`, and others by their names."""
    return {name: value for name, value in vars(options).items() if name in (*SETTINGS, *others)}


def is_first_process() -> bool:
    """Whether this process prints; other processes of `accelerate launch` do not."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def resumable() -> Iterator[None]:
    """Print how to resume if the user interrupts the training inside the block."""
    try:
        yield
    except KeyboardInterrupt:
        if is_first_process():
            print("emoser: interrupted; run the same command again to resume", file=sys.stderr)
        raise


def show_warnings() -> None:
    """Print the library's warnings on the standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("emoser: %(message)s"))
    logger = logging.getLogger("emoser")
    if not logger.handlers:
        logger.addHandler(handler)


def run(options: argparse.Namespace) -> int:
    """Train, test and print."""
    from emoser.finetune import read_corpus
    from emoser.finetune.experiments.finetuning import finetune
    from emoser.finetune.experiments.start import suggest_settings

    show_warnings()
    utterances = read_corpus(options.corpus, root=options.root)
    suggested = suggest_settings(options.base, mode=options.mode)
    config = suggested.replace(**changed_settings(options))
    if options.dry_run:
        return _check(utterances, config, options)
    with resumable():
        result = finetune(
            utterances,
            config=config,
            output=options.output,
            split=options.split,
            device=options.device,
        )
    if not is_first_process():
        return 0
    if options.json:
        print(json.dumps(result.to_dict()))
        return 0
    report = result.evaluation.report
    low, high = result.evaluation.uar_interval
    interval = f"95 % interval over {result.evaluation.drawn} {100 * low:.1f} to {100 * high:.1f} %"
    print(f"protocol: {result.evaluation.protocol}")
    print(f"best epoch {result.best_epoch}, temperature {result.temperature:.2f}")
    print(report)
    print(f"UAR {100 * report.uar:.1f} % ({interval})")
    print(f"checkpoint: {result.folder}\nreport: {options.output / 'report.md'}")
    return 0


def _check(
    utterances: Sequence["Utterance"], config: "FinetuneConfig", options: argparse.Namespace
) -> int:
    """Print whether the model can overfit a few clips; the files of the check are removed."""
    from emoser.finetune.experiments.finetuning import probe

    with tempfile.TemporaryDirectory() as folder:
        learned, accuracy = probe(utterances, config=config, output=folder, device=options.device)
    answer = "yes" if learned else "no; check labels, recordings and learning rates"
    if options.json:
        print(json.dumps({"learned": learned, "accuracy": accuracy}))
    else:
        print(f"can the model overfit 32 clips? {answer} (accuracy {100 * accuracy:.0f} %)")
    return 0 if learned else 3
