"""Train emoser-small, the default checkpoint inside the package, on top of whisper-base.

    python examples/bundled/train_small.py --base openai/whisper-base --data PATH --output DIR

PATH holds RAVDESS, nEMO and CREMA-D with a table `manifest.csv` (columns corpus, path, speaker,
sex, emotion). DIR/checkpoint/emoser-small is the finished checkpoint. The time of the encoder, on
each clip and its varied copies, and of the trainings of all splits is estimated first. Every copy
of a corpus and every training is kept in DIR: run the same command again to resume an interrupted
run. At the end, the card's table of other conditions takes another 17 minutes, and that of corpora
new to every method about as long.

The recipe (`small.py`, `frame_head.py`, `last_layer.py`) is measured in folds over all speakers
(`measure_small.py`), which also give the temperature and the figures of the card. The checkpoint is
then trained on all of them, and reduced to neutral, angry, happy and sad.

`--quick` takes every third clip and the head of one seed, tunes no layer, and compares folds and
transfer with those of a plain frozen probe on a tenth of the clips: a linear head, no copies, no
normalisation of the level, no CREMA-D, no intercepts.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from export_graph import export_into
from frame_head import (
    FRAMES,
    HEAD_SETTINGS,
    NUM_COPIES,
    NUM_EPOCHS,
    NUM_SEEDS,
    encode_speech,
)
from last_layer import TUNING_SETTINGS, put_last_layer
from measure import Split
from measure_robustness import answer_folds, describe, read_unlabelled
from measure_small import (
    HEADS,
    SMALL,
    WHOLE,
    FrameHeads,
    LinearHeads,
    assess_corpora,
    average_rows,
    calibrate,
    compare_targets,
    measure,
    open_layers,
    plan_splits,
    tabulate_small,
)
from measure_transfer import compare_corpora, read_bursts
from network import ALL_LABELS, LABELS
from safetensors.torch import load_file, save_file
from small import (
    RECIPE,
    SHARES,
    HeadConfig,
    build_network,
    read_speech,
)
from store_means import measure_means
from torch import Tensor, nn
from train import write_tables
from transformers import WhisperFeatureExtractor

from emoser.checkpoints.files import CONFIG, GOLDEN, WEIGHTS, CheckpointFiles
from emoser.checkpoints.inspection import answer_alone, golden_clips, golden_record
from emoser.checkpoints.save import load_model, save_model, write_json
from emoser.finetune import Utterance
from emoser.finetune.data.inputs import pool_windows
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.finetune.scoring.report import Evaluation
from emoser.finetune.scoring.robustness import answer_conditions
from emoser.models.encoder import LEVEL
from emoser.models.model import EmotionModel
from emoser.models.pooling import DEVIATION_FLOOR

HERE = Path(__file__).parent
CARD, LICENCE = HERE / "card_small.md", HERE / "licence_small.txt"
QUICK_PART, PROBE_PART = 3, 11  # one clip in so many is used in a quick run, and in its probe
NUM_TIMED = 8
HEAD_TIME = 0.15  # of a head of one seed, as a share of the encoder's for all clips
TUNING_TIME = 1.5  # of the third layer, likewise
FRAME_SAMPLES = 320
WHISPER_WINDOW = 400


def estimate_minutes(model: EmotionModel, speech: list[Utterance]) -> float:
    """How long encoder, heads and tunings will take, by the encoder's time for a few clips."""
    chosen = Windows(Recordings(speech[:: max(len(speech) // NUM_TIMED, 1)]), None)
    pool_windows(model, chosen, RECIPE)  # the first pass is slower
    began = time.perf_counter()
    pool_windows(model, chosen, RECIPE)
    each = (time.perf_counter() - began) / len(chosen)
    num_splits = 1 + sum(1 for _ in plan_splits(speech))
    trainings = num_splits * (NUM_SEEDS * HEAD_TIME + TUNING_TIME)
    return each * len(speech) * (2 * (1 + NUM_COPIES) + trainings) / 60.0


def train_small(
    base: str, speech: list[Utterance], output: Path
) -> tuple[EmotionModel, dict[str, Evaluation]]:
    """The calibrated checkpoint, and the figures of the folds."""
    layers, folds = open_layers(base, speech, output), output / SMALL
    measure(layers.predict, speech, folds)
    temperature, error = calibrate(folds, speech)
    small = put_last_layer(layers.model, layers.fit(Split(WHOLE, speech, [])))
    provenance = {
        "protocol": "figures from folds over all speakers; the checkpoint is trained on all of "
        "them; the temperature is that of the folds",
        "base": "openai/whisper-base",
        "targets": list(ALL_LABELS),
        "num_copies": NUM_COPIES,
        "head": HEAD_SETTINGS,
        "last_layer": TUNING_SETTINGS,
        "calibration_error": round(error, 4),
        "configs": [RECIPE.replace(head="framewise", frozen_copies=NUM_COPIES).flat()],
    }
    means = measure_means(small, speech)
    small.config = replace(
        small.config, temperature=temperature, mean_logits=means, training=provenance
    )
    return small, assess_corpora(folds, speech, temperature)


def finish(model: EmotionModel, card: str, folder: Path) -> None:
    """Save a model with its card, licence, golden logits and graph; weights in half precision."""
    save_model(model, folder, overwrite=True, card=card)
    halve_weights(folder)
    shutil.copyfile(LICENCE, folder / "LICENSE")
    ours, expected = load_model(folder), answer_reference(load_model(folder))
    difference = float((answer_alone(ours) - expected).abs().max())
    source = "transformers' WhisperFeatureExtractor and WhisperEncoder layers"
    write_json(folder / GOLDEN, golden_record(expected, source, difference))
    export_into(CheckpointFiles(SMALL, folder))


def halve_weights(folder: Path) -> None:
    """Store the weights of a checkpoint in float16, where they are float16 numbers already.

    The published weights of Whisper are, and those of the head.
    """
    tensors = load_file(folder / WEIGHTS)
    halved = {
        name: tensor.half() if torch.equal(tensor.half().float(), tensor) else tensor
        for name, tensor in tensors.items()
    }
    save_file(halved, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    write_json(folder / CONFIG, {**config, "dtype": "float16"})


@torch.no_grad()
def answer_reference(model: EmotionModel) -> Tensor:
    """Calibrated logits of the known clips by transformers' own modules, (N, C).

    The features are those of a clip in 30 s of silence, cut to its length; the convolutions,
    position embeddings and layers are called one after the other.
    """
    whisper: Any = model.encoder.backbone
    extractor = WhisperFeatureExtractor(feature_size=int(whisper.config.num_mel_bins))
    rows = []
    for clip in golden_clips():
        level = np.sqrt(np.mean(np.square(clip, dtype=np.float64)))
        padded = extractor(
            (clip * (LEVEL / level)).astype(np.float32), sampling_rate=16_000, return_tensors="pt"
        ).input_features
        num_frames = -(-len(clip) // FRAME_SAMPLES)
        hidden = nn.functional.gelu(whisper.conv1(padded[:, :, : 2 * num_frames]))
        hidden = nn.functional.gelu(whisper.conv2(hidden)).transpose(1, 2)
        hidden = hidden + whisper.embed_positions.weight[:num_frames]
        for layer in whisper.layers:
            hidden = layer(hidden, None)
        frames = torch.relu(model.pointwise[0](whisper.layer_norm(hidden)[0]))
        deviation = frames.std(dim=0, correction=0).clamp(min=DEVIATION_FLOOR**0.5)
        pooled = torch.cat([frames.mean(dim=0), deviation])
        rows.append(model.head(pooled[None]) / model.config.temperature)
    return torch.cat(rows)


def write_card(
    model: EmotionModel,
    evaluations: dict[str, Evaluation],
    speech: list[Utterance],
    folds: Iterable[str],
    targets: str,
    *,
    robustness: str,
    transfer: str,
) -> str:
    """The README of the checkpoint, with the table of `measure_small.py` and its targets.

    `robustness` is the table of `measure_robustness.py`, `transfer` that of `measure_transfer.py`.
    """
    figures, confusion = write_tables(evaluations)
    report = evaluations["both"].report
    num_copies = model.config.training["num_copies"]
    return Template(CARD.read_text(encoding="utf-8")).substitute(
        parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        figures=figures,
        confusion=confusion,
        speakers=", ".join(f"{name} {uar:.2f}" for name, uar in report.per_speaker.items()),
        temperature=f"{model.config.temperature:.2f}",
        error=f"{model.config.training['calibration_error']:.3f}",
        folds="\n".join(folds),
        targets=targets,
        robustness=robustness,
        transfer=transfer,
        num_clips=f"{len(speech):,}",
        epochs=NUM_EPOCHS,
        seeds=NUM_SEEDS,
        tuning=f"{TUNING_SETTINGS['num_epochs']:g}",
        rate=f"{TUNING_SETTINGS['learning_rate']:g}",
        copies=f"{num_copies} varied {'copy' if num_copies == 1 else 'copies'}",
    )


def run_quick(base: str, speech: list[Utterance], output: Path) -> tuple[float, float]:
    """Mean UAR of the rows: of the recipe on some clips, and of a frozen probe on a tenth."""
    some, few = speech[::QUICK_PART], speech[::PROBE_PART]
    model = build_network(base)
    copies = encode_speech(model, some, output / FRAMES)
    heads = FrameHeads(copies, copies[0], some, output / SMALL / HEADS, num_seeds=1)
    measure(heads.predict, some, output / SMALL)
    model.encoder.normalization = "none"
    plain = encode_speech(model, few, output / "plain", num_copies=0)[0].pool()
    config = HeadConfig(deviation_scale=1.0, speaker_scale=0.0, shares={**SHARES, "cremad": 0.0})
    measure(LinearHeads(plain[None], plain, few, config).predict, few, output / "probe")
    return average_rows(output / SMALL, some), average_rows(output / "probe", few)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default=RECIPE.base, help="Hub id or folder of whisper-base")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--quick", action="store_true", help="every third clip, in minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same numbers on every machine
    speech = read_speech(arguments.data)
    if arguments.quick:
        recipe, probe = run_quick(arguments.base, speech, arguments.output)
        print(f"mean UAR of folds and transfer: {recipe:.3f}; plain frozen probe: {probe:.3f}")
        return
    minutes = estimate_minutes(build_network(arguments.base), speech)
    print(f"{len(speech)} clips, varied copies of each: {NUM_COPIES}; about {minutes:.0f} minutes")
    model, evaluations = train_small(arguments.base, speech, arguments.output)
    folds = tabulate_small(arguments.output / SMALL, speech, SMALL)
    folder = arguments.output / "checkpoint" / SMALL
    targets = compare_targets(arguments.output / SMALL, speech)
    corpora = answer_folds(arguments.base, speech, arguments.output)
    read = answer_conditions(model, read_unlabelled(arguments.data), LABELS)
    robustness = describe(corpora, read)
    bursts = read_bursts(arguments.data)
    transfer = compare_corpora(arguments.base, speech, bursts, arguments.output)
    card = write_card(
        model, evaluations, speech, folds, targets, robustness=robustness, transfer=transfer
    )
    finish(model, card, folder)
    for name, evaluation in evaluations.items():
        print(f"\n{name}: {evaluation.report}")
    print(f"\nsaved to {folder}")


if __name__ == "__main__":
    main()
