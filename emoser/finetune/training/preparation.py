"""Before the first update of a run: checks, and both sides decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.acoustics import standardize_statistics
from emoser.finetune.data.annotations import state_scale
from emoser.finetune.data.padding import check_padding
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.protocols import check_sides
from emoser.finetune.scoring.evaluation import check_labels
from emoser.finetune.training.loss import Targets, Teachers, build_targets
from emoser.finetune.training.tensorboard import require_tensorboard
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.text import counted, shorten


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
    check_targets((*utterances, *validation), model.config)
    if model.config.labels:
        labels = config.data.evaluation_labels or model.config.labels
        check_labels(validation, labels, multi_label=model.config.multi_label)
    if config.schedule.selection == "ccc" and not model.config.dimensions:
        raise ValueError("selection is 'ccc', and the model has no dimensions; use 'uar'")
    if model.config.multi_label and config.optimisation.class_weights:
        raise ValueError("class_weights are for labels that exclude each other; leave them out")


def check_targets(utterances: Sequence[Utterance], model: ModelConfig) -> None:
    """Refuse recordings that lack a dimension of the model."""
    for name in model.dimensions:
        absent = [item.path for item in utterances if name not in item.dimensions]
        if absent:
            raise ValueError(
                f"{len(absent)} of {counted(len(utterances), 'recording')} lack {name}, which the "
                f"model learns: {shorten(absent)}; complete them or leave them out"
            )


def check_whole_batches(model: ModelConfig, config: FinetuneConfig, num_processes: int) -> None:
    """Refuse to compute a loss in parts that is one of the whole batch."""
    if not model.dimensions or config.optimisation.dimension_loss != "ccc":
        return
    if config.data.batch_size < 2 or config.run.accumulation > 1 or num_processes > 1:
        raise ValueError(
            "the concordance of dimensions is that of a whole batch; use a batch_size of 2 or "
            "more, accumulation 1 and one process, or dimension_loss='mse'"
        )


def state_scales(
    utterances: Sequence[Utterance], validation: Sequence[Utterance], model: ModelConfig
) -> tuple[list[Utterance], list[Utterance]]:
    """Both sides with a scale for the dimensions that a model learns."""
    if not model.dimensions:
        return list(utterances), list(validation)
    both = state_scale((*utterances, *validation), model.dimension_scale)
    return both[: len(utterances)], both[len(utterances) :]


def follow_teachers(
    teachers: Sequence[EmotionModel], model: ModelConfig, config: FinetuneConfig
) -> Teachers | None:
    """The teachers of a model, if there are any.

    Raises:
        ValueError: If the model has not the labels of its teachers, or other outputs.
    """
    if not teachers:
        return None
    if model.dimensions or model.multi_label:
        raise ValueError(
            "teachers teach labels that share a softmax, and this model has other outputs; train "
            "it without teachers"
        )
    temperature = config.optimisation.distillation_temperature
    return Teachers(teachers, model.labels, temperature=temperature)


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
    targets = build_targets(
        utterances,
        model.labels,
        restricted=restricted,
        dimensions=model.dimensions,
        multi_label=model.multi_label,
    )
    if held is None:
        held = Recordings(sampling_rate=model.sampling_rate)
    recordings = held.select(utterances)
    if config.optimisation.statistics_weight > 0.0:
        voices = [item.voice or item.corpus for item in utterances]
        statistics = torch.from_numpy(standardize_statistics(recordings.describe(), voices))
        targets = targets._replace(statistics=statistics)
    return TrainingData(utterances, validation, recordings, held.select(validation), targets)
