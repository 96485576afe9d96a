"""The manifest of an exported graph: all that is needed to predict without the checkpoint.

`emoser_runtime.json` states the file and the precision of the graph, the configuration of the
model, the weights that it was made from, and the measured parity with torch. Its seal is a hash
of the contents of the graph's files and of everything that it states, so that a changed byte or
label is refused. Imports neither torch nor transformers.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.boundary import reading
from emoser.checkpoints.files import GRAPH_MANIFEST, CheckpointFiles, refuse_stand_in
from emoser.errors import CheckpointError
from emoser.json_text import format_json, parse_json
from emoser.models.config import ModelConfig, ModelInfo

if TYPE_CHECKING:
    from emoser.checkpoints.layouts.registry import LoadedModel

SCHEMA = 1
SEAL = "seal"
FILES = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
DTYPES = ("float32", "bfloat16", "int8")
PARTS = {"onnx": ("model.onnx",), "openvino": ("openvino_model.xml", "openvino_model.bin")}
"""The files that hold a graph."""


@dataclass(frozen=True)
class Source:
    """The checkpoint that a graph was made from.

    Attributes:
        name: The name that the user gave.
        layout: Name of its layout.
        licence: Licence of the weights as its card states it, else None.
        parameters: Number of weights.
        revision: The commit of a Hub checkpoint, else None.
        notes: Choices of the layout where the files leave one open.
    """

    name: str
    layout: str
    licence: str | None
    parameters: int
    revision: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """An exported graph and the model that it holds.

    Attributes:
        format: "onnx" or "openvino".
        dtype: Precision of its arithmetic: "float32", "bfloat16" or "int8".
        config: The configuration of the model.
        source: The checkpoint that it was made from.
        weights: `CheckpointFiles.content_hash` of that checkpoint.
        versions: Versions of the packages that wrote it.
        parity: Measured differences to torch, and the clips that they were measured on.
        hashes: SHA-256 of the files of the graph, as stated by the file that was read.
        row_step: What the numbers of frames in its layers are multiples of; 1 if they are any.
    """

    format: str
    dtype: str
    config: ModelConfig
    source: Source
    weights: str
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict, compare=False)
    row_step: int = 1

    def __post_init__(self) -> None:
        """Refuse formats and precisions that emoser does not write."""
        if self.format not in FILES or self.dtype not in DTYPES:
            raise ValueError(
                f"format is {self.format!r} and dtype {self.dtype!r}; emoser exports "
                f"{', '.join(FILES)} in {', '.join(DTYPES)}"
            )

    @property
    def file(self) -> str:
        """Name of the file that holds the graph."""
        return FILES[self.format]

    def write(self, folder: Path) -> None:
        """Write `emoser_runtime.json`, sealed, into the folder of the graph."""
        values = {
            "schema": SCHEMA,
            **asdict(self),
            "file": self.file,
            "config": self.config.to_block(),
            "hashes": {name: hash_file(folder / name) for name in PARTS[self.format]},
        }
        values = parse_json(format_json(values), dict)
        text = format_json({**values, SEAL: _seal(values)}, indent=2, ensure_ascii=False) + "\n"
        (folder / GRAPH_MANIFEST).write_text(text, encoding="utf-8")


def describe_source(files: CheckpointFiles, loaded: "LoadedModel") -> Source:
    """The facts about a loaded checkpoint that its manifest and `ModelInfo` state."""
    return Source(
        name=files.name,
        layout=loaded.layout,
        licence=files.licence,
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        revision=files.revision,
        notes=loaded.notes,
    )


def build_info(
    files: CheckpointFiles,
    source: Source,
    config: ModelConfig,
    *,
    backend: str,
    device: str,
    dtype: str,
) -> ModelInfo:
    """The facts for the user about a model that an engine runs.

    The numbers come from `source`; `files` were opened, which may hold a graph alone.
    """
    return ModelInfo(
        name=files.name,
        path=str(files.folder),
        revision=files.revision or source.revision,
        layout=source.layout,
        licence=source.licence,
        encoder=config.encoder,
        parameters=source.parameters,
        sampling_rate=config.sampling_rate,
        raw_labels=config.raw_labels,
        max_seconds=config.max_seconds,
        backend=backend,
        device=device,
        dtype=dtype,
        training=config.training,
        notes=source.notes,
    )


def read_manifest(files: CheckpointFiles) -> Manifest | None:
    """The manifest of the graph in a folder; None if there is none.

    Raises:
        CheckpointError: If it is damaged or changed, written by a newer emoser, or a file of its
            graph is missing.
    """
    if GRAPH_MANIFEST not in files.stamps:
        return None
    file = files.folder / GRAPH_MANIFEST
    with reading(file):
        manifest = _parse(files.read_json(GRAPH_MANIFEST), file)
    for name in PARTS[manifest.format]:
        if name not in files.stamps:
            raise CheckpointError(f"{files.folder} has no {name}; export the model again")
    return manifest


def check_graph(folder: Path, manifest: Manifest) -> None:
    """Compare the files of a graph with the hashes in its manifest.

    Raises:
        CheckpointError: If a file has changed since it was written.
    """
    for name in PARTS[manifest.format]:
        if hash_file(folder / name) != manifest.hashes.get(name):
            refuse_stand_in(folder / name)
            raise CheckpointError(
                f"{folder / name} has changed since it was exported; export the model again"
            )


def hash_file(file: Path) -> str:
    """The SHA-256 of the content of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _seal(values: Mapping[str, Any]) -> str:
    """A hash of all values of a manifest but its seal."""
    stated = {name: value for name, value in values.items() if name != SEAL}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _parse(values: Mapping[str, Any], file: Path) -> Manifest:
    if values["schema"] != SCHEMA:
        raise CheckpointError(
            f"{file}: its schema is {values['schema']!r} and this version of emoser reads {SCHEMA}"
        )
    if values.get(SEAL) != _seal(values):
        raise CheckpointError(f"{file} has changed since it was exported; export the model again")
    source = dict(values["source"])
    source["notes"] = tuple(source["notes"])
    known = {item.name for item in fields(Manifest)} - {"config", "source", "row_step"}
    return Manifest(
        config=ModelConfig.from_block(values["config"]),
        source=Source(**source),
        row_step=values.get("row_step", 1),
        **{name: values[name] for name in known},
    )
