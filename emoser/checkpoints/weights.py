"""Which files hold the weights of a folder, and what tells one checkpoint from another.

Knows nothing of tensors and imports no torch.
"""

import hashlib
import json
from pathlib import Path

from emoser.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
SPEECHBRAIN = ("wav2vec2.ckpt", "model.ckpt")
FUNASR = "model.pt"
DESCRIPTIONS = frozenset({".json", ".yaml", ".yml", ".txt"})
GRAPH_MANIFEST = "emoser_runtime.json"  # of an exported graph
SILENT = frozenset({"golden.json", GRAPH_MANIFEST})  # they change no number


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights of a folder, the safest kind that is there.

    Raises:
        CheckpointError: If there are none, or an index is damaged or points outside.
    """
    for whole, index in ((WEIGHTS, INDEX), (PICKLE, PICKLE_INDEX)):
        if (folder / whole).is_file():
            return (folder / whole,)
        if (folder / index).is_file():
            return tuple(folder / name for name in _shards(folder / index))
    for names in (SPEECHBRAIN, (FUNASR,)):
        if all((folder / name).is_file() for name in names):
            return tuple(folder / name for name in names)
    if (folder / GRAPH_MANIFEST).is_file():
        raise CheckpointError(
            f"{folder} holds an exported graph and no weights: it predicts; for anything else "
            "name the checkpoint that it was exported from"
        )
    raise CheckpointError(
        f"{folder} has no weights that emoser reads: {WEIGHTS} (or its shards), {PICKLE}, "
        f"{' with '.join(SPEECHBRAIN)}, or {FUNASR}"
    )


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights at all, and not an exported graph alone."""
    names = (WEIGHTS, INDEX, PICKLE, PICKLE_INDEX, SPEECHBRAIN[0], FUNASR)
    return any((folder / name).is_file() for name in names)


def hash_checkpoint(folder: Path) -> str:
    """A SHA-256 over the names and contents of all that decides the numbers of a checkpoint.

    That is its weights, and its descriptions: JSON, YAML and text files beside them. Cards,
    golden values and exported graphs do not count.

    Raises:
        CheckpointError: If there are no weights, or a file that an index names is missing.
    """
    files = {file.name: file for file in weight_files(folder)}
    for file in folder.iterdir():
        if file.suffix in DESCRIPTIONS and file.name not in SILENT and file.is_file():
            files[file.name] = file
    total = hashlib.sha256()
    for name, file in sorted(files.items()):
        if not file.is_file():
            raise CheckpointError(f"{file} is named in the weight index and is missing")
        with file.open("rb") as opened:
            total.update(f"{name}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not a weight index: {error}") from error
    outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index} points outside its folder: {outside}")
    return names
