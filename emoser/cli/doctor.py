"""`emoser doctor`: examine a checkpoint, its numbers, and the packages of this machine."""

import argparse
from importlib import import_module, metadata
from typing import Any

from emoser.checkpoints.resolve import DEFAULT_MODEL, find_checkpoint
from emoser.cli.options import MODEL_HELP, flag, shared, show, value
from emoser.errors import CheckpointError, DependencyError
from emoser.json_text import format_json

REQUIRED = ("torch", "transformers", "huggingface_hub", "safetensors", "soundfile", "soxr")
OPTIONAL = {
    "torchaudio": "pip install torchaudio matching your torch; prediction works without it",
    "av": 'm4a, mp4 and webm need it: pip install "emoser[media]"',
    "accelerate": 'fine-tuning needs it: pip install "emoser[finetune]"',
}
"""Packages that some features need, and the remedy if one is missing or broken."""
DESCRIPTION = (
    "Show the layout, labels, licence and size of a checkpoint and where its tensors went, and "
    "check whether batches are exact, whether stored logits are reproduced, and whether the "
    "packages on this machine work. Exit code 4: the checkpoint is not sound; 5: a required "
    "package does not work."
)
OPTIONS = {
    "model": value(MODEL_HELP, DEFAULT_MODEL, nargs="?", metavar="MODEL"),
    **shared("--revision", "--json"),
    "--tensors": flag("list which tensors went where"),
}


def run(options: argparse.Namespace) -> int:
    """Examine and print; the exit code is 0 if everything is sound."""
    packages = {name: _examine(name) for name in (*REQUIRED, *OPTIONAL)}
    is_broken = any(packages[name]["fault"] for name in REQUIRED)
    row: dict[str, Any] = {}
    if not is_broken:
        checkpoint = find_checkpoint(options.model, revision=options.revision)
        from emoser.checkpoints.inspection import inspect_checkpoint

        row = {
            "name": checkpoint.name,
            "folder": str(checkpoint.folder),
            "revision": checkpoint.revision,
            **inspect_checkpoint(checkpoint).to_dict(),
        }
    if options.json:
        print(format_json({**row, "packages": packages}))
    else:
        if row:
            _print_checkpoint(row, tensors=options.tensors)
        _print_packages(packages)
    if is_broken:
        return DependencyError.exit_code
    return 0 if row["sound"] else CheckpointError.exit_code


def _examine(name: str) -> dict[str, str | None]:
    """Version, fault and remedy of a package."""
    # Before transformers, whose import a broken torchaudio would break.
    from emoser.models import torchaudio_guard

    mend = OPTIONAL.get(name, f"pip install --force-reinstall {name}")
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return {"version": None, "fault": "not installed", "mend": mend}
    try:
        import_module(name)
    # A broken binary package raises nearly anything: ImportError, OSError, RuntimeError.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        hidden = torchaudio_guard.fault if name == "torchaudio" else None
        first = (str(hidden or error).splitlines() or [""])[0]
        return {"version": version, "fault": f"broken: {first}", "mend": mend}
    return {"version": version, "fault": None, "mend": None}


def _print_checkpoint(row: dict[str, Any], *, tensors: bool) -> None:
    outputs = ", ".join(name if raw == name else f"{name} ({raw})" for raw, name in row["outputs"])
    golden = row["golden_difference"]
    lines = {
        "checkpoint": row["name"] + (f" at {row['revision']}" if row["revision"] else ""),
        "layout": row["layout"],
        "encoder": row["encoder"],
        "outputs": outputs,
        "dimensions": ", ".join(row["dimensions"]) or "none",
        "licence": row["licence"] or "not stated",
        "size": f"{row['megabytes']:.1f} MB, {row['parameters']:,} weights",
        "batches": f"differ by {row['batch_difference']:.1e} from single recordings, "
        f"largest logit {row['largest_logit']:.2f}",
        "golden": "none" if golden is None else f"differ by {golden:.1e}",
        "result": "sound" if row["sound"] else "NOT SOUND: the numbers above should be 0",
    }
    for name, text in lines.items():
        show(f"{name:<12} {text}")
    for note in row["notes"]:
        show(f"{'note':<12} {note}")
    for place in row["places"] if tensors else ():
        show(f"{'tensor':<12} {place}")


def _print_packages(packages: dict[str, dict[str, str | None]]) -> None:
    for name, state in packages.items():
        fault = "" if state["fault"] is None else f"  {state['fault']}; {state['mend']}"
        show(f"{name:<16} {state['version'] or '-'}{fault}")
