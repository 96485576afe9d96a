"""`emoser models`: list the checkpoints that have a short name."""

import argparse
from typing import Any

from emoser.checkpoints.catalog import CATALOG, RECIPE_ENCODERS, RECIPE_PREFIXES
from emoser.checkpoints.configs import read_labels
from emoser.checkpoints.resolve import DEFAULT_MODEL, bundled_names, find_checkpoint
from emoser.cli.options import JSON_LINES
from emoser.json_text import format_json
from emoser.labels import canonical_labels

DESCRIPTION = (
    "List the bundled checkpoints and the published ones that have a short name. Entries of the "
    "catalog were compiled from cards and configurations and were not checked against the live "
    "Hub."
)
OPTIONS = {"--json": JSON_LINES}


def run(options: argparse.Namespace) -> int:
    """Print one line per checkpoint, or one JSON object."""
    rows = [_bundled_row(name) for name in bundled_names()]
    rows += [{"kind": "catalog", **item.to_dict()} for item in CATALOG]
    if options.json:
        for row in [*rows, *_recipe_rows()]:
            print(format_json(row))
        return 0
    for row in rows:
        print(_describe(row))
    print("\nNot checked against the live Hub, except the bundled ones. Recipes of the paper:")
    for name, encoder in RECIPE_ENCODERS.items():
        names = ", ".join(prefix + name for prefix in RECIPE_PREFIXES)
        print(f"  {names}: start from {encoder}")
    return 0


def _bundled_row(name: str) -> dict[str, Any]:
    files = find_checkpoint(name)
    return {
        "kind": "bundled",
        "name": name,
        "labels": canonical_labels(read_labels(files)),
        "encoder": files.config["emoser"]["encoder"],
        "licence": files.licence,
        "default": name == DEFAULT_MODEL,
        "checked": True,
    }


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
