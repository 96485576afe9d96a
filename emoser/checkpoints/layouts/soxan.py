"""Heads of the soxan family: pool all frames, linear, tanh, linear.

m3hrdadfi/*, harshit345/xlsr-wav2vec-speech-emotion-recognition, and audEERING's dimensional
model, whose three outputs are arousal, dominance and valence. transformers' own class would give
these a random head. The original code pools padding too; emoser pools only the recording.
"""

from emoser.checkpoints.backbones import family_of
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.layouts.transformers import imply_model_config
from emoser.checkpoints.strict import Plan
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError

NAME = "soxan"
SIGNATURE = ("classifier.dense.weight", "classifier.out_proj.weight")
POOLINGS = ("mean", "sum", "max")
PLACES = {
    "classifier.dense.": "head.dense.",
    "classifier.out_proj.": "head.classifier.",
    "classifier.output.": "head.classifier.",
}


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    pooling = files.config.get("pooling_mode", "mean")
    if pooling not in POOLINGS:
        raise CheckpointError(
            f"{files.folder / CONFIG}: pooling_mode is {pooling!r}, allowed are "
            f"{', '.join(POOLINGS)}"
        )
    return plan_dense(files, shapes, pooling=pooling, activation="tanh")


def plan_dense(
    files: CheckpointFiles,
    shapes: Shapes,
    *,
    pooling: str,
    activation: str,
    notes: tuple[str, ...] = (),
) -> Plan:
    """A plan for a head of two linear layers with an activation between them."""
    family = family_of(files)
    model_config = imply_model_config(
        files,
        pooling=pooling,
        head="dense",
        activation=activation,
        projection_size=shapes["classifier.dense.weight"][0],
    )
    return Plan(model_config, files.config, {**PLACES, **family.places}, notes=notes)
