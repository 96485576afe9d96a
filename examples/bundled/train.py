"""Make emoser-tiny, the checkpoint inside the package, of the networks that `measure.py` tested.

    python examples/bundled/pretrain.py --data PATH --output DIR
    python examples/bundled/measure.py folds --data PATH --output DIR
    python examples/bundled/measure.py cross --data PATH --output DIR
    python examples/bundled/train.py --data PATH --output DIR

The networks of the five folds begin with the same encoder and learn from other speakers each;
the mean of their weights has learned from all of them. The classifier is cut to neutral, angry,
happy and sad, and calibrated on what each network said of the speakers that it never heard, which
the card reports too. DIR/emoser-tiny is the finished checkpoint.
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
from measure import NETWORK, PLANS, ROWS, index_labels, recall, score, tabulate
from network import ALL_LABELS, ENCODER, LABELS, SAMPLING_RATE, SEED
from numpy.typing import NDArray
from recipe import CONFIG, read_speech
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from emoser.checkpoints.golden import GOLDEN, answer_alone, golden_clips, golden_record
from emoser.checkpoints.native import build_model, load_model, save_model, write_json
from emoser.finetune import Utterance
from emoser.finetune.calibration import fit_temperature
from emoser.finetune.report import Evaluation
from emoser.model import EmotionModel

CARD = Path(__file__).with_name("card.md")
LICENCE = Path(__file__).with_name("licence.txt")
TESTED = ("ravdess", "nemo")


def average_networks(folders: Sequence[Path]) -> EmotionModel:
    """A network whose weights are the mean of those in the folders.

    Raises:
        FileNotFoundError: If there are none.
    """
    if not folders:
        raise FileNotFoundError("no finished network; run measure.py folds first")
    models = [load_model(folder) for folder in folders]
    parts = [model.state_dict() for model in models]
    mean = {name: torch.stack([part[name] for part in parts]).mean(dim=0) for name in parts[0]}
    models[0].load_state_dict(mean)
    return models[0].eval()


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


def fit_folds(output: Path, speech: list[Utterance]) -> float:
    """The temperature of what the networks of the folds said of speakers new to them."""
    logits: list[NDArray[np.float32]] = []
    truth: list[NDArray[np.int64]] = []
    for folder in sorted((output / "folds").glob(f"{NETWORK}-*")):
        for part, items in recall(folder, PLANS["folds"](speech), TESTED, LABELS):
            logits.append(part)
            truth.append(index_labels(items, LABELS))
    return fit_temperature(np.concatenate(logits), np.concatenate(truth))


def tell(evaluations: dict[str, Evaluation]) -> tuple[str, str]:
    """Figures by emotion and sex, and confusions, in Markdown."""
    recalls = [
        f"| unseen speakers of | recordings | accuracy | macro F1 | {' | '.join(LABELS)} | women "
        "| men |",
        f"|---|---|---|---|{'---|' * (len(LABELS) + 2)}",
    ]
    head = " | ".join(LABELS)
    confusion = [f"| | | {head} |", "|---|---|" + "---|" * len(LABELS)]
    for name, evaluation in evaluations.items():
        report = evaluation.report
        counts = np.array(report.confusion)
        cells = [report.accuracy, report.macro_f1, *(counts.diagonal() / counts.sum(axis=1))]
        cells += [report.per_sex[sex] for sex in ("f", "m")]
        shown = " | ".join(f"{value:.2f}" for value in cells)
        recalls.append(f"| {name} | {report.num_utterances} | {shown} |")
        for label, row in zip(LABELS, counts, strict=True):
            confusion.append(f"| {name} | {label} | {' | '.join(map(str, row))} |")
    return "\n".join(recalls), "\n".join(confusion)


def write_card(model: EmotionModel, output: Path, speech: list[Utterance]) -> str:
    """The README of the checkpoint, with the figures of the networks that it is the mean of."""
    seeds = sorted((output / "folds").glob(f"{NETWORK}-*"))
    splits = PLANS["folds"](speech)
    rows = {row.corpus: row for row in ROWS if row.plan == "folds" and row.labels == LABELS}
    scores = {name: score(seeds[0], row, splits) for name, row in rows.items()}
    evaluations = {name: found.evaluation for name, found in scores.items() if found is not None}
    recalls, confusion = tell(evaluations)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Template(CARD.read_text(encoding="utf-8")).substitute(
        parameters=f"{parameters:,}",
        megabytes=f"{4 * parameters / 1e6:.1f}",
        figures="\n".join(tabulate(output, speech)),
        recalls=recalls,
        confusion=confusion,
        num_networks=5 * len(seeds),
        epochs=CONFIG.epochs,
        temperature=f"{model.config.temperature:.2f}",
        num_training=f"{len(speech):,}",
    )


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
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    arguments = parser.parse_args()
    output: Path = arguments.output
    speech = read_speech(arguments.data)
    runs = sorted((output / "runs" / "folds").glob("*/best"))
    provenance = {
        "protocol": "mean of the networks of a cross-validation over speakers; no speaker chose "
        "an epoch",
        "targets": list(ALL_LABELS),
        "networks": len(runs),
        "config": CONFIG.to_dict(),
    }
    model = cut_labels(average_networks(runs), provenance)
    model.config = replace(model.config, temperature=fit_folds(output, speech))
    folder = output / "emoser-tiny"
    save_model(model, folder, overwrite=True, card=write_card(model, output, speech))
    shutil.copyfile(LICENCE, folder / "LICENSE")
    write_golden(folder)
    print(f"the mean of {len(runs)} networks is in {folder}")


if __name__ == "__main__":
    main()
