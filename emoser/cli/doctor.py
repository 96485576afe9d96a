"""`emoser doctor`: examine a checkpoint, its numbers, and the packages of this machine."""

import argparse
import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from emoser.checkpoints.resolve import DEFAULT_MODEL, find_checkpoint
from emoser.cli.options import add_options
from emoser.errors import CheckpointError, DependencyError
from emoser.text import printable

REQUIRED = ("torch", "transformers", "huggingface_hub", "safetensors", "soundfile", "soxr")
OPTIONAL = {
    "torchaudio": "pip install torchaudio matching your torch; prediction works without it",
    "av": 'm4a, mp4 and webm need it: pip install "emoser[media]"',
    "accelerate": 'fine-tuning needs it: pip install "emoser[finetune]"',
}
"""Packages that some features need, and the remedy if one is missing or broken."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="examine a checkpoint and this machine",
        description="Show the layout, labels, licence and size of a checkpoint and where its "
        "tensors went, and check whether batches are exact, whether stored logits are "
        "reproduced, and whether the packages on this machine work. Exit code 4: the checkpoint "
        "is not sound; 5: a required package does not work.",
    )
    add_options(parser, "model", nargs="?", default=DEFAULT_MODEL)
    add_options(parser, "--revision", "--json")
    parser.add_argument("--tensors", action="store_true", help="list which tensors went where")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Examine and print; the exit code is 0 if everything is sound."""
    # Before transformers, whose import a broken torchaudio would break.
    from emoser.models import torchaudio_guard

    hidden = {"torchaudio": torchaudio_guard.fault}
    packages = examine_packages(hidden)
    broken = [name for name in REQUIRED if packages[name]["fault"]]
    if broken:
        _print_packages(packages, as_json=options.json)
        return DependencyError.exit_code
    checkpoint = find_checkpoint(options.model, revision=options.revision)
    from emoser.checkpoints.inspection import inspect_checkpoint

    found = inspect_checkpoint(checkpoint)
    row = {
        "name": checkpoint.name,
        "folder": str(checkpoint.folder),
        "revision": checkpoint.revision,
        **found.to_dict(),
    }
    if options.json:
        print(json.dumps({**row, "packages": packages}, ensure_ascii=False))
    else:
        _print_checkpoint(row, tensors=options.tensors)
        _print_packages(packages, as_json=False)
    return 0 if found.sound else CheckpointError.exit_code


def examine_packages(
    hidden: Mapping[str, BaseException | None],
) -> dict[str, dict[str, str | None]]:
    """Version, fault and remedy of every package that emoser can use.

    Args:
        hidden: Faults of packages that were hidden because they do not load.
    """
    return {name: _examine(name, hidden.get(name)) for name in (*REQUIRED, *OPTIONAL)}


def _examine(name: str, hidden: BaseException | None) -> dict[str, str | None]:
    from importlib import metadata

    mend = OPTIONAL.get(name, f"pip install --force-reinstall {name}")
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return {"version": None, "fault": "not installed", "mend": mend}
    try:
        import_module(name)
    # A broken binary package raises nearly anything: ImportError, OSError, RuntimeError.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        first = (str(hidden or error).splitlines() or [""])[0]
        return {"version": version, "fault": f"broken: {first}", "mend": mend}
    return {"version": version, "fault": None, "mend": None}


def _print_checkpoint(row: dict[str, Any], *, tensors: bool) -> None:
    outputs = ", ".join(
        name if raw == name else f"{name} ({printable(raw)})" for raw, name in row["outputs"]
    )
    golden = row["golden_difference"]
    lines = {
        "checkpoint": row["name"] + (f" at {row['revision']}" if row["revision"] else ""),
        "layout": row["layout"],
        "encoder": row["encoder"],
        "outputs": outputs,
        "dimensions": ", ".join(row["dimensions"]) or "none",
        "licence": printable(str(row["licence"] or "not stated")),
        "size": f"{row['megabytes']:.1f} MB, {row['parameters']:,} weights",
        "batches": f"differ by {row['batch_difference']:.1e} from single recordings, "
        f"largest logit {row['largest_logit']:.2f}",
        "golden": "none" if golden is None else f"differ by {golden:.1e}",
        "result": "sound" if row["sound"] else "NOT SOUND: the numbers above should be 0",
    }
    for name, value in lines.items():
        print(f"{name:<12} {value}")
    for note in row["notes"]:
        print(f"{'note':<12} {note}")
    for place in row["places"] if tensors else ():
        print(f"{'tensor':<12} {printable(place)}")


def _print_packages(packages: dict[str, dict[str, str | None]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"packages": packages}))
        return
    for name, state in packages.items():
        fault = "" if state["fault"] is None else f"  {state['fault']}; {state['mend']}"
        print(f"{name:<16} {state['version'] or '-'}{printable(fault)}")
