"""Encoders of the real shapes with random weights, and clips of many lengths."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    HubertConfig,
    PreTrainedConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from emoser.checkpoints.save import build_model
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel

LABELS = ("neutral", "happy", "angry", "sad")


def small_config(kind: type[PreTrainedConfig] = HubertConfig, **changes) -> PreTrainedConfig:
    """A small encoder of the stock architecture; group norm unless changed."""
    values = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "conv_dim": (32,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "classifier_proj_size": 24,
    }
    return kind(**{**values, **changes})


def base_config(kind: type[PreTrainedConfig], num_layers: int = 4) -> PreTrainedConfig:
    """The shape of wav2vec2-base, hubert-base and wavlm-base, with few layers."""
    return kind(num_hidden_layers=num_layers)


def large_config(kind: type[PreTrainedConfig], num_layers: int = 2) -> PreTrainedConfig:
    """The shape of wav2vec2-large-robust, hubert-large and wavlm-large, with few layers."""
    return kind(
        hidden_size=1024,
        num_hidden_layers=num_layers,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
    )


def small_whisper(**changes) -> WhisperConfig:
    """A small Whisper; its decoder is there for the classes that have one."""
    values = {
        "d_model": 64,
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_layers": 1,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 128,
        "vocab_size": 100,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    return WhisperConfig(**{**values, **changes})


def save_whisper_base(folder: Path) -> Path:
    """The folder, with half-precision weights like those that are published, of a tiny Whisper."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = small_whisper(encoder_layers=4, encoder_attention_heads=2)
        WhisperModel(config).half().save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def loud_model(config: PreTrainedConfig, *, seed: int = 0, **changes) -> EmotionModel:
    """A random model whose weights are large enough for logits far from zero."""
    model_config = ModelConfig(labels=LABELS, **changes)
    model = build_model(config, model_config, seed=seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim > 1:
            parameter.mul_(2.0)
        if name.startswith("head."):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model


def random_clips(lengths: Sequence[int], *, seed: int = 0) -> list[np.ndarray]:
    """Noise with a slow envelope and an offset, so that every clip has its own statistics."""
    generator = np.random.default_rng(seed)
    clips = []
    for length in lengths:
        envelope = np.abs(np.sin(np.linspace(0, generator.uniform(1, 9), length))) + 0.05
        noise = generator.standard_normal(length) * envelope * generator.uniform(0.02, 0.3)
        clips.append((noise + generator.uniform(-0.01, 0.01)).astype(np.float32))
    return clips


def pad(clips: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch (B, T) padded with zeros, and the lengths (B,)."""
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = torch.zeros(len(clips), int(lengths.max()))
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return batch, lengths
