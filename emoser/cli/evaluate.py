"""`emoser evaluate`: score a checkpoint on labelled recordings."""

import argparse
import json
from pathlib import Path
from typing import Any

from emoser.cli.finetune import add_corpus_options, show_warnings
from emoser.cli.options import add_options


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="score a checkpoint on labelled recordings",
        description="Score a checkpoint on labelled recordings; with --against, two of them on "
        "the same recordings.",
    )
    add_options(parser, "model")
    add_corpus_options(parser)
    parser.add_argument("--against", metavar="MODEL", help="a second model to compare with")
    parser.add_argument("--split", help="score only this part of the corpus' own split")
    parser.add_argument(
        "--protocol",
        default="not stated: whether the model was trained on these speakers is not known",
        help="how the model and the recordings were chosen, in a sentence",
    )
    parser.add_argument(
        "--only-known",
        action="store_true",
        help="leave out labels that the model lacks",
    )
    parser.add_argument("--output", type=Path, help="folder for report.md, report.json and picture")
    add_options(parser, "--json")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Score and print."""
    from emoser.finetune import read_corpus
    from emoser.finetune.scoring.report import score_models, write_report

    show_warnings()
    utterances = read_corpus(options.corpus, root=options.root)
    if options.split is not None:
        utterances = [item for item in utterances if item.split == options.split]
    names = [options.model, *([options.against] if options.against else [])]
    evaluation, comparison = score_models(
        names, utterances, protocol=options.protocol, only_known=options.only_known
    )
    if options.output is not None:
        write_report(evaluation, options.output, title=options.model)
    if options.json:
        values = evaluation.to_dict()
        values["comparison"] = None if comparison is None else comparison.to_dict()
        print(json.dumps(values))
        return 0
    low, high = evaluation.uar_interval
    print(f"protocol: {evaluation.protocol}")
    for note in evaluation.notes:
        print(note)
    print(evaluation.report)
    print(
        f"95 % interval of the UAR over {evaluation.drawn}: {100 * low:.1f} to {100 * high:.1f} %"
    )
    if comparison is not None:
        print(comparison)
    return 0
