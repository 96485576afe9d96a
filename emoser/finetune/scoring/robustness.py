"""How the answers of a model change with the conditions of the recordings."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.audio import SAMPLING_RATE
from emoser.finetune.data.augment import Samples
from emoser.finetune.data.conditions import Condition, list_conditions
from emoser.finetune.data.recordings import Recordings, group_by_file
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.models import Model
from emoser.finetune.scoring.comparison import group_speakers
from emoser.finetune.scoring.logits import infer_samples
from emoser.finetune.scoring.scored_model import opened
from emoser.metrics import difference_interval, unweighted_average_recall
from emoser.results.segments import SILENCE
from emoser.text import aligned_table, join_words, markdown_table

NUM_DRAWS = 500
PLAIN = "as they are"
HARMLESS = 0.02  # of the UAR: less is not worth a warning
SHOWN = 3


@dataclass(frozen=True)
class ConditionResult:
    """The answers to the same recordings in one condition.

    Attributes:
        name: The condition.
        uar: Unweighted average recall.
        changed: Share of recordings whose answer is another one than in the recording as it is.
        silent: Share of recordings whose answer is "silence".
        interval: 95 % interval of the difference of the UAR, over speakers where they are known.
    """

    name: str
    uar: float
    changed: float
    silent: float
    interval: tuple[float, float]

    @property
    def range(self) -> str:
        """The interval in points, as text."""
        return " to ".join(f"{100 * bound:+.1f}" for bound in self.interval)


@dataclass(frozen=True)
class Robustness:
    """The recordings as they are, and in every condition.

    Attributes:
        uar: Unweighted average recall of the recordings as they are.
        conditions: The results, in a fixed order.
        missing: Conditions that this machine has no encoder for.
        trained_on: What the model was trained on of these recordings; empty if nothing is known.
    """

    uar: float
    conditions: tuple[ConditionResult, ...]
    missing: tuple[str, ...] = ()
    trained_on: str = ""

    @property
    def rows(self) -> list[list[str]]:
        """A table with its head."""
        mark = " (trained on)" * bool(self.trained_on)
        head = ["recordings", "UAR", "difference", "95 % interval", "changed answers", "silence"]
        plain = [PLAIN, f"{100 * self.uar:.1f} %{mark}", "", "", "", ""]
        return [head, plain] + [
            [
                one.name,
                f"{100 * one.uar:.1f} %{mark}",
                f"{100 * (one.uar - self.uar):+.1f}",
                one.range,
                f"{100 * one.changed:.0f} %",
                f"{100 * one.silent:.0f} %",
            ]
            for one in self.conditions
        ]

    @property
    def bars(self) -> dict[str, tuple[float, float]]:
        """UAR and share of changed answers of each condition, for the picture."""
        bars = {one.name: (one.uar, one.changed) for one in self.conditions}
        return {PLAIN: (self.uar, 0.0), **bars}

    @property
    def warning(self) -> str:
        """What to fear, in a sentence or two."""
        by_loss = sorted(self.conditions, key=lambda one: one.uar)
        worst = [one for one in by_loss if self.uar - one.uar > HARMLESS][:SHOWN]
        if worst:
            named = [
                f"{one.name} (UAR {100 * (one.uar - self.uar):+.1f} points, 95 % interval "
                f"{one.range}; {100 * one.changed:.0f} % of the answers change)"
                for one in worst
            ]
            text = f"What to fear most: {join_words(named)}."
        else:
            loss = max((self.uar - one.uar for one in self.conditions), default=0.0)
            text = f"No condition lowers the UAR by more than {100 * max(loss, 0.0):.1f} points."
        if self.missing:
            text += f" Not measured, for want of an encoder: {join_words(self.missing)}."
        return text

    def __str__(self) -> str:
        """The table and what to fear."""
        return f"{aligned_table(self.rows)}\n{self.warning}"

    def to_markdown(self) -> str:
        """A section for a report."""
        return f"## Robustness\n\n{markdown_table(self.rows)}\n\n{self.warning}\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "warning": self.warning}


def measure_robustness(
    model: Model,
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    *,
    seed: int = 0,
    trained_on: str = "",
) -> Robustness:
    """Score the same recordings as they are and in every condition.

    Args:
        model: What `evaluate` takes.
        utterances: The recordings, with labels among `labels`, or silence.
        labels: The labels to choose from.
        seed: Of the noise and the rooms.
        trained_on: What the model was trained on of these recordings.

    Raises:
        AudioError: If a recording cannot be read.
        ValueError: If there are no labels, or several at once.
    """
    return score_answers(
        answer_conditions(model, utterances, labels, seed=seed), trained_on=trained_on
    )


@dataclass(frozen=True)
class ConditionAnswers:
    """The answers to the same N recordings, as they are and in K conditions.

    Attributes:
        utterances: The recordings.
        labels: The labels to choose from.
        conditions: Names of the conditions.
        missing: Conditions that this machine has no encoder for.
        answers: Indices of labels, one more for silence, (N, 1 + K); the first column is that of
            the recordings as they are.
    """

    utterances: tuple[Utterance, ...]
    labels: tuple[str, ...]
    conditions: tuple[str, ...]
    missing: tuple[str, ...]
    answers: NDArray[np.int64]

    @property
    def changed(self) -> dict[str, float]:
        """The share of answers that each condition changes."""
        shares = (self.answers[:, 1:] != self.answers[:, :1]).mean(axis=0)
        return dict(zip(self.conditions, map(float, shares), strict=True))


def answer_conditions(
    model: Model, utterances: Sequence[Utterance], labels: Sequence[str], *, seed: int = 0
) -> ConditionAnswers:
    """Answers to recordings as they are and in every condition; their labels are not looked at.

    A file is decoded once; one recording after the other is answered in all conditions. The
    arguments and errors are those of `measure_robustness`.
    """
    if not labels or any(item.labels is not None for item in utterances):
        raise ValueError(
            "robustness is measured by the recall of labels that exclude each other, and other "
            "answers are scored here; leave --robustness out"
        )
    conditions, missing = list_conditions()
    order = [index for members in group_by_file(utterances).values() for index in members]
    scored = [utterances[index] for index in order]
    labels = [label for label in labels if label != SILENCE]
    with opened(model) as one:
        logits, silent = infer_samples(
            one.runtime,
            one.config,
            _vary(scored, conditions, seed),
            rate=SAMPLING_RATE,
            total=len(scored) * (1 + len(conditions)),
        )
        answers = _choose(one.map_logits(logits), silent, one.outputs, labels)
    return ConditionAnswers(
        tuple(scored),
        tuple(labels),
        tuple(conditions),
        missing,
        answers.reshape(len(scored), 1 + len(conditions)),
    )


def score_answers(found: ConditionAnswers, *, trained_on: str = "") -> Robustness:
    """UARs and changes of answers to recordings whose labels are among those to choose from."""
    names = (*found.labels, SILENCE)
    truth = np.array([names.index(item.label) for item in found.utterances])
    groups = group_speakers(found.utterances)
    plain, *others = found.answers.T
    changed = found.changed
    results = tuple(
        ConditionResult(
            name,
            unweighted_average_recall(truth, answers),
            changed[name],
            float((answers == len(found.labels)).mean()),
            difference_interval(
                truth, answers, plain, groups, unweighted_average_recall, num_draws=NUM_DRAWS
            ),
        )
        for name, answers in zip(found.conditions, others, strict=True)
    )
    uar = unweighted_average_recall(truth, plain)
    return Robustness(uar, results, found.missing, trained_on)


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
    logits: NDArray[np.float32],
    silent: NDArray[np.bool_],
    columns: Sequence[str],
    labels: Sequence[str],
) -> NDArray[np.int64]:
    """The answers as indices of `labels`, one more for silence."""
    rows = logits[:, [list(columns).index(label) for label in labels]]
    answers: NDArray[np.int64] = np.where(silent, len(labels), rows.argmax(axis=1))
    return answers
