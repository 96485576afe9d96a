"""`Wav2Vec2ForCTC` used as a classifier (r-f/wav2vec-english-speech-emotion-recognition).

One linear layer gives every frame its logits, and their mean is that of the recording. The mean
commutes with the linear layer, so this is a linear head on the mean frame. A speech recogniser
has the same tensors; here the configuration names as many labels as the layer has rows.
"""

from emoser.checkpoints.backbones import family_of
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.layouts.transformers import imply_model_config
from emoser.checkpoints.strict import Plan
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError

NAME = "ctc"
SIGNATURE = ("lm_head.weight", "lm_head.bias")


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    family = family_of(files)
    model_config = imply_model_config(files)
    num_rows = shapes["lm_head.weight"][0]
    if num_rows != len(model_config.outputs):
        raise CheckpointError(
            f"{files.folder}: lm_head has {num_rows} rows and {CONFIG} names "
            f"{len(model_config.outputs)} labels; this looks like a speech recogniser, "
            "not an emotion model"
        )
    return Plan(model_config, files.config, {**family.places, "lm_head.": "head.classifier."})
