"""The layout of transformers' `*ForSequenceClassification` and `WhisperForAudioClassification`.

A linear projector on every frame, the mean, and a linear classifier, on any encoder of
`backbones.FAMILIES`. emoser also writes this layout if a model fits it: the block "emoser" in
`config.json` then states what transformers has no field for.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from emoser.checkpoints.backbones import FAMILIES, RAW_EXTRACTOR, family_of
from emoser.checkpoints.configs import read_labels
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.preprocessing import (
    read_normalize,
    read_preprocessing,
    read_sampling_rate,
)
from emoser.checkpoints.strict import Plan, Tensors, place_name
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.labels import canonical_labels, split_outputs
from emoser.models.config import DEFAULT_MAX_SECONDS, ModelConfig
from emoser.models.model import EmotionModel
from emoser.models.spectral import whisper_seconds

NAME = "transformers"
SIGNATURE = ("projector.weight", "projector.bias", "classifier.weight", "classifier.bias")
MULTI_LABEL, REGRESSION = "multi_label_classification", "regression"
PROBLEMS = (None, "single_label_classification", MULTI_LABEL, REGRESSION)
HEAD_PLACES = {"projector.": "head.projector.", "classifier.": "head.classifier."}
NATIVE_HEAD = {"head.dense.": "projector.", "head.": ""}


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    model_config = read_model_config(files, shapes)
    notes = () if "emoser" in files.config else read_preprocessing(files).notes
    places = {**family_of(files).places, **HEAD_PLACES}
    complete = _drop_identity if model_config.head == "linear" else dict
    return Plan(model_config, files.config, places, complete, notes)


def read_model_config(files: CheckpointFiles, shapes: Shapes) -> ModelConfig:
    """The configuration around the encoder: the emoser block, or implied by transformers' files."""
    if files.config.get("emoser") is not None:
        return read_block(files)
    return imply_model_config(
        files,
        num_outputs=shapes.get("classifier.bias", (None,))[0],
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
    _check_block(files, stated)
    return stated


def _check_block(files: CheckpointFiles, stated: ModelConfig) -> None:
    """Refuse a block that contradicts the other files of its folder."""
    family = FAMILIES.get(str(files.config.get("model_type")))
    raw = family is not None and family.extractor == RAW_EXTRACTOR
    normalize = read_normalize(files) if "do_normalize" in files.preprocessor else None
    pairs = (
        ("sampling_rate", read_sampling_rate(files), stated.sampling_rate),
        ("problem_type", read_problem(files), find_problem(stated)),
        ("do_normalize", normalize, raw and stated.normalization == "clip"),
    )
    for name, theirs, ours in pairs:
        if theirs is not None and theirs != ours:
            raise CheckpointError(
                f"{files.folder}: {name} is {theirs!r} and the emoser block says {ours!r}; correct "
                "the wrong one"
            )


def read_problem(files: CheckpointFiles) -> str | None:
    """The `problem_type` of `config.json`; None for the usual one, a single label.

    Raises:
        CheckpointError: If transformers does not know it.
    """
    problem = files.config.get("problem_type")
    if problem not in PROBLEMS:
        raise CheckpointError(
            f"{files.folder / CONFIG}: problem_type is {problem!r}; allowed are "
            f"{', '.join(filter(None, PROBLEMS))}"
        )
    return None if problem == PROBLEMS[1] else problem


def imply_model_config(
    files: CheckpointFiles, *, num_outputs: int | None = None, **changes: Any
) -> ModelConfig:
    """The configuration that transformers' files imply.

    Args:
        files: The checkpoint.
        num_outputs: As for `read_labels`.
        changes: What the layout states.
    """
    raw, problem = read_labels(files, num_outputs), read_problem(files)
    kind = str(files.config.get("model_type"))
    preprocessing = read_preprocessing(files)
    longest = files.config.get("max_source_positions", 1500)
    values: dict[str, Any] = {
        "encoder": kind,
        "normalization": "clip" if preprocessing.normalize else "none",
        "max_seconds": whisper_seconds(longest) if kind == "whisper" else DEFAULT_MAX_SECONDS,
        "sampling_rate": preprocessing.sampling_rate,
        "multi_label": problem == MULTI_LABEL,
    }
    try:
        labels, dimensions = split_outputs(raw)
        if problem == REGRESSION:
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
        and config.normalization in native_normalizations(config.encoder)
        and config.padding == "usual"
        and config.pooling == "mean"
        and heads
        and not config.output_norm
        and not (config.labels and config.dimensions)
    )


def native_normalizations(encoder: str) -> tuple[str, ...]:
    """Normalisations that the feature extractor of an encoder in `FAMILIES` can compute.

    Example:
        >>> native_normalizations("hubert"), native_normalizations("whisper")
        (('none', 'clip'), ('none',))
    """
    return ("none", "clip") if FAMILIES[encoder].extractor == RAW_EXTRACTOR else ("none",)


def find_problem(config: ModelConfig) -> str | None:
    """What transformers calls the problem that a model solves; None for a single label."""
    if config.multi_label:
        return MULTI_LABEL
    return REGRESSION if config.dimensions and not config.labels else None


def to_native(model: EmotionModel) -> tuple[ModelConfig, dict[str, Any], Tensors]:
    """Configuration, `config.json` and tensors of a model as transformers reads them.

    A temperature is folded into the classifier; a linear head gets an identity projector.
    """
    calibrated = tuple(value / model.config.temperature for value in model.config.mean_logits)
    stated = replace(model.config, temperature=1.0, mean_logits=calibrated)
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
    return stated, config, _native_tensors(model)


def label_fields(config: ModelConfig) -> dict[str, Any]:
    """The fields of `config.json` that hold the labels, and what the outputs mean."""
    return {
        "problem_type": find_problem(config),
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
