"""Saved states of a training run, from which a killed run is resumed.

A state is a folder that is written as a whole, with a manifest of the sizes and hashes of its
files. A run is resumed from its newest intact state; damaged states are skipped with a warning,
and refused if no other one is left. A state of another run (other settings, recordings or number
of processes) is refused.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from emoser._version import __version__
from emoser.checkpoints.atomic import new_folder, write_text
from emoser.errors import CheckpointError
from emoser.finetune.config import WITH_TEACHERS, FinetuneConfig
from emoser.finetune.data.utterance import Utterance
from emoser.json_text import format_json, read_json
from emoser.models.config import ModelConfig

STATES = "states"
STATE = "state.pt"
MANIFEST = "manifest.json"
LOG = "log.jsonl"
SETTINGS = "config.json"
KEPT = 2  # newest states

logger = logging.getLogger(__name__)


def fingerprint(
    utterances: Sequence[Utterance],
    validation: Sequence[Utterance],
    model: ModelConfig,
    config: FinetuneConfig,
    *,
    sound: Sequence[str],
    teachers: str = "",
) -> str:
    """A hash that identifies a run; recordings count by order, file names, labels and sound.

    `sound` holds hashes of the decoded recordings of both sides, and `teachers` is one of the
    teachers.
    """
    plain = [
        [[item.truth, item.corpus, item.speaker, item.start, item.end, Path(item.path).name]
         for item in part]
        for part in (utterances, validation)
    ]  # fmt: skip
    settings = [plain, model.to_block(), config.identity()]
    if teachers:
        flat = config.flat()
        settings.append({"teachers": teachers, **{name: flat[name] for name in WITH_TEACHERS}})
    settings.append({"sound": list(sound)})
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_state(
    folder: Path, state: Mapping[str, Any], *, name: str, step: int, num_processes: int = 1
) -> None:
    """Write a state of the run with the fingerprint `name`; a reader sees all of it or none."""
    target = folder / STATES / f"step-{step:08d}"
    with new_folder(target, overwrite=True) as temporary:
        torch.save(dict(state), temporary / STATE)
        size, digest = _measure(temporary / STATE)
        manifest = {
            "fingerprint": name,
            "step": step,
            "processes": num_processes,
            "versions": {"emoser": __version__, "torch": torch.__version__},
            "files": {STATE: {"size": size, "sha256": digest}},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for old in _states(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, name: str, *, num_processes: int = 1) -> dict[str, Any] | None:
    """The newest intact state of the run with the fingerprint `name`, or None if there is none.

    Raises:
        CheckpointError: If a state belongs to another run, or all are damaged.
    """
    faults: list[str] = []
    for place in reversed(_states(folder)):
        fault = _find_fault(place, name, num_processes)
        if fault is None:
            for reason in faults:
                logger.warning("%s; resuming from %s", reason, place)
            state: dict[str, Any] = torch.load(place / STATE, map_location="cpu", weights_only=True)
            return state
        faults.append(fault)
    if faults:
        raise CheckpointError(
            f"{'; '.join(faults)}; remove {folder / STATES} to start the run again"
        )
    return None


def clear_leftovers(folder: Path) -> None:
    """Remove the incomplete files of a killed process."""
    for pattern in (".best.*", f"{STATES}/.step-*.*"):
        for item in folder.glob(pattern):
            shutil.rmtree(item, ignore_errors=True)


def write_settings(folder: Path, config: FinetuneConfig) -> None:
    """Write the settings beside the weights."""
    text = format_json(config.to_dict(), indent=2) + "\n"
    write_text(folder / SETTINGS, text)


def write_log(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the log of the epochs so far, one JSON object per line."""
    lines = "".join(format_json(record) + "\n" for record in records)
    write_text(folder / LOG, lines)


def _states(folder: Path) -> list[Path]:
    """Folders of the states, the oldest first."""
    return sorted(item for item in (folder / STATES).glob("step-*") if item.is_dir())


def _find_fault(place: Path, name: str, num_processes: int) -> str | None:
    """Why a state cannot be used, or None; one of another run is refused."""
    try:
        manifest = read_json(place / MANIFEST, dict)
        entry = manifest["files"][STATE]
        stated = {STATE: (entry["size"], entry["sha256"])}
        owner, processes = manifest["fingerprint"], manifest["processes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{place} is damaged: its {MANIFEST} cannot be read ({error})"
    for file, measured in stated.items():
        if not (place / file).is_file() or _measure(place / file) != measured:
            return f"{place} is damaged: {file} differs from {MANIFEST}"
    if owner != name:
        raise CheckpointError(
            f"{place} belongs to a run with other settings or recordings; "
            "choose another output folder, or remove this one to start again"
        )
    if processes != num_processes:
        raise CheckpointError(
            f"{place} was written by {processes} processes, this run has {num_processes}; "
            "start as many to resume it"
        )
    return None


def _measure(file: Path) -> tuple[int, str]:
    with file.open("rb") as opened:
        return os.fstat(opened.fileno()).st_size, hashlib.file_digest(opened, "sha256").hexdigest()
