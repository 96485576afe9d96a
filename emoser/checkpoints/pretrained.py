"""Begin a model from a pretrained encoder: its tensors strictly, a fresh head on top.

Takes the files of transformers' plain encoders and of those trained to transcribe or by
themselves (Wav2Vec2Model, ...ForPreTraining, ...ForCTC, and their HuBERT and WavLM kin), and
emotion models, whose head is left behind. Every tensor of the encoder must be there; what the
file has beside it is known and unused. Knows nothing of training.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from emoser.checkpoints.backbones import encoder_builder, family_of
from emoser.checkpoints.configs import CONFIG, read_config, read_preprocessor
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.layouts.transformers import rename_encoder
from emoser.checkpoints.strict import shorten
from emoser.checkpoints.tensors import read_tensors, rename_weight_norm
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig
from emoser.models.encoder import SpeechEncoder
from emoser.models.heads import LinearHead
from emoser.models.model import EmotionModel

PARTS = ("feature_extractor.", "feature_projection.", "encoder.", "masked_spec_embed")
OPTIONAL = "masked_spec_embed"


def start_model(
    folder: Path, config: ModelConfig, *, seed: int, keep_head: bool = False
) -> EmotionModel:
    """A model with the encoder of a folder and a head drawn at random.

    Args:
        folder: A checkpoint folder.
        config: What stands around the encoder; its `encoder` is filled in, and its
            `normalization` becomes "none" where the folder's preprocessor says so.
        seed: Makes the head; torch's global generator is left as it was.
        keep_head: Whether the rows of an emotion model's linear head are kept for the labels that
            it has; the others are drawn at random.

    Raises:
        CheckpointError: If the folder has no such encoder, or any tensor of it does not fit.
    """
    stated, base = read_config(folder), None
    if isinstance(stated.get("emoser"), dict):
        base = load_checkpoint(folder).model
        encoder = base.encoder
        config = replace(config, normalization=encoder.normalization)
    else:
        normalize = read_preprocessor(folder).get("do_normalize", True)
        config = config if normalize else replace(config, normalization="none")
        encoder = _load_encoder(folder, config)
    config = replace(config, encoder=str(encoder.config.model_type))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EmotionModel(config, encoder).train()
    if keep_head and base is not None:
        _keep_head(model, base)
    return model


def _keep_head(model: EmotionModel, base: EmotionModel) -> None:
    """Copy the rows of the labels that both models have, if both have a plain linear head."""
    ours, theirs = model.head, base.head
    alike = base.config.pooling == "mean" and not (base.config.layer_mix or base.config.output_norm)
    if not (alike and isinstance(ours, LinearHead) and isinstance(theirs, LinearHead)):
        return
    if theirs.projector is not None:
        return
    with torch.no_grad():
        for row, label in enumerate(model.config.labels):
            if label in base.config.labels:
                known = base.config.labels.index(label)
                ours.classifier.weight[row] = theirs.classifier.weight[known]
                ours.classifier.bias[row] = theirs.classifier.bias[known]


def _load_encoder(folder: Path, config: ModelConfig) -> SpeechEncoder:
    stated = read_config(folder)
    family = family_of(stated.get("model_type"), folder / CONFIG)
    build: Callable[[], SpeechEncoder] = encoder_builder(stated, config, folder / CONFIG)
    encoder = build()
    tensors = read_tensors(folder)
    placed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = rename_weight_norm(name, tensors)
        if plain.startswith(PARTS):  # a plain encoder has no prefix
            plain = f"{family.prefix}.{plain}"
        place = rename_encoder(plain, family)
        if place != plain:
            placed[place.removeprefix("encoder.")] = tensor.float()
    _check_fit(encoder, placed, folder)
    encoder.load_state_dict(placed, strict=False)
    return encoder


def _check_fit(encoder: SpeechEncoder, placed: dict[str, Tensor], folder: Path) -> None:
    expected = encoder.state_dict()
    missing = sorted(name for name in set(expected) - set(placed) if not name.endswith(OPTIONAL))
    strange = sorted(name for name in set(placed) - set(expected) if not name.endswith(OPTIONAL))
    shapes = [
        f"{name} is {tuple(placed[name].shape)} and should be {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(placed))
        if placed[name].shape != expected[name].shape
    ]
    faults = [f"missing: {shorten(missing)}"] if missing else []
    faults += [f"unexpected: {shorten(strange)}"] if strange else []
    faults += [f"wrong shape: {shorten(shapes)}"] if shapes else []
    if faults:
        raise CheckpointError(f"the encoder in {folder} does not fit; {'; '.join(faults)}")
