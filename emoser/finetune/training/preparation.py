"""Before the first update of a run: checks, and both sides decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.acoustics import standardize_statistics
from emoser.finetune.data.padding import check_padding
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.protocols import check_sides
from emoser.finetune.scoring.evaluation import check_labels
from emoser.finetune.training.loss import Targets, build_targets
from emoser.finetune.training.tensorboard import require_tensorboard
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel


def check_start(
    utterances: Sequence[Utterance],
    validation: Sequence[Utterance],
    model: EmotionModel,
    config: FinetuneConfig,
    *,
    share_speakers: bool,
) -> None:
    """Refuse what would fail, or mislead, later."""
    if config.run.tensorboard:
        require_tensorboard()
    places = {parameter.device.type for parameter in model.parameters()}
    if places != {"cpu"}:
        raise ValueError(f"the model is on {', '.join(places)}; move it to the CPU")
    check_padding(model, config.model.padding)
    check_sides(utterances, validation, share_speakers=share_speakers)
    check_labels(validation, config.data.evaluation_labels or model.config.labels)


@dataclass(frozen=True)
class TrainingData:
    """Both sides of a run, decoded."""

    utterances: Sequence[Utterance]
    validation: Sequence[Utterance]
    recordings: Recordings
    validation_recordings: Recordings
    targets: Targets


def decode_sides(
    utterances: Sequence[Utterance],
    validation: Sequence[Utterance],
    model: ModelConfig,
    config: FinetuneConfig,
    held: Recordings | None,
) -> TrainingData:
    """Decode both sides; `held` has clips that need not be decoded again."""
    restricted = config.data.restricted_labels
    targets = build_targets(utterances, model.labels, restricted=restricted)
    if held is None:
        held = Recordings(sampling_rate=model.sampling_rate)
    recordings = held.select(utterances)
    if config.optimisation.statistics_weight > 0.0:
        voices = [item.voice or item.corpus for item in utterances]
        statistics = torch.from_numpy(standardize_statistics(recordings.describe(), voices))
        targets = targets._replace(statistics=statistics)
    return TrainingData(utterances, validation, recordings, held.select(validation), targets)
