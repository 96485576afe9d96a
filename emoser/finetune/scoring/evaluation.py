"""Score a model on labelled recordings: `evaluate(model, utterances) -> Report`.

Recordings are decoded, cut into windows and scored by the code of `EmotionClassifier.predict`,
including the calibration temperature.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.cpu_math import quick_math
from emoser.finetune.data.annotations import find_dimensions, state_scale
from emoser.finetune.data.batches import length_batches
from emoser.finetune.data.inputs import Inputs, run_model
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.models import Model
from emoser.finetune.progress import Progress
from emoser.finetune.scoring.figures import Report, score_logits, with_silence
from emoser.finetune.scoring.leakage import refuse_overlap
from emoser.finetune.scoring.logits import add_silence, join_windows
from emoser.finetune.scoring.scored_model import opened
from emoser.models.model import EmotionModel
from emoser.results.segments import SILENCE
from emoser.text import counted, join_words, shorten

if TYPE_CHECKING:
    from emoser.finetune.training.distributed import ProcessGroup

BATCH_SECONDS = 30.0  # on a GPU, padding included


def evaluate(
    model: Model,
    utterances: Sequence[Utterance],
    *,
    labels: Sequence[str] = (),
    skip_unreadable: bool = False,
    allow_trained_on: bool = False,
) -> Report:
    """Score a model on recordings that it was not trained on.

    What both have is scored: labels, dimensions, or both. Values without a stated scale are on
    that of the model if it states one, else on one that is found from them.

    Args:
        model: A bundled name, a folder, a Hub id, an `EmotionClassifier`, which is scored with its
            own engine and labels, or a model of torch; the mode of that is restored afterwards.
        utterances: Recordings whose labels, if any, are all among `labels`. Where a classifier
            gives the labels of its checkpoint other names, so they are given here.
        labels: The labels to choose from; by default all labels of the model.
        skip_unreadable: Whether to leave out recordings that cannot be read; the report counts
            them.
        allow_trained_on: Whether the model may have been trained on recordings or speakers among
            these, as far as it states that; the report counts them.

    Raises:
        ValueError: If there are no utterances, one has another label, or they have nothing that
            the model gives.
        AudioError: Naming all recordings that cannot be read, unless they are left out; or if
            none is left.
        CheckpointError: If the model cannot be loaded.
        LeakageError: If it, its base or a teacher was trained on some of these recordings or
            speakers, and that is not allowed.

    Example:
        >>> report = evaluate("emoser-tiny", [Utterance("examples/audio/plain.wav", "neutral")])
        >>> report.num_utterances, 0.0 <= report.uar <= 1.0
        (1, True)
    """
    with opened(model) as scored:
        utterances = state_scale(scored.rename(utterances), scored.config.dimension_scale)
        names, dimensions = find_common(
            utterances,
            tuple(labels) or scored.labels,
            scored.config.dimensions,
            multi_label=scored.config.multi_label,
        )
        trained_on = refuse_overlap([scored.compare(utterances)], allowed=allow_trained_on)
        inferred = scored.infer(utterances, skip_unreadable=skip_unreadable)
        outputs = scored.outputs
    logits, columns = add_silence(inferred.logits, outputs, inferred.silent, inferred.utterances)
    report = score_logits(
        logits,
        inferred.utterances,
        columns,
        labels=with_silence(names, columns[len(outputs) :]),
        dimensions=dimensions,
    )
    return replace(report, num_unreadable=len(inferred.faults), trained_on=trained_on)


def find_common(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    dimensions: Sequence[str],
    *,
    advice: str = "leave these out",
    multi_label: bool = False,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels and dimensions of a model that can be scored on these recordings.

    Raises:
        ValueError: As `check_labels`; or if there are none, or some recordings lack a dimension
            that others have.
    """
    found = find_dimensions(utterances)
    common = tuple(name for name in dimensions if name in found)
    unlabelled = [item.path for item in utterances if not item.is_labelled]
    if labels and len(unlabelled) < len(utterances):
        if unlabelled:
            raise ValueError(f"these recordings have no label: {shorten(unlabelled)}; {advice}")
        check_labels(utterances, labels, advice=advice, multi_label=multi_label)
        return tuple(labels), common
    if not utterances:
        raise ValueError("no utterances to score; pass some with labels or dimensions")
    if not common:
        given = [*found, *["labels"] * (not unlabelled)]
        raise ValueError(
            f"the recordings are annotated with {join_words(given)} and the model gives "
            f"{join_words([*['labels'] * bool(labels), *dimensions])}; pass recordings with these"
        )
    return (), common


def check_labels(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    *,
    advice: str = "leave these out",
    multi_label: bool = False,
) -> None:
    """Check that there are utterances, and that all have one of the labels, or are silence.

    `advice` is what the message suggests. With `multi_label` they may have several of them.

    Raises:
        ValueError: If there are none, one has another label, or several.
    """
    if not utterances:
        raise ValueError(f"no utterances to score; pass some with the labels {', '.join(labels)}")
    several = [item.path for item in utterances if item.labels is not None]
    if several and not multi_label:
        raise ValueError(
            f"{len(several)} of {counted(len(utterances), 'recording')} may have several labels at "
            f"once, and the model gives one: {shorten(several)}"
        )
    unknown = [
        ", ".join(foreign)
        for item in utterances
        if (foreign := sorted(set(item.classes or ("",) * (not item.is_labelled))
                              - {*labels, SILENCE}))
    ]  # fmt: skip
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {counted(len(utterances), 'recording')} "
            f"{'has' if len(unknown) == 1 else 'have'} labels that the model lacks "
            f"({', '.join(sorted(set(unknown)))}); it knows {', '.join(labels)}; "
            f"{advice}"
        )


def score_epoch(
    model: EmotionModel,
    inputs: Inputs,
    utterances: Sequence[Utterance],
    config: FinetuneConfig,
    processes: "ProcessGroup",
) -> Report:
    """Metrics of a model on its validation set, from the same scores as in `predict`.

    Puts the model into eval mode. The processes share the work.
    """
    model.eval()
    windows = inputs.windows
    batches = [[index] for index in range(len(windows))]  # padding is slower on a CPU
    if processes.device.type != "cpu":
        batches = length_batches(windows.num_samples)
    own = batches[processes.rank :: processes.count]
    rows: list[tuple[list[int], list[list[float]]]] = []
    with torch.inference_mode(), quick_math(processes.device):
        for batch in Progress(own, "validation, batches", show=processes.first):
            loaded = inputs.load_windows(batch).to(processes.device)
            output = run_model(model, loaded, padded=len(batch) > 1)
            rows.append((batch, output.logits.float().cpu().tolist()))
    by_window = np.zeros((len(windows), len(model.config.outputs)), dtype=np.float32)
    for indices, values in processes.gather(rows):
        by_window[indices] = values
    outputs = model.config.outputs
    logits = np.zeros((len(utterances), len(outputs)), dtype=np.float32)
    for place, pieces in enumerate(windows.pieces):
        logits[place] = join_windows(by_window[pieces], windows.weights[pieces], model.config)
    labels = config.data.evaluation_labels or model.config.labels
    logits, columns = add_silence(logits, outputs, inputs.silent, utterances)
    return score_logits(
        logits,
        utterances,
        columns,
        labels=with_silence(labels, columns[len(outputs) :]),
        dimensions=model.config.dimensions,
    )
