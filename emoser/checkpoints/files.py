"""One checkpoint folder as a frozen record: what it holds, read once.

`CheckpointFiles` lists the folder and reads each small file when it is first needed. Layouts,
engines, cards and inspections take what they need from the record, so that no file is opened
twice and the weights are hashed at most once. Weights themselves are read by
`emoser.checkpoints.tensors`. Imports no torch.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from emoser.errors import CheckpointError
from emoser.json_text import MAX_BYTES, parse_json

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
FEATURE_EXTRACTORS = ("feature_extractor", "audio_processor")
"""Keys under which `processor_config.json` nests what `preprocessor_config.json` holds."""
CARD = "README.md"
GOLDEN = "golden.json"
GRAPH_MANIFEST = "emoser_runtime.json"  # of an exported graph
TRAINED_ON = "trained_on.json"  # hashes of recordings and speakers
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
ADAPTER = "adapter_config.json"  # of PEFT
SPEECHBRAIN = ("wav2vec2.ckpt", "model.ckpt")
FUNASR = "model.pt"
DESCRIPTIONS = frozenset({".json", ".yaml", ".yml", ".txt"})
READ = DESCRIPTIONS | {".md", ".safetensors", ".bin", ".ckpt", ".pt"}
MARKS = frozenset({CONFIG, GRAPH_MANIFEST, WEIGHTS, PICKLE, *SPEECHBRAIN, FUNASR})
"""Names that make a folder that of a checkpoint."""
UNHASHED = frozenset({GOLDEN, GRAPH_MANIFEST, TRAINED_ON})  # descriptions that change no number
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
WEB_PAGES = (b"<!doctype html", b"<html")
HEAD_BYTES = 64


class Stamp(NamedTuple):
    """Size in bytes and time of last change in nanoseconds of a file."""

    size: int
    changed: int


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint on this machine.

    Attributes:
        name: The name that the user gave.
        folder: The folder that holds its files.
        revision: The commit of a Hub checkpoint, else None.

    Example:
        >>> import emoser
        >>> files = CheckpointFiles("tiny", Path(emoser.__file__).parent / "bundled/emoser-tiny")
        >>> files.weights, files.config["model_type"], files.licence
        (('model.safetensors',), 'hubert', 'cc-by-nc-sa-4.0')
    """

    name: str
    folder: Path
    revision: str | None = None

    @cached_property
    def stamps(self) -> Mapping[str, Stamp]:
        """The files of the folder in the order of their names; empty if there is no folder.

        Raises:
            CheckpointError: If something in the folder of a checkpoint has the name of a file and
                is none, such as a link to nowhere: without that file the numbers could be others.
        """
        if not self.folder.is_dir():
            return {}
        found, others = {}, []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                kind = _find_kind(entry)
                if kind == "file":
                    stated = entry.stat()
                    found[entry.name] = Stamp(stated.st_size, stated.st_mtime_ns)
                elif kind != "folder" and Path(entry.name).suffix in READ:
                    others.append((entry.name, kind))
        if others and any(name in MARKS for name in (*found, *(name for name, _ in others))):
            name, kind = min(others)
            raise CheckpointError(
                f"{self.folder / name} is {kind}, not a file; download it again or remove it"
            )
        return {name: found[name] for name in sorted(found)}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of `config.json`.

        Raises:
            CheckpointError: If it is missing or is not a JSON object.
        """
        if CONFIG not in self.stamps:
            raise CheckpointError(
                f"{self.folder} has no {CONFIG}, so it is not a checkpoint folder; "
                "name a folder that transformers or emoser saved"
            )
        return self.read_json(CONFIG)

    @cached_property
    def preprocessor(self) -> dict[str, Any]:
        """The settings of the feature extractor; empty if the folder states none.

        As in transformers, those nested in `processor_config.json` take precedence over
        `preprocessor_config.json`.
        """
        nested = self.read_json(PROCESSOR) if PROCESSOR in self.stamps else {}
        for key in FEATURE_EXTRACTORS:
            if isinstance(nested.get(key), dict):
                return dict(nested[key])
        return self.read_json(PREPROCESSOR) if PREPROCESSOR in self.stamps else {}

    @property
    def stored_dtype(self) -> str:
        """The precision of the weights that `config.json` states; "" if it states none."""
        stated = self.config if CONFIG in self.stamps else {}
        return str(stated.get("dtype") or stated.get("torch_dtype") or "")

    @cached_property
    def card(self) -> str:
        """The text of the model card; "" if there is none, or a link that leaves the folder."""
        return self.read_text(CARD) if CARD in self.stamps and self.is_inside(CARD) else ""

    @property
    def licence(self) -> str | None:
        """The licence that the card or the training in `config.json` states, or None.

        The card states it in its front matter; of a licence "other" the name counts.
        """
        front = re.match(r"\ufeff?---\s*\n(.*?)\n---", self.card, re.DOTALL)
        if front is None:
            block = self.config.get("emoser") if CONFIG in self.stamps else None
            training = block.get("training") if isinstance(block, dict) else None
            stated = training.get("licence") if isinstance(training, dict) else None
            return None if stated is None else str(stated)
        stated = {
            key: value.strip(" -[]\r")
            for key, value in re.findall(
                r"^(license|license_name):\s*['\"]?([^'\"\n#]+)", front[1], re.MULTILINE
            )
        }
        licence = stated.get("license")
        return stated.get("license_name", licence) if licence == "other" else licence

    @property
    def has_weights(self) -> bool:
        """Whether the folder holds weights at all, and not only an exported graph."""
        names = (WEIGHTS, INDEX, PICKLE, PICKLE_INDEX, SPEECHBRAIN[0], FUNASR)
        return any(name in self.stamps for name in names)

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """Names of the files that hold the weights, of the safest kind that is there.

        Raises:
            CheckpointError: If there are none, an index is damaged or points outside the
                folder, or a file that it names is missing.
        """
        for whole, index in ((WEIGHTS, INDEX), (PICKLE, PICKLE_INDEX)):
            if whole in self.stamps:
                return (whole,)
            if index in self.stamps:
                return self._read_index(index)
        for names in (SPEECHBRAIN, (FUNASR,)):
            if all(name in self.stamps for name in names):
                return names
        if GRAPH_MANIFEST in self.stamps:
            raise CheckpointError(
                f"{self.folder} holds an exported graph and no weights, so it can only predict; "
                "for anything else name the checkpoint that it was exported from"
            )
        raise CheckpointError(
            f"{self.folder} has no weights that emoser reads: {WEIGHTS} (or its shards), "
            f"{PICKLE}, {' with '.join(SPEECHBRAIN)}, or {FUNASR}"
        )

    @cached_property
    def content_hash(self) -> str:
        """A SHA-256 over the names and contents of all files that decide the numbers.

        These are the weights and the descriptions: JSON, YAML and text files. Cards, golden
        values and exported graphs do not count. The weights are read once for it, and only when
        it is first needed.
        """
        names = {name for name in self.stamps if Path(name).suffix in DESCRIPTIONS}
        total = hashlib.sha256()
        for name in sorted((names - UNHASHED).union(self.weights)):
            line = f"{name}\0{self._hash_file(name)}\n"
            total.update(line.encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def is_inside(self, name: str) -> bool:
        """Whether a file is in the folder itself, and no link to a file elsewhere.

        Links from a snapshot to the blobs of its repository, in the cache of the Hub, are inside.
        """
        root, target = self.folder.resolve(), (self.folder / name).resolve()
        is_blob = root.parent.name == "snapshots" and target.parent == root.parents[1] / "blobs"
        return is_blob or target.is_relative_to(root)

    def read_text(self, name: str) -> str:
        """The text of a small file of the folder, UTF-8; its bytes are read once.

        Raises:
            CheckpointError: If it is missing, or larger than any description.
        """
        return self._read(name).decode("utf-8", errors="replace")

    @cached_property
    def _contents(self) -> dict[str, bytes]:
        """What was read of the small files."""
        return {}

    def _read(self, name: str) -> bytes:
        if name not in self.stamps:
            raise CheckpointError(f"{self.folder / name} is missing; download it too")
        if name not in self._contents:
            size = self.stamps[name].size
            if size > MAX_BYTES:
                raise CheckpointError(
                    f"{self.folder / name} is {size:,} bytes long; emoser reads up to {MAX_BYTES:,}"
                )
            content = (self.folder / name).read_bytes()
            refuse_stand_in(self.folder / name, content)
            self._contents[name] = content
        return self._contents[name]

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in a small JSON file of the folder.

        Raises:
            CheckpointError: If it is missing, damaged or holds no object.
        """
        content = self._read(name)
        try:
            return parse_json(content, dict)
        except ValueError as error:
            raise _damaged(self.folder / name, error) from error

    def _read_index(self, index: str) -> tuple[str, ...]:
        """Names of the shards in a weight index."""
        file = self.folder / index
        weight_map = self.read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{file} is not a weight index: it has no weight_map")
        if not all(isinstance(name, str) for name in weight_map.values()):
            raise CheckpointError(f"{file} is not a weight index: it names files by other values")
        names = sorted(set(weight_map.values()))
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise CheckpointError(f"{file} points outside its folder: {outside}")
        for name in names:
            if name not in self.stamps:
                raise CheckpointError(
                    f"{self.folder / name} is named in the weight index and is missing"
                )
        return tuple(names)

    def _hash_file(self, name: str) -> str:
        if self.stamps[name].size <= MAX_BYTES and name not in self.weights:
            return hashlib.sha256(self._read(name)).hexdigest()
        with (self.folder / name).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()


def refuse_stand_in(file: Path, content: bytes | None = None) -> None:
    """Refuse what Git or a web server left in the place of a file of a checkpoint.

    Args:
        file: The file.
        content: Its bytes, if they have been read.

    Raises:
        CheckpointError: If it is not the file itself; the message says what it is.
    """
    if content is None:
        with file.open("rb") as opened:
            content = opened.read(HEAD_BYTES)
    start = content[:HEAD_BYTES].lstrip().lower()
    if start.startswith(LFS_POINTER):
        raise CheckpointError(
            f"{file} is a pointer of Git LFS, not the file itself; run `git lfs pull` in "
            f"{file.parent}, or download the file again"
        )
    if start.startswith(WEB_PAGES):
        raise CheckpointError(
            f"{file} is a web page, not the file itself; download it again with its raw address"
        )


def _find_kind(entry: os.DirEntry[str]) -> str:
    """What an entry is: "file", "folder", or words for anything else."""
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
    except OSError:  # such as a link to itself
        return "a broken link"
    return "a link that leads to no file" if entry.is_symlink() else "a pipe, socket or device"


def _damaged(file: Path, error: ValueError) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {error}; download or save it again")


def as_files(source: CheckpointFiles | str | os.PathLike[str]) -> CheckpointFiles:
    """The record of a folder; a record is returned as it is."""
    if isinstance(source, CheckpointFiles):
        return source
    folder = Path(source)
    return CheckpointFiles(folder.resolve().name, folder)
