"""Scores of arousal, dominance and valence: metrics, intervals over speakers, tables, calibration.

All values are on a scale of 0 to 1.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from emoser.finetune.data.utterance import Utterance
from emoser.metrics import bootstrap_interval, concordance, mean_absolute_error, pearson
from emoser.models.model import EmotionModel
from emoser.text import markdown_text

METRICS = {"ccc": concordance, "pearson": pearson, "mae": mean_absolute_error}
NAMES = {"ccc": "CCC", "pearson": "Pearson", "mae": "mean absolute error"}
FEWEST_CLIPS = 8  # that a calibration is fitted on
LEAST_SPREAD = 1e-3  # of predicted values whose spread is calibrated

Values: TypeAlias = NDArray[np.float64]
Pairs: TypeAlias = Mapping[str, tuple[Values, Values]]
"""True and predicted values, (N,) each, of every dimension."""

Figures: TypeAlias = Mapping[str, Mapping[str, float]]
"""The metrics of every dimension by their keys in `METRICS`."""

Intervals: TypeAlias = Mapping[str, Mapping[str, tuple[float, float]]]


def pair_values(
    logits: NDArray[np.float32],
    utterances: Sequence[Utterance],
    columns: Sequence[str],
    dimensions: Sequence[str],
) -> Pairs:
    """True and predicted values of dimensions, which are among the columns of the logits (N, C)."""
    return {
        name: (
            np.array([item.value(name) for item in utterances]),
            logits[:, list(columns).index(name)].astype(np.float64),
        )
        for name in dimensions
    }


def score_values(pairs: Pairs) -> Figures:
    """All metrics of all dimensions.

    Example:
        >>> score_values({"valence": (np.array([0.0, 1.0]), np.array([0.0, 1.0]))})
        {'valence': {'ccc': 1.0, 'pearson': 1.0, 'mae': 0.0}}
    """
    return {
        name: {key: metric(*pair) for key, metric in METRICS.items()}
        for name, pair in pairs.items()
    }


def find_intervals(pairs: Pairs, groups: Sequence[Hashable]) -> Intervals:
    """The 95 % intervals of all metrics over groups, which are speakers."""
    return {
        name: {key: bootstrap_interval(*pair, groups, metric) for key, metric in METRICS.items()}
        for name, pair in pairs.items()
    }


def list_figures(figures: Figures) -> list[list[str]]:
    """The metrics as the rows of a table, with a header."""
    rows = [[name, *(f"{found[key]:.3f}" for key in METRICS)] for name, found in figures.items()]
    return [["dimension", *NAMES.values()], *rows]


def list_intervals(
    figures: Figures, intervals: Intervals, *, interval_name: str, mark: str = ""
) -> list[list[str]]:
    """The metrics with their intervals as the rows of a Markdown table, with a header."""
    rows = [["figure", "value", interval_name]]
    for name, found in figures.items():
        for key, metric in NAMES.items():
            low, high = intervals[name][key]
            figure = f"{metric} of {markdown_text(name)}"
            rows.append([figure, f"{found[key]:.3f}{mark}", f"{low:.3f} to {high:.3f}"])
    return rows


def calibrate_values(model: EmotionModel, pairs: Pairs) -> list[str]:
    """Give the answers of a model the mean and spread of true values, which it was not trained on.

    This is the linear map with the highest concordance. It becomes part of the last layer. Few
    recordings, or answers that hardly vary, are no reason to change anything.

    Returns remarks on the changes.
    """
    notes = []
    for name, (truth, predicted) in pairs.items():
        if len(truth) < FEWEST_CLIPS or min(truth.std(), predicted.std()) < LEAST_SPREAD:
            continue
        factor = float(truth.std() / predicted.std())
        offset = float(truth.mean() - factor * predicted.mean())
        row = model.config.outputs.index(name)
        with torch.no_grad():
            model.head.get_parameter("classifier.weight")[row] *= factor
            bias = model.head.get_parameter("classifier.bias")
            bias[row] = factor * bias[row] + offset
        notes.append(f"{name} calibrated on the validation set: times {factor:.3f}, {offset:+.3f}")
    return notes
