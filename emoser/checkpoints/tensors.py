"""Read and write the tensors of a checkpoint folder.

Weights are safetensors, whole or in shards; every file that an index names must lie inside the
folder. Knows nothing of layouts or models.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from emoser.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, on the CPU, in the precision of the file.

    Raises:
        CheckpointError: If there are no safetensors, a file is damaged, an index points
            outside the folder, or a tensor holds NaN or infinity.
    """
    if (folder / WEIGHTS).is_file():
        files = [folder / WEIGHTS]
    elif (folder / INDEX).is_file():
        files = [folder / name for name in _shards(folder)]
    else:
        raise CheckpointError(
            f"{folder} has no {WEIGHTS}; emoser reads weights from safetensors files"
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_read_file(file))
    check_finite(tensors, folder)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse weights that are not floating point or not finite.

    Raises:
        CheckpointError: Naming every such tensor.
    """
    integer = sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point())
    broken = sorted(
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    )
    faults = [f"{name} is {tensors[name].dtype}" for name in integer]
    faults += [f"{name} holds NaN or infinity" for name in broken]
    if faults:
        raise CheckpointError(
            f"{folder} has weights that cannot be used: {'; '.join(faults)}; "
            "download or save the checkpoint again"
        )


def rename_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with weight-norm pairs in torch's present spelling.

    `weight_g` and `weight_v` become `parametrizations.weight.original0` and `.original1`, where
    both are there.
    """
    renamed = dict(tensors)
    for name in tensors:
        stem = name.removesuffix("weight_g")
        if stem != name and f"{stem}weight_v" in tensors:
            renamed[f"{stem}parametrizations.weight.original0"] = renamed.pop(name)
            renamed[f"{stem}parametrizations.weight.original1"] = renamed.pop(f"{stem}weight_v")
    return renamed


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is named in {INDEX} and is missing") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} is not a whole safetensors file ({error}); download it again"
        ) from error
    return tensors


def _shards(folder: Path) -> list[str]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder / INDEX} is not a weight index: {error}") from error
    outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if outside:
        raise CheckpointError(f"{folder / INDEX} points outside its folder: {outside}")
    return names
