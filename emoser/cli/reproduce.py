"""`emoser reproduce`: an experiment of the paper, from corpora to a table of results."""

import argparse
from pathlib import Path

from emoser.cli.finetune import (
    DEVICE,
    TRAINED_ON,
    TRAINING,
    UNREADABLE,
    is_first_process,
    resumable,
    show_warnings,
)
from emoser.cli.options import flag, given, select, shared, show, value
from emoser.finetune.settings import HEADS, PADDINGS
from emoser.json_text import format_json

DESCRIPTION = (
    "Run all folds or seeds of an experiment of arXiv 2111.02735. Run the same command again to "
    "resume an interrupted experiment."
)
CHANGES = {
    "--base": value("another encoder: folder or Hub id"),
    "--wrapper": value("treatment of padding", choices=PADDINGS),
    "--head": value("another head", choices=HEADS),
}
OPTIONS = {
    "recipe": value("EF, PF or Frozen with an encoder, such as PF-hbt-large or EF-w2v-base-960h"),
    "--corpus": value("name of a corpus; may be repeated", action="append", required=True),
    "--root": value(
        "folder of the corpus; one per corpus", action="append", required=True, type=Path
    ),
    **UNREADABLE,
    **TRAINED_ON,
    "--setting": value(
        "speaker-independent, speaker-dependent, session folds, ...",
        "si",
        choices=("si", "sd", "superb", "speakers", "groups"),
    ),
    "--labels": value("labels to keep, separated by commas"),
    **CHANGES,
    "--native": flag("without output norm, so that transformers loads the result"),
    "--speakers": value(
        "IEMOCAP: true speakers, or those of the authors' code",
        "name",
        choices=("name", "upstream"),
    ),
    "--improvised": flag("leave out scripted dialogues"),
    "--seeds": value("number of seeds of sd", 5),
    "--folds": value("number of folds of groups", 5),
    "--output": value("folder of the experiment", required=True, type=Path),
    **TRAINING,
    **DEVICE,
    **shared("--json"),
}


def run(options: argparse.Namespace) -> int:
    """Run the experiment and print its table."""
    from emoser.finetune import RECIPES
    from emoser.finetune.experiments.reproduction import Experiment, reproduce

    show_warnings()
    changes = given(options, {**TRAINING, **CHANGES})
    changes |= {"output_norm": False} if options.native else {}
    experiment = Experiment(
        corpora=tuple(options.corpus),
        roots=tuple(options.root),
        labels=tuple(options.labels.split(",")) if options.labels else (),
        num_seeds=options.seeds,
        num_folds=options.folds,
        **select(
            options,
            "recipe",
            "setting",
            "speakers",
            "improvised",
            "skip_unreadable",
            "allow_trained_on",
        ),
    )
    with resumable():
        result, table = reproduce(
            experiment,
            config=RECIPES[options.recipe].replace(**changes),
            **select(options, "output", "device"),
        )
    if is_first_process():
        show(format_json(result.to_dict()) if options.json else table)
    return 0
