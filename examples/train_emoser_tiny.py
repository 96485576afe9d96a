"""Train emoser-tiny, the checkpoint inside the package, from nothing but speech.

    python examples/train_emoser_tiny.py --data PATH --output DIR

PATH holds RAVDESS, nEMO and CREMA-D with a table `manifest.csv` (corpus, path, speaker, sex,
emotion). DIR/emoser-tiny is the finished checkpoint. A run that was interrupted continues when
the same command is given again.

The encoder is a small HuBERT. Its first convolution is a fixed bank of Gabor filters, evenly
spaced in mel: a raw-waveform front-end with random weights learns next to nothing in an hour.
It is trained on every emotion of the corpora, and on acoustic statistics of each clip as a
second task; then the classifier is cut to neutral, angry, happy and sad, and calibrated.
"""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import HubertConfig

from emoser.checkpoints.native import build_model, save_model
from emoser.configuration import ModelConfig
from emoser.finetune import FinetuneConfig, Utterance, read_corpus, train
from emoser.finetune.config import Augmentation
from emoser.finetune.evaluation import predict_logits, score_logits
from emoser.finetune.recordings import Recordings
from emoser.model import EmotionModel

SEED = 20
LABELS = ("neutral", "angry", "happy", "sad")
ALL_LABELS = (*LABELS, "calm", "fear", "disgust", "surprise")
HELD_OUT = {"ravdess": ("16", "17", "18"), "nemo": ("KS0", "KD0")}
SAMPLING_RATE = 16_000
NUM_BANDS, KERNEL = 48, 512
LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 7600.0
SHORTEST_SIGMA, LONGEST_SIGMA = 0.0016, 0.008  # seconds, of the filters' Gaussian windows
PHASES = np.array([0.0, 0.5, 1.0, 1.5]) * np.pi
CHANNEL_VARIANCE = 3e-5  # near the layer norm's eps of 1e-5: silence stays silent
CALIBRATION_CLIPS = 200
PACKAGE = Path(__file__).resolve().parent.parent / "emoser"

ENCODER = HubertConfig(
    hidden_size=192,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=768,
    hidden_act="relu",
    conv_dim=(192, 128, 128),
    conv_kernel=(KERNEL, 3, 3),
    conv_stride=(80, 2, 2),
    num_feat_extract_layers=3,
    conv_bias=False,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    num_conv_pos_embeddings=32,
    num_conv_pos_embedding_groups=12,
    hidden_dropout=0.1,
    attention_dropout=0.0,
    activation_dropout=0.0,
    feat_proj_dropout=0.1,
    layerdrop=0.05,
    mask_time_prob=0.08,
    mask_time_length=8,
    mask_feature_prob=0.05,
    mask_feature_length=8,
)

TRAINING = FinetuneConfig(
    epochs=20,
    batch_size=24,
    epoch_clips=3600,
    encoder_learning_rate=1.5e-3,
    head_learning_rate=1.5e-3,
    weight_decay=0.02,
    warmup=0.06,
    mode="entire",
    sampling="balanced",
    corpus_weights={"ravdess": 0.40, "nemo": 0.45, "cremad": 0.15},
    restricted_labels={"cremad": ("happy", "sad")},
    statistics_weight=1.0,
    crop_seconds=2.2,
    augmentation=Augmentation(
        speed_probability=0.7, noise_probability=0.6, tilt_probability=0.6, reverb_probability=0.15
    ),
    evaluation_labels=LABELS,
    ema_decay=0.995,
    seed=SEED,
)


def read_sides(data: Path) -> tuple[list[Utterance], list[Utterance]]:
    """What is trained on, and what is validated on: no speaker is on both sides."""
    utterances = read_corpus(data / "manifest.csv")
    held_out = {(corpus, name) for corpus, names in HELD_OUT.items() for name in names}
    training = [
        item
        for item in utterances
        if item.voice not in held_out
        and item.label in TRAINING.restricted_labels.get(item.corpus or "", ALL_LABELS)
    ]
    validation = [item for item in utterances if item.voice in held_out and item.label in LABELS]
    return training, validation


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
    waves -= offsets[..., None] * windows[:, None]  # no answer to a constant
    waves /= np.sqrt((waves**2).sum(axis=-1, keepdims=True))
    return torch.from_numpy(waves.reshape(-1, 1, KERNEL)).float()


@torch.no_grad()
def install_filters(model: EmotionModel, utterances: list[Utterance]) -> None:
    """Put the filters into the first convolution, every band equally loud on speech."""
    first, second = list(model.encoder.feature_extractor.conv_layers)[:2]
    first.conv.weight.copy_(build_filters())
    chosen = np.random.default_rng(SEED).choice(len(utterances), CALIBRATION_CLIPS, replace=False)
    clips = Recordings([utterances[index] for index in chosen])
    power = torch.zeros(len(first.conv.weight))
    for clip in (torch.from_numpy(clips[index])[None] for index in range(len(clips))):
        bands = first.conv(model.encoder.normalize(clip, None)[:, None])  # (1, 4 x bands, L)
        power += bands.square().mean(dim=(0, 2)) / len(clips)
    band_power = power.reshape(NUM_BANDS, -1).mean(dim=1).repeat_interleave(len(PHASES))
    first.conv.weight.mul_(torch.sqrt(CHANNEL_VARIANCE / band_power)[:, None, None])
    first.conv.weight.requires_grad_(False)
    # The second layer begins with one weight per band: the four phases add up to its envelope.
    drawn = second.conv.weight[:, :NUM_BANDS].clone()
    second.conv.weight.copy_(drawn.repeat_interleave(len(PHASES), dim=1))


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature with the lowest cross-entropy of softmax(logits / temperature)."""
    scores, targets = torch.from_numpy(logits), torch.from_numpy(truth)
    candidates = np.geomspace(0.2, 10.0, 400)
    losses = [
        float(torch.nn.functional.cross_entropy(scores / value, targets)) for value in candidates
    ]
    return float(candidates[int(np.argmin(losses))])


@torch.no_grad()
def cut_labels(model: EmotionModel) -> EmotionModel:
    """The same model with the classifier's rows of the four labels alone."""
    config = replace(model.config, labels=LABELS, raw_labels=LABELS)
    smaller = build_model(ENCODER, config, seed=SEED)
    weights = model.state_dict()
    rows = [model.config.labels.index(label) for label in LABELS]
    for name in ("head.classifier.weight", "head.classifier.bias"):
        weights[name] = weights[name][rows]
    smaller.load_state_dict(weights)
    return smaller.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    training, validation = read_sides(arguments.data)
    print(f"{len(training)} clips to train on, {len(validation)} to validate on")
    model = build_model(ENCODER, ModelConfig(labels=ALL_LABELS), seed=SEED)
    install_filters(model, training)
    result = train(training, validation, model=model, config=TRAINING, output=arguments.output)
    print(f"best epoch {result.best_epoch}\n{result.report}")
    tiny = cut_labels(model)
    logits = predict_logits(tiny, Recordings(validation))
    truth = np.array([LABELS.index(item.label) for item in validation])
    tiny.config = replace(tiny.config, temperature=fit_temperature(logits, truth))
    folder = save_model(tiny, arguments.output / "emoser-tiny", overwrite=True)
    calibrated = logits / tiny.config.temperature
    report = score_logits(calibrated, validation, LABELS, labels=LABELS)
    print(f"temperature {tiny.config.temperature:.3f}\n{report}\nsaved to {folder}")
    (arguments.output / "report.json").write_text(json.dumps(report.to_dict(), indent=2))


if __name__ == "__main__":
    main()
