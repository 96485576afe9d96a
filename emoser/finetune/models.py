"""What the functions of `emoser.finetune` take where they take a model.

A bundled name, a folder, a name of the catalog, a Hub id, an `EmotionClassifier`, or a model of
torch that the caller has built.
"""

import os
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.resolve import find_checkpoint
from emoser.inference.predictor import Predictor
from emoser.models.config import ModelInfo
from emoser.models.model import EmotionModel


@runtime_checkable
class Classifier(Protocol):
    """An `EmotionClassifier`."""

    @property
    def info(self) -> ModelInfo:
        """The source of the checkpoint."""
        ...

    @property
    def predictor(self) -> Predictor:
        """The opened model with its labels."""
        ...


Named: TypeAlias = str | os.PathLike[str] | Classifier
"""A checkpoint, by its name or opened."""

Model: TypeAlias = Named | EmotionModel


def find_files(model: Named) -> CheckpointFiles:
    """The files of a checkpoint.

    Raises:
        CheckpointError: If there is none of this name.
        HubError: If it cannot be downloaded.
        TypeError: If `model` is neither a name nor a classifier.
    """
    if isinstance(model, Classifier):
        return CheckpointFiles(model.info.name, Path(model.info.path), model.info.revision)
    if isinstance(model, str | os.PathLike):
        return find_checkpoint(model)
    raise TypeError(
        f"the model is a {type(model).__name__}; pass a bundled name, a folder, a Hub id or an "
        "EmotionClassifier"
    )


def load_weights(model: Model) -> EmotionModel:
    """The model of torch, on the CPU in float32; one that is a model of torch as it is.

    Raises:
        CheckpointError: If it does not load; an exported graph has no weights.
        ValueError: If it is a classifier that was adapted to a speaker and not saved.
    """
    if isinstance(model, EmotionModel):
        return model
    loaded = load_checkpoint(find_files(model)).model
    if isinstance(model, Classifier):
        adapted = model.predictor.config.adapted_recordings
        if adapted != loaded.config.adapted_recordings:
            raise ValueError(
                f"the classifier is adapted to {adapted} recordings of a speaker, which is not in "
                "its weights; use save_pretrained and pass the folder"
            )
    return loaded
