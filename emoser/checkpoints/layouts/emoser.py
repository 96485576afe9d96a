"""emoser's own layout, `model_type: "emoser"`: what transformers has no class for.

Written wherever `sequence_classification` does not fit: activations between the layers of a
head, attentive statistics, norms over whole recordings, encoders of other projects. `config.json`
holds the encoder's configuration under "backbone_config" and the rest under "emoser"; every
tensor has "emoser." in front of its name in `EmotionModel`. transformers' Auto classes and
pipelines read it after `emoser.checkpoints.registration.register()`.
"""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from emoser.checkpoints.backbones import encoder_builder
from emoser.checkpoints.configs import CONFIG, read_config
from emoser.checkpoints.layouts.transformers import label_fields, plain_tensor, read_block
from emoser.checkpoints.strict import Plan, Tensors
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel

NAME = "emoser"
MODEL_TYPE = "emoser"
PREFIX = "emoser."
ARCHITECTURE = "EmoserForAudioClassification"
SIGNATURE = (f"{PREFIX}head.classifier.weight", f"{PREFIX}head.classifier.bias")


def matches(keys: Set[str]) -> bool:
    """Whether tensors with these names are of this layout."""
    return set(SIGNATURE) <= keys


def plan(folder: Path, shapes: Shapes) -> Plan:
    """How a folder of this layout becomes a model."""
    config = read_config(folder)
    backbone = config.get("backbone_config")
    if not isinstance(backbone, Mapping) or not isinstance(config.get("emoser"), Mapping):
        raise CheckpointError(
            f"{folder / CONFIG} lacks backbone_config or the emoser block; save it again"
        )
    model_config = read_block(folder, config)
    return Plan(
        config=model_config,
        build_encoder=encoder_builder(backbone, model_config, folder / CONFIG),
        rename=lambda name: name.removeprefix(PREFIX),
    )


def to_own(model: EmotionModel) -> tuple[ModelConfig, dict[str, Any], Tensors]:
    """Configuration, `config.json` and tensors of a model in this layout."""
    config = {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "backbone_config": dict(model.encoder.config.to_dict()),
        **label_fields(model.config),
        "emoser": model.config.to_block(),
    }
    if model.config.dimensions and not model.config.labels:
        config["problem_type"] = "regression"
    tensors = {PREFIX + name: plain_tensor(tensor) for name, tensor in model.state_dict().items()}
    return model.config, config, tensors
