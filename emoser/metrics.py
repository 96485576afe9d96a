"""Metrics of labelled recordings: classes as indices, and values of dimensions.

Of classes: accuracy (the "WA" of the literature), recall averaged over the classes (UAR, its
"UA"), macro F1, confusion, and the expected calibration error, all in [0, 1]. A class without
recordings is left out of the averages: it has no recall. Of values: concordance (CCC), Pearson's
correlation, and the mean absolute error. Every metric raises a ValueError without recordings,
for lengths that differ, and for anything but indices from 0 on, or finite numbers.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15
FEWEST_SPEAKERS = 4  # of a confidence interval

Indices = Sequence[int] | NDArray[np.int64]
Values = Sequence[float] | NDArray[np.floating]


def accuracy(truth: Indices, predicted: Indices) -> float:
    """Share of the recordings that are classified correctly.

    Example:
        >>> accuracy([0, 0, 0, 1], [0, 0, 0, 0])
        0.75
    """
    truth, predicted = _check(truth, predicted)
    return float((truth == predicted).mean())


def unweighted_average_recall(truth: Indices, predicted: Indices) -> float:
    """Recall of each class that occurs in the truth, averaged: every class counts the same.

    The balanced accuracy of scikit-learn; chance is 1 over the number of classes.

    Example:
        >>> unweighted_average_recall([0, 0, 0, 1], [0, 0, 0, 0])
        0.5
    """
    truth, predicted = _check(truth, predicted)
    recalls = [(predicted[truth == label] == label).mean() for label in np.unique(truth)]
    return float(np.mean(recalls))


def macro_f1(truth: Indices, predicted: Indices) -> float:
    """F1 of each class that occurs in the truth, averaged.

    Example:
        >>> macro_f1([0, 0, 1], [0, 0, 0])
        0.4
    """
    truth, predicted = _check(truth, predicted)
    scores = []
    for label in np.unique(truth):
        correct = np.count_nonzero((truth == label) & (predicted == label))
        total = np.count_nonzero(truth == label) + np.count_nonzero(predicted == label)
        scores.append(2 * correct / total)
    return float(np.mean(scores))


def confusion_matrix(truth: Indices, predicted: Indices, num_labels: int) -> NDArray[np.int64]:
    """Counts of true class (row) by predicted class (column), (C, C).

    Raises:
        ValueError: If an index is not below `num_labels`.

    Example:
        >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    truth, predicted = _check(truth, predicted)
    if max(truth.max(), predicted.max()) >= num_labels:
        raise ValueError(f"an index is not below num_labels={num_labels}")
    matrix = np.zeros((num_labels, num_labels), dtype=np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    return matrix


def confusion_table(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> list[list[str]]:
    r"""A confusion matrix as the rows of a table, with a header: one row per true label.

    Example:
        >>> confusion_table(["sad", "happy"], [[7, 3], [2, 8]])[:2]
        [['true \\ predicted', 'sad', 'happy'], ['sad', '7', '3']]
    """
    rows = [[label, *map(str, row)] for label, row in zip(labels, counts, strict=True)]
    return [["true \\ predicted", *labels], *rows]


def expected_calibration_error(
    truth: Indices, probabilities: NDArray[np.floating], *, num_bins: int = NUM_BINS
) -> float:
    """Mean distance between confidence and accuracy (Guo et al. 2017).

    Recordings are put into bins of equal width by the probability of their best class; each bin
    is weighted by its size.

    Args:
        truth: The class of each recording, (N,).
        probabilities: One row per recording, each with sum 1, (N, C).
        num_bins: Number of bins between 0 and 1.

    Example:
        >>> expected_calibration_error([0, 1], np.array([[0.8, 0.2], [0.8, 0.2]]))  # 1/2, not 0.8
        0.3
    """
    truth, predicted = _check(truth, np.argmax(probabilities, axis=1))
    confidence = np.max(probabilities, axis=1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=(truth == predicted) - confidence, minlength=num_bins)
    return round(float(np.abs(gaps).sum() / len(truth)), 12)


def concordance(truth: Values, predicted: Values) -> float:
    """Concordance correlation coefficient (Lin 1989), in [-1, 1]; 1 if all values are equal.

    2 cov / (var + var + (difference of the means) ** 2), with variances over N; 0 if neither side
    varies. Unlike Pearson's correlation, it falls with a wrong mean or spread.

    Example:
        >>> concordance([0.0, 1.0], [0.0, 1.0]), concordance([0.0, 1.0], [1.0, 2.0])
        (1.0, 0.3333333333333333)
    """
    truth, predicted = _check_values(truth, predicted)
    covariance = np.mean((truth - truth.mean()) * (predicted - predicted.mean()))
    spread = truth.var() + predicted.var() + (truth.mean() - predicted.mean()) ** 2
    return float(2 * covariance / spread) if spread > 0 else 0.0


def pearson(truth: Values, predicted: Values) -> float:
    """Pearson's correlation, in [-1, 1]; 0 if a side does not vary.

    Example:
        >>> pearson([0.0, 1.0], [1.0, 3.0])
        1.0
    """
    truth, predicted = _check_values(truth, predicted)
    covariance = np.mean((truth - truth.mean()) * (predicted - predicted.mean()))
    spread = truth.std() * predicted.std()
    return float(covariance / spread) if spread > 0 else 0.0


def mean_absolute_error(truth: Values, predicted: Values) -> float:
    """Mean distance of the values.

    Example:
        >>> mean_absolute_error([0.0, 1.0], [0.5, 1.0])
        0.25
    """
    truth, predicted = _check_values(truth, predicted)
    return float(np.abs(truth - predicted).mean())


def bootstrap_interval(
    truth: Indices | Values,
    predicted: Indices | Values,
    groups: Sequence[Hashable],
    figure: Callable[[Any, Any], float],
    *,
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The bootstrap confidence interval of a metric, over speakers.

    Whole groups are drawn with replacement, since the recordings of a speaker are correlated;
    with a single group, recordings are drawn.

    Args:
        truth: The class or value of each recording, (N,).
        predicted: What was predicted of each, (N,).
        groups: The speaker of each recording, (N,).
        figure: The metric, such as `accuracy` or `unweighted_average_recall`.
        num_draws: Number of bootstrap samples.
        level: Share of the samples inside the interval.
        seed: Of the random generator.

    Example:
        >>> bootstrap_interval([0, 0, 1, 1], [0, 0, 1, 1], "aabb", accuracy)
        (1.0, 1.0)
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    drawn = draw_groups(groups, num_draws, seed)
    return _middle([figure(truth[rows], predicted[rows]) for rows in drawn], level)


def difference_interval(
    truth: Indices | Values,
    first: Indices | Values,
    second: Indices | Values,
    groups: Sequence[Hashable],
    figure: Callable[[Any, Any], float],
    *,
    num_draws: int = 1000,
) -> tuple[float, float]:
    """The 95 % bootstrap confidence interval of a difference of two models on the same recordings.

    The difference is the metric of the first minus that of the second. Groups are drawn as in
    `bootstrap_interval`, the same for both.

    Args:
        truth: The class or value of each recording, (N,).
        first: What the first model predicted of each, (N,).
        second: What the second model predicted of each, (N,).
        groups: The speaker of each recording, (N,).
        figure: The metric, such as `accuracy` or `unweighted_average_recall`.
        num_draws: Number of bootstrap samples.

    Example:
        >>> difference_interval([0, 1], [0, 1], [1, 0], "ab", accuracy)
        (1.0, 1.0)
    """
    truth, first, second = np.asarray(truth), np.asarray(first), np.asarray(second)
    drawn = draw_groups(groups, num_draws, seed=0)
    differences = [
        figure(truth[rows], first[rows]) - figure(truth[rows], second[rows]) for rows in drawn
    ]
    return _middle(differences, level=0.95)


def _middle(figures: Sequence[float], level: float) -> tuple[float, float]:
    """The interval around the median that holds this share of the figures."""
    low, high = np.quantile(figures, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def name_interval(num_speakers: int | None) -> str:
    """What `bootstrap_interval` gives for so many known speakers; None if that is not stated.

    Of two or three speakers the lowest and the highest draw hold a single one of them, so that
    there is a range but no interval.

    Example:
        >>> name_interval(12), name_interval(2)
        ('95 % interval over 12 speakers', 'range over 2 speakers, too few for an interval')
    """
    if num_speakers is None:
        return "95 % interval over speakers"
    if num_speakers <= 1:
        return "95 % interval over recordings"
    if num_speakers < FEWEST_SPEAKERS:
        return f"range over {num_speakers} speakers, too few for an interval"
    return f"95 % interval over {num_speakers} speakers"


def draw_groups(groups: Sequence[Hashable], num_draws: int, seed: int) -> list[NDArray[np.int64]]:
    """Rows of whole groups, drawn with replacement; as many groups as there are."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    parts = [np.array(rows) for rows in members.values()]
    if len(parts) == 1:
        parts = [np.array([row]) for row in range(len(groups))]
    generator = np.random.default_rng(seed)
    choices = generator.integers(len(parts), size=(num_draws, len(parts)))
    return [np.concatenate([parts[index] for index in chosen]) for chosen in choices]


def _check(truth: Indices, predicted: Indices) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    _check_shapes(truth, predicted, "class index")
    if truth.dtype.kind not in "iu" or predicted.dtype.kind not in "iu" or truth.min() < 0:
        raise ValueError("classes are given as indices from 0 on, not as names or fractions")
    return truth.astype(np.int64), predicted.astype(np.int64)


def _check_values(
    truth: Values, predicted: Values
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left = np.asarray(truth, dtype=np.float64)
    right = np.asarray(predicted, dtype=np.float64)
    _check_shapes(left, right, "value")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("values must be finite numbers")
    return left, right


def _check_shapes(truth: NDArray[Any], predicted: NDArray[Any], kind: str) -> None:
    if truth.ndim != 1 or truth.shape != predicted.shape or len(truth) == 0:
        raise ValueError(
            f"truth has shape {truth.shape} and the predictions {predicted.shape}; "
            f"both need one {kind} per recording, and at least one recording"
        )
