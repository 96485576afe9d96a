"""How the answers of a model change with the conditions of the recordings."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emoser.audio import SAMPLING_RATE
from emoser.finetune.data.annotations import state_scale
from emoser.finetune.data.augment import Samples
from emoser.finetune.data.conditions import Condition, list_conditions
from emoser.finetune.data.recordings import Recordings, group_by_file
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.models import Model
from emoser.finetune.scoring.comparison import group_speakers
from emoser.finetune.scoring.figures import choose_metrics
from emoser.finetune.scoring.logits import infer_samples
from emoser.finetune.scoring.scored_model import opened
from emoser.finetune.scoring.shifts import (
    MACRO_F1,
    MEAN_CCC,
    ConditionResult,
    Robustness,
    Shift,
)
from emoser.finetune.scoring.votes import YES, flag_labels, mean_f1
from emoser.metrics import concordance, difference_interval
from emoser.results.segments import SILENCE

NUM_DRAWS = 500


def measure_robustness(
    model: Model,
    utterances: Sequence[Utterance],
    labels: Sequence[str] = (),
    *,
    dimensions: Sequence[str] = (),
    seed: int = 0,
    trained_on: str = "",
) -> Robustness:
    """Score the same recordings as they are and in every condition.

    Args:
        model: What `evaluate` takes.
        utterances: The recordings, with labels among `labels`, or silence, or with values of the
            dimensions.
        labels: The labels to choose from; empty to score dimensions only. Where recordings may
            have several at once, each label is answered yes or no.
        dimensions: The dimensions of the model to score.
        seed: Of the noise and the rooms.
        trained_on: What the model was trained on of these recordings.

    Raises:
        AudioError: If a recording cannot be read.
        ValueError: If there are neither labels nor dimensions.
    """
    found = answer_conditions(model, utterances, labels, dimensions=dimensions, seed=seed)
    return score_answers(found, trained_on=trained_on)


@dataclass(frozen=True)
class ConditionAnswers:
    """The answers to the same N recordings, as they are and in K conditions.

    The first column of each array is that of the recordings as they are.

    Attributes:
        utterances: The recordings.
        labels: The labels to choose from.
        conditions: Names of the conditions.
        missing: Conditions that this machine has no encoder for.
        answers: Indices of labels, one more for silence, (N, 1 + K); or where several labels may
            apply at once, whether each does, (N, 1 + K, C).
        silent: Whether nobody is found to speak, (N, 1 + K).
        dimensions: The dimensions that are scored.
        values: Their values, (N, 1 + K, D).
    """

    utterances: tuple[Utterance, ...]
    labels: tuple[str, ...]
    conditions: tuple[str, ...]
    missing: tuple[str, ...]
    answers: NDArray[np.int64]
    silent: NDArray[np.bool_]
    dimensions: tuple[str, ...]
    values: NDArray[np.float64]

    @property
    def changed(self) -> dict[str, float]:
        """The share of answers that each condition changes."""
        differ = self.answers[:, 1:] != self.answers[:, :1]
        shares = differ.reshape(*differ.shape[:2], -1).any(axis=2).mean(axis=0)
        return dict(zip(self.conditions, map(float, shares), strict=True))

    @property
    def moved(self) -> NDArray[np.float64]:
        """The mean absolute change of the dimensions in each condition, (K, D)."""
        return np.asarray(np.abs(self.values[:, 1:] - self.values[:, :1]).mean(axis=0))


def answer_conditions(
    model: Model,
    utterances: Sequence[Utterance],
    labels: Sequence[str] = (),
    *,
    dimensions: Sequence[str] = (),
    seed: int = 0,
) -> ConditionAnswers:
    """Answers to recordings as they are and in every condition; the truth is not looked at.

    A file is decoded once; one recording after the other is answered in all conditions. The
    arguments and errors are those of `measure_robustness`.
    """
    if not labels and not dimensions:
        raise ValueError("there is nothing to score; pass labels, dimensions, or both")
    conditions, missing = list_conditions()
    order = [index for members in group_by_file(utterances).values() for index in members]
    labels = [label for label in labels if label != SILENCE]
    with opened(model) as one:
        stated = state_scale(utterances, one.config.dimension_scale) if dimensions else utterances
        scored = [stated[index] for index in order]
        logits, silent = infer_samples(
            one.runtime,
            one.config,
            _vary(scored, conditions, seed),
            rate=SAMPLING_RATE,
            total=len(scored) * (1 + len(conditions)),
        )
        logits, columns = one.map_logits(logits), list(one.outputs)
    rows = logits[:, [columns.index(label) for label in labels]]
    values = logits[:, [columns.index(name) for name in dimensions]].astype(np.float64)
    several = not labels or any(item.labels is not None for item in scored)
    shape = len(scored), 1 + len(conditions)
    answered = (*shape, len(labels)) if several else shape
    return ConditionAnswers(
        tuple(scored),
        tuple(labels),
        tuple(conditions),
        missing,
        _choose(rows, silent, several=several).reshape(answered),
        silent.reshape(shape),
        tuple(dimensions),
        values.reshape(*shape, len(dimensions)),
    )


def score_answers(found: ConditionAnswers, *, trained_on: str = "") -> Robustness:
    """Figures and changes of answers to recordings with labels among those to choose from."""
    measures = [*_measure_labels(found), *_measure_values(found)]
    groups = group_speakers(found.utterances)
    plain = {one.name: one.figure(one.truth, one.answers[:, 0]) for one in measures}
    usual = Shift(math.nan, (math.nan, math.nan))
    changed, moved = found.changed, found.moved.tolist()
    results = []
    for place, name in enumerate(found.conditions, start=1):
        shifts = {
            one.name: Shift(
                one.figure(one.truth, one.answers[:, place]),
                difference_interval(
                    one.truth,
                    one.answers[:, place],
                    one.answers[:, 0],
                    groups,
                    one.figure,
                    num_draws=NUM_DRAWS,
                ),
            )
            for one in measures
        }
        uar = shifts.pop("UAR", usual)
        results.append(
            ConditionResult(
                name,
                uar.value,
                changed[name] if found.labels else math.nan,
                float(found.silent[:, place].mean()),
                uar.interval,
                shifts,
                dict(zip(found.dimensions, moved[place - 1], strict=True)),
            )
        )
    return Robustness(plain.pop("UAR", math.nan), tuple(results), found.missing, trained_on, plain)


class _Measure(NamedTuple):
    """A metric, the truth (N, ...) that it is of, and the answers (N, 1 + K, ...)."""

    name: str
    truth: NDArray[Any]
    answers: NDArray[Any]
    figure: Callable[[Any, Any], float]


def _measure_labels(found: ConditionAnswers) -> Iterator[_Measure]:
    if not found.labels:
        return
    names = (*found.labels, SILENCE)
    if found.answers.ndim == 3:
        truth = flag_labels(found.utterances, found.labels)
        yield _Measure(MACRO_F1, truth, found.answers, mean_f1)
    else:
        truth = np.array([names.index(item.label) for item in found.utterances])
    yield _Measure("UAR", truth, found.answers, choose_metrics(truth)[1])


def _measure_values(found: ConditionAnswers) -> Iterator[_Measure]:
    if not found.dimensions:
        return
    truth = np.array([[item.value(name) for name in found.dimensions] for item in found.utterances])
    if len(found.dimensions) > 1:
        yield _Measure(MEAN_CCC, truth, found.values, _mean_concordance)
    for place, name in enumerate(found.dimensions):
        yield _Measure(f"CCC of {name}", truth[:, place], found.values[:, :, place], concordance)


def _mean_concordance(truth: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """The mean of the CCCs of the columns, (N, D)."""
    return float(np.mean([concordance(*pair) for pair in zip(truth.T, values.T, strict=True)]))


def _vary(
    utterances: Sequence[Utterance], conditions: dict[str, Condition], seed: int
) -> Iterator[Samples]:
    """Every recording as it is, then in each condition."""
    place = 0
    for members in group_by_file(utterances).values():
        for samples in Recordings([utterances[index] for index in members]):
            yield samples
            for change in conditions.values():  # with the same noise at every level
                yield change(samples, np.random.default_rng((seed, place)))
            place += 1


def _choose(
    scores: NDArray[np.float32], silent: NDArray[np.bool_], *, several: bool
) -> NDArray[np.int64]:
    """Answers by logarithms of scores (N, C): indices of labels, one more for silence, (N,).

    Of several labels, whether each applies, (N, C).
    """
    if several:
        return (np.exp(scores.astype(np.float64)) >= YES).astype(np.int64)
    return np.asarray(np.where(silent, scores.shape[1], scores.argmax(axis=1)))
