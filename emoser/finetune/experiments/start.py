"""The model that a run starts with: a pretrained encoder with a head as in the settings."""

from collections.abc import Sequence
from dataclasses import replace

from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.preprocessing import read_preprocessing
from emoser.checkpoints.pretrained import start_model
from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.trained_on import read_stages
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.leakage import Overlap, find_overlap
from emoser.finetune.settings import SMALL_WIDTH
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.models.short_whisper import ShortWhisperEncoder

SUPERB_WIDTH = 256  # between the two linear layers of the SUPERB head
WIDTHS = ("hidden_size", "d_model")
NESTED = ("backbone_config", "encoder_config", "encoder")


def fit_settings(config: FinetuneConfig, base: CheckpointFiles) -> FinetuneConfig:
    """The settings with the values that "auto" has for a base.

    Example:
        >>> from emoser.checkpoints.resolve import find_checkpoint
        >>> fit_settings(FinetuneConfig(), find_checkpoint("emoser-tiny")).schedule.epochs
        15
    """
    places = [base.config, *(base.config.get(name) for name in NESTED)]
    found = [place.get(name) for place in places if isinstance(place, dict) for name in WIDTHS]
    widths = [value for value in found if isinstance(value, int)]
    return config.for_width(widths[0] if widths else SMALL_WIDTH)


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


def compare_base(
    config: FinetuneConfig, base: CheckpointFiles, tested: Sequence[Utterance], *, speakers: bool
) -> Overlap:
    """What the base of a run was trained on of a test set.

    Without `speakers`, which are on both sides anyway, of the recordings alone.
    """
    items = tested if speakers else [replace(item, speaker=None) for item in tested]
    return find_overlap(config.base, read_stages(base), items)


def open_recordings(base: CheckpointFiles) -> Recordings:
    """Recordings at the sampling rate of a base, none decoded yet."""
    return Recordings(sampling_rate=read_preprocessing(base).sampling_rate)


def build_initial_model(
    config: FinetuneConfig,
    outputs: Sequence[str] | ModelConfig,
    *,
    files: CheckpointFiles | None = None,
) -> EmotionModel:
    """A model with the encoder of `config.base` and a new head for labels, or other outputs.

    `files` is the result of `find_base` for the settings, if the caller has it.

    Raises:
        ValueError: If the settings name no base.
        CheckpointError: If the encoder does not load.
        HubError: If it cannot be downloaded.
    """
    files = files or find_base(config)
    config = fit_settings(config, files)
    model = start_model(
        files,
        describe_model(config, outputs),
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


def describe_model(config: FinetuneConfig, outputs: Sequence[str] | ModelConfig) -> ModelConfig:
    """The configuration of the model around its encoder.

    With an output norm, samples are normalised by torch's layer norm, as in the authors' code;
    without, as in transformers, so that transformers can load the result.

    Example:
        >>> describe_model(FinetuneConfig(head="projector"), ["sad", "happy"]).projection_size
        256
    """
    settings = config.model
    normalization = "layer" if settings.output_norm else "clip"
    pooling = {
        "attention": "attentive-statistics",
        "statistics": "statistics",
        "framewise": "statistics",
    }
    wide = settings.head in ("projector", "framewise")
    if not isinstance(outputs, ModelConfig):
        outputs = ModelConfig(labels=tuple(outputs))
    return replace(
        outputs,
        normalization="level" if settings.normalization == "level" else normalization,
        output_norm=settings.output_norm,
        pooling=pooling.get(settings.head, "mean"),
        head=settings.head if wide else "linear",
        projection_size=SUPERB_WIDTH if wide else None,
        layer_mix=settings.layer_mix,
    )
