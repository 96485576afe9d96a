"""`emoser card`: the model card of a checkpoint, printed, checked or written."""

import argparse
import json
import sys
from typing import Any

from emoser.checkpoints.files import CARD, CheckpointFiles
from emoser.checkpoints.resolve import BUNDLED, find_checkpoint
from emoser.cli.options import add_checkpoint_arguments, add_json_option
from emoser.errors import CheckpointError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "card",
        help="print or write the model card of a checkpoint",
        description="Print the model card of a checkpoint: the one it has, its metadata "
        "completed, or one written from what the checkpoint says about itself. What is wrong "
        "with it goes to the standard error. Nothing is sent or asked of the Hub, except for "
        "the checkpoint itself when MODEL is a Hub id.",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("--name", help="what the card calls the model, such as owner/name")
    parser.add_argument(
        "--fresh", action="store_true", help="write the text anew where there is one already"
    )
    parser.add_argument(
        "--write", action="store_true", help="write it into the folder instead of printing it"
    )
    add_json_option(parser)
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print or write the card; 4 when it is not fit to be published."""
    checkpoint = find_checkpoint(options.model, revision=options.revision)
    if options.write:
        _check_own(checkpoint)
    from dataclasses import replace

    from emoser.checkpoints.card import build_card, check_card
    from emoser.checkpoints.conversion import describe_checkpoint

    facts = describe_checkpoint(checkpoint)
    text = str(build_card(replace(facts, name=options.name or facts.name), fresh=options.fresh))
    faults = check_card(text)
    file = checkpoint.folder / CARD
    if options.write:
        file.write_text(text, encoding="utf-8")
    if options.json:
        written = str(file) if options.write else None
        print(json.dumps({"card": text, "faults": faults, "file": written}, ensure_ascii=False))
    else:
        print(file if options.write else text, end="\n" if options.write else "")
    for fault in faults:
        print(f"emoser: {fault}", file=sys.stderr)
    return CheckpointError.exit_code if faults else 0


def _check_own(checkpoint: CheckpointFiles) -> None:
    """Refuse to change what is not the user's own folder.

    Raises:
        ValueError: If the checkpoint is in the package or in the cache of the Hub.
    """
    bundled = checkpoint.folder.resolve().is_relative_to(BUNDLED)
    if bundled or checkpoint.revision is not None:
        raise ValueError(
            f"{checkpoint.name} is no folder of yours; save a copy with `emoser convert "
            f"{checkpoint.name} FOLDER` and write its card"
        )
