"""The figures against scikit-learn, hand-made cases and their own definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

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
