"""What a checkpoint says about itself: the block that is saved, and the facts shown to users.

Plain dataclasses without torch, so that a runtime that needs neither torch nor transformers
can read them too.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

SCHEMA = 1
NORMALIZATIONS = ("none", "clip")
POOLINGS = ("mean",)
HEADS = ("linear", "projector")
DEFAULT_MAX_SECONDS = 30.0


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a model that is neither a weight nor the encoder's own configuration.

    It is saved as the block `"emoser"` of `config.json`; foreign checkpoints have no such block
    and their loader fills one in.

    Attributes:
        labels: Canonical names in the order of the logits.
        raw_labels: The names as the checkpoint spells them, in the same order.
        encoder: `model_type` of the encoder in transformers, such as "hubert".
        normalization: What happens to the samples first: "none", or "clip" (zero mean and
            unit variance over each recording, the `do_normalize` of transformers).
        pooling: How frames become one vector: "mean" over the valid frames.
        head: "linear", or "projector" (linear, then linear, as in transformers).
        projection_size: Width between the two layers of a "projector" head, else None.
        layer_mix: Whether a learned softmax-weighted sum of all layers is pooled, not the last.
        max_seconds: Longest piece the model should see at once; longer recordings are cut.
        temperature: Divides the logits before the softmax; 1 where it is already in the weights.
        sampling_rate: Rate in Hz that the model was trained at.
        training: Protocol and provenance of the training, as written by `emoser.finetune`.
    """

    labels: tuple[str, ...]
    raw_labels: tuple[str, ...] = ()
    encoder: str = "hubert"
    normalization: str = "clip"
    pooling: str = "mean"
    head: str = "linear"
    projection_size: int | None = None
    layer_mix: bool = False
    max_seconds: float = DEFAULT_MAX_SECONDS
    temperature: float = 1.0
    sampling_rate: int = 16_000
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no model can have.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        if not self.raw_labels:
            object.__setattr__(self, "raw_labels", self.labels)
        choices = (
            ("normalization", self.normalization, NORMALIZATIONS),
            ("pooling", self.pooling, POOLINGS),
            ("head", self.head, HEADS),
        )
        faults = [
            f"{name} is {value!r}, allowed are {', '.join(allowed)}"
            for name, value, allowed in choices
            if value not in allowed
        ]
        if len(self.labels) < 1 or len(set(self.labels)) != len(self.labels):
            faults.append(f"labels must be distinct names, got {list(self.labels)}")
        if len(self.raw_labels) != len(self.labels):
            faults.append(f"{len(self.raw_labels)} raw_labels for {len(self.labels)} labels")
        if not self.max_seconds > 0 or not self.temperature > 0:
            faults.append("max_seconds and temperature must be above 0")
        if (self.head == "projector") != (self.projection_size is not None):
            faults.append("projection_size belongs to a projector head, and to no other")
        if faults:
            raise ValueError("; ".join(faults))

    def to_block(self) -> dict[str, Any]:
        """The dictionary that is written under `"emoser"`."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_block(cls, block: Mapping[str, Any]) -> "ModelConfig":
        """The configuration that `to_block` wrote.

        Raises:
            ValueError: If the schema is newer than this version or a field is unknown or wrong.
        """
        if block.get("schema") != SCHEMA:
            raise ValueError(
                f"the emoser block has schema {block.get('schema')!r}, this version reads "
                f"{SCHEMA}; upgrade emoser"
            )
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in block.items() if key != "schema"}
        strange = sorted(set(values) - known)
        if strange or "labels" not in values:
            raise ValueError(f"the emoser block has unknown fields {strange} or no labels")
        for key in ("labels", "raw_labels"):
            values[key] = tuple(values.get(key, ()))
        return cls(**values)


@dataclass(frozen=True)
class ModelInfo:
    """Where a loaded checkpoint came from and what it is.

    Attributes:
        name: What `from_pretrained` was given.
        path: The folder that was read.
        revision: The commit of a Hub checkpoint, else None.
        layout: Which kind of file layout it has, such as "transformers".
        licence: Licence of the weights as its card states it, else None.
        encoder: `model_type` of the encoder.
        parameters: Number of weights.
        sampling_rate: Rate in Hz at which the model listens.
        raw_labels: The labels as the checkpoint spells them.
        max_seconds: Longest piece that the model sees at once.
        backend: The engine that runs it, such as "torch".
        device: Where it runs.
        dtype: In which precision.
        training: Protocol and provenance, where the checkpoint states them.
    """

    name: str
    path: str
    revision: str | None
    layout: str
    licence: str | None
    encoder: str
    parameters: int
    sampling_rate: int
    raw_labels: tuple[str, ...]
    max_seconds: float
    backend: str
    device: str
    dtype: str
    training: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
