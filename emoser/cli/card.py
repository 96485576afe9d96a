"""`emoser card`: the model card of a checkpoint, printed, checked or written."""

import argparse
import json
import sys
from typing import Any

from emoser.checkpoints.files import CARD, CheckpointFiles
from emoser.checkpoints.resolve import BUNDLED, find_checkpoint
from emoser.cli.options import add_options
from emoser.errors import CheckpointError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "card",
        help="print or write the model card of a checkpoint",
        description="Print the model card of a checkpoint: its own card with completed "
        "metadata, or a new one written from the files of the checkpoint. Faults of the card "
        "are printed to standard error. No request is made, except to download the checkpoint "
        "when MODEL is a Hub id.",
    )
    add_options(parser, "model", "--revision", "--json")
    parser.add_argument("--name", help="name of the model in the card, such as owner/name")
    parser.add_argument(
        "--fresh", action="store_true", help="write a new text even if the card has one"
    )
    parser.add_argument(
        "--write", action="store_true", help="write the card into the folder instead of printing it"
    )
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print or write the card; 4 if it has faults."""
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
    """Refuse to write into the package or into the cache of the Hub.

    Raises:
        ValueError: If the checkpoint is in one of them.
    """
    bundled = checkpoint.folder.resolve().is_relative_to(BUNDLED)
    if bundled or checkpoint.revision is not None:
        raise ValueError(
            f"{checkpoint.name} is not a folder of yours; save a copy with `emoser convert "
            f"{checkpoint.name} FOLDER` and write the card there"
        )
