"""Score one model, or two for comparison: `score_models(models, utterances) -> Scores`."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emoser.finetune.data.annotations import state_scale
from emoser.finetune.data.recordings import note_unreadable
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.models import Model
from emoser.finetune.scoring.comparison import Comparison, compare
from emoser.finetune.scoring.evaluation import find_common
from emoser.finetune.scoring.figures import with_silence
from emoser.finetune.scoring.leakage import refuse_overlap
from emoser.finetune.scoring.logits import Inferred, add_silence
from emoser.finetune.scoring.report import Evaluation, assess
from emoser.finetune.scoring.scored_model import ScoredModel, opened
from emoser.results.segments import SILENCE
from emoser.text import counted

ONLY_KNOWN = "leave these out with only_known=True (--only-known)"


@dataclass(frozen=True)
class ScoringOptions:
    """How models are scored.

    Attributes:
        protocol: The protocol of the evaluation, in a sentence; by default what the models state
            about their training.
        only_known: Whether to leave out recordings with labels that a model lacks.
        skip_unreadable: Whether to leave out recordings that cannot be read.
        allow_trained_on: Whether a model may have been trained on recordings or speakers among
            these.
    """

    protocol: str = ""
    only_known: bool = False
    skip_unreadable: bool = False
    allow_trained_on: bool = False


class Scores(NamedTuple):
    """The result of `score_models`.

    Attributes:
        evaluation: The evaluation of the first model.
        comparison: That with the second model, if there is one.
        utterances: The N recordings that were scored, with labels as in `labels`.
        labels: The labels that the models chose from; empty if only dimensions were scored.
        dimensions: The dimensions that were scored.
        logits: Logarithms of the first model's scores, then its dimensions, (N, C).
    """

    evaluation: Evaluation
    comparison: Comparison | None
    utterances: list[Utterance]
    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    logits: NDArray[np.float32]


def score_models(
    models: Sequence[Model], utterances: Sequence[Utterance], options: ScoringOptions
) -> Scores:
    """The evaluation of the first model, and its comparison with the second if there is one.

    Args:
        models: One or two of what `evaluate` takes.
        utterances: The recordings.
        options: How to score.

    Raises:
        ValueError: If no recording is left, or one has a label that a model lacks.
        CheckpointError: If a model cannot be loaded.
        AudioError: Naming all recordings that cannot be read, unless they are left out.
        LeakageError: If a model was trained on some of the recordings or speakers, and that is
            not allowed.
    """
    if not 1 <= len(models) <= 2:
        raise ValueError(f"{len(models)} models given; pass one, or two to compare")
    with ExitStack() as stack:
        scored = [stack.enter_context(opened(model)) for model in models]
        for model in scored:
            utterances = state_scale(model.rename(utterances), model.config.dimension_scale)
        labels, dimensions = (
            [name for name in names[0] if all(name in others for others in names)]
            for names in (
                [one.labels for one in scored],
                [one.config.dimensions for one in scored],
            )
        )
        notes: list[str] = []
        if options.only_known and labels:
            utterances, notes = _keep_known(utterances, labels)
        common = find_common(
            utterances,
            labels,
            dimensions,
            advice=ONLY_KNOWN,
            multi_label=all(one.config.multi_label for one in scored),
        )
        overlaps = [model.compare(utterances) for model in scored]
        trained_on = refuse_overlap(overlaps, allowed=options.allow_trained_on)
        protocol = options.protocol or "; ".join(dict.fromkeys(o.describe() for o in overlaps))
        if trained_on and options.protocol:
            protocol = f"{protocol}; {trained_on}"
        found: list[Inferred] = []
        for model in scored:
            found.append(model.infer(utterances, skip_unreadable=options.skip_unreadable))
            notes += note_unreadable(found[-1].faults)
            utterances = found[-1].utterances
    scores = _summarise(scored, found, common, (protocol, *notes))
    report = replace(scores.evaluation.report, trained_on=trained_on)
    comparison = scores.comparison
    if comparison is not None:
        comparison = replace(comparison, trained_on=trained_on)
    evaluation = replace(scores.evaluation, report=report)
    return scores._replace(evaluation=evaluation, comparison=comparison)


def _summarise(
    scored: Sequence[ScoredModel],
    found: Sequence[Inferred],
    common: tuple[tuple[str, ...], tuple[str, ...]],
    remarks: Sequence[str],
) -> Scores:
    """The figures of the models in common; the first of the remarks is the protocol."""
    (labels, dimensions), (protocol, *notes) = common, remarks
    utterances, silent = found[-1].utterances, found[-1].silent
    wider = [
        add_silence(one.logits, model.outputs, silent, utterances)
        for one, model in zip(found, scored, strict=True)
    ]
    known = with_silence(labels, wider[0][1][len(scored[0].outputs) :])
    evaluation = assess(
        wider[0][0],
        utterances,
        wider[0][1],
        protocol=protocol,
        labels=known,
        notes=notes,
    )
    left_out = sum(len(one.faults) for one in found)
    report = replace(evaluation.report, num_unreadable=left_out)
    comparison = None
    if len(scored) > 1:
        comparison = compare(
            [rows for rows, _ in wider],
            [columns for _, columns in wider],
            utterances,
            names=[model.name for model in scored],
            labels=known,
            dimensions=dimensions,
        )
    rows = wider[0][0][:, [wider[0][1].index(name) for name in (*known, *dimensions)]]
    evaluation = replace(evaluation, report=report)
    return Scores(evaluation, comparison, utterances, known, dimensions, rows)


def _keep_known(
    utterances: Sequence[Utterance], labels: Sequence[str]
) -> tuple[list[Utterance], list[str]]:
    """The recordings with one of the labels, and a remark on the others."""
    known = {*labels, SILENCE}
    kept = [item for item in utterances if known.issuperset(item.classes)]
    unknown = Counter(label for item in utterances for label in item.classes if label not in known)
    left = ", ".join(f"{count} {label}" for label, count in sorted(unknown.items()))
    if unknown and not kept:
        raise ValueError(
            f"none of the {counted(len(utterances), 'recording')} has a label that the model "
            f"knows ({', '.join(labels)}); the labels are {left}"
        )
    return kept, [f"left out, because the model lacks the label: {left}"] if unknown else []
