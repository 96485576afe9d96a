"""Start a model from a pretrained encoder: its tensors, loaded strictly, with a new head.

Reads the files of transformers' plain encoders and of those trained for transcription or by
self-supervision (Wav2Vec2Model, ...ForPreTraining, ...ForCTC, and their HuBERT and WavLM
counterparts), and emotion models, whose head is left out. Every tensor of the encoder must be
there; other tensors in the files are not used.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from emoser.checkpoints.backbones import build_encoder, family_of
from emoser.checkpoints.boundary import reading
from emoser.checkpoints.files import CONFIG, CheckpointFiles, as_files
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.licences import inherit_licence
from emoser.checkpoints.preprocessing import read_preprocessing
from emoser.checkpoints.strict import OPTIONAL_TENSORS, assign_tensors, place_name
from emoser.checkpoints.tensors import open_tensors, rename_weight_norm
from emoser.checkpoints.trained_on import read_stages
from emoser.models.config import ModelConfig
from emoser.models.encoder import SpeechEncoder
from emoser.models.heads import LinearHead
from emoser.models.model import EmotionModel
from emoser.models.short_whisper import ShortWhisperEncoder

WHISPER = "WhisperForAudioClassification"
WHISPER_ENCODERS = ("model.encoder.", "encoder.")  # of whole models, and of classifiers
WHISPER_OTHERS = (
    "model.decoder.", "decoder.", "proj_out.",  # of transcription
    "projector.", "classifier.", "layer_weights",  # of classification
)  # fmt: skip
PARTS = ("feature_extractor.", "feature_projection.", "encoder.", *OPTIONAL_TENSORS)


def start_model(  # what a run chooses of its base
    source: CheckpointFiles | Path,
    config: ModelConfig,
    *,
    seed: int,
    keep_head: bool = False,
    num_layers: int | None = None,
    final_norm: bool = True,
) -> EmotionModel:
    """A model with a pretrained encoder and a randomly initialised head.

    Args:
        source: The files of a checkpoint, or their folder.
        config: The configuration around the encoder; its `encoder` is filled in. Its
            `normalization` becomes that of an emotion model, or "none" if the checkpoint's
            preprocessor says so, unless it is "level"; its `sampling_rate` becomes that of the
            checkpoint, and its `training` states a licence that binds the new model. Whisper
            takes recordings at their own length (`padding` "none"), but for emotion models that
            do not.
        seed: Seed of the head; torch's global generator is left as it was.
        keep_head: Whether to keep the rows of an emotion model's linear head for the labels and
            dimensions that it has; the others are initialised at random.
        num_layers: How many of the encoder's layers are kept, from the first; None for all.
        final_norm: Whether Whisper's final layer norm follows the last layer kept.

    Raises:
        ValueError: If the encoder has fewer layers, or no final norm that can be left out.
        CheckpointError: If the folder has no such encoder, or any tensor of it does not fit.
    """
    files = as_files(source)
    encoder, config, base = _open_encoder(files, config)
    if num_layers is not None:
        encoder.keep_layers(num_layers)
    if not final_norm and config.final_norm:
        if not isinstance(encoder, ShortWhisperEncoder):
            raise ValueError(f"final_norm cannot be left out of the encoder {config.encoder!r}")
        encoder.drop_final_norm()
        config = replace(config, final_norm=False)
    licence = inherit_licence(files)
    if licence is not None:
        config = replace(config, training={**config.training, "licence": licence})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EmotionModel(config, encoder).train()
    _centre_dimensions(model)
    model.trained_on = read_stages(files)
    if keep_head and base is not None:
        _keep_head(model, base)
    return model


def _open_encoder(
    files: CheckpointFiles, config: ModelConfig
) -> tuple[SpeechEncoder, ModelConfig, EmotionModel | None]:
    """The encoder of a checkpoint, the configuration around it, and the emotion model it is of."""
    if isinstance(files.config.get("emoser"), dict):
        base = load_checkpoint(files).model
        encoder = base.encoder
        config = replace(
            config,
            encoder=base.config.encoder,
            normalization=_choose_normalization(config, encoder.normalization),
            sampling_rate=base.config.sampling_rate,
            padding=base.config.padding,
            final_norm=base.config.final_norm,
        )
        encoder.normalization = config.normalization
        return encoder, config, base
    preprocessing = read_preprocessing(files)
    usual = config.normalization if preprocessing.normalize else "none"
    config = replace(
        config,
        normalization=_choose_normalization(config, usual),
        sampling_rate=preprocessing.sampling_rate,
    )
    if files.config.get("model_type") == "whisper":
        config = replace(config, encoder="whisper", padding="none")
    encoder = _load_encoder(files, config)
    return encoder, replace(config, encoder=str(encoder.config.model_type)), None


def _choose_normalization(config: ModelConfig, usual: str) -> str:
    return "level" if config.normalization == "level" else usual


def _centre_dimensions(model: EmotionModel) -> None:
    """Let the answers of new dimensions begin in the middle of their scale, which is 0 to 1."""
    with torch.no_grad():
        model.head.get_parameter("classifier.bias")[len(model.config.labels) :] = 0.5


def _keep_head(model: EmotionModel, base: EmotionModel) -> None:
    """Copy the rows of the outputs that both models have, if both have a plain linear head."""
    ours, theirs = model.head, base.head
    alike = base.config.pooling == "mean" and not (base.config.layer_mix or base.config.output_norm)
    if not (alike and isinstance(ours, LinearHead) and isinstance(theirs, LinearHead)):
        return
    if theirs.projector is not None:
        return
    with torch.no_grad():
        for row, name in enumerate(model.config.outputs):
            if name in base.config.outputs:
                known = base.config.outputs.index(name)
                ours.classifier.weight[row] = theirs.classifier.weight[known]
                ours.classifier.bias[row] = theirs.classifier.bias[known]


def _load_encoder(files: CheckpointFiles, config: ModelConfig) -> SpeechEncoder:
    family = family_of(files)
    with reading(files.folder), open_tensors(files) as stored:
        encoder = build_encoder(files.config, config, files.folder / CONFIG)
        tensors = stored.read()
    placed: dict[str, Tensor] = {  # those for training alone keep their initial values if absent
        name: tensor
        for name, tensor in encoder.state_dict().items()
        if name.endswith(OPTIONAL_TENSORS)
    }
    for name, tensor in tensors.items():
        plain = rename_weight_norm(name, tensors)
        if family.architecture == WHISPER:
            if not name.startswith(WHISPER_OTHERS):
                placed[_place_whisper(name)] = tensor.float()
            continue
        if plain.startswith(PARTS):  # a plain encoder has no prefix
            plain = f"{family.prefix}.{plain}"
        place = place_name(plain, family.places)
        if place is not None and place != plain:
            placed[place.removeprefix("encoder.")] = tensor.float()
    assign_tensors(encoder, placed, f"the tensors of the encoder in {files.folder}")
    return encoder


def _place_whisper(name: str) -> str:
    """The place of a tensor of Whisper's encoder in `ShortWhisperEncoder`; others unchanged.

    Example:
        >>> _place_whisper("model.encoder.conv1.bias")
        'backbone.conv1.bias'
    """
    for prefix in WHISPER_ENCODERS:
        if name.startswith(prefix):
            return f"backbone.{name.removeprefix(prefix)}"
    return name
