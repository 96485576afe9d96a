"""The layout of transformers' `*ForSequenceClassification` and `WhisperForAudioClassification`.

A linear projector on every frame, the mean, and a linear classifier, on any encoder of
`backbones.FAMILIES`. emoser also writes this layout if a model fits it: the block "emoser" in
`config.json` then states what transformers has no field for.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from emoser.checkpoints.backbones import FAMILIES, family_of
from emoser.checkpoints.configs import read_labels
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.strict import Plan, Tensors, place_name
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.labels import canonical_labels, split_outputs
from emoser.models.config import DEFAULT_MAX_SECONDS, ModelConfig
from emoser.models.model import EmotionModel

NAME = "transformers"
SIGNATURE = ("projector.weight", "projector.bias", "classifier.weight", "classifier.bias")
WHISPER_SECONDS = 30.0
HEAD_PLACES = {"projector.": "head.projector.", "classifier.": "head.classifier."}
NATIVE_HEAD = {"head.dense.": "projector.", "head.": ""}
NATIVE_NORMALIZATIONS = ("none", "clip")


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    model_config = read_model_config(files)
    places = {**family_of(files).places, **HEAD_PLACES}
    complete = _drop_identity if model_config.head == "linear" else dict
    return Plan(model_config, files.config, places, complete)


def read_model_config(files: CheckpointFiles) -> ModelConfig:
    """The configuration around the encoder: the emoser block, or implied by transformers' files."""
    if files.config.get("emoser") is not None:
        return read_block(files)
    return imply_model_config(
        files,
        head="projector",
        projection_size=int(files.config.get("classifier_proj_size", 256)),
        layer_mix=bool(files.config.get("use_weighted_layer_sum", False)),
    )


def read_block(files: CheckpointFiles) -> ModelConfig:
    """The emoser block of `config.json`, checked against its labels."""
    raw = read_labels(files)
    try:
        stated = ModelConfig.from_block(files.config["emoser"])
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{files.folder / CONFIG}: {error}") from error
    if stated.raw_labels != raw:
        raise CheckpointError(
            f"{files.folder / CONFIG}: the emoser block has the labels {list(stated.raw_labels)}, "
            f"id2label has {list(raw)}"
        )
    return stated


def imply_model_config(files: CheckpointFiles, **changes: Any) -> ModelConfig:
    """The configuration that transformers' files imply; `changes` are what the layout states."""
    raw = read_labels(files)
    kind = str(files.config.get("model_type"))
    spectral = kind in FAMILIES and FAMILIES[kind].extractor != "Wav2Vec2FeatureExtractor"
    normalize = files.preprocessor.get("do_normalize", not spectral)
    values: dict[str, Any] = {
        "encoder": kind,
        "normalization": "clip" if normalize else "none",
        "max_seconds": WHISPER_SECONDS if kind == "whisper" else DEFAULT_MAX_SECONDS,
        "sampling_rate": int(files.preprocessor.get("sampling_rate", 16_000)),
    }
    try:
        labels, dimensions = split_outputs(raw)
        if files.config.get("problem_type") == "regression":
            labels, dimensions = (), canonical_labels(raw)
        values.update(labels=labels, raw_labels=raw, dimensions=dimensions)
        return ModelConfig(**{**values, **changes})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{files.folder}: {error}") from error


def is_native(model: EmotionModel) -> bool:
    """Whether transformers alone can compute what this model computes."""
    config = model.config
    heads = config.head in ("linear", "projector") or (
        config.head == "dense" and config.activation == "none"
    )
    return (
        config.encoder in FAMILIES
        and config.normalization in NATIVE_NORMALIZATIONS
        and config.padding == "usual"
        and config.pooling == "mean"
        and heads
        and not config.output_norm
        and not (config.labels and config.dimensions)
    )


def to_native(model: EmotionModel) -> tuple[ModelConfig, dict[str, Any], Tensors]:
    """Configuration, `config.json` and tensors of a model as transformers reads them.

    A temperature is folded into the classifier; a linear head gets an identity projector.
    """
    stated = replace(model.config, temperature=1.0)
    if stated.head == "dense":
        stated = replace(stated, head="projector")
    size = stated.projection_size or model.encoder.hidden_size
    config = dict(model.encoder.config.to_dict())
    config.update(
        architectures=[FAMILIES[stated.encoder].architecture],
        classifier_proj_size=size,
        use_weighted_layer_sum=stated.layer_mix,
        **label_fields(stated),
        emoser=stated.to_block(),
    )
    if stated.dimensions:
        config["problem_type"] = "regression"
    return stated, config, _native_tensors(model)


def label_fields(config: ModelConfig) -> dict[str, Any]:
    """The fields of `config.json` that hold the labels."""
    return {
        "id2label": {str(index): name for index, name in enumerate(config.raw_labels)},
        "label2id": {name: index for index, name in enumerate(config.raw_labels)},
    }


def _native_tensors(model: EmotionModel) -> Tensors:
    encoder = {ours: theirs for theirs, ours in FAMILIES[model.config.encoder].places.items()}
    tensors = {
        str(place_name(name, {**encoder, **NATIVE_HEAD})): plain_tensor(tensor)
        for name, tensor in model.state_dict().items()
    }
    if model.config.head == "linear":
        tensors["projector.weight"] = torch.eye(model.encoder.hidden_size)
        tensors["projector.bias"] = torch.zeros(model.encoder.hidden_size)
    if model.config.labels:
        for name in ("classifier.weight", "classifier.bias"):
            tensors[name] = tensors[name] / model.config.temperature
    return tensors


def plain_tensor(tensor: Tensor) -> Tensor:
    """A copy on the CPU; floating point in float32."""
    copied = tensor.detach().to("cpu").contiguous().clone()
    return copied.float() if copied.is_floating_point() else copied


def _drop_identity(tensors: Tensors) -> Tensors:
    """The tensors without the projector of a linear head, which must be an identity."""
    kept = dict(tensors)
    projector = kept.pop("head.projector.weight", torch.zeros(0, 0))
    bias = kept.pop("head.projector.bias", torch.ones(1))
    if not torch.equal(projector, torch.eye(len(projector))) or bias.any():
        raise CheckpointError(
            "the emoser block states head 'linear', but the projector is not an identity"
        )
    return kept
