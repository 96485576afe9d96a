"""Read the tensors of a checkpoint folder, or only their shapes.

Safetensors come first, whole or in shards. Pickles (`pytorch_model.bin`, `.ckpt`, `.pt`) are
read with `weights_only=True`: tensors and plain containers, no code. Every file that an index
names must lie inside the folder. Knows nothing of layouts or models.
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emoser.checkpoints.weights import SPEECHBRAIN, weight_files
from emoser.errors import CheckpointError

NESTINGS = (
    "model",
    "state_dict",
    "model_state_dict",
)  # under which training scripts put the tensors
MAX_INFLATION = 1.1  # a pickle archive is stored, not compressed
NOT_FLOATING = ("num_batches_tracked",)
Shapes = dict[str, tuple[int, ...]]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, on the CPU, in the precision of the file.

    Those of a file among several with equal names (SpeechBrain's) have its stem and a colon in
    front of their names.

    Raises:
        CheckpointError: If there are no weights, a file is damaged, an index points outside the
            folder, or a tensor holds NaN, infinity or integers.
    """
    tensors = dict(_read_files(folder, device="cpu"))
    check_finite(tensors, folder)
    return tensors


def read_shapes(folder: Path) -> Shapes:
    """Names and shapes of all tensors, without taking memory for them.

    Raises:
        CheckpointError: As `read_tensors`, but for the values of the tensors.
    """
    return {name: tuple(tensor.shape) for name, tensor in _read_files(folder, device="meta")}


def check_finite(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse weights that are not floating point or not finite.

    Raises:
        CheckpointError: Naming every such tensor.
    """
    faults = [
        f"{name} is {tensor.dtype}"
        for name, tensor in sorted(tensors.items())
        if not tensor.is_floating_point() and not name.endswith(NOT_FLOATING)
    ]
    faults += [
        f"{name} holds NaN or infinity"
        for name, tensor in sorted(tensors.items())
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if faults:
        raise CheckpointError(
            f"{folder} has weights that cannot be used: {'; '.join(faults)}; "
            "download or save the checkpoint again"
        )


def rename_weight_norm(name: str, names: Mapping[str, Any]) -> str:
    """A name of a weight-norm pair in torch's present spelling; other names as they are.

    `weight_g` and `weight_v` become `parametrizations.weight.original0` and `.original1`, where
    both are among `names`.
    """
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        stem = name.removesuffix(old)
        if stem != name and f"{stem}weight_g" in names and f"{stem}weight_v" in names:
            return f"{stem}parametrizations.weight.{new}"
    return name


def _read_files(folder: Path, *, device: str) -> Iterator[tuple[str, Tensor]]:
    for file in weight_files(folder):
        if not file.is_file():
            raise CheckpointError(f"{file} is named in the weight index and is missing")
        prefix = f"{file.stem}:" if file.name in SPEECHBRAIN else ""
        read = _read_safetensors if file.suffix == ".safetensors" else _read_pickle
        for name, tensor in read(file, device):
            yield prefix + name, tensor


def _read_safetensors(file: Path, device: str) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # not a mapping
                if device == "meta":
                    shape = opened.get_slice(name).get_shape()
                    yield name, torch.empty(shape, device="meta")
                else:
                    yield name, opened.get_tensor(name)
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} is not a whole safetensors file ({error}); download it again"
        ) from error


def _read_pickle(file: Path, device: str) -> Iterator[tuple[str, Tensor]]:
    _check_archive(file)
    try:
        value = torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds more than tensors, or is damaged; emoser runs no code from a "
            "checkpoint: ask its authors for safetensors, or download it again"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        raise CheckpointError(
            f"{file} is not a whole file of tensors; download it again"
        ) from error
    for key in NESTINGS:
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{file} holds a {type(value).__name__}, not named tensors")
    strange = sorted(str(name) for name in value if not isinstance(value[name], Tensor))
    if strange or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"{file} holds entries that are no tensors: {strange[:6]}")
    yield from value.items()


def _check_archive(file: Path) -> None:
    """Refuse an archive that would grow, or whose members point elsewhere."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    outside = [
        member.filename
        for member in members
        if member.filename.startswith(("/", "\\")) or ".." in Path(member.filename).parts
    ]
    if outside:
        raise CheckpointError(f"{file} is an archive with members outside of it: {outside[:3]}")
    size = sum(member.file_size for member in members)
    if size > MAX_INFLATION * file.stat().st_size:
        raise CheckpointError(
            f"{file} is an archive that would grow to {size:,} bytes; weights are never compressed"
        )
