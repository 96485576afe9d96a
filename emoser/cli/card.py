"""`emoser card`: the model card of a checkpoint, printed, checked or written."""

import argparse
import sys

from emoser.checkpoints.files import CARD, CheckpointFiles
from emoser.checkpoints.resolve import BUNDLED, find_checkpoint
from emoser.cli.options import flag, shared, show, value
from emoser.errors import CheckpointError
from emoser.json_text import format_json
from emoser.text import printable

DESCRIPTION = (
    "Print the model card of a checkpoint: its own card with completed metadata, or a new one "
    "written from the files of the checkpoint. Faults of the card are printed to standard error. "
    "No request is made, except to download the checkpoint when MODEL is a Hub id."
)
OPTIONS = {
    **shared("model", "--revision", "--json"),
    "--name": value("name of the model in the card, such as owner/name"),
    "--fresh": flag("write a new text even if the card has one"),
    "--write": flag("write the card into the folder instead of printing it"),
}


def run(options: argparse.Namespace) -> int:
    """Print or write the card; 4 if it has faults."""
    checkpoint = find_checkpoint(options.model, revision=options.revision)
    if options.write:
        _check_own(checkpoint)
    from dataclasses import replace

    from emoser.checkpoints.atomic import new_file
    from emoser.checkpoints.card import build_card, check_card
    from emoser.checkpoints.conversion import describe_checkpoint

    facts = describe_checkpoint(checkpoint)
    text = str(build_card(replace(facts, name=options.name or facts.name), fresh=options.fresh))
    faults = check_card(text)
    file = checkpoint.folder / CARD
    if options.write:
        with new_file(file) as written:
            written.write_text(text, encoding="utf-8")
    if options.json:
        place = str(file) if options.write else None
        print(format_json({"card": text, "faults": faults, "file": place}))
    else:
        show(file if options.write else text.removesuffix("\n"))
    for fault in faults:
        print(f"emoser: {printable(fault)}", file=sys.stderr)
    return CheckpointError.exit_code if faults else 0


def _check_own(checkpoint: CheckpointFiles) -> None:
    """Refuse to write into the package or into the cache of the Hub."""
    bundled = checkpoint.folder.resolve().is_relative_to(BUNDLED)
    if bundled or checkpoint.revision is not None:
        raise ValueError(
            f"{checkpoint.name} is not a folder of yours; save a copy with `emoser convert "
            f"{checkpoint.name} FOLDER` and write the card there"
        )
