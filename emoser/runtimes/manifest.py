"""What stands beside an exported graph: enough to predict with it and without its original.

`emoser_runtime.json` says which file holds the graph and in what precision, what the model
around it is, which weights it was made from, and what was proved about it. Imports neither
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
    """What the checkpoint was that a graph was made from.

    Attributes:
        name: What the user called it.
        layout: How its files were laid out.
        licence: Licence of the weights as its card states it, else None.
        parameters: Number of weights.
        revision: The commit of a Hub checkpoint, else None.
        notes: What its loader chose where the files leave a choice.
    """

    name: str
    layout: str
    licence: str | None
    parameters: int
    revision: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """An exported graph and the model that it is.

    Attributes:
        format: "onnx" or "openvino".
        dtype: Precision of its arithmetic: "float32", "bfloat16" or "int8".
        config: What stands around the encoder.
        source: The checkpoint that it was made from.
        weights: `hash_checkpoint` of that checkpoint.
        versions: Versions of what made it, by package.
        parity: What was proved about its numbers, and on what.
    """

    format: str
    dtype: str
    config: ModelConfig
    source: Source
    weights: str
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what emoser does not write.

        Raises:
            ValueError: If the format or the precision is unknown.
        """
        if self.format not in FILES or self.dtype not in DTYPES:
            raise ValueError(
                f"format is {self.format!r} and dtype {self.dtype!r}; emoser exports "
                f"{', '.join(FILES)} in {', '.join(DTYPES)}"
            )

    @property
    def file(self) -> str:
        """Name of the file that holds the graph."""
        return FILES[self.format]

    def to_info(self, checkpoint: CheckpointFiles, *, backend: str, device: str) -> ModelInfo:
        """What the classifier tells about the model, run by an engine."""
        return ModelInfo(
            name=checkpoint.name,
            path=str(checkpoint.folder),
            revision=checkpoint.revision or self.source.revision,
            layout=self.source.layout,
            licence=self.source.licence,
            encoder=self.config.encoder,
            parameters=self.source.parameters,
            sampling_rate=self.config.sampling_rate,
            raw_labels=self.config.raw_labels,
            max_seconds=self.config.max_seconds,
            backend=backend,
            device=device,
            dtype=self.dtype,
            training=self.config.training,
            notes=self.source.notes,
        )

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


def describe_source(checkpoint: CheckpointFiles, loaded: "LoadedModel") -> Source:
    """What the manifest says about a checkpoint that has been loaded."""
    return Source(
        name=checkpoint.name,
        layout=loaded.layout,
        licence=checkpoint.licence,
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        revision=checkpoint.revision,
        notes=loaded.notes,
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


def read_graph(files: CheckpointFiles) -> Manifest | None:
    """The manifest of a folder whose graph may be used; None without one, or with a stale one.

    A graph beside weights is stale unless it was made from exactly these.

    Raises:
        CheckpointError: As `read_manifest`.
    """
    manifest = read_manifest(files)
    if manifest is None or not files.has_weights:
        return manifest
    return manifest if files.content_hash == manifest.weights else None


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
