"""`emoser models`: list the checkpoints that have a short name."""

import argparse
import json
from typing import Any

from emoser.checkpoints.catalog import CATALOG, RECIPE_ENCODERS, RECIPE_PREFIXES
from emoser.checkpoints.configs import read_labels
from emoser.checkpoints.resolve import DEFAULT_MODEL, bundled_names, find_checkpoint
from emoser.cli.options import JSON_LINES, add_options
from emoser.labels import canonical_labels

Commands = Any  # argparse's own name for the object is private


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "models",
        help="list the checkpoints that have a short name",
        description="List the bundled checkpoints and the published ones that have a short name. "
        "Entries of the catalog were compiled from cards and configurations and were not checked "
        "against the live Hub.",
    )
    add_options(parser, "--json", help=JSON_LINES)
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print one line per checkpoint, or one JSON object."""
    rows = [*_bundled_rows(), *({"kind": "catalog", **item.to_dict()} for item in CATALOG)]
    if options.json:
        for row in [*rows, *_recipe_rows()]:
            print(json.dumps(row, ensure_ascii=False))
        return 0
    for row in rows:
        print(_describe(row))
    print("\nNot checked against the live Hub, except the bundled ones. Recipes of the paper:")
    for name, encoder in RECIPE_ENCODERS.items():
        names = ", ".join(prefix + name for prefix in RECIPE_PREFIXES)
        print(f"  {names}: start from {encoder}")
    return 0


def _bundled_rows() -> list[dict[str, Any]]:
    rows = []
    for name in bundled_names():
        files = find_checkpoint(name)
        rows.append(
            {
                "kind": "bundled",
                "name": name,
                "labels": canonical_labels(read_labels(files)),
                "encoder": files.config["emoser"]["encoder"],
                "licence": files.licence,
                "default": name == DEFAULT_MODEL,
                "checked": True,
            }
        )
    return rows


def _recipe_rows() -> list[dict[str, Any]]:
    return [
        {"kind": "recipe", "name": prefix + name, "encoder": encoder}
        for name, encoder in RECIPE_ENCODERS.items()
        for prefix in RECIPE_PREFIXES
    ]


def _describe(row: dict[str, Any]) -> str:
    marker = " (default)" if row.get("default") else ""
    parts = [f"{row['name']}{marker}", row.get("id"), row["encoder"], ", ".join(row["labels"])]
    size = row.get("megabytes")
    parts += [str(row["licence"]), f"{size:,} MB" if size else None]
    line = "  ".join(part for part in parts if part)
    trained = f"\n    trained on {row['trained_on']}" if row.get("trained_on") else ""
    claim = f"\n    claim: {row['claim']}; {row['protocol']}" if row.get("claim") else ""
    caution = f"\n    caution: {row['caution']}" if row.get("caution") else ""
    return line + trained + claim + caution
