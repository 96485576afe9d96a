"""Train emoser-tiny, a checkpoint inside the package.

    python examples/bundled/pretrain.py --base openai/whisper-base --data PATH --output DIR
    python examples/bundled/train.py --base openai/whisper-base --data PATH --output DIR

PATH holds the corpora with a table `manifest.csv` (columns corpus, path, speaker, sex, emotion).
DIR/emoser-tiny is the finished checkpoint. Run the same command again to resume an interrupted run.

The recipe is that of `recipe.py`, which `measure.py` evaluates in folds. Then the classifier of the
network is reduced to neutral, angry, happy and sad, and calibrated.
"""

import argparse
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from measure import cross_calibrate, index_labels, tabulate
from measure_robustness import answer_held_out, describe, read_unlabelled
from network import ALL_LABELS, LABELS, SAMPLING_RATE
from pretrain import CYCLES, PRETRAINED
from recipe import (
    FRAMES_WEIGHT,
    HEAD,
    NUM_STUDENTS,
    POOLED_WEIGHT,
    RECIPE,
    load_teacher,
    read_network,
    read_speech,
    train_network,
)
from small import Head, put_head
from store_means import measure_means
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from emoser.checkpoints.files import GOLDEN
from emoser.checkpoints.inspection import answer_alone, golden_clips, golden_record
from emoser.checkpoints.save import load_model, save_model, write_json
from emoser.finetune import FinetuneConfig, Utterance
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.scoring.calibration import fit_temperature
from emoser.finetune.scoring.logits import predict_logits
from emoser.finetune.scoring.report import Evaluation, assess
from emoser.finetune.scoring.robustness import answer_conditions
from emoser.models.model import EmotionModel

HELD_OUT = {"ravdess": ("16", "17", "18"), "nemo": ("KS0", "KD0")}
CARD = Path(__file__).with_name("card.md")
LICENCE = Path(__file__).with_name("licence.txt")

Sides = tuple[list[Utterance], list[Utterance]]


def read_sides(data: Path) -> Sides:
    """Training and validation set, without common speakers."""
    held_out = {(corpus, name) for corpus, names in HELD_OUT.items() for name in names}
    speech = read_speech(data)
    training = [item for item in speech if item.voice not in held_out]
    validation = [item for item in speech if item.voice in held_out and item.label in LABELS]
    return training, validation


def score_corpora(logits: np.ndarray, utterances: list[Utterance]) -> dict[str, Evaluation]:
    """Figures and intervals for each corpus and for all together."""
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
    """Calibration error with the temperature of each speaker fitted on the others."""
    voices = sorted({item.voice for item in utterances})
    rows = [[i for i, item in enumerate(utterances) if item.voice == voice] for voice in voices]
    truth = index_labels(utterances, LABELS)
    return cross_calibrate([logits[part] for part in rows], [truth[part] for part in rows])


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
            cells_of_label = " | ".join(map(str, counts))
            confusion.append(f"| {name} | {label} | {cells_of_label} | {recall:.2f} |")
    return "\n".join(figures), "\n".join(confusion)


def write_card(
    model: EmotionModel,
    evaluations: dict[str, Evaluation],
    error: float,
    num_training: int,
    folds: Iterable[str],
    *,
    robustness: str,
) -> str:
    """The README of the checkpoint.

    Args:
        model: The checkpoint.
        evaluations: Its figures for each corpus and for both.
        error: Calibration error with the temperature of other speakers.
        num_training: Number of training recordings.
        folds: Lines of the table of `measure.py`.
        robustness: The table of `measure_robustness.py`.
    """
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
        cycles=", ".join(map(count_updates, CYCLES)),
        updates=count_updates(RECIPE),
        share=f"{100 * RECIPE.schedule.pretrained_share:.0f}",
        temperature=f"{model.config.temperature:.2f}",
        error=f"{error:.3f}",
        folds="\n".join(folds),
        robustness=robustness,
        num_ravdess=evaluations["ravdess"].report.num_utterances,
        num_training=f"{num_training:,}",
    )


def count_updates(config: FinetuneConfig) -> str:
    """Number of updates of a run, as text."""
    return f"{(config.data.epoch_clips or 0) // config.data.batch_size:,}"


def finish(
    model: EmotionModel,
    provenance: dict[str, Any],
    sides: Sides,
    folder: Path,
    folds: Iterable[str],
    *,
    read: list[Utterance],
) -> dict[str, Evaluation]:
    """Reduce, calibrate and save the trained model; returns the figures of the saved model.

    `read` is read speech, for the table of other conditions.
    """
    training, validation = sides
    classifier = model.head.classifier
    tiny = put_head(model, Head(classifier.weight.detach(), classifier.bias.detach()))
    tiny.config = replace(tiny.config, training=provenance)
    logits = predict_logits(tiny, Recordings(validation))
    temperature = fit_temperature(logits, index_labels(validation, LABELS))
    means = measure_means(tiny, training)
    tiny.config = replace(tiny.config, temperature=temperature, mean_logits=means)
    evaluations = score_corpora(logits / temperature, validation)
    error = calibrate_speakers(logits, validation)
    others = describe(answer_held_out(tiny, validation), answer_conditions(tiny, read, LABELS))
    card = write_card(tiny, evaluations, error, len(training), folds, robustness=others)
    save_model(tiny, folder, overwrite=True, card=card)
    shutil.copyfile(LICENCE, folder / "LICENSE")
    write_golden(folder)
    return evaluations


def write_golden(folder: Path) -> None:
    """Write transformers' logits of known clips beside the weights.

    It refuses clips shorter than the receptive field, which are padded with zeros as in emoser.
    """
    ours = load_model(folder)
    shortest = ours.encoder.min_samples
    clips = [np.pad(clip, (0, max(shortest - len(clip), 0))) for clip in golden_clips()]
    theirs = AutoModelForAudioClassification.from_pretrained(folder).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    with torch.inference_mode():
        rows = [
            theirs(**extractor(clip, sampling_rate=SAMPLING_RATE, return_tensors="pt")).logits
            for clip in clips
        ]
    expected = torch.cat(rows)
    difference = float((answer_alone(ours) - expected).abs().max())
    source = f"{type(theirs).__name__} of transformers"
    write_json(folder / GOLDEN, golden_record(expected, source, difference))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="openai/whisper-base", help="Hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of pretrain.py")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sides = read_sides(arguments.data)
    training, validation = sides
    print(f"{len(training)} clips to train on, {len(validation)} to validate on")
    weights = arguments.output / "runs" / "shipped.pt"
    if not weights.is_file():
        print("to encode what is not encoded yet takes about 25 minutes on one core")
        teacher = load_teacher(arguments.data, arguments.base, arguments.output)
        start = arguments.output / PRETRAINED
        train_network(training, teacher, weights, config=RECIPE, start=start)
    provenance = {
        "protocol": "speaker-independent; the last update; the temperature was chosen on the "
        "held-out speakers",
        "held_out": HELD_OUT,
        "targets": list(ALL_LABELS),
        "frames_weight": FRAMES_WEIGHT,
        "pooled_weight": POOLED_WEIGHT,
        "num_students": NUM_STUDENTS,
        "head": asdict(HEAD),
        "configs": [config.flat() for config in (*CYCLES, RECIPE)],
    }
    folder = arguments.output / "emoser-tiny"
    folds = tabulate(arguments.output, read_speech(arguments.data))
    read = read_unlabelled(arguments.data)
    model = read_network(weights)
    for name, evaluation in finish(model, provenance, sides, folder, folds, read=read).items():
        print(f"\n{name}: {evaluation.report}")
    print(f"\nsaved to {folder}")


if __name__ == "__main__":
    main()
