"""Read and check the label names of a checkpoint: in order, unique and printable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.errors import CheckpointError
from emoser.labels import find_label_faults
from emoser.text import shorten


def read_labels(files: CheckpointFiles) -> tuple[str, ...]:
    """The labels of `id2label` in index order, as the checkpoint spells them."""
    file = files.folder / CONFIG
    id2label = files.config.get("id2label")
    if not isinstance(id2label, Mapping) or not id2label:
        raise CheckpointError(f"{file} names no labels (id2label)")
    try:
        by_index = {int(index): name for index, name in id2label.items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: an index of id2label is not a number") from error
    labels = check_labels(by_index, file)
    label2id = files.config.get("label2id")
    if label2id is not None and label2id != {name: index for index, name in by_index.items()}:
        raise CheckpointError(f"{file}: label2id {label2id} contradicts id2label {id2label}")
    return labels


def check_labels(by_index: Mapping[int, Any], file: Path) -> tuple[str, ...]:
    """The labels in index order.

    Raises:
        CheckpointError: If indices have gaps, or names repeat, are empty, or hold control or
            path characters; all faults in one message.
    """
    faults = find_label_faults(list(by_index.values()))
    if sorted(by_index) != list(range(len(by_index))):
        indices = shorten([str(index) for index in sorted(by_index)])
        faults.insert(0, f"label indices {indices} are not 0 to {len(by_index) - 1}")
    if faults:
        raise CheckpointError(f"{file}: {'; '.join(faults)}")
    return tuple(by_index[index] for index in range(len(by_index)))
