"""The model that a run begins with: a pretrained encoder with the head that the settings ask for.

Knows names and settings; nothing of recordings or of training.
"""

from collections.abc import Sequence
from pathlib import Path

from emoser.checkpoints.location import find_checkpoint
from emoser.checkpoints.pretrained import start_model
from emoser.configuration import ModelConfig
from emoser.finetune.config import FinetuneConfig
from emoser.model import EmotionModel

SUPERB_WIDTH = 256  # between the two linear layers of the SUPERB head


def build_start(
    config: FinetuneConfig,
    labels: Sequence[str],
    *,
    folder: str | Path | None = None,
    seed: int | None = None,
) -> EmotionModel:
    """A model that begins with the encoder of `config.base`.

    Args:
        config: Names the encoder and the head.
        labels: What it shall tell apart, in the order of the logits.
        folder: A folder to take instead of `config.base`.
        seed: Makes the head; that of the settings unless given.

    Raises:
        ValueError: If the settings name no encoder.
        CheckpointError: If the encoder does not load.
        HubError: If it cannot be fetched.
    """
    if not config.base and folder is None:
        raise ValueError("the settings name no encoder; set base to a folder or a Hub id")
    place = find_checkpoint(config.base if folder is None else str(folder)).folder
    model = start_model(
        place,
        describe_model(config, labels),
        seed=config.seed if seed is None else seed,
    )
    if not config.masking:
        model.encoder.config.apply_spec_augment = False
    return model


def describe_model(config: FinetuneConfig, labels: Sequence[str]) -> ModelConfig:
    """What the settings put around an encoder.

    With an output norm the samples are normalised as torch's layer norm does it, like in the
    authors' code; without, as transformers does it, so that transformers can load the result.

    Example:
        >>> describe_model(FinetuneConfig(head="projector"), ["sad", "happy"]).projection_size
        256
    """
    return ModelConfig(
        labels=tuple(labels),
        normalization="layer" if config.output_norm else "clip",
        output_norm=config.output_norm,
        pooling="attentive-statistics" if config.head == "attention" else "mean",
        head="projector" if config.head == "projector" else "linear",
        projection_size=SUPERB_WIDTH if config.head == "projector" else None,
        layer_mix=config.layer_mix,
    )
