"""Start a model from a pretrained encoder: its tensors, loaded strictly, with a new head.

Reads the files of transformers' plain encoders and of those trained for transcription or by
self-supervision (Wav2Vec2Model, ...ForPreTraining, ...ForCTC, and their HuBERT and WavLM
counterparts), and emotion models, whose head is left out. Every tensor of the encoder must be
there; other tensors in the files are not used.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from emoser.checkpoints.backbones import encoder_builder, family_of
from emoser.checkpoints.files import CONFIG, CheckpointFiles, as_files
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.layouts.transformers import rename_encoder
from emoser.checkpoints.strict import OPTIONAL_TENSORS, assign_tensors
from emoser.checkpoints.tensors import open_tensors, rename_weight_norm
from emoser.models.config import ModelConfig
from emoser.models.encoder import SpeechEncoder
from emoser.models.model import EmotionModel

PARTS = ("feature_extractor.", "feature_projection.", "encoder.", *OPTIONAL_TENSORS)


def start_model(source: CheckpointFiles | Path, config: ModelConfig, *, seed: int) -> EmotionModel:
    """A model with a pretrained encoder and a randomly initialised head.

    Args:
        source: The files of a checkpoint, or their folder.
        config: The configuration around the encoder; its `encoder` is filled in, and its
            `normalization` becomes "none" if the checkpoint's preprocessor says so.
        seed: Seed of the head; torch's global generator is left as it was.

    Raises:
        CheckpointError: If the folder has no such encoder, or any tensor of it does not fit.
    """
    files = as_files(source)
    if isinstance(files.config.get("emoser"), dict):
        encoder = load_checkpoint(files).model.encoder
        config = replace(config, normalization=encoder.normalization)
    else:
        normalize = files.preprocessor.get("do_normalize", True)
        config = config if normalize else replace(config, normalization="none")
        encoder = _load_encoder(files, config)
    config = replace(config, encoder=str(encoder.config.model_type))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EmotionModel(config, encoder).train()


def _load_encoder(files: CheckpointFiles, config: ModelConfig) -> SpeechEncoder:
    file = files.folder / CONFIG
    family = family_of(files.config.get("model_type"), file)
    encoder = encoder_builder(files.config, config, file)()
    with open_tensors(files) as stored:
        tensors = stored.read()
    placed: dict[str, Tensor] = {  # those for training alone keep their initial values if absent
        name: tensor
        for name, tensor in encoder.state_dict().items()
        if name.endswith(OPTIONAL_TENSORS)
    }
    for name, tensor in tensors.items():
        plain = rename_weight_norm(name, tensors)
        if plain.startswith(PARTS):  # a plain encoder has no prefix
            plain = f"{family.prefix}.{plain}"
        place = rename_encoder(plain, family)
        if place != plain:
            placed[place.removeprefix("encoder.")] = tensor.float()
    assign_tensors(encoder, placed, f"the tensors of the encoder in {files.folder}")
    return encoder
