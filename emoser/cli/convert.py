"""`emoser convert`: write a checkpoint of any layout as safetensors with equal numbers."""

import argparse
import json
from typing import Any

from emoser.checkpoints.resolve import find_checkpoint
from emoser.cli.options import add_options


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "convert",
        help="write a checkpoint of any layout as safetensors",
        description="Write a checkpoint of any layout as a folder of safetensors that emoser "
        "loads, and transformers too if it has a class for the model. The folder is loaded "
        "again and compared with the source before it appears.",
    )
    add_options(parser, "model", "folder", "--revision", "--overwrite", "--json")
    parser.add_argument(
        "--activation",
        help="activation inside the head, if the layout does not state it: none, tanh, relu",
    )
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Convert the checkpoint and print the result."""
    checkpoint = find_checkpoint(options.model, revision=options.revision)
    from emoser.checkpoints.conversion import convert_checkpoint

    done = convert_checkpoint(
        checkpoint, options.folder, overwrite=options.overwrite, activation=options.activation
    )
    if options.json:
        row = {
            "folder": str(done.folder),
            "source_layout": done.source_layout,
            "layout": done.layout,
            "max_difference": done.max_difference,
        }
        print(json.dumps(row))
    else:
        print(
            f"{options.model} ({done.source_layout}) -> {done.folder} ({done.layout}); largest "
            f"difference of a logit {done.max_difference:.1e}"
        )
    return 0
