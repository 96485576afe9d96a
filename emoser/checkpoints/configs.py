"""Read and check the label names of a checkpoint: in order, unique and printable."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.errors import CheckpointError
from emoser.labels import PLACEHOLDER, find_label_faults
from emoser.models.config import MAX_OUTPUTS
from emoser.text import shorten


def read_labels(files: CheckpointFiles, num_outputs: int | None = None) -> tuple[str, ...]:
    """The labels of `id2label` in index order, as the checkpoint spells them.

    Without `id2label`, those of `label2id`. LABEL_0, LABEL_1 and so on name nothing: beside a
    name they are left out, and they stand for the outputs of a checkpoint that names none.

    Args:
        files: The checkpoint.
        num_outputs: Rows of its head, for a checkpoint that names no labels.

    Raises:
        CheckpointError: If the labels are not names of the indices from 0 on, or if `label2id`
            or `num_labels` contradicts `id2label`.
    """
    file = files.folder / CONFIG
    named = _read_indices(files.config.get("id2label"), file)
    known = _read_names(files.config.get("label2id"), file)
    if not named or _are_placeholders(named.values()):
        complete = {index: name for name, index in known.items()}
        if complete and len(complete) == len(known) and set(complete) >= set(named):
            named = complete
    stated = files.config.get("num_labels")
    if not named:
        _require_unnamed(files, num_outputs)
        named = {index: f"LABEL_{index}" for index in range(num_outputs or stated or 2)}
    labels = check_labels(named, file)
    places = {_fold(name): index for index, name in enumerate(labels)}
    if any(places.get(_fold(name)) != index for name, index in known.items()):
        raise CheckpointError(
            f"{file}: label2id {files.config['label2id']} contradicts id2label "
            f"{files.config['id2label']}; correct the one that is wrong"
        )
    if stated is not None and stated != len(labels):
        raise CheckpointError(
            f"{file}: num_labels is {stated!r} and there are {len(labels)} labels; correct one"
        )
    return labels


def _read_indices(id2label: Any, file: Path) -> dict[int, Any]:
    """`id2label` with numbers as indices; empty if it is not stated."""
    if id2label is None:
        return {}
    if not isinstance(id2label, Mapping) or not id2label:
        raise CheckpointError(f"{file} names no labels (id2label)")
    try:
        by_index = {_read_index(index): name for index, name in id2label.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{file}: an index of id2label is not a number") from error
    if len(by_index) != len(id2label):
        raise CheckpointError(f"{file}: an index of id2label appears twice in {list(id2label)}")
    return by_index


def _read_names(label2id: Any, file: Path) -> dict[str, int]:
    """`label2id` with numbers as indices and without placeholders; empty if it is not stated."""
    if label2id is None:
        return {}
    if not isinstance(label2id, Mapping):
        raise CheckpointError(f"{file}: label2id is a {type(label2id).__name__}, not an object")
    try:
        return {
            str(name): _read_index(index)
            for name, index in label2id.items()
            if not PLACEHOLDER.fullmatch(str(name))
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{file}: an index in label2id is not a number") from error


def _read_index(value: Any) -> int:
    """A number, or a text that is one: some versions of transformers write indices as text."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value} is not an index")
    return int(value)


def _are_placeholders(names: Iterable[Any]) -> bool:
    return all(isinstance(name, str) and PLACEHOLDER.fullmatch(name) for name in names)


def _require_unnamed(files: CheckpointFiles, num_outputs: int | None) -> None:
    """Refuse to name the outputs of a checkpoint whose size nothing states."""
    stated = files.config.get("num_labels")
    if num_outputs is None and not (isinstance(stated, int) and 0 < stated <= MAX_OUTPUTS):
        raise CheckpointError(f"{files.folder / CONFIG} names no labels (id2label)")


def _fold(name: str) -> str:
    return name.casefold().strip()


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
