"""`Wav2Vec2ForCTC` used as a classifier (r-f/wav2vec-english-speech-emotion-recognition).

One linear layer gives every frame its logits, and a recording has their mean. The mean commutes
with the linear layer, so this is a linear head on the mean frame. A speech recogniser has the
same tensors; what tells them apart is that the configuration names as many emotions as the layer
has rows.
"""

from collections.abc import Set
from pathlib import Path

from emoser.checkpoints.backbones import encoder_builder, family_of
from emoser.checkpoints.configs import CONFIG, read_config
from emoser.checkpoints.layouts.transformers import imply_model_config, rename_encoder
from emoser.checkpoints.strict import Plan
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError

NAME = "ctc"
SIGNATURE = ("lm_head.weight", "lm_head.bias")


def matches(keys: Set[str]) -> bool:
    """Whether tensors with these names are of this layout."""
    return set(SIGNATURE) <= keys


def plan(folder: Path, shapes: Shapes) -> Plan:
    """How a folder of this layout becomes a model.

    Raises:
        CheckpointError: If the head has not one row per label, as in a speech recogniser.
    """
    config = read_config(folder)
    family = family_of(config.get("model_type"), folder / CONFIG)
    model_config = imply_model_config(folder, config)
    num_rows = shapes["lm_head.weight"][0]
    if num_rows != len(model_config.outputs):
        raise CheckpointError(
            f"{folder}: lm_head has {num_rows} rows and {CONFIG} names "
            f"{len(model_config.outputs)} labels; this looks like a speech recogniser, which "
            "knows no emotions"
        )

    def rename(name: str) -> str:
        renamed = rename_encoder(name, family)
        return renamed.replace("lm_head.", "head.classifier.", 1)

    builder = encoder_builder(config, model_config, folder / CONFIG)
    return Plan(model_config, builder, rename)
