"""emoser's own layout, `model_type: "emoser"`, for models that transformers has no class for.

These have activations between the layers of a head, attentive statistics, norms over whole
recordings, or encoders of other projects. `config.json` holds the encoder's configuration under
"backbone_config" and the rest under "emoser"; the name of every tensor is that in `EmotionModel`,
preceded by "emoser.". transformers' Auto classes and pipelines read the layout after
`emoser.checkpoints.registration.register()`.
"""

from collections.abc import Mapping
from typing import Any

from emoser.checkpoints.files import CONFIG, CheckpointFiles
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


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    file = files.folder / CONFIG
    backbone = files.config.get("backbone_config")
    if not isinstance(backbone, Mapping) or not isinstance(files.config.get("emoser"), Mapping):
        raise CheckpointError(f"{file} lacks backbone_config or the emoser block; save it again")
    return Plan(read_block(files), backbone, {PREFIX: ""})


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
    tensors = {PREFIX + name: plain_tensor(tensor) for name, tensor in model.state_dict().items()}
    return model.config, config, tensors
