"""The manifest of an exported graph: all that is needed to predict without the checkpoint.

`emoser_runtime.json` states the file and the precision of the graph, the configuration of the
model, the weights that it was made from, and the measured parity with torch. Imports neither
torch nor transformers.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.files import GRAPH_MANIFEST, CheckpointFiles
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig, ModelInfo

if TYPE_CHECKING:
    from emoser.checkpoints.layouts.registry import LoadedModel

SCHEMA = 1
FILES = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
DTYPES = ("float32", "bfloat16", "int8")


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
    """

    format: str
    dtype: str
    config: ModelConfig
    source: Source
    weights: str
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)

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
        """Write `emoser_runtime.json` into a folder."""
        values = {
            "schema": SCHEMA,
            **asdict(self),
            "file": self.file,
            "config": self.config.to_block(),
        }
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
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
        CheckpointError: If it is damaged, written by a newer emoser, or its graph is missing.
    """
    if GRAPH_MANIFEST not in files.stamps:
        return None
    try:
        manifest = _parse(json.loads(files.read_text(GRAPH_MANIFEST)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{files.folder / GRAPH_MANIFEST} is damaged ({error}); export the model again"
        ) from error
    if manifest.file not in files.stamps:
        raise CheckpointError(f"{files.folder} has no {manifest.file}; export the model again")
    return manifest


def _parse(values: Mapping[str, Any]) -> Manifest:
    if values["schema"] != SCHEMA:
        raise ValueError(
            f"its schema is {values['schema']!r} and this version of emoser reads {SCHEMA}"
        )
    source = dict(values["source"])
    source["notes"] = tuple(source["notes"])
    known = {item.name for item in fields(Manifest)} - {"config", "source"}
    return Manifest(
        config=ModelConfig.from_block(values["config"]),
        source=Source(**source),
        **{name: values[name] for name in known},
    )
