"""The configuration of a model as saved in its checkpoint, and the description shown to users.

Plain dataclasses without torch, for runtimes that need neither torch nor transformers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from emoser.labels import find_label_faults
from emoser.models.fields import Field, Flag, Numbers, Words, find_faults

SCHEMA = 1
NORMALIZATIONS = ("none", "clip", "layer", "centre", "corpus", "level")
PADDINGS = ("usual", "none")
POOLINGS = ("mean", "sum", "max", "statistics", "attentive-statistics", "frames")
HEADS = ("linear", "projector", "dense", "mlp", "pointwise", "framewise")
UNSTATED = (
    "padding", "final_norm", "multi_label", "dimension_scale", "mean_logits", "adapted_recordings",
)  # fmt: skip
"""Fields that are left out of the block at their defaults."""
ACTIVATIONS = ("none", "tanh", "relu")
DEFAULT_MAX_SECONDS = 30.0
MAX_OUTPUTS = 1_000
LINEAR_DENSE = ("dense", "none")  # head and activation
MEAN_LOGIT = Numbers(-1e6, 1e6, whole=False)
SCALE_END = Numbers(-1e6, 1e6, whole=False)
RANGES: Mapping[str, Field] = {
    "encoder": Words(),
    "input_mean": Numbers(-1e5, 1e5, whole=False),
    "input_std": Numbers(1e-6, 1e5, whole=False),
    "final_norm": Flag(),
    "output_norm": Flag(),
    "layer_mix": Flag(),
    "multi_label": Flag(),
    "projection_size": Numbers(1, 65_536, optional=True),
    "head_layers": Numbers(1, 100),
    "frame_seconds": Numbers(1e-3, 10, whole=False, optional=True),
    "max_seconds": Numbers(0.1, 600, whole=False),
    "temperature": Numbers(0.01, 100, whole=False),
    "sampling_rate": Numbers(4_000, 192_000),
    "adapted_recordings": Numbers(0, 10**9),
}
"""What a value of `ModelConfig` may be, beside those with a list of choices."""


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a model, except for that of its encoder.

    Saved as the block `"emoser"` of `config.json`. For checkpoints of other projects, which have
    no such block, the loader derives it.

    Attributes:
        labels: Canonical names in the order of the logits; empty for a model with dimensions
            only.
        raw_labels: The names as spelled in the checkpoint, in the same order, with the
            dimensions after the labels.
        dimensions: Names of the outputs after the logits of `labels`: "arousal", "dominance",
            "valence". They are values, not classes, and no softmax is applied to them.
        encoder: `model_type` of the encoder in transformers, such as "hubert", or "emotion2vec".
        normalization: Of the samples: "none"; "clip" (zero mean and unit variance over each
            recording, as `do_normalize` in transformers); "layer" (the same as in torch's layer
            norm, with 1e-5 added to the variance); "centre" (zero mean); "corpus" (`input_mean`
            and `input_std` of the training corpus); "level" (scaled to a root mean square of
            -25 dBFS).
        input_mean: Mean of the samples of the training corpus, for "corpus".
        input_std: Their standard deviation, for "corpus".
        padding: "usual"; for Whisper also "none": the encoder takes a recording at its own
            length, instead of 30 s filled up with zeros.
        final_norm: Whether Whisper's final layer norm follows the last layer; always so with
            padding "usual".
        output_norm: Whether one layer norm over all frames of a recording precedes pooling.
        pooling: How frames are pooled to one vector: "mean", "sum" or "max" over the valid frames,
            "statistics" (mean and standard deviation of the valid frames),
            "attentive-statistics" (weighted mean and deviation), or "frames": every frame is
            classified, and the probabilities are averaged.
        head: "linear"; "projector" (linear, then linear, as in transformers); "dense" (linear,
            `activation`, linear); "mlp" (linear, layer norm and ReLU, `head_layers` times, then
            linear); "pointwise" (three convolutions over single frames before pooling, then
            linear, ReLU, linear); "framewise" (linear and ReLU over single frames before pooling,
            then linear).
        activation: Between the layers of a "dense" head: "none", "tanh" or "relu".
        projection_size: Width between the layers of the head; None for a "linear" one.
        head_layers: Hidden layers of an "mlp" head.
        layer_mix: Whether a learned softmax-weighted sum of all layers is pooled instead of the
            last layer.
        frame_seconds: Time between frames of a model that classifies frames, else None.
        max_seconds: Longest chunk in seconds; longer recordings are split.
        temperature: Divides the logits before softmax or sigmoid; 1 if it is part of the weights.
        sampling_rate: Sampling rate in Hz of the training.
        multi_label: Whether the labels are independent of one another: each has the sigmoid of
            its logit as its score, instead of all together a softmax.
        dimension_scale: Lowest and highest value of the scale on which dimensions were annotated,
            which are 0 and 1 in the outputs. Empty if it is not known.
        mean_logits: Of the training speakers, one for each label: the mean over speakers of the
            mean over the labels of a speaker's recordings. Empty if it is not known.
        adapted_recordings: Recordings of one speaker that the biases were adapted to; 0 for none.
        training: Protocol and provenance of the training, as written by `emoser.finetune`.
    """

    labels: tuple[str, ...]
    raw_labels: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    encoder: str = "hubert"
    normalization: str = "clip"
    input_mean: float = 0.0
    input_std: float = 1.0
    padding: str = "usual"
    final_norm: bool = True
    output_norm: bool = False
    pooling: str = "mean"
    head: str = "linear"
    activation: str = "none"
    projection_size: int | None = None
    head_layers: int = 1
    layer_mix: bool = False
    frame_seconds: float | None = None
    max_seconds: float = DEFAULT_MAX_SECONDS
    temperature: float = 1.0
    sampling_rate: int = 16_000
    multi_label: bool = False
    dimension_scale: tuple[float, ...] = ()
    mean_logits: tuple[float, ...] = ()
    adapted_recordings: int = 0
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        if not self.raw_labels:
            object.__setattr__(self, "raw_labels", self.outputs)
        choices = (
            ("normalization", self.normalization, NORMALIZATIONS),
            ("padding", self.padding, PADDINGS),
            ("pooling", self.pooling, POOLINGS),
            ("head", self.head, HEADS),
            ("activation", self.activation, ACTIVATIONS),
        )
        faults = [
            f"{name} is {value!r}, allowed are {', '.join(allowed)}"
            for name, value, allowed in choices
            if value not in allowed
        ]
        faults += self._faults_of_names()
        faults += find_faults({name: getattr(self, name) for name in RANGES}, RANGES)
        if not isinstance(self.training, Mapping):
            faults.append(f"training is a {type(self.training).__name__}, not an object")
        if self.padding == "none" and self.encoder != "whisper":
            faults.append(f"padding 'none' needs the encoder 'whisper', got {self.encoder!r}")
        if not self.final_norm and self.padding != "none":
            faults.append("final_norm False needs padding 'none'")
        if (self.head == "linear") != (self.projection_size is None):
            faults.append("every head except 'linear' needs projection_size, and 'linear' has none")
        if self.multi_label and (self.pooling == "frames" or not self.labels):
            faults.append("multi_label needs labels, and another pooling than 'frames'")
        if (self.pooling == "frames") != (self.frame_seconds is not None):
            faults.append("pooling 'frames' needs frame_seconds, and no other pooling has it")
        faults += self._faults_of_numbers()
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def is_linear(self) -> bool:
        """Whether a shift of the embedding is a shift of the logits of labels that share a softmax.

        Example:
            >>> ModelConfig(("happy", "sad")).is_linear
            True
            >>> ModelConfig(("happy", "sad"), head="dense", projection_size=8,
            ...             activation="tanh").is_linear
            False
        """
        linear = ("linear", "projector", "framewise")  # behind the pooling
        head = self.head in linear or (self.head, self.activation) == LINEAR_DENSE
        single = bool(self.labels) and not (self.dimensions or self.multi_label)
        return head and single and self.pooling != "frames"

    @property
    def has_one_length(self) -> bool:
        """Whether every recording has the same number of frames, as in Whisper's 30 s."""
        return self.encoder == "whisper" and self.padding == "usual"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of all outputs: labels, then dimensions."""
        return (*self.labels, *self.dimensions)

    def _faults_of_names(self) -> list[str]:
        faults = []
        if not all(isinstance(name, str) for name in (*self.outputs, *self.raw_labels)):
            return [f"labels must be names, got {list(self.outputs)}"]
        if len(self.outputs) > MAX_OUTPUTS:
            return [f"{len(self.outputs):,} labels, allowed are {MAX_OUTPUTS:,}"]
        if not self.outputs or len(set(self.outputs)) != len(self.outputs):
            faults.append(f"labels must be distinct names, got {list(self.outputs)}")
        faults += dict.fromkeys(
            fault for names in (self.outputs, self.raw_labels) for fault in find_label_faults(names)
        )
        if len(self.raw_labels) != len(self.outputs):
            faults.append(f"{len(self.raw_labels)} raw_labels for {len(self.outputs)} labels")
        return faults

    def _faults_of_numbers(self) -> list[str]:
        faults = []
        scale, means = self.dimension_scale, self.mean_logits
        rising = len(scale) == 2 and all(map(SCALE_END.allows, scale)) and scale[0] < scale[1]
        if scale and not (self.dimensions and rising):
            faults.append("dimension_scale needs dimensions, and two numbers, the lower one first")
        if not all(map(MEAN_LOGIT.allows, means)) or len(means) not in (0, len(self.labels)):
            faults.append("mean_logits needs one number for each label")
        return faults

    def to_block(self) -> dict[str, Any]:
        """The dictionary that is saved as `"emoser"`."""
        usual = {item.name: item.default for item in fields(self) if item.name in UNSTATED}
        stated = {
            key: value
            for key, value in asdict(self).items()
            if key not in usual or value != usual[key]
        }
        return {"schema": SCHEMA, **stated}

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
        for key in ("labels", "raw_labels", "dimensions", "dimension_scale", "mean_logits"):
            values[key] = tuple(values.get(key, ()))
        return cls(**values)


@dataclass(frozen=True)
class ModelInfo:
    """Source and properties of a loaded checkpoint.

    Attributes:
        name: The argument of `from_pretrained`.
        path: The folder of the checkpoint.
        revision: The commit of a Hub checkpoint, else None.
        layout: File layout, such as "transformers".
        licence: Licence of the weights as stated in its card, else None.
        encoder: `model_type` of the encoder.
        parameters: Number of weights.
        sampling_rate: Sampling rate in Hz of the model.
        raw_labels: The labels (and dimensions) as spelled in the checkpoint.
        max_seconds: Longest chunk in seconds.
        backend: The engine that runs the model, such as "torch".
        device: The device of the model.
        dtype: The precision of the model.
        training: Protocol and provenance, if the checkpoint states them.
        notes: Choices of the loader where the files are ambiguous.
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
    training: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    notes: tuple[str, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
