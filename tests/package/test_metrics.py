"""The figures against scikit-learn, hand-made cases and their own definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, pearsonr
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
)

from emoser import metrics

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_figures_are_those_of_scikit_learn(pairs):
    truth, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    present = np.unique(truth)
    f1 = f1_score(truth, predicted, labels=present, average="macro", zero_division=0.0)
    assert metrics.accuracy(truth, predicted) == pytest.approx(accuracy_score(truth, predicted))
    assert metrics.unweighted_average_recall(truth, predicted) == pytest.approx(
        balanced_accuracy_score(truth, predicted)
    )
    assert metrics.macro_f1(truth, predicted) == pytest.approx(f1)
    ours = metrics.confusion_matrix(truth, predicted, 4)
    assert np.array_equal(ours, confusion_matrix(truth, predicted, labels=range(4)))


def test_a_class_that_no_recording_has_does_not_count_as_missed():
    assert metrics.unweighted_average_recall([0, 0], [0, 1]) == 0.5


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_size():
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.55, 0.45]] * 6)
    truth = [0, 0, 0, 1, 0, 0, 0, 1, 1, 1]
    expected = 0.4 * abs(0.75 - 0.9) + 0.6 * abs(0.5 - 0.55)
    assert metrics.expected_calibration_error(truth, probabilities) == pytest.approx(expected)


def test_a_sure_and_right_classifier_is_calibrated():
    assert metrics.expected_calibration_error([1, 0], np.array([[0.0, 1.0], [1.0, 0.0]])) == 0.0


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [([], []), ([0, 1], [0]), (["sad"], ["sad"]), ([-1], [0]), ([[0]], [[0]])],
    ids=["none", "lengths", "names", "negative", "matrix"],
)
def test_what_is_no_list_of_classes_is_refused(truth, predicted):
    with pytest.raises(ValueError, match=r"class"):
        metrics.unweighted_average_recall(truth, predicted)


def test_a_confusion_needs_room_for_every_class():
    with pytest.raises(ValueError, match="num_labels=2"):
        metrics.confusion_matrix([0, 2], [0, 1], 2)


@pytest.mark.parametrize("offset", [0.0, 3.0], ids=["centred", "shifted"])
def test_figures_of_values_are_those_of_other_formulas(offset):
    generator = np.random.default_rng(4)
    truth = generator.uniform(size=200)
    predicted = 0.4 * truth + offset + 0.2 * generator.standard_normal(200)
    r, gap = np.corrcoef(truth, predicted)[0, 1], truth.mean() - predicted.mean()
    ratio = truth.std() / predicted.std()  # Lin's form: correlation times bias correction
    lin = r * 2 / (ratio + 1 / ratio + gap**2 / (truth.std() * predicted.std()))
    square = np.mean((truth - predicted) ** 2)
    independent = 1 - square / (truth.var() + predicted.var() + gap**2)
    found = metrics.concordance(truth, predicted)
    assert found == pytest.approx(lin, abs=1e-12)
    assert found == pytest.approx(independent, abs=1e-12)
    assert metrics.pearson(truth, predicted) == pytest.approx(pearsonr(truth, predicted)[0])
    assert metrics.mean_absolute_error(truth, predicted) == pytest.approx(
        mean_absolute_error(truth, predicted)
    )


def test_values_that_do_not_vary_agree_with_nothing():
    assert metrics.concordance([0.5, 0.5], [0.5, 0.5]) == 0.0
    assert metrics.pearson([0.0, 1.0], [0.5, 0.5]) == 0.0


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [([], []), ([0.1, 0.2], [0.1]), ([float("nan")], [0.0]), ([0.0], [float("inf")])],
    ids=["none", "lengths", "nan", "infinite"],
)
def test_what_is_no_list_of_values_is_refused(truth, predicted):
    with pytest.raises(ValueError, match="value"):
        metrics.concordance(truth, predicted)


def test_interval_of_a_difference_is_that_of_scipy_over_speakers():
    generator = np.random.default_rng(0)
    right = generator.random((2, 40)) < [[0.8], [0.4]]  # whether each model knows a speaker
    expected = bootstrap(
        right.astype(float),
        lambda first, second: np.mean(first) - np.mean(second),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=4000,
        rng=1,
    ).confidence_interval
    speakers, truth = np.repeat(np.arange(40), 3), np.ones(120, int)
    first, second = np.repeat(right.astype(int), 3, axis=1)
    found = metrics.difference_interval(
        truth, first, second, speakers.tolist(), metrics.accuracy, num_draws=4000
    )
    assert found == pytest.approx(tuple(expected), abs=0.03)
    swapped = metrics.difference_interval(truth, second, first, speakers.tolist(), metrics.accuracy)
    assert swapped[1] < 0 < found[0]
