"""The untrained network of emoser-tiny: a small HuBERT on a filter bank.

The first convolution is a fixed bank of Gabor filters, evenly spaced in mel: a raw-waveform
front end with random weights learns next to nothing in an hour.
"""

import numpy as np
import torch
from transformers import HubertConfig

from emoser.checkpoints.save import build_model
from emoser.finetune import Utterance
from emoser.finetune.data.recordings import Recordings
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel

SEED = 20
SAMPLING_RATE = 16_000
NUM_BANDS, KERNEL = 48, 512
LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 7600.0
SHORTEST_SIGMA, LONGEST_SIGMA = 0.0016, 0.008  # seconds, of the filters' Gaussian windows
PHASES = np.array([0.0, 0.5, 1.0, 1.5]) * np.pi
CHANNEL_VARIANCE = 3e-5  # near the layer norm's eps of 1e-5: silence stays silent
CALIBRATION_CLIPS = 200
LABELS = ("neutral", "angry", "happy", "sad")
ALL_LABELS = (*LABELS, "calm", "fear", "disgust", "surprise")

ENCODER = HubertConfig(
    hidden_size=240,
    num_hidden_layers=2,
    num_attention_heads=5,
    intermediate_size=960,
    hidden_act="relu",
    conv_dim=(4 * NUM_BANDS, 128, 192, 256, 256),
    conv_kernel=(KERNEL, 3, 3, 3, 3),
    conv_stride=(160, 2, 2, 2, 1),
    num_feat_extract_layers=5,
    conv_bias=False,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=12,
    hidden_dropout=0.05,
    attention_dropout=0.0,
    activation_dropout=0.0,
    feat_proj_dropout=0.1,
    layerdrop=0.0,
    mask_time_prob=0.08,
    mask_time_length=2,
    mask_feature_prob=0.05,
    mask_feature_length=8,
)


def build_network(utterances: list[Utterance], *, seed: int) -> EmotionModel:
    """Random weights behind the filter bank, for all labels of the corpora.

    Args:
        utterances: Speech on which the bands of the filter bank are equalised.
        seed: Seed of the weights.
    """
    model = build_model(ENCODER, ModelConfig(labels=ALL_LABELS), seed=seed)
    install_filters(model, utterances)
    hold_filters(model)
    return model


def build_filters() -> torch.Tensor:
    """Gabor filters at mel-spaced frequencies in four phases each, (4 x bands, 1, kernel)."""
    lowest, highest = (2595 * np.log10(1 + hertz / 700) for hertz in (LOWEST_HERTZ, HIGHEST_HERTZ))
    mel = np.linspace(lowest, highest, NUM_BANDS)
    centres = 700 * (10 ** (mel / 2595) - 1)
    widths = 0.5 * np.gradient(centres)  # Hz
    sigmas = np.clip(1 / (2 * np.pi * widths), SHORTEST_SIGMA, LONGEST_SIGMA)
    times = (np.arange(KERNEL) - (KERNEL - 1) / 2) / SAMPLING_RATE
    windows = np.exp(-0.5 * (times / sigmas[:, None]) ** 2)  # (bands, kernel)
    angles = 2 * np.pi * centres[:, None] * times
    waves = np.cos(angles[:, None] + PHASES[:, None]) * windows[:, None]  # (bands, 4, kernel)
    offsets = waves.mean(axis=-1) / windows.mean(axis=-1)[:, None]
    waves -= offsets[..., None] * windows[:, None]  # no response to a constant
    waves /= np.sqrt((waves**2).sum(axis=-1, keepdims=True))
    return torch.from_numpy(waves.reshape(-1, 1, KERNEL)).float()


@torch.no_grad()
def install_filters(model: EmotionModel, utterances: list[Utterance]) -> None:
    """Put the filters into the first convolution, with equal power of all bands on speech."""
    first, second = list(model.encoder.feature_extractor.conv_layers)[:2]
    first.conv.weight.copy_(build_filters())
    chosen = np.random.default_rng(SEED).choice(
        len(utterances), min(CALIBRATION_CLIPS, len(utterances)), replace=False
    )
    clips = Recordings([utterances[index] for index in chosen])
    power = torch.zeros(len(first.conv.weight))
    for clip in (torch.from_numpy(clips[index])[None] for index in range(len(clips))):
        bands = first.conv(model.encoder.normalize(clip, None)[:, None])  # (1, 4 x bands, L)
        power += bands.square().mean(dim=(0, 2)) / len(clips)
    band_power = power.reshape(NUM_BANDS, -1).mean(dim=1).repeat_interleave(len(PHASES))
    first.conv.weight.mul_(torch.sqrt(CHANNEL_VARIANCE / band_power)[:, None, None])
    # The second layer starts with one weight per band: the four phases add up to its envelope.
    drawn = second.conv.weight[:, :NUM_BANDS].clone()
    second.conv.weight.copy_(drawn.repeat_interleave(len(PHASES), dim=1))


def hold_filters(model: EmotionModel) -> None:
    """Freeze the filter bank and its norm, at no cost in the backward pass."""
    extractor = model.encoder.feature_extractor
    extractor.conv_layers[0].requires_grad_(False)
    extractor._requires_grad = False  # transformers would compute the gradient of the waveform
