"""Emotions as tones, alone or mixed, and a small encoder that learns them."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import HubertModel, PreTrainedConfig, Wav2Vec2FeatureExtractor

from support.models import small_config

RATE = 16_000
HERTZ = {"happy": 1900.0, "sad": 240.0}
MIXED_HERTZ = (300, 900, 2700)
LOUD = 0.25  # share of a tone from which on its label applies


def voice_config(**changes) -> PreTrainedConfig:
    """One layer over three convolutions, which learns the difference in a few updates."""
    return small_config(
        hidden_size=32,
        num_hidden_layers=1,
        intermediate_size=32,
        conv_dim=(16, 16, 16),
        conv_kernel=(64, 8, 4),
        conv_stride=(20, 4, 4),
        num_feat_extract_layers=3,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        mask_time_length=2,
        **changes,
    )


def save_voice_base(folder: Path) -> Path:
    """The folder, with a small HuBERT of random weights to train on voices."""
    torch.manual_seed(1)
    HubertModel(voice_config()).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def write_voices(
    folder: Path, count: int, *, num_voices: int, noise: float, suffix: str, seed: int = 0
) -> list[tuple[Path, str, int]]:
    """Path, emotion and voice of clips of 0.3 to 0.6 seconds, the emotions in turn."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        label = "happy" if index % 2 else "sad"
        time = np.arange(int(generator.uniform(0.3, 0.6) * RATE)) / RATE
        tone = np.sin(2 * np.pi * HERTZ[label] * generator.uniform(0.95, 1.05) * time)
        path = folder / f"{index}{suffix}"
        soundfile.write(path, 0.3 * tone + noise * generator.standard_normal(len(time)), RATE)
        rows.append((path, label, index // 2 % num_voices))
    return rows


def write_mixtures(folder: Path, count: int, *, seed: int) -> list[tuple[str, np.ndarray]]:
    """Name of each clip of three mixed tones, and the shares of their power."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        time = np.arange(int(generator.uniform(0.3, 0.5) * RATE)) / RATE
        parts = generator.dirichlet((0.6,) * 3).round(3)
        tones = zip(parts, MIXED_HERTZ, strict=True)
        mixed = sum(np.sqrt(part) * np.sin(2 * np.pi * hertz * time) for part, hertz in tones)
        soundfile.write(folder / f"{index}.wav", 0.2 * mixed, RATE)
        rows.append((f"{index}.wav", parts))
    return rows
