"""ehcalabres/wav2vec2-lg-xlsr-en-speech-emotion-recognition: `classifier.dense`, `.output`.

Its configuration names a class of transformers, but its weights were saved by another one, so
transformers gives it a random head. The weights do not show whether there is an activation
between the two layers, and the code was never published. emoser assumes none, like the remapping
in the discussion of that checkpoint; `"head_activation": "tanh"` (or "relu") in `config.json`, or
`emoser convert --activation`, sets another.
"""

from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.layouts.soxan import plan_dense
from emoser.checkpoints.strict import Plan
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.models.config import ACTIVATIONS

NAME = "ehcalabres"
SIGNATURE = ("classifier.dense.weight", "classifier.output.weight")
ACTIVATION_KEY = "head_activation"
DEFAULT_ACTIVATION = "none"


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    activation = files.config.get(ACTIVATION_KEY, DEFAULT_ACTIVATION)
    if activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{files.folder / CONFIG}: {ACTIVATION_KEY} is {activation!r}, allowed are "
            f"{', '.join(ACTIVATIONS)}"
        )
    note = (
        f"activation between the layers of the head: {activation}; the weights do not determine "
        f"it, set {ACTIVATION_KEY} in {CONFIG} to change it"
    )
    return plan_dense(files, shapes, pooling="mean", activation=activation, notes=(note,))
