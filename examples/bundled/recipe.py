"""How the network of emoser-tiny learns emotions: the recipe of its weights, and a quicker one.

All emotions of the corpora are learned, with acoustic statistics of each clip as a second task;
for CREMA-D, of which happy and sad clips are at hand, the loss runs over these two alone.

"shipped" made the bundled weights, in three stages from random weights. The second goes on from
the best epoch of the first, with stronger variations and a longer average of the weights; the
third with longer pieces and milder variations, nearer to what is heard in use. Both take their
last epoch, so that no held-out speaker chooses it. The weights at the ends of the stages are
averaged. "quick" begins with the encoder of `pretrain.py` and learns for a quarter of the time,
with products in bfloat16. Knows nothing of splits or figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from network import ALL_LABELS, LABELS, SEED, build_network

from emoser.finetune import FinetuneConfig, Utterance, read_corpus, train
from emoser.finetune.config import Augmentation
from emoser.finetune.protocols import drop_duplicates
from emoser.finetune.training import TrainingResult
from emoser.model import EmotionModel

CORPORA = ("ravdess", "nemo", "cremad")

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

QUICK = replace(
    FIRST,
    epochs=10,
    encoder_learning_rate=1e-3,
    head_learning_rate=1e-3,
    weight_decay=0.03,
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
    ema_decay=0.998,
    selection="last",
    precision="bfloat16",
)


@dataclass(frozen=True)
class Recipe:
    """Stages that follow one another.

    Attributes:
        stages: The settings of each; the weights at their ends are averaged.
        pretrained: Whether they begin with the encoder of `pretrain.py`.
    """

    stages: tuple[FinetuneConfig, ...]
    pretrained: bool


RECIPES = {
    "shipped": Recipe((FIRST, SECOND, THIRD), pretrained=False),
    "quick": Recipe((QUICK,), pretrained=True),
}


def read_speech(data: Path) -> list[Utterance]:
    """All labelled recordings that are learned from, without copies."""
    utterances = [
        item
        for item in read_corpus(data / "manifest.csv")
        if item.corpus in CORPORA
        and item.label in FIRST.restricted_labels.get(item.corpus, ALL_LABELS)
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


def train_stages(
    training: list[Utterance],
    validation: Sequence[Utterance],
    folder: Path,
    *,
    stages: Sequence[FinetuneConfig],
    start: Path | None = None,
) -> tuple[EmotionModel, list[TrainingResult]]:
    """Train in stages, each going on from the one before; the mean of their weights.

    The norm of the filter bank learns in the first stage alone, and not behind a pretrained
    encoder. A run goes on where it was interrupted.

    Args:
        training: What is learned from.
        validation: Clips of other speakers, scored after each epoch.
        folder: Of the run.
        stages: Their settings; corpora that are not there are left out.
        start: The encoder that `pretrain.py` wrote; None for random weights.
    """
    model = build_network(training, seed=stages[0].seed)
    if start is not None:
        model.encoder.load_state_dict(torch.load(start, weights_only=True))
    filters = model.encoder.feature_extractor.conv_layers[0]
    results, ends = [], []
    for number, config in enumerate(stages, start=1):
        filters.requires_grad_(number == 1 and start is None)
        filters.conv.requires_grad_(False)
        fitted, place = fit_config(config, training), folder / f"stage{number}"
        results.append(train(training, validation, model=model, config=fitted, output=place))
        ends.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    mean = {name: torch.stack([end[name] for end in ends]).mean(dim=0) for name in ends[0]}
    model.load_state_dict(mean)
    return model, results
