"""`emoser finetune`: from a table of the user's own recordings to a checkpoint with its report."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emoser.cli.options import MODEL_HELP, Options, flag, given, select, shared, show, value
from emoser.finetune.corpora import READERS
from emoser.finetune.settings import (
    FROZEN_EPOCHS,
    LARGE,
    MODES,
    PRECISIONS,
    SMALL,
    TARGETS,
    DataSettings,
    ModelSettings,
    OptimisationSettings,
    RunSettings,
)
from emoser.json_text import format_json
from emoser.text import printable_lines

if TYPE_CHECKING:
    from emoser.finetune import FinetuneConfig, Utterance

DEFAULT_BASE = "emoser-tiny"  # small enough to be trained in minutes without a GPU

DESCRIPTION = (
    "Train on your own recordings: a table with the columns path and label, or arousal, dominance "
    "and valence, and optionally speaker, split, start and end. Run the same command again to "
    "resume an interrupted run."
)
CORPUS: Options = {
    "corpus": value(
        "a table (CSV, JSON lines, Parquet), an audio folder with metadata.csv, a folder saved by "
        f"`datasets`, or, with --root, the name of a corpus: {', '.join(READERS)}",
    ),
    "--root": value("folder of the named corpus, or of relative paths", type=Path),
    "--scale": {
        **value("lowest and highest value of arousal, dominance and valence", type=float),
        "nargs": 2,
        "metavar": ("LOWEST", "HIGHEST"),
    },
}
UNREADABLE: Options = {
    "--skip-unreadable": flag("leave out recordings that are missing or cannot be decoded"),
}
TRAINED_ON: Options = {
    "--allow-trained-on": flag(
        "give figures, which then say so, also where the model, its base or a teacher was trained "
        "on some of these recordings or speakers"
    ),
}
TRAINING: Options = {
    "--epochs": value("passes over the training set", type=int, metavar="N"),
    "--batch-size": value("clips per update", type=int, metavar="N"),
    "--encoder-learning-rate": value(
        "highest learning rate of the encoder", type=float, metavar="RATE"
    ),
    "--head-learning-rate": value("highest learning rate of the head", type=float, metavar="RATE"),
    "--precision": value("data type of matrix products", choices=PRECISIONS),
    "--accumulation": value(
        "parts that a batch is computed in, to save memory", type=int, metavar="N"
    ),
    "--recompute": {**flag("recompute activations, to save memory"), "default": None},
    "--tensorboard": {**flag("write a log for TensorBoard"), "default": None},
    "--seed": value("seed of the split, the order and the model", type=int, metavar="N"),
}
"""Options that replace single settings of a `FinetuneConfig`."""
DEFAULTS: Mapping[str, object] = {
    "--epochs": f"{SMALL.epochs} for small encoders such as {DEFAULT_BASE}, else {LARGE.epochs}; "
    f"{FROZEN_EPOCHS} with --mode frozen",
    "--batch-size": DataSettings.batch_size,
    "--encoder-learning-rate": f"{SMALL.encoder_learning_rate:g} for small encoders, else "
    f"{LARGE.encoder_learning_rate:g}",
    "--head-learning-rate": f"{OptimisationSettings.head_learning_rate:g}",
    "--precision": RunSettings.precision,
    "--accumulation": RunSettings.accumulation,
    "--seed": RunSettings.seed,
}
"""The defaults of `FinetuneConfig`, for the help text."""
DEVICE: Options = {"--device": {"default": "auto", "choices": ("auto", "cpu", "cuda")}}
OPTIONS = {
    **CORPUS,
    **UNREADABLE,
    "--output": value("folder of the run", required=True, type=Path),
    "--base": value(f"encoder: {MODEL_HELP}", DEFAULT_BASE),
    "--mode": value("parts of the encoder to train", ModelSettings.mode, choices=MODES),
    "--layers": value("use only the first N layers of the encoder", type=int, metavar="N"),
    "--targets": value("what of the annotation to learn", ModelSettings.targets, choices=TARGETS),
    "--split": value(
        "test set: whole speakers, the column split, or random clips",
        "auto",
        choices=("auto", "speakers", "column", "random"),
    ),
    "--dry-run": flag("only check whether the model can overfit 32 clips"),
    **{
        name: {**settings, "help": f"{settings['help']} (default: {DEFAULTS[name]})"}
        if name in DEFAULTS
        else settings
        for name, settings in TRAINING.items()
    },
    **DEVICE,
    **shared("--json"),
}


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


class _PrintableFormatter(logging.Formatter):
    """Names of files and labels in a message cannot control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return printable_lines(super().format(record))


def show_warnings() -> None:
    """Print the library's warnings on the standard error, and the progress of long work."""
    logger = logging.getLogger("emoser")
    for former in logger.handlers[:]:  # a command may run again, with another standard error
        if isinstance(former.formatter, _PrintableFormatter):
            logger.removeHandler(former)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_PrintableFormatter("emoser: %(message)s"))
        logger.addHandler(handler)
    if is_first_process():
        logging.getLogger("emoser.finetune.progress").setLevel(logging.INFO)


def read_corpus(options: argparse.Namespace, *, targets: str) -> list["Utterance"]:
    """The utterances of the options `CORPUS` and `UNREADABLE`."""
    from emoser.finetune import read_corpus

    scale = None if options.scale is None else (options.scale[0], options.scale[1])
    return read_corpus(
        options.corpus,
        root=options.root,
        check_files=not options.skip_unreadable,
        scale=scale,
        targets=targets,
    )


def run(options: argparse.Namespace) -> int:
    """Train, test and print."""
    from emoser.finetune import FinetuneConfig
    from emoser.finetune.experiments.finetuning import finetune

    show_warnings()
    utterances = read_corpus(options, targets=options.targets)
    config = FinetuneConfig(
        options.base,
        mode=options.mode,
        targets=options.targets,
        num_layers=options.layers,
        **given(options, TRAINING),
    )
    if options.dry_run:
        return _check(utterances, config, options)
    with resumable():
        result = finetune(
            utterances,
            config=config,
            **select(options, "output", "split", "device", "skip_unreadable"),
        )
    if not is_first_process():
        return 0
    if options.json:
        print(format_json(result.to_dict()))
        return 0
    evaluation = result.evaluation
    show(f"protocol: {evaluation.protocol}", *evaluation.notes)
    labelled = bool(evaluation.report.labels)
    temperature = f", temperature {result.temperature:.2f}" * labelled
    print(f"best epoch {result.best_epoch}{temperature}")
    show(evaluation.report)
    show(*evaluation.describe_intervals())
    show(f"checkpoint: {result.folder}", f"report: {options.output / 'report.md'}")
    return 0


def _check(
    utterances: Sequence["Utterance"], config: "FinetuneConfig", options: argparse.Namespace
) -> int:
    """Print whether the model can overfit a few clips; the files of the check are removed."""
    from emoser.checkpoints.atomic import scratch_folder
    from emoser.finetune.experiments.finetuning import probe

    labelled = config.model.targets != "dimensions" and utterances[0].is_labelled
    with scratch_folder() as folder:
        learned, accuracy = probe(
            utterances,
            config=config,
            output=folder,
            **select(options, "device", "skip_unreadable"),
        )
    answer = "yes" if learned else "no; check labels, recordings and learning rates"
    if options.json:
        print(format_json({"learned": learned, "accuracy": accuracy}))
    else:
        figure = f"accuracy {100 * accuracy:.0f} %" if labelled else f"CCC {accuracy:.2f}"
        print(f"can the model overfit 32 clips? {answer} ({figure})")
    return 0 if learned else 3
