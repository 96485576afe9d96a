"""How the network of emoser-tiny learns emotions: from the encoder that heard plain speech.

All emotions of the corpora are learned, with acoustic statistics of each clip as a second task;
for CREMA-D, of which happy and sad clips are at hand, the loss runs over these two alone. The
last epoch is taken, so that nobody's test speaker chooses it. Knows nothing of splits or figures.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from network import ALL_LABELS, SEED, build_network

from emoser.finetune import FinetuneConfig, Utterance, read_corpus, train
from emoser.finetune.config import Augmentation
from emoser.finetune.protocols import drop_duplicates
from emoser.model import EmotionModel

CORPORA = ("ravdess", "nemo", "cremad")
WATCHED = 25  # every so many test clips are scored after each epoch, for the log alone

CONFIG = FinetuneConfig(
    epochs=10,
    batch_size=24,
    epoch_clips=3600,
    encoder_learning_rate=1e-3,
    head_learning_rate=1e-3,
    weight_decay=0.03,
    warmup=0.06,
    mode="entire",
    sampling="balanced",
    corpus_weights={"ravdess": 0.40, "nemo": 0.45, "cremad": 0.15},
    restricted_labels={"cremad": ("happy", "sad")},
    label_smoothing=0.05,
    statistics_weight=1.0,
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
    evaluation_labels=ALL_LABELS,
    ema_decay=0.998,
    selection="last",
    precision="bfloat16",
    seed=SEED,
)


def read_speech(data: Path) -> list[Utterance]:
    """All labelled recordings that are learned from, without copies."""
    utterances = [
        item
        for item in read_corpus(data / "manifest.csv")
        if item.corpus in CORPORA
        and item.label in CONFIG.restricted_labels.get(item.corpus, ALL_LABELS)
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
    test: Sequence[Utterance],
    folder: Path,
    *,
    start: Path | None,
    config: FinetuneConfig = CONFIG,
) -> EmotionModel:
    """The network after its last epoch.

    Args:
        training: What is learned from.
        test: Other speakers, some of whose clips are scored for the log.
        folder: Of the run, which goes on where it was interrupted.
        start: The encoder that `pretrain.py` wrote; None for random weights.
        config: All settings; corpora that are not there are left out.
    """
    model = build_network(training, seed=config.seed)
    if start is not None:
        model.encoder.load_state_dict(torch.load(start, weights_only=True))
    watched = [*test][::WATCHED]
    train(training, watched, model=model, config=fit_config(config, training), output=folder)
    return model
