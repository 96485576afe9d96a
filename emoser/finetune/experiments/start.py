"""The model that a run begins with: a pretrained encoder with the head that the settings ask for.

Knows names and settings; nothing of recordings or of training.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from emoser.checkpoints.configs import read_config
from emoser.checkpoints.pretrained import start_model
from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import load_model
from emoser.finetune.config import Augmentation, FinetuneConfig
from emoser.models.config import ModelConfig
from emoser.models.heads import LinearHead
from emoser.models.model import EmotionModel

SUPERB_WIDTH = 256  # between the two linear layers of the SUPERB head
SMALL_WIDTH = 512  # encoders below take higher rates
OWN = FinetuneConfig(keep_head=True, head_learning_rate=1e-3)
OWN_SMALL = replace(OWN, epochs=15, encoder_learning_rate=1e-4)


def suggest_settings(base: str, *, mode: str = "partial") -> FinetuneConfig:
    """Settings for one's own recordings, where nothing is known but the base.

    Small encoders (fewer than 512 features) take a higher rate and more epochs than those of the
    paper's size. A head alone learns for longer and from unvaried clips, so that the encoder
    needs to hear each of them only once.

    Args:
        base: Bundled name, folder or Hub id.
        mode: What learns.

    Raises:
        CheckpointError: If the base is no checkpoint.
        HubError: If it cannot be fetched.

    Example:
        >>> suggest_settings("emoser-tiny").encoder_learning_rate
        0.0001
    """
    width = read_config(find_checkpoint(base).folder).get("hidden_size")
    small = isinstance(width, int) and width < SMALL_WIDTH
    config = replace(OWN_SMALL if small else OWN, base=base, mode=mode)
    if mode != "frozen":
        return config
    return replace(config, epochs=100, crop_seconds=None, augmentation=Augmentation.off())


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
        seed=config.run.seed if seed is None else seed,
    )
    if not config.model.masking:
        model.encoder.config.apply_spec_augment = False
    if config.model.keep_head:
        _keep_head(model, place)
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
        normalization="layer" if config.model.output_norm else "clip",
        output_norm=config.model.output_norm,
        pooling="attentive-statistics" if config.model.head == "attention" else "mean",
        head="projector" if config.model.head == "projector" else "linear",
        projection_size=SUPERB_WIDTH if config.model.head == "projector" else None,
        layer_mix=config.model.layer_mix,
    )


def _keep_head(model: EmotionModel, place: Path) -> None:
    """Copy the rows of the labels that the base knows, where its head is a linear one."""
    if not isinstance(read_config(place).get("emoser"), dict):
        return
    base = load_model(place)
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
