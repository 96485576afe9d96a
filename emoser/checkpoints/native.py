"""The layout of transformers' `*ForSequenceClassification`, read strictly and written.

Every tensor of the file finds its place and nothing is left to chance: a missing, unexpected
or wrongly shaped tensor is refused before anything is predicted. What is written here gives
the same numbers through `transformers.pipeline("audio-classification")` without emoser.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from emoser import torchaudio_guard  # noqa: F401  # before the first import of transformers
from emoser.checkpoints.configs import (
    CARD,
    CONFIG,
    PREPROCESSOR,
    read_config,
    read_labels,
    read_preprocessor,
)
from emoser.checkpoints.saving import new_folder
from emoser.checkpoints.tensors import WEIGHTS, read_tensors, rename_weight_norm
from emoser.configuration import DEFAULT_MAX_SECONDS, ModelConfig
from emoser.encoder import SpeechEncoder
from emoser.errors import CheckpointError
from emoser.labels import canonical_labels
from emoser.model import EmotionModel

ARCHITECTURES: Mapping[str, str] = {
    "hubert": "HubertForSequenceClassification",
    "wav2vec2": "Wav2Vec2ForSequenceClassification",
    "wavlm": "WavLMForSequenceClassification",
}
"""Encoders of this layout, and the class of transformers that has the same tensors."""

OPTIONAL_TENSORS = ("masked_spec_embed",)  # used in training alone
MAX_PARAMETERS = 4_000_000_000


def matches(keys: set[str]) -> bool:
    """Whether tensors with these names are of this layout."""
    return {"projector.weight", "projector.bias", "classifier.weight", "classifier.bias"} <= keys


def load_model(folder: Path) -> EmotionModel:
    """The model of a folder, in float32 on the CPU, ready to predict.

    Raises:
        CheckpointError: If the folder is not of this layout or any part does not fit.
    """
    config = read_config(folder)
    model_config = read_model_config(folder, config)
    with torch.device("meta"):
        model = EmotionModel(model_config, _build_encoder(config, model_config, folder))
    _check_size(model, folder)
    tensors = rename_weight_norm(read_tensors(folder))
    if not matches(set(tensors)):
        raise CheckpointError(
            f"{folder} has no classification head of transformers' layout (projector and "
            "classifier, each with weight and bias); its tensors begin with "
            f"{', '.join(sorted({key.split('.')[0] for key in tensors})[:8])}"
        )
    prefix = model.encoder.backbone.base_model_prefix
    _assign(model, _from_native(tensors, str(prefix), model_config), folder)
    return model.eval()


def build_model(config: Any, model_config: ModelConfig, *, seed: int) -> EmotionModel:
    """A model with fresh weights, drawn as transformers draws them.

    Args:
        config: Configuration of the encoder, an object of transformers.
        model_config: What stands around the encoder.
        seed: Makes the weights; torch's global generator is left as it was.
    """
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SpeechEncoder(
            AutoModel.from_config(config, dtype=torch.float32),
            normalization=model_config.normalization,
        )
        return EmotionModel(replace(model_config, encoder=config.model_type), encoder)


def save_model(
    model: EmotionModel,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    card: str | None = None,
) -> Path:
    """Write a folder that emoser and transformers both load, with equal numbers.

    The folder appears whole or not at all. A temperature is folded into the classifier, so
    that a plain softmax gives the calibrated probabilities.

    Raises:
        FileExistsError: If the folder is not empty and `overwrite` is off.
        NotADirectoryError: If the path is a file.
    """
    with new_folder(Path(folder), overwrite=overwrite) as target:
        save_file(_to_native(model), target / WEIGHTS, metadata={"format": "pt"})
        os.chmod(target / WEIGHTS, 0o644)
        _write_json(target / CONFIG, native_config(model))
        _write_json(target / PREPROCESSOR, _preprocessor(model))
        if card is not None:
            (target / CARD).write_text(card, encoding="utf-8")
    return Path(folder)


def copy_model(
    source: str | Path, folder: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Load a checkpoint folder and write it in this layout, its card included.

    Raises:
        FileExistsError: If the folder is not empty and `overwrite` is off.
        NotADirectoryError: If the path is a file.
        CheckpointError: If the source does not load.
    """
    card = Path(source) / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    return save_model(load_model(Path(source)), folder, overwrite=overwrite, card=text)


def read_model_config(folder: Path, config: Mapping[str, Any]) -> ModelConfig:
    """What stands around the encoder: the emoser block, or what transformers' files imply."""
    raw = read_labels(config, folder)
    block = config.get("emoser")
    if block is not None:
        try:
            stated = ModelConfig.from_block(block)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / CONFIG}: {error}") from error
        if stated.raw_labels != raw:
            raise CheckpointError(
                f"{folder / CONFIG}: the emoser block has the labels {list(stated.raw_labels)}, "
                f"id2label has {list(raw)}"
            )
        return stated
    preprocessor = read_preprocessor(folder)
    return ModelConfig(
        labels=canonical_labels(raw),
        raw_labels=raw,
        encoder=str(config.get("model_type")),
        normalization="clip" if preprocessor.get("do_normalize", True) else "none",
        head="projector",
        projection_size=int(config.get("classifier_proj_size", 256)),
        layer_mix=bool(config.get("use_weighted_layer_sum", False)),
        max_seconds=DEFAULT_MAX_SECONDS,
        sampling_rate=int(preprocessor.get("sampling_rate", 16_000)),
    )


def native_config(model: EmotionModel) -> dict[str, Any]:
    """The `config.json` of a model: transformers' own keys, and one block of emoser's."""
    stated = replace(model.config, temperature=1.0)
    config = model.encoder.config.to_dict()  # type: ignore[union-attr, operator]
    size = stated.projection_size or model.encoder.hidden_size
    config.update(
        architectures=[ARCHITECTURES[stated.encoder]],
        classifier_proj_size=size,
        use_weighted_layer_sum=stated.layer_mix,
        id2label={str(index): name for index, name in enumerate(stated.raw_labels)},
        label2id={name: index for index, name in enumerate(stated.raw_labels)},
        emoser=stated.to_block(),
    )
    return dict(config)


def _build_encoder(
    config: Mapping[str, Any], model_config: ModelConfig, folder: Path
) -> SpeechEncoder:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModel

    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"{folder / CONFIG}: model_type is {kind!r}; emoser loads {', '.join(ARCHITECTURES)}"
        )
    values = {key: value for key, value in config.items() if key not in ("model_type", "emoser")}
    try:
        encoder_config = AutoConfig.for_model(kind, **values)
        backbone = AutoModel.from_config(encoder_config, dtype=torch.float32)
    except (StrictDataclassError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no {kind} encoder: {error}") from error
    return SpeechEncoder(backbone, normalization=model_config.normalization)


def _check_size(model: nn.Module, folder: Path) -> None:
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > MAX_PARAMETERS:
        raise CheckpointError(
            f"{folder / CONFIG} describes {size:,} weights; emoser loads up to {MAX_PARAMETERS:,}"
        )


def _from_native(
    tensors: Mapping[str, Tensor], prefix: str, config: ModelConfig
) -> dict[str, Tensor]:
    """The tensors under the names of `EmotionModel`; unknown names are kept for the report."""
    renamed = {}
    for name, tensor in tensors.items():
        renamed[_emoser_name(name, prefix)] = tensor.to(torch.float32)
    if config.head == "linear":
        projector = renamed.pop("head.projector.weight", torch.zeros(0, 0))
        bias = renamed.pop("head.projector.bias", torch.ones(1))
        if not torch.equal(projector, torch.eye(len(projector))) or bias.any():
            raise CheckpointError("the emoser block says head 'linear', the projector says not")
    return renamed


def _emoser_name(name: str, prefix: str) -> str:
    if name.startswith(f"{prefix}.feature_extractor."):
        return f"encoder.{name.removeprefix(f'{prefix}.')}"
    if name.startswith(f"{prefix}."):
        return f"encoder.backbone.{name.removeprefix(f'{prefix}.')}"
    if name.startswith(("projector.", "classifier.")):
        return f"head.{name}"
    return name


def _to_native(model: EmotionModel) -> dict[str, Tensor]:
    prefix = str(model.encoder.backbone.base_model_prefix)
    tensors = {
        _native_name(name, prefix): tensor.detach().to("cpu", torch.float32).contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    if model.head.projector is None:
        tensors["projector.weight"] = torch.eye(model.encoder.hidden_size)
        tensors["projector.bias"] = torch.zeros(model.encoder.hidden_size)
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name] / model.config.temperature
    return tensors


def _native_name(name: str, prefix: str) -> str:
    name = name.removeprefix("head.")
    name = name.replace("encoder.backbone.", f"{prefix}.", 1) if name.startswith("enc") else name
    return name.replace("encoder.", f"{prefix}.", 1) if name.startswith("encoder.feat") else name


def _assign(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Put every tensor in its place, or say what does not fit.

    Raises:
        CheckpointError: With all missing, unexpected and misshapen tensors, sorted.
    """
    expected = model.state_dict()
    optional = {name for name in expected if name.endswith(OPTIONAL_TENSORS)}
    missing = sorted(set(expected) - set(tensors) - optional)
    unexpected = sorted(set(tensors) - set(expected))
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} and should be {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(tensors))
        if tensors[name].shape != expected[name].shape
    ]
    faults = [f"missing: {_shorten(missing)}"] if missing else []
    faults += [f"unexpected: {_shorten(unexpected)}"] if unexpected else []
    faults += [f"wrong shape: {_shorten(shapes)}"] if shapes else []
    if faults:
        raise CheckpointError(
            f"the weights of {folder} do not fit its {CONFIG}; {'; '.join(faults)}"
        )
    filled = dict(tensors)
    for name in optional - set(tensors):
        filled[name] = torch.zeros(expected[name].shape)
    model.load_state_dict(filled, strict=True, assign=True)


def _shorten(names: list[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _preprocessor(model: EmotionModel) -> dict[str, Any]:
    layer_norm = model.encoder.config.feat_extract_norm == "layer"  # type: ignore[union-attr]
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": model.config.normalization == "clip",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": layer_norm,
        "sampling_rate": model.config.sampling_rate,
    }


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
