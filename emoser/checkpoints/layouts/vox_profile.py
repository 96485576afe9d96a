"""Vox-Profile's WavLM model of categorical emotions (tiantiaf/wavlm-large-categorical-emotion).

A learned mix of all layers, three convolutions over single frames with ReLU between, the mean,
linear, ReLU, linear. Low-rank adapters of the feed-forward layers are merged into their weights
as loralib does at evaluation: weight + B A / rank. `detailed_out_layer` and the heads for arousal,
valence and dominance of related models are not used.
"""

from collections.abc import Mapping

from emoser.checkpoints.backbones import encoder_places, infer_encoder_config
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.preprocessing import SAMPLING_RATE, read_sampling_rate
from emoser.checkpoints.strict import Plan, Tensors
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.labels import canonical_labels
from emoser.models.config import ModelConfig

NAME = "vox-profile"
ENCODER = "backbone_model."
SIGNATURE = (
    "model_seq.0.weight",
    "emotion_layer.0.weight",
    "emotion_layer.2.weight",
    "weights",
    ENCODER,
)
RAW_LABELS = (
    "Anger",
    "Contempt",
    "Disgust",
    "Fear",
    "Happiness",
    "Neutral",
    "Sadness",
    "Surprise",
    "Other",
)
MAX_SECONDS = 15.0  # training used 3 to 15 s
OTHER_HEADS = ("detailed_out_layer.", "arousal_layer.", "valence_layer.", "dominance_layer.")
PLACES: Mapping[str, str | None] = {
    **dict.fromkeys(OTHER_HEADS),
    **encoder_places(ENCODER),
    "weights": "layer_weights",
    "model_seq.0.": "pointwise.layers.0.",
    "model_seq.3.": "pointwise.layers.1.",
    "model_seq.6.": "pointwise.layers.2.",
    "emotion_layer.0.": "head.dense.",
    "emotion_layer.2.": "head.classifier.",
}
ADAPTER = ("lora_A", "lora_B")


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    rows = shapes["emotion_layer.2.weight"][0]
    if rows != len(RAW_LABELS):
        raise CheckpointError(
            f"{files.folder}: emotion_layer has {rows} rows; the published order has "
            f"{len(RAW_LABELS)} labels ({', '.join(RAW_LABELS)})"
        )
    encoder = infer_encoder_config(shapes, ENCODER)
    config = ModelConfig(
        labels=canonical_labels(RAW_LABELS),
        raw_labels=RAW_LABELS,
        encoder=str(encoder["model_type"]),
        normalization="clip",
        head="pointwise",
        projection_size=shapes["model_seq.0.weight"][0],
        layer_mix=True,
        max_seconds=MAX_SECONDS,
        sampling_rate=read_sampling_rate(files) or SAMPLING_RATE,
    )
    return Plan(config, encoder, PLACES, _complete)


def _complete(tensors: Tensors) -> Tensors:
    """The tensors with adapters merged and convolutions over single frames as matrices."""
    completed = dict(tensors)
    for name in [name for name in tensors if name.endswith(ADAPTER[0])]:
        stem = name.removesuffix(ADAPTER[0])
        down = completed.pop(name)
        up, weight = completed.get(f"{stem}{ADAPTER[1]}"), completed.get(f"{stem}weight")
        if up is None or weight is None or (up @ down).shape != weight.shape:
            raise CheckpointError(f"the adapter {stem} has no counterpart of a fitting shape")
        del completed[f"{stem}{ADAPTER[1]}"]
        completed[f"{stem}weight"] = weight + up @ down / len(down)
    for name in [name for name in completed if name.startswith("pointwise.")]:
        if completed[name].ndim == 3:
            completed[name] = completed[name].squeeze(-1)
    return completed
