"""Train emoser-tiny, the checkpoint inside the package, from nothing but speech.

    python examples/train_emoser_tiny.py --data PATH --output DIR

PATH holds RAVDESS, nEMO and CREMA-D with a table `manifest.csv` (columns corpus: ravdess, nemo
or cremad, path, speaker, emotion). DIR/emoser-tiny is the finished checkpoint. A run that was
interrupted continues when the same command is given again.

The encoder is a small HuBERT. Its first convolution is a fixed bank of Gabor filters, evenly
spaced in mel: a raw-waveform front-end with random weights learns next to nothing in an hour.
It is trained on every emotion of the corpora, and on acoustic statistics of each clip as a
second task. A second stage goes on from the best epoch of the first, with stronger variations
and a longer average of the weights; a third one with longer pieces and milder variations, nearer
to what is heard in use. Both take their last epoch, so that no held-out speaker chooses it. The
weights at the ends of the stages are averaged, the classifier is cut to neutral, angry, happy and
sad, and calibrated.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, HubertConfig

from emoser.checkpoints.golden import GOLDEN, answer_alone, golden_clips, golden_record
from emoser.checkpoints.native import build_model, load_model, save_model, write_json
from emoser.configuration import ModelConfig
from emoser.finetune import FinetuneConfig, Utterance, read_corpus, train
from emoser.finetune.calibration import fit_temperature
from emoser.finetune.config import Augmentation
from emoser.finetune.evaluation import predict_logits
from emoser.finetune.recordings import Recordings
from emoser.finetune.report import Evaluation, assess
from emoser.finetune.training import TrainingResult
from emoser.metrics import expected_calibration_error
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

FIRST = FinetuneConfig(
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

SECOND = replace(
    FIRST,
    epochs=15,
    encoder_learning_rate=1.2e-3,
    head_learning_rate=1.2e-3,
    weight_decay=0.04,
    warmup=0.05,
    corpus_weights={"ravdess": 0.42, "nemo": 0.42, "cremad": 0.16},
    label_smoothing=0.05,
    augmentation=Augmentation(
        speed_probability=0.8,
        speed_change=0.15,
        noise_probability=0.5,
        tilt_probability=0.7,
        tilt_decibels=4.0,
        reverb_probability=0.2,
        telephone_probability=0.1,
    ),
    ema_decay=0.998,
    selection="last",
    seed=SEED + 1,
)

THIRD = replace(
    SECOND,
    epochs=8,
    encoder_learning_rate=6e-4,
    head_learning_rate=6e-4,
    crop_seconds=3.0,
    augmentation=Augmentation(
        speed_probability=0.6,
        speed_change=0.12,
        noise_probability=0.3,
        tilt_probability=0.6,
        reverb_probability=0.1,
    ),
    seed=SEED + 2,
)

STAGES = (FIRST, SECOND, THIRD)


def read_sides(data: Path) -> Sides:
    """What is trained on, and what is validated on: no speaker is on both sides."""
    utterances = read_corpus(data / "manifest.csv")
    held_out = {(corpus, name) for corpus, names in HELD_OUT.items() for name in names}
    training = [
        item
        for item in utterances
        if item.voice not in held_out
        and item.label in FIRST.restricted_labels.get(item.corpus or "", ALL_LABELS)
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


def train_stages(
    training: list[Utterance],
    validation: list[Utterance],
    output: Path,
    *,
    stages: Sequence[FinetuneConfig] = STAGES,
) -> tuple[EmotionModel, list[TrainingResult]]:
    """Train from nothing, each stage going on from the one before; the mean of their weights.

    The front-end's first layer learns its norm in the first stage alone.
    """
    model = build_model(ENCODER, ModelConfig(labels=ALL_LABELS), seed=stages[0].seed)
    install_filters(model, training)
    results, ends = [], []
    for number, config in enumerate(stages, start=1):
        first_layer = model.encoder.feature_extractor.conv_layers[0]
        first_layer.requires_grad_(number == 1)
        first_layer.conv.requires_grad_(False)
        folder = output / f"stage{number}"
        results.append(train(training, validation, model=model, config=config, output=folder))
        ends.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    model.load_state_dict(
        {name: torch.stack([end[name] for end in ends]).mean(dim=0) for name in ends[0]}
    )
    return model, results


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


def score_corpora(logits: np.ndarray, utterances: list[Utterance]) -> dict[str, Evaluation]:
    """Figures and intervals for each corpus and for all of them."""
    rows = {
        corpus: [index for index, item in enumerate(utterances) if item.corpus == corpus]
        for corpus in HELD_OUT
    }
    rows["both"] = list(range(len(utterances)))
    return {
        name: assess(
            logits[members],
            [utterances[index] for index in members],
            LABELS,
            protocol="speakers that were not trained on",
        )
        for name, members in rows.items()
    }


def calibrate_speakers(logits: np.ndarray, utterances: list[Utterance]) -> float:
    """Calibration error where each speaker has the temperature of the other speakers."""
    voices = sorted({item.voice for item in utterances})
    rows = [[i for i, item in enumerate(utterances) if item.voice == voice] for voice in voices]
    truth = index_labels(utterances, LABELS)
    return cross_calibrate([logits[part] for part in rows], [truth[part] for part in rows])


def index_labels(utterances: Sequence[Utterance], labels: Sequence[str]) -> np.ndarray:
    """The class of each utterance, (N,)."""
    return np.array([labels.index(item.label) for item in utterances])


def cross_calibrate(parts: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """Calibration error of all parts together, each with the temperature of the others.

    Args:
        parts: Logits (N, C) of groups that share no speaker.
        truths: The classes of each group, (N,).
    """
    probabilities = []
    for index, logits in enumerate(parts):
        others = [place for place in range(len(parts)) if place != index]
        temperature = fit_temperature(
            np.concatenate([parts[place] for place in others]),
            np.concatenate([truths[place] for place in others]),
        )
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        probabilities.append(powers / powers.sum(axis=1, keepdims=True))
    return expected_calibration_error(np.concatenate(truths), np.concatenate(probabilities))


def write_tables(evaluations: dict[str, Evaluation]) -> tuple[str, str]:
    """Figures and confusions of each corpus, in Markdown."""
    figures = [
        "| held-out speakers of | recordings | UAR | 95 % over speakers | accuracy | macro F1 "
        "| calibration error | women | men |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    head = " | ".join((*LABELS, "recall"))
    confusion = [f"| | | {head} |", "|---|---|" + "---|" * (len(LABELS) + 1)]
    for name, evaluation in evaluations.items():
        report, (low, high) = evaluation.report, evaluation.uar_interval
        cells = (report.accuracy, report.macro_f1, report.calibration_error)
        sexes = (report.per_sex.get(sex) for sex in ("f", "m"))
        row = (
            f"{name} | {report.num_utterances} | {report.uar:.3f} | {low:.2f} to {high:.2f}",
            *(f"{value:.3f}" for value in cells),
            *("-" if value is None else f"{value:.3f}" for value in sexes),
        )
        figures.append(f"| {' | '.join(row)} |")
        for index, (label, counts) in enumerate(zip(LABELS, report.confusion, strict=True)):
            recall = counts[index] / max(sum(counts), 1)
            said = " | ".join(map(str, counts))
            confusion.append(f"| {name} | {label} | {said} | {recall:.2f} |")
    return "\n".join(figures), "\n".join(confusion)


def write_card(
    model: EmotionModel, evaluations: dict[str, Evaluation], error: float, num_training: int
) -> str:
    """The README of the checkpoint."""
    figures, confusion = write_tables(evaluations)
    per_speaker = evaluations["both"].report.per_speaker
    parameters = sum(parameter.numel() for parameter in model.parameters())
    template = Template(CARD.read_text(encoding="utf-8"))
    return template.substitute(
        parameters=f"{parameters:,}",
        megabytes=f"{4 * parameters / 1e6:.1f}",
        figures=figures,
        confusion=confusion,
        speakers=", ".join(f"{name} {uar:.2f}" for name, uar in per_speaker.items()),
        best_epoch=model.config.training["epochs"][0],
        epochs=", ".join(str(config.epochs) for config in STAGES),
        temperature=f"{model.config.temperature:.2f}",
        error=f"{error:.3f}",
        num_ravdess=evaluations["ravdess"].report.num_utterances,
        num_training=f"{num_training:,}",
    )


def finish(
    model: EmotionModel, provenance: dict[str, Any], sides: Sides, folder: Path
) -> dict[str, Evaluation]:
    """Cut, calibrate and save the trained model; gives the figures of what was saved."""
    training, validation = sides
    tiny = cut_labels(model, provenance)
    logits = predict_logits(tiny, Recordings(validation))
    temperature = fit_temperature(logits, index_labels(validation, LABELS))
    tiny.config = replace(tiny.config, temperature=temperature)
    evaluations = score_corpora(logits / temperature, validation)
    error = calibrate_speakers(logits, validation)
    card = write_card(tiny, evaluations, error, len(training))
    save_model(tiny, folder, overwrite=True, card=card)
    shutil.copyfile(LICENCE, folder / "LICENSE")
    write_golden(folder)
    return evaluations


def write_golden(folder: Path) -> None:
    """Keep transformers' own logits of known clips beside the weights."""
    theirs = AutoModelForAudioClassification.from_pretrained(folder).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    with torch.inference_mode():
        rows = [
            theirs(**extractor(clip, sampling_rate=SAMPLING_RATE, return_tensors="pt")).logits
            for clip in golden_clips()
        ]
    expected = torch.cat(rows)
    difference = float((answer_alone(load_model(folder)) - expected).abs().max())
    source = f"{type(theirs).__name__} of transformers"
    write_json(folder / GOLDEN, golden_record(expected, source, difference))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    arguments = parser.parse_args()
    sides = read_sides(arguments.data)
    training, validation = sides
    print(f"{len(training)} clips to train on, {len(validation)} to validate on")
    model, results = train_stages(training, validation, arguments.output)
    provenance = {
        "protocol": "speaker-independent; the first stage's epoch, the averaging of the stages "
        "and the temperature were chosen on the held-out speakers",
        "held_out": HELD_OUT,
        "targets": list(ALL_LABELS),
        "epochs": [result.best_epoch for result in results],
        "configs": [config.to_dict() for config in STAGES],
    }
    folder = arguments.output / "emoser-tiny"
    for name, evaluation in finish(model, provenance, sides, folder).items():
        print(f"\n{name}: {evaluation.report}")
    print(f"\nsaved to {folder}")


if __name__ == "__main__":
    main()
