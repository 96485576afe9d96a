"""How the network of emoser-tiny learns emotions, and from whom.

It begins with the encoder of `pretrain.py`, which heard plain speech without labels. All emotions
of the corpora are learned, with acoustic statistics of each clip as a second task; for CREMA-D, of
which happy and sad clips are at hand, the loss runs over these two alone. The last epoch is taken,
so that no speaker chooses it. Knows nothing of splits or figures.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from network import ALL_LABELS, LABELS, SEED, build_network

from emoser.finetune import FinetuneConfig, Utterance, read_corpus, train
from emoser.finetune.config import Augmentation
from emoser.finetune.protocols import drop_duplicates
from emoser.model import EmotionModel

CORPORA = ("ravdess", "nemo", "cremad")

RECIPE = FinetuneConfig(
    epochs=24,
    batch_size=24,
    epoch_clips=2400,
    optimizer="muon",
    encoder_learning_rate=1.5e-3,
    head_learning_rate=1.5e-3,
    weight_decay=0.03,
    warmup=0.06,
    mode="entire",
    sampling="balanced",
    corpus_weights={"ravdess": 0.32, "nemo": 0.55, "cremad": 0.13},
    restricted_labels={"cremad": ("happy", "sad")},
    statistics_weight=1.0,
    label_smoothing=0.05,
    crop_seconds=2.5,
    augmentation=Augmentation(
        speed_probability=0.7,
        speed_change=0.12,
        noise_probability=0.5,
        tilt_probability=0.6,
        tilt_decibels=4.0,
        reverb_probability=0.15,
        telephone_probability=0.05,
    ),
    evaluation_labels=LABELS,
    ema_decay=0.998,
    selection="last",
    precision="bfloat16",
    save_every_steps=500,
    seed=SEED,
)


def read_speech(data: Path) -> list[Utterance]:
    """All labelled recordings that are learned from, without copies."""
    utterances = [
        item
        for item in read_corpus(data / "manifest.csv")
        if item.corpus in CORPORA
        and item.label in RECIPE.restricted_labels.get(item.corpus, ALL_LABELS)
    ]
    return drop_duplicates(utterances)[0]


def fit_config(config: FinetuneConfig, utterances: Sequence[Utterance]) -> FinetuneConfig:
    """The settings without corpora that are not there."""
    corpora = {item.corpus for item in utterances}
    return replace(
        config,
        corpus_weights={k: v for k, v in config.corpus_weights.items() if k in corpora},
        restricted_labels={k: v for k, v in config.restricted_labels.items() if k in corpora},
    )


def train_network(
    training: list[Utterance],
    validation: Sequence[Utterance],
    folder: Path,
    *,
    config: FinetuneConfig,
    start: Path,
) -> EmotionModel:
    """Train a network; a run goes on where it was interrupted.

    Args:
        training: What is learned from.
        validation: Clips of other speakers, scored after each epoch; they choose nothing.
        folder: Of the run.
        config: `RECIPE`, or a variant; corpora that are not there are left out.
        start: The encoder that `pretrain.py` wrote.
    """
    model = build_network(training, seed=config.seed)
    model.encoder.load_state_dict(torch.load(start, weights_only=True))
    train(training, validation, model=model, config=fit_config(config, training), output=folder)
    return model
