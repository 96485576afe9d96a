"""Scores against the votes of annotators, and of several labels at once.

Where recordings have votes, the label is that of the most of them, and the distribution is scored
too. Where several labels may apply, each is answered yes or no.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emoser.finetune.data.utterance import Utterance
from emoser.metrics import unweighted_average_recall
from emoser.text import counted

NAMES: Mapping[str, str] = {
    "divergence": "divergence from the votes (KL, nats)",
    "agreement": "votes that agree with the answer",
    "ceiling": "votes that agree with the majority (the ceiling)",
}
YES = 0.5  # from this probability on a label is part of the answer

Flags = NDArray[np.int64]
"""Whether each label applies, 0 or 1, (N, C)."""


def share_votes(utterances: Sequence[Utterance], labels: Sequence[str]) -> NDArray[np.float64]:
    """The share of votes for every label, (N, C).

    Example:
        >>> share_votes([Utterance("a.wav", votes={"sad": 3, "happy": 1})], ["happy", "sad"])
        array([[0.25, 0.75]])
    """
    return np.array([[item.share(label) for label in labels] for item in utterances])


def score_votes(
    shares: NDArray[np.float64], probabilities: NDArray[np.float64]
) -> dict[str, float]:
    """The figures of `NAMES`, from shares of votes and probabilities of a model, (N, C) each.

    The agreement of a model that always answers with the majority is the ceiling: no answer
    agrees with more votes.

    Example:
        >>> found = score_votes(np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]))
        >>> {name: round(value, 4) for name, value in found.items()}
        {'divergence': 0.1308, 'agreement': 0.25, 'ceiling': 0.75}
    """
    smallest = np.finfo(np.float32).tiny
    logs = np.log(np.maximum(shares, smallest)) - np.log(np.maximum(probabilities, smallest))
    chosen = probabilities.argmax(axis=1)
    return {
        "divergence": float((shares * logs).sum(axis=1).mean()),
        "agreement": float(shares[np.arange(len(shares)), chosen].mean()),
        "ceiling": float(shares.max(axis=1).mean()),
    }


def note_ties(utterances: Sequence[Utterance]) -> list[str]:
    """A remark on recordings without a majority, or nothing.

    Example:
        >>> note_ties([Utterance("a.wav", votes={"sad": 2, "happy": 2})])
        ['1 recording without a majority counts with the first of its leading labels']
    """
    tied = sum(
        sorted(item.votes.values())[-2:] == [max(item.votes.values())] * 2
        for item in utterances
        if item.votes
    )
    if not tied:
        return []
    verb = "counts with the first of its" if tied == 1 else "count with the first of their"
    return [f"{counted(tied, 'recording')} without a majority {verb} leading labels"]


def flag_labels(utterances: Sequence[Utterance], labels: Sequence[str]) -> Flags:
    """Whether each label applies, (N, C).

    Example:
        >>> flag_labels([Utterance("a.wav", labels=("sad", "angry"))], ["angry", "happy", "sad"])
        array([[1, 0, 1]])
    """
    return np.array([[label in item.answers for label in labels] for item in utterances], np.int64)


def exact_matches(truth: Flags, predicted: Flags) -> float:
    """The share of recordings whose labels are all right.

    Example:
        >>> exact_matches(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [1, 0]]))
        0.5
    """
    return float((truth == predicted).all(axis=1).mean())


def recall_labels(truth: Flags, predicted: Flags) -> float:
    """Recall averaged over yes and no of each label, and over labels; 0.5 is chance.

    Example:
        >>> recall_labels(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [1, 0]]))
        0.75
    """
    pairs = zip(truth.T, predicted.T, strict=True)
    return float(np.mean([unweighted_average_recall(*pair) for pair in pairs]))


def mean_f1(truth: Flags, predicted: Flags) -> float:
    """F1 of yes averaged over the labels that apply to some recording; 0 if none does.

    Example:
        >>> round(mean_f1(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]])), 3)
        0.833
    """
    names = [str(place) for place in range(truth.shape[1])]
    return float(np.mean([*f1_by_label(truth, predicted, names).values()] or [0.0]))


def f1_by_label(truth: Flags, predicted: Flags, labels: Sequence[str]) -> dict[str, float]:
    """F1 of yes for every label that applies to some recording.

    Example:
        >>> f1_by_label(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]]), ["happy", "sad"])
        {'happy': 0.6666666666666666, 'sad': 1.0}
    """
    return {
        label: float(2 * (left & right).sum() / (left.sum() + right.sum()))
        for label, left, right in zip(labels, truth.T, predicted.T, strict=True)
        if left.any()
    }
