"""`emoser reproduce`: an experiment of the paper from corpus to table, beside what it reports."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from emoser.cli.finetune import (
    add_training_options,
    changed_settings,
    is_first_process,
    resumable,
    show_warnings,
)
from emoser.cli.options import add_json_option


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reproduce",
        help="run an experiment of arXiv 2111.02735",
        description="Run an experiment of arXiv 2111.02735, every fold or seed of it. The same "
        "command continues one that was interrupted.",
    )
    parser.add_argument(
        "recipe", help="EF, PF or Frozen, and an encoder, such as PF-hbt-large or EF-w2v-base-960h"
    )
    parser.add_argument(
        "--corpus", action="append", required=True, help="name of a corpus; may be given again"
    )
    parser.add_argument(
        "--root", action="append", required=True, type=Path, help="its folder; one per corpus"
    )
    parser.add_argument(
        "--setting",
        default="si",
        choices=("si", "sd", "superb", "speakers", "groups"),
        help="speaker-independent, speaker-dependent, session folds, ... (%(default)s)",
    )
    _add_choices(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the experiment")
    add_training_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Add what departs from the recipe, or says which recordings count."""
    parser.add_argument("--labels", help="only these labels, separated by commas")
    parser.add_argument("--base", help="another encoder than the recipe's: folder or Hub id")
    parser.add_argument(
        "--wrapper", choices=("exact", "paper", "today"), help="treatment of padding"
    )
    parser.add_argument("--head", choices=("linear", "projector", "attention"), help="another head")
    parser.add_argument(
        "--native", action="store_true", help="without output norm: loads in transformers too"
    )
    parser.add_argument(
        "--speakers",
        default="name",
        choices=("name", "upstream"),
        help="IEMOCAP: true speakers, or the assignment of the authors' code (%(default)s)",
    )
    parser.add_argument(
        "--improvised", action="store_true", help="leave scripted dialogues out, and say so"
    )
    parser.add_argument("--seeds", type=int, default=5, help="of sd (%(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="of groups (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run the experiment and print its table."""
    from emoser.finetune import RECIPES
    from emoser.finetune.experiments.reproduction import Experiment, reproduce

    show_warnings()
    if options.recipe not in RECIPES:
        raise ValueError(f"recipe {options.recipe!r} is none of {', '.join(RECIPES)}")
    changes = {name: getattr(options, name) for name in ("base", "wrapper", "head")}
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {"output_norm": False} if options.native else {}
    config = replace(RECIPES[options.recipe], **changed_settings(options), **changes)
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
    with resumable():
        result, table = reproduce(
            experiment, config=config, output=options.output, device=options.device
        )
    if is_first_process():
        print(json.dumps(result.to_dict()) if options.json else table)
    return 0
