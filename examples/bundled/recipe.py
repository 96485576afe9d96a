"""The recipe of emoser-tiny: corpora, stages of training, and teachers.

It starts from the encoder of `pretrain.py`, which was trained on speech without labels. All
emotions of the corpora are trained, with acoustic statistics of each clip as an auxiliary task; for
CREMA-D, of which only happy and sad clips are used, the loss runs over these two. The last epoch is
taken, so that no speaker chooses it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from network import ALL_LABELS, LABELS, SEED, build_network

from emoser.finetune import FinetuneConfig, Utterance, read_corpus, train
from emoser.finetune.config import Augmentation
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.protocols import drop_duplicates
from emoser.models.model import EmotionModel

CORPORA = ("ravdess", "nemo", "cremad")

RECIPE = FinetuneConfig(
    epochs=7,
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
        trim_probability=0.3,
    ),
    evaluation_labels=LABELS,
    ema_decay=0.998,
    selection="last",
    precision="bfloat16",
    save_every_steps=500,
    seed=SEED,
)


# Four more stages, each starting at half the rate. The mean of their final weights is better on
# new speakers than the end of the first stage (cf. arXiv 1803.05407).
AGAIN = replace(
    RECIPE, epochs=3, encoder_learning_rate=8e-4, head_learning_rate=8e-4, statistics_weight=0.5
)
STAGES = (RECIPE, *(replace(AGAIN, seed=SEED + number) for number in range(1, 5)))


# The bundled weights: as above, with the first stage five times as long and the others 4/3.
SHIPPED = (
    replace(RECIPE, epochs=36),
    *(replace(AGAIN, epochs=4, seed=SEED + number) for number in range(1, 5)),
)


# It follows the mean of three networks that were trained in the same way with other seeds.
NUM_TEACHERS = 3


def stages_of_teacher(number: int) -> tuple[FinetuneConfig, ...]:
    """The stages of a teacher, counted from 0, with seeds of its own."""
    return tuple(replace(stage, seed=stage.run.seed + number * len(SHIPPED)) for stage in SHIPPED)


def read_speech(data: Path) -> list[Utterance]:
    """All labelled recordings for training, without duplicates."""
    utterances = [
        item
        for item in read_corpus(data / "manifest.csv")
        if item.corpus in CORPORA
        and item.label in RECIPE.data.restricted_labels.get(item.corpus, ALL_LABELS)
    ]
    return drop_duplicates(utterances)[0]


def fit_config(config: FinetuneConfig, utterances: Sequence[Utterance]) -> FinetuneConfig:
    """The settings without absent corpora, whose weight the others share evenly."""
    corpora = {item.corpus for item in utterances}
    weights = {k: v for k, v in config.data.corpus_weights.items() if k in corpora}
    share = (1.0 - sum(weights.values())) / len(weights)
    return replace(
        config,
        corpus_weights={k: v + share for k, v in weights.items()},
        restricted_labels={k: v for k, v in config.data.restricted_labels.items() if k in corpora},
    )


def train_network(
    training: list[Utterance],
    validation: Sequence[Utterance],
    folder: Path,
    *,
    stages: Sequence[FinetuneConfig],
    start: Path,
    teachers: Sequence[EmotionModel] = (),
    recordings: Recordings | None = None,
) -> EmotionModel:
    """Train in consecutive stages, or resume an interrupted run.

    Returns the mean of the weights at the ends of all stages but the first; for a single stage, the
    weights at its end.

    Args:
        training: The training set.
        validation: Clips of other speakers, scored after each epoch; they choose nothing.
        folder: Folder of the run.
        stages: `STAGES`, `SHIPPED`, or variants; absent corpora are left out.
        start: The encoder that `pretrain.py` wrote.
        teachers: Networks whose mean it follows, in addition to the labels.
        recordings: Holds decoded clips, shared by several networks.
    """
    model = build_network(training, seed=stages[0].run.seed)
    model.encoder.load_state_dict(torch.load(start, weights_only=True))
    held = Recordings() if recordings is None else recordings
    ends = []
    for number, config in enumerate(stages, start=1):
        fitted, place = fit_config(config, training), folder / f"stage{number}"
        train(
            training,
            validation,
            model=model,
            config=fitted,
            output=place,
            teachers=teachers,
            recordings=held,
        )
        ends.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    later = ends[1:] or ends
    mean = {name: torch.stack([end[name] for end in later]).mean(dim=0) for name in later[0]}
    model.load_state_dict(mean)
    return model
