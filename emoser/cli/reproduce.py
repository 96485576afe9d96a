"""`emoser reproduce`: an experiment of the paper, from corpora to a table of results."""

import argparse
import json
from pathlib import Path
from typing import Any

from emoser.cli.finetune import (
    add_training_options,
    changed_settings,
    is_first_process,
    resumable,
    show_warnings,
)
from emoser.cli.options import add_options
from emoser.finetune.settings import HEADS, PADDINGS


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reproduce",
        help="run an experiment of arXiv 2111.02735",
        description="Run all folds or seeds of an experiment of arXiv 2111.02735. Run the same "
        "command again to resume an interrupted experiment.",
    )
    parser.add_argument(
        "recipe", help="EF, PF or Frozen with an encoder, such as PF-hbt-large or EF-w2v-base-960h"
    )
    parser.add_argument(
        "--corpus", action="append", required=True, help="name of a corpus; may be repeated"
    )
    parser.add_argument(
        "--root",
        action="append",
        required=True,
        type=Path,
        help="folder of the corpus; one per corpus",
    )
    parser.add_argument(
        "--setting",
        default="si",
        choices=("si", "sd", "superb", "speakers", "groups"),
        help="speaker-independent, speaker-dependent, session folds, ... (default: %(default)s)",
    )
    _add_choices(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the experiment")
    add_training_options(parser)
    add_options(parser, "--json")
    parser.set_defaults(run=run)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that change the recipe or select recordings."""
    parser.add_argument("--labels", help="labels to keep, separated by commas")
    kept: dict[str, Any] = {"default": argparse.SUPPRESS}  # as in the recipe
    parser.add_argument("--base", help="another encoder: folder or Hub id", **kept)
    parser.add_argument("--wrapper", choices=PADDINGS, help="treatment of padding", **kept)
    parser.add_argument("--head", choices=HEADS, help="another head", **kept)
    parser.add_argument(
        "--native",
        action="store_true",
        help="without output norm, so that transformers loads the result",
    )
    parser.add_argument(
        "--speakers",
        default="name",
        choices=("name", "upstream"),
        help="IEMOCAP: true speakers, or those of the authors' code (default: %(default)s)",
    )
    parser.add_argument("--improvised", action="store_true", help="leave out scripted dialogues")
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds of sd (default: %(default)s)"
    )
    parser.add_argument(
        "--folds", type=int, default=5, help="number of folds of groups (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the experiment and print its table."""
    from emoser.finetune import RECIPES
    from emoser.finetune.experiments.reproduction import Experiment, reproduce

    show_warnings()
    experiment = Experiment(
        recipe=options.recipe,
        setting=options.setting,
        corpora=tuple(options.corpus),
        roots=tuple(options.root),
        labels=tuple(options.labels.split(",")) if options.labels else (),
        speakers=options.speakers,
        improvised=options.improvised,
        num_seeds=options.seeds,
        num_folds=options.folds,
    )
    changes = changed_settings(options, "base", "wrapper", "head")
    changes |= {"output_norm": False} if options.native else {}
    config = RECIPES[options.recipe].replace(**changes)
    with resumable():
        result, table = reproduce(
            experiment, config=config, output=options.output, device=options.device
        )
    if is_first_process():
        print(json.dumps(result.to_dict()) if options.json else table)
    return 0
