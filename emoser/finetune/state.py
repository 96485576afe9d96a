"""The state of a training run on disk, so that a killed run continues where it was.

One file that is replaced as a whole, and a log of JSON lines. A state of another run (other
settings, other recordings) is refused. Knows nothing of audio or of how training goes.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from emoser.configuration import ModelConfig
from emoser.errors import CheckpointError
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.utterance import Utterance

STATE = "state.pt"
LOG = "log.jsonl"
SETTINGS = "config.json"


def fingerprint(
    utterances: Sequence[Utterance],
    validation: Sequence[Utterance],
    model: ModelConfig,
    config: FinetuneConfig,
) -> str:
    """A short name for exactly this run; recordings count by their order and labels."""
    plain = [
        [[item.label, item.corpus, item.speaker, item.start, item.end, Path(item.path).name]
         for item in part]
        for part in (utterances, validation)
    ]  # fmt: skip
    text = json.dumps([plain, model.to_block(), config.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state; a reader sees the old file or the new one."""
    temporary = folder / f"{STATE}.part"
    with temporary.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STATE)


def load_state(folder: Path, name: str) -> dict[str, Any] | None:
    """The state of the run with this fingerprint, or None when it has not begun.

    Raises:
        CheckpointError: If the file is damaged or belongs to another run.
    """
    file = folder / STATE
    if not file.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error}); remove it to begin the run again"
        ) from error
    if state.get("fingerprint") != name:
        raise CheckpointError(
            f"{file} belongs to a run with other settings or recordings; "
            "choose another output folder, or remove this one to begin again"
        )
    return state


def write_settings(folder: Path, config: FinetuneConfig) -> None:
    """Keep the settings beside the weights."""
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")


def write_log(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the log of the epochs so far, one JSON object per line."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    temporary = folder / f"{LOG}.part"
    temporary.write_text(lines, encoding="utf-8")
    temporary.replace(folder / LOG)
