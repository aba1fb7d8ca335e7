"""Scores of confusion matrices, thousands at once: equal to scikit-learn's, one at a time."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from benchmark.evaluation import intervals
from benchmark.evaluation.intervals import Floats

Labels = np.ndarray


def kappa(truth: Labels, predicted: Labels) -> float:
    return float(sklearn_metrics.cohen_kappa_score(truth, predicted, weights="quadratic"))


def macro_f1(truth: Labels, predicted: Labels) -> float:
    return float(sklearn_metrics.f1_score(truth, predicted, average="macro"))


THEIRS: dict[Callable[[Floats], Floats], Callable[[Labels, Labels], float]] = {
    intervals.accuracy: sklearn_metrics.accuracy_score,
    intervals.macro_f1_of_counts: macro_f1,
    intervals.balanced_accuracy: sklearn_metrics.balanced_accuracy_score,
    intervals.mean_group_error: sklearn_metrics.mean_absolute_error,
    intervals.quadratic_kappa: kappa,
}


@pytest.mark.parametrize("ours", THEIRS, ids=lambda number: number.__name__)
def test_every_score_equals_the_library_s_on_random_tables(
    ours: Callable[[Floats], Floats],
) -> None:
    random = np.random.default_rng(0)
    tables = [(random.integers(5, size=300), random.integers(5, size=300)) for _ in range(20)]
    matrices = np.array([sklearn_metrics.confusion_matrix(*table) for table in tables])
    theirs = [THEIRS[ours](*table) for table in tables]
    np.testing.assert_allclose(ours(matrices.astype(float)), theirs)


def test_recall_and_f1_by_hand() -> None:
    # Class 0: 3 of 4 right, one class-1 face taken for it: recall 3/4, F1 = 6 / (6 + 1 + 1).
    matrix = np.array([[3.0, 1.0], [1.0, 5.0]])
    assert intervals.class_recall(matrix).tolist() == [0.75, 5 / 6]
    assert intervals.class_f1(matrix)[0] == 0.75


def test_a_class_that_does_not_occur_is_left_out_of_means() -> None:
    # Class 2 has no face and is predicted once: recalls 1/2 and 1, F1 2/3 and 1.
    matrix = np.array([[1.0, 0, 1], [0, 2, 0], [0, 0, 0]])
    assert np.isnan(intervals.class_f1(matrix)[2])
    assert intervals.balanced_accuracy(matrix) == 0.75
    assert intervals.macro_f1_of_counts(matrix) == pytest.approx((2 / 3 + 1) / 2)


def test_what_does_not_exist_is_missing_and_no_crash() -> None:
    nothing, one_class = np.zeros((5, 5)), np.diag([4.0, 0, 0, 0, 0])
    both = np.stack([nothing, one_class])
    assert np.isnan(intervals.accuracy(both)).tolist() == [True, False]
    assert np.isnan(intervals.macro_f1_of_counts(both)).all()
    assert np.isnan(intervals.quadratic_kappa(both)).all()
    assert np.isnan(intervals.mean_group_error(both)).tolist() == [True, False]
