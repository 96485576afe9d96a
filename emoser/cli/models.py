"""`emoser models`: the checkpoints that a name alone stands for."""

import argparse
import json
from typing import Any

from emoser.checkpoints.configs import read_config, read_labels, read_licence
from emoser.checkpoints.location import BUNDLED, DEFAULT_MODEL, bundled_names
from emoser.labels import canonical_labels

Commands = Any  # argparse's own name for the object is private


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "models", help="list the checkpoints inside the package"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print one line per checkpoint."""
    for name in bundled_names():
        folder = BUNDLED / name
        config = read_config(folder)
        labels = canonical_labels(read_labels(config, folder))
        encoder, licence = config.get("model_type"), read_licence(folder)
        default = name == DEFAULT_MODEL
        if options.json:
            row = {"name": name, "labels": labels, "encoder": encoder, "licence": licence}
            print(json.dumps({**row, "default": default}, ensure_ascii=False))
        else:
            marker = " (default)" if default else ""
            print(f"{name}{marker}  {encoder}  {', '.join(labels)}  {licence}")
    return 0
