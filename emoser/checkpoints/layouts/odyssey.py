"""3loi/SER-Odyssey-Baseline-WavLM-*: WavLM-large, attentive statistics, an MLP.

Both categorical and dimensional models. The samples are scaled by the mean and standard deviation
of the training corpus, which `config.json` states, not by those of the recording. The published
code, which does not run on transformers 5, is not needed.
"""

from emoser.checkpoints.backbones import encoder_places, infer_encoder_config
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.layouts.transformers import imply_model_config
from emoser.checkpoints.strict import Plan
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError

NAME = "odyssey"
ENCODER = "ssl_model."
SIGNATURE = (
    "pool_model.sap_linear.weight",
    "pool_model.attention",
    "ser_model.out.0.weight",
    ENCODER,
)
PLACES = {
    **encoder_places(ENCODER),
    "pool_model.": "pooler.",
    "ser_model.out.0.": "head.classifier.",
    "ser_model.fc.": "head.hidden.",
}
MAX_SECONDS = 12.0  # the longest recordings in training


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    mean, deviation = (_read_number(files, key) for key in ("mean", "std"))
    layers = {name.split(".")[2] for name in shapes if name.startswith("ser_model.fc.")}
    encoder = infer_encoder_config(shapes, ENCODER)
    config = imply_model_config(
        files,
        encoder=str(encoder["model_type"]),
        normalization="corpus",
        input_mean=mean,
        input_std=deviation,
        pooling="attentive-statistics",
        head="mlp",
        head_layers=len(layers),
        projection_size=shapes["ser_model.out.0.weight"][1],
        max_seconds=MAX_SECONDS,
    )
    return Plan(config, encoder, PLACES)


def _read_number(files: CheckpointFiles, key: str) -> float:
    value = files.config.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CheckpointError(
            f"{files.folder / CONFIG}: {key} is {value!r}; this layout needs mean and std of its "
            "training corpus as numbers"
        )
    return float(value)
