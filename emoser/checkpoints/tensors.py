"""Read the tensors of a checkpoint, and their shapes first.

Safetensors are preferred, whole or in shards. Pickles (`pytorch_model.bin`, `.ckpt`, `.pt`) are
read with `weights_only=True`: tensors and plain containers, no code. Each file is opened once.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emoser.checkpoints.boundary import reading
from emoser.checkpoints.files import SPEECHBRAIN, CheckpointFiles, refuse_stand_in
from emoser.errors import CheckpointError
from emoser.text import shorten

NESTINGS = ("model", "state_dict", "model_state_dict")
"""Keys under which training scripts put the tensors in a pickle."""
MAX_INFLATION = 1.1  # a pickle archive is stored, not compressed
MAX_SHARING = 3  # how often tensors of one file may use its bytes, as tied weights do
WRAPPER = "d2v_model."  # precedes every name in older files of emotion2vec
WRAPPERS: Mapping[str, str] = {
    "module.": "",  # parallel
    "_orig_mod.": "",  # compiled
    "base_model.model.": "",  # adapted by PEFT
    "model.": "classifier.",  # Lightning; without a head, a part of Whisper has this name
}
"""What wrappers put before the names of all tensors, and what must be among them."""
NOT_FLOATING = ("num_batches_tracked",)
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of a checkpoint whose files are open.

    In a folder whose files have equal names in them (SpeechBrain's), the stem of the file and a
    colon precede each name.

    Attributes:
        shapes: The shape of every tensor by its name.
        readers: What reads each of them, on the CPU, in the precision of the file.
        folder: The folder that error messages name.
    """

    shapes: Shapes
    readers: Mapping[str, Callable[[], Tensor]]
    folder: Path

    def read(self) -> dict[str, Tensor]:
        """All tensors, which are finite floating-point numbers."""
        tensors = {name: read() for name, read in self.readers.items()}
        check_finite(tensors, self.folder)
        return tensors


@contextmanager
def open_tensors(files: CheckpointFiles) -> Iterator[StoredTensors]:
    """The tensors of a checkpoint; those in safetensors take no memory before they are read.

    Raises:
        CheckpointError: If there are no weights, a file is damaged or holds more than tensors,
            or an index points outside the folder.
    """
    shapes: Shapes = {}
    readers: dict[str, Callable[[], Tensor]] = {}
    with ExitStack() as stack:
        for file in (files.folder / name for name in files.weights):
            prefix = f"{file.stem}:" if file.name in SPEECHBRAIN else ""
            if file.suffix == ".safetensors":
                opened = stack.enter_context(_open_safetensors(file))
                for name in opened.keys():  # not a mapping
                    place = prefix + name.removeprefix(WRAPPER)
                    shapes[place] = tuple(opened.get_slice(name).get_shape())
                    readers[place] = partial(opened.get_tensor, name)
            else:
                held = _read_pickle(file)
                for name, tensor in held.items():
                    place = prefix + name.removeprefix(WRAPPER)
                    shapes[place] = tuple(tensor.shape)
                    readers[place] = partial(held.__getitem__, name)
        wrapper = find_wrapper(shapes)
        yield StoredTensors(
            {name.removeprefix(wrapper): shape for name, shape in shapes.items()},
            {name.removeprefix(wrapper): read for name, read in readers.items()},
            files.folder,
        )


def find_wrapper(names: Iterable[str]) -> str:
    """What wrappers around the model put before every one of these names; "" for nothing.

    Example:
        >>> find_wrapper(["module._orig_mod.head.weight", "module._orig_mod.head.bias"])
        'module._orig_mod.'
        >>> find_wrapper(["module.head.weight", "head.bias"])
        ''
    """
    names, wrapper = list(names), ""
    while names:
        found = [
            wrapper + each
            for each, part in WRAPPERS.items()
            if all(name.startswith(wrapper + each) for name in names)
            and any(name.startswith(wrapper + each + part) for name in names)
        ]
        if not found:
            break
        wrapper = found[0]
    return wrapper


def check_finite(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse weights that are not floating point or not finite, all of them in one message."""
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
    """A name of a weight-norm pair in torch's current spelling; other names unchanged.

    `weight_g` and `weight_v` become `parametrizations.weight.original0` and `.original1` if
    both are among `names`.
    """
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        stem = name.removesuffix(old)
        if stem != name and f"{stem}weight_g" in names and f"{stem}weight_v" in names:
            return f"{stem}parametrizations.weight.{new}"
    return name


def _open_safetensors(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        refuse_stand_in(file)
        raise CheckpointError(
            f"{file} is not a whole safetensors file ({error}); download it again"
        ) from error


def _read_pickle(file: Path) -> Mapping[str, Tensor]:
    with file.open("rb") as opened:
        _check_archive(opened, file)
        value = _load_pickle(opened, file)
    for key in NESTINGS:
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{file} holds a {type(value).__name__}, not named tensors")
    others = sorted(str(name) for name in value if not isinstance(value[name], Tensor))
    if others or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"{file} holds entries that are not tensors: {others[:6]}")
    _check_storage(value, file)
    return value


def _check_storage(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Refuse tensors that take more memory than their file, as those of stride 0 do."""
    hollow = sorted(
        name
        for name, tensor in tensors.items()
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized
    )
    if hollow:
        raise CheckpointError(f"{file} holds sparse or quantized tensors: {shorten(hollow)}")
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    spread = sorted(
        name for name in sizes if sizes[name] > tensors[name].untyped_storage().nbytes()
    )
    total, stored = sum(sizes.values()), file.stat().st_size
    if spread or total > MAX_SHARING * stored:
        named = f" ({shorten(spread)})" if spread else ""
        raise CheckpointError(
            f"{file} has {stored:,} bytes and its tensors would take {total:,}{named}; save them "
            "contiguously, each in its own memory"
        )


def _load_pickle(opened: BinaryIO, file: Path) -> Any:
    try:
        with reading(file):
            return torch.load(opened, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError) as error:
        refuse_stand_in(file)
        raise CheckpointError(
            f"{file} holds more than tensors, or is damaged; emoser runs no code from a "
            "checkpoint: ask its authors for safetensors, or download it again"
        ) from error


def _check_archive(opened: BinaryIO, file: Path) -> None:
    """Refuse an archive that is compressed, or whose members lie outside of it."""
    if not zipfile.is_zipfile(opened):
        opened.seek(0)
        return
    with zipfile.ZipFile(opened) as archive:
        members = archive.infolist()
    opened.seek(0)
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
