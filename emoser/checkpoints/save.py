"""Build, load and save models.

If transformers has a class for the model, the saved folder is of that class and gives the same
numbers through `transformers.pipeline("audio-classification")` without emoser. Otherwise the
folder has `model_type: "emoser"`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from emoser.checkpoints.atomic import new_folder
from emoser.checkpoints.backbones import FAMILIES, RAW_EXTRACTOR, create_backbone, wrap_backbone
from emoser.checkpoints.card import CardFacts, build_card
from emoser.checkpoints.files import CARD, CONFIG, PREPROCESSOR, WEIGHTS, as_files
from emoser.checkpoints.layouts.emoser import MODEL_TYPE, to_own
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.layouts.transformers import is_native, to_native
from emoser.checkpoints.strict import Tensors
from emoser.checkpoints.trained_on import write_stages
from emoser.json_text import format_json
from emoser.models.adaptation import Adaptation
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.models.spectral import KALDI_STACK, whisper_seconds


def load_model(folder: Path) -> EmotionModel:
    """Load a folder of any layout in float32 on the CPU, in evaluation mode."""
    return load_checkpoint(folder).model


def build_model(config: Any, model_config: ModelConfig, *, seed: int) -> EmotionModel:
    """Build a model with random weights, initialised as transformers does.

    The encoder's `config` is an object of transformers. torch's generator is left unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = wrap_backbone(create_backbone(config), FAMILIES[config.model_type], model_config)
        return EmotionModel(replace(model_config, encoder=config.model_type), encoder)


def save_model(
    model: EmotionModel,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    card: str = "",
    name: str = "",
) -> Path:
    """Save a model as a folder that emoser and, if it has the class, transformers load equally.

    The folder appears complete or not at all. In the layout of transformers the temperature is
    folded into the classifier, so that a plain softmax gives the calibrated probabilities.

    Args:
        model: The model.
        folder: The folder to write.
        overwrite: Replace a folder that is not empty.
        card: Text of the card that the model had; see `checkpoints.card`.
        name: Name of the model in the card; the name of the folder if empty.

    Raises:
        FileExistsError: If the folder is not empty and `overwrite` is off.
        NotADirectoryError: If the path is a file.
        OSError: If the disk is full or not writable; an old folder stays unchanged.
    """
    _, config, tensors = to_native(model) if is_native(model) else to_own(model)
    with new_folder(Path(folder), overwrite=overwrite) as target:
        _write_tensors(tensors, target / WEIGHTS)
        write_json(target / CONFIG, config)
        write_json(target / PREPROCESSOR, _preprocessor(model))
        write_stages(model.trained_on, target)
        facts = describe_model(model, name or Path(folder).absolute().name, card=card)
        (target / CARD).write_text(str(build_card(facts)), encoding="utf-8")
    return Path(folder)


def describe_model(model: EmotionModel, name: str, *, card: str = "") -> CardFacts:
    """The facts for the card of a model that emoser saves."""
    count = model.config.adapted_recordings
    note = (
        f"Adapted to one speaker by {count} recordings, and for no other. All figures below are "
        "those of the model before."
    )
    return CardFacts(
        name=name,
        config=model.config,
        layout="transformers" if is_native(model) else MODEL_TYPE,
        num_weights=sum(parameter.numel() for parameter in model.parameters()),
        before=card,
        note=note if count and note not in card else "",
    )


def copy_model(
    source: str | Path,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    labels: Sequence[str] = (),
    adaptation: Adaptation | None = None,
) -> Path:
    """Load a checkpoint folder of any layout and save it with its card as `save_model` does.

    `labels` replace those of a checkpoint that names none; `adaptation` is made part of its biases.
    """
    files = as_files(source)
    model = load_checkpoint(files).model
    name_labels(model, labels)
    adapt_biases(model, adaptation)
    return save_model(model, folder, overwrite=overwrite, card=files.card)


def name_labels(model: EmotionModel, labels: Sequence[str]) -> None:
    """Give the labels of a model names, in the order of the logits; without any, keep its own."""
    if labels:
        raw = (*labels, *model.config.raw_labels[len(labels) :])
        model.config = replace(model.config, labels=tuple(labels), raw_labels=raw)


def adapt_biases(model: EmotionModel, adaptation: Adaptation | None) -> None:
    """Subtract the shift of an adaptation, if there is one, from the biases of the last layer."""
    if adaptation is None:
        return
    model.config = adaptation.mark(model.config)
    bias = model.head.get_parameter("classifier.bias")
    with torch.no_grad():
        bias.sub_(torch.tensor(adaptation.shift, dtype=bias.dtype))


def _write_tensors(tensors: Tensors, file: Path) -> None:
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))  # safetensors states it in its message only
        raise OSError(
            int(code[1]) if code else None, f"{file.parent} could not be written: {error}"
        ) from error
    os.chmod(file, 0o644)


def _preprocessor(model: EmotionModel) -> dict[str, Any]:
    """The contents of `preprocessor_config.json`; the layout "emoser" normalises in the model."""
    native = is_native(model)
    family = FAMILIES.get(model.config.encoder)
    if native and family is not None and family.extractor != RAW_EXTRACTOR:
        return _spectral_preprocessor(model, family.extractor)
    layer_norm = getattr(model.encoder.config, "feat_extract_norm", "layer") == "layer"
    return {
        "feature_extractor_type": RAW_EXTRACTOR,
        "do_normalize": native and model.config.normalization == "clip",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": layer_norm or not native,
        "sampling_rate": model.config.sampling_rate,
    }


def _spectral_preprocessor(model: EmotionModel, extractor: str) -> dict[str, Any]:
    from transformers import SeamlessM4TFeatureExtractor, WhisperFeatureExtractor

    if extractor == "WhisperFeatureExtractor":
        config = model.encoder.config
        seconds = whisper_seconds(int(config.max_source_positions))
        whisper = WhisperFeatureExtractor(
            feature_size=int(config.num_mel_bins), chunk_length=int(seconds)
        )
        return dict(whisper.to_dict())
    bins = int(model.encoder.config.feature_projection_input_dim) // KALDI_STACK
    banks = SeamlessM4TFeatureExtractor(
        feature_size=bins, num_mel_bins=bins, sampling_rate=model.config.sampling_rate
    )
    return dict(banks.to_dict())


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write an indented JSON file."""
    file.write_text(format_json(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
