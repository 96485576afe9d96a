"""Vox-Profile's WavLM model of categorical emotions (tiantiaf/wavlm-large-categorical-emotion).

A learned mix of all layers, three convolutions over single frames with ReLU between, the mean,
linear, ReLU, linear. Low-rank adapters of the feed-forward layers are merged into their weights
as loralib does at evaluation: weight + B A / rank. `detailed_out_layer` and the heads for arousal,
valence and dominance of related models are not used.
"""

from collections.abc import Set
from typing import Any

from emoser.checkpoints.backbones import encoder_builder, infer_encoder_config
from emoser.checkpoints.configs import check_labels
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.layouts.transformers import rename_behind
from emoser.checkpoints.strict import Plan, Tensors
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.labels import canonical_labels
from emoser.models.config import ModelConfig

NAME = "vox-profile"
SIGNATURE = ("model_seq.0.weight", "emotion_layer.0.weight", "emotion_layer.2.weight", "weights")
ENCODER = "backbone_model."
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
PLACES = {
    "model_seq.0.": "pointwise.layers.0.",
    "model_seq.3.": "pointwise.layers.1.",
    "model_seq.6.": "pointwise.layers.2.",
    "emotion_layer.0.": "head.dense.",
    "emotion_layer.2.": "head.classifier.",
}
ADAPTER = ("lora_A", "lora_B")


def matches(keys: Set[str]) -> bool:
    """Whether tensors with these names are of this layout."""
    return set(SIGNATURE) <= keys and any(name.startswith(ENCODER) for name in keys)


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    rows = shapes["emotion_layer.2.weight"][0]
    if rows != len(RAW_LABELS):
        raise CheckpointError(
            f"{files.folder}: emotion_layer has {rows} rows; the published order has "
            f"{len(RAW_LABELS)} labels ({', '.join(RAW_LABELS)})"
        )
    raw = check_labels(dict(enumerate(RAW_LABELS)), files.folder / CONFIG)
    encoder: dict[str, Any] = infer_encoder_config(shapes, ENCODER)
    config = ModelConfig(
        labels=canonical_labels(raw),
        raw_labels=raw,
        encoder=str(encoder["model_type"]),
        normalization="clip",
        head="pointwise",
        projection_size=shapes["model_seq.0.weight"][0],
        layer_mix=True,
        max_seconds=MAX_SECONDS,
    )
    builder = encoder_builder(encoder, config, files.folder / CONFIG)
    return Plan(config, builder, _rename, _complete)


def _rename(name: str) -> str | None:
    if name.startswith(OTHER_HEADS):
        return None
    for theirs, ours in PLACES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return "layer_weights" if name == "weights" else rename_behind(name, ENCODER)


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
