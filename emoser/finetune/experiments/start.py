"""The model that a run starts with: a pretrained encoder with a head as in the settings."""

from collections.abc import Sequence

from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.pretrained import start_model
from emoser.checkpoints.resolve import find_checkpoint
from emoser.finetune.config import Augmentation, FinetuneConfig
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.models.short_whisper import ShortWhisperEncoder

SUPERB_WIDTH = 256  # between the two linear layers of the SUPERB head
SMALL_WIDTH = 512  # encoders below it are trained with higher learning rates
OWN = FinetuneConfig(keep_head=True, head_learning_rate=1e-3)
OWN_SMALL = OWN.replace(epochs=15, encoder_learning_rate=1e-4)


def suggest_settings(base: str, *, mode: str = "partial") -> FinetuneConfig:
    """Settings for the user's own recordings, by the size of the base.

    Small encoders (fewer than 512 features) get a higher learning rate and more epochs than those
    of the paper's size. A head on a frozen encoder is trained for more epochs and on clips without
    variations, so that the encoder computes each of them only once.

    Args:
        base: Bundled name, folder or Hub id.
        mode: What of the encoder is trained; see `ModelSettings`.

    Raises:
        CheckpointError: If the base is not a checkpoint.
        HubError: If it cannot be downloaded.

    Example:
        >>> suggest_settings("emoser-tiny").optimisation.encoder_learning_rate
        0.0001
    """
    width = find_checkpoint(base).config.get("hidden_size")
    small = isinstance(width, int) and width < SMALL_WIDTH
    config = (OWN_SMALL if small else OWN).replace(base=base, mode=mode)
    if mode != "frozen":
        return config
    return config.replace(epochs=100, crop_seconds=None, augmentation=Augmentation.off())


def find_base(config: FinetuneConfig) -> CheckpointFiles:
    """The checkpoint of `config.base`, downloaded if necessary.

    Raises:
        ValueError: If the settings name no base.
        CheckpointError: If the base is not a checkpoint.
        HubError: If it cannot be downloaded.
    """
    if not config.base:
        raise ValueError("the settings name no encoder; set base to a folder or a Hub id")
    return find_checkpoint(config.base)


def build_initial_model(
    config: FinetuneConfig, labels: Sequence[str], *, files: CheckpointFiles | None = None
) -> EmotionModel:
    """A model with the encoder of `config.base` and a new head for the labels.

    `files` is the result of `find_base` for the settings, if the caller has it.

    Raises:
        ValueError: If the settings name no base.
        CheckpointError: If the encoder does not load.
        HubError: If it cannot be downloaded.
    """
    files = files or find_base(config)
    model = start_model(
        files,
        describe_model(config, labels),
        seed=config.run.seed,
        keep_head=config.model.keep_head,
        num_layers=config.model.num_layers,
        final_norm=config.model.final_norm,
    )
    if not config.model.masking:
        model.encoder.config.apply_spec_augment = False
    elif isinstance(model.encoder, ShortWhisperEncoder):  # Whisper's configurations have it off
        model.encoder.config.apply_spec_augment = True
    return model


def describe_model(config: FinetuneConfig, labels: Sequence[str]) -> ModelConfig:
    """The configuration of the model around its encoder.

    With an output norm, samples are normalised by torch's layer norm, as in the authors' code;
    without, as in transformers, so that transformers can load the result.

    Example:
        >>> describe_model(FinetuneConfig(head="projector"), ["sad", "happy"]).projection_size
        256
    """
    settings = config.model
    normalization = "layer" if settings.output_norm else "clip"
    pooling = {"attention": "attentive-statistics", "statistics": "statistics"}
    projector = settings.head == "projector"
    return ModelConfig(
        labels=tuple(labels),
        normalization="level" if settings.normalization == "level" else normalization,
        output_norm=settings.output_norm,
        pooling=pooling.get(settings.head, "mean"),
        head="projector" if projector else "linear",
        projection_size=SUPERB_WIDTH if projector else None,
        layer_mix=settings.layer_mix,
    )
