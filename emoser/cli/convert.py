"""`emoser convert`: write a checkpoint of any layout as safetensors with equal numbers."""

import argparse
from dataclasses import asdict

from emoser.checkpoints.resolve import find_checkpoint
from emoser.cli.options import shared, show, value
from emoser.json_text import format_json

DESCRIPTION = (
    "Write a checkpoint of any layout as a folder of safetensors that emoser loads, and "
    "transformers too if it has a class for the model. The folder is loaded again and compared "
    "with the source before it appears."
)
OPTIONS = {
    **shared("model", "folder", "--revision", "--overwrite", "--json"),
    "--activation": value(
        "activation inside the head, if the layout does not state it: none, tanh, relu"
    ),
}


def run(options: argparse.Namespace) -> int:
    """Convert the checkpoint and print the result."""
    checkpoint = find_checkpoint(options.model, revision=options.revision)
    from emoser.checkpoints.conversion import convert_checkpoint

    done = convert_checkpoint(
        checkpoint, options.folder, overwrite=options.overwrite, activation=options.activation
    )
    if options.json:
        print(format_json({**asdict(done), "folder": str(done.folder)}))
    else:
        line = (
            f"{options.model} ({done.source_layout}) -> {done.folder} ({done.layout}); largest "
            f"difference of a logit {done.max_difference:.1e}"
        )
        show(line)
    return 0
