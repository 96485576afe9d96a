"""Measure the mean logits of the training speakers of a checkpoint, and store them in its folder.

    python examples/bundled/store_means.py --data PATH [FOLDER ...]

`EmotionClassifier.adapt` compares the recordings of a speaker with them. PATH holds RAVDESS and
nEMO with a table `manifest.csv`; a FOLDER is a checkpoint that was trained on them, by default both
bundled ones. The block "emoser" of `config.json` gets the field `mean_logits`. The numbers of the
model stay the same, so the graph in the folder stays too: its manifest is written again. Takes a
minute for each; a second run changes nothing.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.checkpoints.resolve import bundled_names, find_checkpoint
from emoser.checkpoints.save import load_model, write_json
from emoser.finetune import Utterance, read_corpus
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.protocols import drop_duplicates
from emoser.finetune.scoring.mean_logits import measure_mean_logits
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.runtimes.opening import find_graph

CORPORA = ("ravdess", "nemo")  # CREMA-D has clips of two labels only
DECIMALS = 4


def measure_means(model: EmotionModel, speech: list[Utterance]) -> tuple[float, ...]:
    """The mean logits of the training speakers among some recordings."""
    held_out = model.config.training.get("held_out", {})
    chosen = [
        item
        for item in speech
        if item.corpus in CORPORA and item.speaker not in held_out.get(item.corpus, ())
    ]
    measured = measure_mean_logits(model, Recordings(), chosen)
    return tuple(round(value, DECIMALS) for value in measured)


def store_means(folder: Path, speech: list[Utterance]) -> tuple[float, ...]:
    """Measure the mean logits by the recordings of the training speakers and store them."""
    means = measure_means(load_model(folder), speech)
    files = CheckpointFiles(folder.name, folder)
    manifest = find_graph(files)  # None if it is of other weights
    config: dict[str, Any] = files.config
    stated = replace(ModelConfig.from_block(config["emoser"]), mean_logits=means)
    write_json(folder / CONFIG, {**config, "emoser": stated.to_block()})
    if manifest is not None:
        weights = CheckpointFiles(folder.name, folder).content_hash
        described = replace(manifest.config, mean_logits=means)
        replace(manifest, config=described, weights=weights).write(folder)
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    given = parser.parse_args()
    torch.set_num_threads(1)  # the same numbers on every machine
    found = read_corpus(given.data / "manifest.csv")
    speech = drop_duplicates([item for item in found if item.corpus in CORPORA])[0]
    for folder in given.folders or [find_checkpoint(name).folder for name in bundled_names()]:
        print(f"{folder}: {store_means(folder, speech)}", flush=True)


if __name__ == "__main__":
    main()
