"""Train emoser-tiny, the checkpoint inside the package, from nothing but speech.

    python examples/train_emoser_tiny.py --data PATH --output DIR

PATH holds RAVDESS, nEMO and CREMA-D with a table `manifest.csv` (columns corpus: ravdess, nemo
or cremad, path, speaker, emotion). DIR/emoser-tiny is the finished checkpoint. A run that was
interrupted continues when the same command is given again.

The encoder is a small HuBERT. Its first convolution is a fixed bank of Gabor filters, evenly
spaced in mel: a raw-waveform front-end with random weights learns next to nothing in an hour.
It is trained on every emotion of the corpora, and on acoustic statistics of each clip as a
second task; then the classifier is cut to neutral, angry, happy and sad, and calibrated.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import HubertConfig

from emoser.checkpoints.native import build_model, save_model
from emoser.configuration import ModelConfig
from emoser.finetune import FinetuneConfig, Utterance, read_corpus, train
from emoser.finetune.config import Augmentation
from emoser.finetune.evaluation import Report, predict_logits, score_logits
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
CARD = Path(__file__).with_name("emoser_tiny_card.md")
LICENCE = Path(__file__).with_name("emoser_tiny_licence.txt")

Sides = tuple[list[Utterance], list[Utterance]]

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


def read_sides(data: Path) -> Sides:
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
    losses = [float(cross_entropy(scores / value, targets)) for value in candidates]
    return float(candidates[int(np.argmin(losses))])


@torch.no_grad()
def cut_labels(model: EmotionModel, provenance: dict[str, Any]) -> EmotionModel:
    """The same model with the classifier's rows of the four labels alone."""
    config = replace(model.config, labels=LABELS, raw_labels=LABELS, training=provenance)
    smaller = build_model(ENCODER, config, seed=SEED)
    weights = model.state_dict()
    rows = [model.config.labels.index(label) for label in LABELS]
    for name in ("head.classifier.weight", "head.classifier.bias"):
        weights[name] = weights[name][rows]
    smaller.load_state_dict(weights)
    return smaller.eval()


def score_corpora(logits: np.ndarray, utterances: list[Utterance]) -> dict[str, Report]:
    """A report for each corpus and one for all of them."""
    reports = {}
    for corpus in HELD_OUT:
        rows = [index for index, item in enumerate(utterances) if item.corpus == corpus]
        members = [utterances[index] for index in rows]
        reports[corpus] = score_logits(logits[rows], members, LABELS, labels=LABELS)
    reports["both"] = score_logits(logits, utterances, LABELS, labels=LABELS)
    return reports


def write_tables(reports: dict[str, Report]) -> tuple[str, str]:
    """Figures and confusions of each corpus, in Markdown."""
    figures = [
        "| held-out speakers of | recordings | UAR | accuracy | macro F1 | calibration error |",
        "|---|---|---|---|---|---|",
    ]
    confusion = [f"| | | {' | '.join(LABELS)} |", "|---|---|" + "---|" * len(LABELS)]
    for name, report in reports.items():
        row = (report.uar, report.accuracy, report.macro_f1, report.calibration_error)
        cells = " | ".join(f"{value:.3f}" for value in row)
        figures.append(f"| {name} | {report.num_utterances} | {cells} |")
        for label, counts in zip(LABELS, report.confusion, strict=True):
            confusion.append(f"| {name} | {label} | {' | '.join(map(str, counts))} |")
    return "\n".join(figures), "\n".join(confusion)


def write_card(model: EmotionModel, reports: dict[str, Report], num_training: int) -> str:
    """The README of the checkpoint."""
    figures, confusion = write_tables(reports)
    everything = reports["both"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    template = Template(CARD.read_text(encoding="utf-8"))
    return template.substitute(
        parameters=f"{parameters:,}",
        megabytes=f"{4 * parameters / 1e6:.1f}",
        figures=figures,
        confusion=confusion,
        speakers=", ".join(f"{name} {uar:.2f}" for name, uar in everything.per_speaker.items()),
        epochs=TRAINING.epochs,
        best_epoch=model.config.training["best_epoch"],
        last_epoch=" and ".join(
            f"{uar:.3f} ({corpus})"
            for corpus, uar in model.config.training["last_epoch_uar"].items()
        ),
        temperature=f"{model.config.temperature:.2f}",
        num_ravdess=reports["ravdess"].num_utterances,
        num_training=f"{num_training:,}",
    )


def finish(
    model: EmotionModel, provenance: dict[str, Any], sides: Sides, folder: Path
) -> dict[str, Report]:
    """Cut, calibrate and save the trained model; gives the figures of what was saved."""
    training, validation = sides
    tiny = cut_labels(model, provenance)
    logits = predict_logits(tiny, Recordings(validation))
    truth = np.array([LABELS.index(item.label) for item in validation])
    tiny.config = replace(tiny.config, temperature=fit_temperature(logits, truth))
    reports = score_corpora(logits / tiny.config.temperature, validation)
    save_model(tiny, folder, overwrite=True, card=write_card(tiny, reports, len(training)))
    shutil.copyfile(LICENCE, folder / "LICENSE")
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    arguments = parser.parse_args()
    sides = read_sides(arguments.data)
    training, validation = sides
    print(f"{len(training)} clips to train on, {len(validation)} to validate on")
    model = build_model(ENCODER, ModelConfig(labels=ALL_LABELS), seed=SEED)
    install_filters(model, training)
    result = train(training, validation, model=model, config=TRAINING, output=arguments.output)
    provenance = {
        "protocol": "speaker-independent; epoch and temperature chosen on the held-out speakers",
        "held_out": HELD_OUT,
        "targets": list(ALL_LABELS),
        "best_epoch": result.best_epoch,
        "last_epoch_uar": result.epochs[-1]["uar_per_corpus"],
        "config": TRAINING.to_dict(),
    }
    folder = arguments.output / "emoser-tiny"
    reports = finish(model, provenance, sides, folder)
    for name, report in reports.items():
        print(f"\n{name}: {report}")
    print(f"\nsaved to {folder}")


if __name__ == "__main__":
    main()
