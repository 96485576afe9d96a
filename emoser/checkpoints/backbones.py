"""Build an encoder from its configuration, or from the shapes of its tensors alone.

`FAMILIES` lists the encoders of transformers that emoser runs. `infer_encoder_config` derives
the configuration of a wav2vec 2.0, HuBERT or WavLM encoder from its tensors, for checkpoints
that do not state it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emoser.checkpoints.encoder_fields import EMOTION2VEC, TRANSFORMERS, select_fields
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.models import torchaudio_guard  # noqa: F401  # before the first import of transformers
from emoser.models.config import ModelConfig
from emoser.models.emotion2vec import Emotion2VecConfig, Emotion2VecEncoder
from emoser.models.encoder import SpeechEncoder
from emoser.models.short_whisper import ShortWhisperEncoder
from emoser.models.spectral import FilterBankEncoder, LogMelEncoder

RAW_EXTRACTOR = "Wav2Vec2FeatureExtractor"  # takes samples and computes no spectrogram
HEAD_WIDTH = 64  # features per attention head in every published wav2vec 2.0, HuBERT and WavLM
STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of their convolutions


@dataclass(frozen=True)
class Family:
    """An encoder of transformers that emoser runs.

    Attributes:
        architecture: The class of transformers that adds a classification head.
        prefix: Precedes the names of the encoder's tensors in files of that class.
        encoder: The class that gives exact frames for batches.
        extractor: The feature extractor that transformers uses for it.
    """

    architecture: str
    prefix: str
    encoder: type[SpeechEncoder] = SpeechEncoder
    extractor: str = RAW_EXTRACTOR

    @property
    def places(self) -> dict[str, str]:
        """`encoder_places` of files of the class of transformers."""
        return encoder_places(f"{self.prefix}.")


FAMILIES: Mapping[str, Family] = {
    "data2vec-audio": Family("Data2VecAudioForSequenceClassification", "data2vec_audio"),
    "hubert": Family("HubertForSequenceClassification", "hubert"),
    "unispeech": Family("UniSpeechForSequenceClassification", "unispeech"),
    "unispeech-sat": Family("UniSpeechSatForSequenceClassification", "unispeech_sat"),
    "wav2vec2": Family("Wav2Vec2ForSequenceClassification", "wav2vec2"),
    "wav2vec2-bert": Family(
        "Wav2Vec2BertForSequenceClassification",
        "wav2vec2_bert",
        FilterBankEncoder,
        "SeamlessM4TFeatureExtractor",
    ),
    "wav2vec2-conformer": Family(
        "Wav2Vec2ConformerForSequenceClassification", "wav2vec2_conformer"
    ),
    "wavlm": Family("WavLMForSequenceClassification", "wavlm"),
    "whisper": Family(
        "WhisperForAudioClassification", "encoder", LogMelEncoder, "WhisperFeatureExtractor"
    ),
}
"""Encoders by `model_type`."""


def family_of(files: CheckpointFiles) -> Family:
    """The family of the `model_type` that `config.json` states."""
    return _find_family(files.config.get("model_type"), files.folder / CONFIG)


def _find_family(kind: Any, file: Path) -> Family:
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise CheckpointError(f"{file}: model_type is {kind!r}; emoser loads {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def encoder_places(prefix: str) -> dict[str, str]:
    """Where the tensors of an encoder that begin with `prefix` are in an `EmotionModel`."""
    return {
        f"{prefix}feature_extractor.": "encoder.feature_extractor.",
        prefix: "encoder.backbone.",
    }


def build_encoder(
    config: Mapping[str, Any], model_config: ModelConfig, file: Path
) -> SpeechEncoder:
    """The encoder of a configuration, with untrained weights, on torch's current device.

    Args:
        config: The encoder's own configuration, such as `config.json`.
        model_config: The configuration around the encoder.
        file: The file that error messages name.

    Raises:
        CheckpointError: If it does not describe an encoder that emoser runs, or a setting is out
            of its range.
    """
    if config.get("model_type") == "emotion2vec":
        stated = _read_emotion2vec(config, file)
        return Emotion2VecEncoder(stated, normalization=model_config.normalization)
    family = _find_family(config.get("model_type"), file)
    return wrap_backbone(_build_backbone(config, file), family, model_config)


def wrap_backbone(
    backbone: torch.nn.Module, family: Family, model_config: ModelConfig
) -> SpeechEncoder:
    """The encoder around a network of transformers."""
    corpus = (model_config.input_mean, model_config.input_std)
    normalization = model_config.normalization
    if model_config.padding == "none":
        return ShortWhisperEncoder(
            backbone,
            normalization=normalization,
            corpus=corpus,
            final_norm=model_config.final_norm,
        )
    rate = model_config.sampling_rate
    return family.encoder(backbone, normalization=normalization, corpus=corpus, sampling_rate=rate)


def _read_emotion2vec(values: Mapping[str, Any], file: Path) -> Emotion2VecConfig:
    """The configuration that `Emotion2VecConfig.to_dict` wrote."""
    known: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in select_fields(values, EMOTION2VEC, file).items()
    }
    try:
        return Emotion2VecConfig(**known)
    except ValueError as error:
        raise CheckpointError(
            f"{file} does not describe an emotion2vec encoder: {error}"
        ) from error


def infer_encoder_config(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """The configuration of a wav2vec 2.0, HuBERT or WavLM encoder, from its tensors' shapes.

    Shapes do not determine everything. The rest is as in every published encoder: 64 features
    per attention head (WavLM states its heads), strides 5 2 2 2 2 2 2, GELU, and layer norm
    before each block if the convolutions have layer norm. HuBERT and wav2vec 2.0 compute the
    same function; both give "wav2vec2".

    Raises:
        CheckpointError: If the tensors are not those of such an encoder.
    """
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    try:
        return _infer(own)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"the tensors under {prefix!r} are not those of a wav2vec 2.0, HuBERT or WavLM "
            f"encoder: {error} is missing"
        ) from error


def _infer(own: Shapes) -> dict[str, Any]:
    convolutions = [own[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(7)]
    hidden_size = own["feature_projection.projection.weight"][0]
    position = "encoder.pos_conv_embed.conv."
    direction = (
        own.get(f"{position}weight_v") or own[f"{position}parametrizations.weight.original1"]
    )
    layer_norm = "feature_extractor.conv_layers.1.layer_norm.weight" in own
    config: dict[str, Any] = {
        "model_type": "wav2vec2",
        "hidden_size": hidden_size,
        "num_hidden_layers": count_layers(own, "encoder.layers."),
        "num_attention_heads": max(hidden_size // HEAD_WIDTH, 1),
        "intermediate_size": own["encoder.layers.0.feed_forward.intermediate_dense.weight"][0],
        "conv_dim": [shape[0] for shape in convolutions],
        "conv_kernel": [shape[2] for shape in convolutions],
        "conv_stride": list(STRIDES),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in own,
        "feat_extract_norm": "layer" if layer_norm else "group",
        "do_stable_layer_norm": layer_norm,
        "num_conv_pos_embeddings": direction[2],
        "num_conv_pos_embedding_groups": hidden_size // direction[1],
    }
    buckets = own.get("encoder.layers.0.attention.rel_attn_embed.weight")
    if buckets is not None:
        config.update(model_type="wavlm", num_buckets=buckets[0], num_attention_heads=buckets[1])
    return config


def count_layers(shapes: Shapes, prefix: str) -> int:
    """One more than the highest number after `prefix` in the names."""
    ours = (name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix))
    return max((int(number) for number in ours if number.isdigit()), default=-1) + 1


def create_backbone(config: Any) -> torch.nn.Module:
    """The network of a configuration of transformers, in float32, with untrained weights."""
    if config.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder._from_config(config, dtype=torch.float32)  # type: ignore[no-any-return]
    from transformers import AutoModel

    return AutoModel.from_config(config, dtype=torch.float32)  # type: ignore[no-any-return]


def _build_backbone(config: Mapping[str, Any], file: Path) -> torch.nn.Module:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    kind = str(config["model_type"])
    if config.get("add_adapter"):
        raise CheckpointError(
            f"{file}: add_adapter is set; emoser, like transformers, does not classify on adapters"
        )
    values = select_fields(config, TRANSFORMERS, file)
    try:
        return create_backbone(AutoConfig.for_model(kind, **values))
    except (StrictDataclassError, TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file} does not describe a {kind} encoder: {reason}") from error
