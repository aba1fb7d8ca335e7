"""Intervals by hand, against scipy and by coverage; scores of confusion matrices by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.evaluation import intervals
from benchmark.evaluation.intervals import cluster_bootstrap, wilson
from benchmark.evaluation.metrics import resampled_confusion


def test_wilson_by_hand() -> None:
    # 8 of 10, z = 1.96: centre (0.8 + 1.96²/20) / (1 + 1.96²/10) = 0.99208 / 1.38416 = 0.71674;
    # half width 1.96 / 1.38416 * sqrt(0.8 * 0.2 / 10 + 1.96² / 400) = 1.41602 * 0.16 = 0.22657.
    low, high = wilson(np.array([8, 0, 3]), np.array([10, 0, 3]))
    assert (low[0], high[0]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert np.isnan([low[1], high[1]]).all()
    assert low[2] < high[2] == 1.0


def test_all_right_or_all_wrong_has_an_interval_and_faces_that_do_not_count_change_none() -> None:
    # 20 faces in 10 clusters: Wilson's interval of 10 of 10 is (0.7225, 1).
    low, high = cluster_bootstrap(np.tile([0.0, 1.0], (20, 1)), np.repeat(np.arange(10), 2))
    assert high - low == pytest.approx([1 - 0.7225] * 2, abs=1e-4)
    women = np.random.default_rng(4).random((40, 1)).round()
    padded = np.vstack([women, np.full((60, 1), np.nan)])
    low, high = cluster_bootstrap(padded, np.arange(100))
    assert low[0] < women.mean() < high[0]
    assert np.isnan(cluster_bootstrap(padded[40:], np.arange(60))).all()
    assert np.isnan([intervals.spread(np.full(10, value)) for value in (0.5, np.nan)]).all()


def test_bootstrap_agrees_with_scipy_and_covers_the_truth_where_faces_cluster() -> None:
    values = (np.random.default_rng(1).random(300) < 0.8).astype(float)
    low, high = cluster_bootstrap(values[:, None], np.arange(300))
    options = {"n_resamples": 2_000, "method": "percentile", "rng": np.random.default_rng(2)}
    theirs = stats.bootstrap((values,), np.mean, **options).confidence_interval
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    # 400 samples of 200 clusters of 1 to 3 faces that are right together, at a true rate of 0.8.
    clusters = np.repeat(np.arange(200), np.random.default_rng(6).integers(1, 4, 200))
    samples = (np.random.default_rng(7).random((200, 400)) < 0.8).astype(float)[clusters]
    low, high = cluster_bootstrap(samples, clusters)
    assert 0.93 <= ((low <= 0.8) & (high >= 0.8)).mean() <= 0.97


def test_scores_of_a_matrix_by_hand() -> None:
    # Class 0: 3 of 4 right, one class-1 face taken for it: recall 3/4, F1 = 6 / (6 + 1 + 1).
    matrix = np.array([[3.0, 1.0], [1.0, 5.0]])
    assert intervals.class_recall(matrix).tolist() == [0.75, 5 / 6]
    assert intervals.class_f1(matrix)[0] == 0.75
    # Class 2 has no face and is predicted once: recalls 1/2 and 1, F1 2/3 and 1.
    matrix = np.array([[1.0, 0, 1], [0, 2, 0], [0, 0, 0]])
    assert np.isnan(intervals.class_f1(matrix)[2])
    assert intervals.balanced_accuracy(matrix) == 0.75
    assert intervals.macro_f1_of_counts(matrix) == pytest.approx((2 / 3 + 1) / 2)
    # No face at all, and one class alone.
    both = np.stack([np.zeros((5, 5)), np.diag([4.0, 0, 0, 0, 0])])
    assert np.isnan(intervals.accuracy(both)).tolist() == [True, False]
    assert np.isnan(intervals.macro_f1_of_counts(both)).all()
    assert np.isnan(intervals.quadratic_kappa(both)).all()
    assert np.isnan(intervals.mean_group_error(both)).tolist() == [True, False]


CELLS = np.array([
    [0.142, 0.008, 0.003, 0.001, 0.000], [0.006, 0.081, 0.080, 0.001, 0.000],
    [0.002, 0.046, 0.311, 0.034, 0.002], [0.000, 0.001, 0.052, 0.101, 0.028],
    [0.001, 0.000, 0.001, 0.025, 0.074],
])  # fmt: skip
"""Shares of true by predicted age group, about those of a small CNN."""


@pytest.mark.parametrize("clustered", [pytest.param(False, marks=pytest.mark.slow), True])
def test_bootstrap_intervals_of_scores_hold_the_truth_at_the_stated_rate(clustered: bool) -> None:
    # 400 tests of 600 faces, in clusters of 1 to 3 that are predicted alike where clustered. The
    # rate of one number has a standard error of 1.1 points, of the mean over the five less.
    shares = CELLS / CELLS.sum()
    scores = (
        *(intervals.accuracy, intervals.macro_f1_of_counts, intervals.balanced_accuracy),
        *(intervals.mean_group_error, intervals.quadratic_kappa),
    )
    random = np.random.default_rng(5)
    clusters = np.arange(600)
    if clustered:
        clusters = np.repeat(np.arange(600), random.integers(1, 4, 600))[:600]
    held = []
    for _ in range(400):
        cells = random.choice(25, 600, p=shares.ravel())[clusters]
        labels = {"age_group": cells // 5, "age_group_pred": cells % 5}
        table = pd.DataFrame({"cluster": clusters, **labels})
        again = resampled_confusion(table, "age_group")
        spans = [intervals.spread(number(again)) for number in scores]
        truths = [number(shares) for number in scores]
        held.append([low <= t <= high for (low, high), t in zip(spans, truths, strict=True)])
    rates = np.mean(held, axis=0)
    assert (rates >= 0.92).all()
    assert 0.93 <= rates.mean() <= 0.97
