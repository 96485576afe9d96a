"""Read and check `config.json` and `preprocessor_config.json` of a checkpoint folder.

Gives plain dictionaries, label names in order, and the licence that a card states. Knows
nothing of tensors and imports neither torch nor transformers.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emoser.errors import CheckpointError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
CARD = "README.md"
MAX_CONFIG_BYTES = 16 * 2**20
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f/\\]")


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of `config.json`.

    Raises:
        CheckpointError: If it is missing or is not a JSON object.
    """
    config = _read_json(folder / CONFIG)
    if config is None:
        raise CheckpointError(
            f"{folder} has no {CONFIG}, so it is not a checkpoint folder; "
            "name a folder that transformers or emoser saved"
        )
    return config


def read_stored_dtype(folder: Path) -> str:
    """The precision that `config.json` says the weights are in; "" where it does not say."""
    config = _read_json(folder / CONFIG) or {}
    return str(config.get("dtype") or config.get("torch_dtype") or "")


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """The contents of `preprocessor_config.json`; an empty dictionary when there is none.

    Raises:
        CheckpointError: If it is there and is not a JSON object.
    """
    return _read_json(folder / PREPROCESSOR) or {}


def read_labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """The labels of `id2label` in index order, as the checkpoint spells them.

    Raises:
        CheckpointError: If there are none, indices have gaps, names repeat or are empty, hold
            control or path characters, or `label2id` says otherwise. All faults in one message.
    """
    id2label = config.get("id2label")
    if not isinstance(id2label, Mapping) or not id2label:
        raise CheckpointError(f"{folder / CONFIG} names no labels (id2label)")
    try:
        by_index = {int(index): name for index, name in id2label.items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG}: an index of id2label is no number") from error
    faults = _label_faults(by_index)
    label2id = config.get("label2id")
    if not faults and label2id is not None:
        expected = {name: index for index, name in by_index.items()}
        if label2id != expected:
            faults.append(f"label2id {label2id} contradicts id2label {id2label}")
    if faults:
        raise CheckpointError(f"{folder / CONFIG}: {'; '.join(faults)}; correct id2label")
    return tuple(by_index[index] for index in range(len(by_index)))


def check_labels(by_index: Mapping[int, Any], file: Path) -> tuple[str, ...]:
    """The labels in index order.

    Raises:
        CheckpointError: If indices have gaps, or names repeat, are empty, or hold control or
            path characters.
    """
    faults = _label_faults(by_index)
    if faults:
        raise CheckpointError(f"{file}: {'; '.join(faults)}")
    return tuple(by_index[index] for index in range(len(by_index)))


def read_licence(folder: Path) -> str | None:
    """The licence in the front matter of the card, its name where it is "other"; or None."""
    card = folder / CARD
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S)
    if front is None:
        return None
    stated = {
        key: value.strip()
        for key, value in re.findall(
            r"^(license|license_name):\s*['\"]?([^'\"\n#]+)", front[1], re.M
        )
    }
    licence = stated.get("license")
    return stated.get("license_name", licence) if licence == "other" else licence


def _label_faults(by_index: Mapping[int, Any]) -> list[str]:
    faults = []
    if sorted(by_index) != list(range(len(by_index))):
        faults.append(f"label indices {sorted(by_index)} are not 0 to {len(by_index) - 1}")
    names = list(by_index.values())
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if wrong:
        faults.append(f"labels {wrong} are not names")
        return faults
    folded = [name.casefold().strip() for name in names]
    repeated = sorted({name for name in names if folded.count(name.casefold().strip()) > 1})
    if repeated:
        faults.append(f"labels {repeated} appear twice")
    strange = [name for name in names if UNPRINTABLE.search(name.replace("/", "", 1))]
    if strange:
        faults.append(f"labels {strange} hold control or path characters")
    return faults


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{file} is {file.stat().st_size} bytes long, which no {CONFIG} is")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} holds a {type(value).__name__}, not an object")
    return value
