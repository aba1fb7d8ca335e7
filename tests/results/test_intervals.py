"""Intervals of rates: Wilson's by hand, and the cluster bootstrap against scipy and by coverage."""

import numpy as np
import pytest
from scipy import stats

from benchmark.evaluation.intervals import cluster_bootstrap, wilson


def test_wilson_by_hand() -> None:
    # 8 of 10, z = 1.96: centre (0.8 + 1.96²/20) / (1 + 1.96²/10) = 0.99208 / 1.38416 = 0.71674;
    # half width 1.96 / 1.38416 * sqrt(0.8 * 0.2 / 10 + 1.96² / 400) = 1.41602 * 0.16 = 0.22657.
    low, high = wilson(np.array([8]), np.array([10]))
    assert low[0] == pytest.approx(0.4902, abs=1e-4)
    assert high[0] == pytest.approx(0.9433, abs=1e-4)


def test_wilson_without_faces_is_missing() -> None:
    low, high = wilson(np.array([0, 3]), np.array([0, 3]))
    assert np.isnan(low[0])
    assert np.isnan(high[0])
    assert low[1] < high[1] == 1.0


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_all_right_or_all_wrong_still_has_an_interval(rate: float) -> None:
    # 20 faces in 10 clusters: Wilson's interval of 10 of 10 is (0.7225, 1).
    low, high = cluster_bootstrap(np.full((20, 1), rate), np.repeat(np.arange(10), 2))
    assert high[0] - low[0] == pytest.approx(1 - 0.7225, abs=1e-4)


def test_bootstrap_agrees_with_scipy_where_each_face_is_a_cluster() -> None:
    values = (np.random.default_rng(1).random(300) < 0.8).astype(float)
    low, high = cluster_bootstrap(values[:, None], np.arange(300))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=2_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert low[0] == pytest.approx(theirs.low, abs=0.01)
    assert high[0] == pytest.approx(theirs.high, abs=0.01)


def test_faces_of_one_cluster_widen_the_interval() -> None:
    # Ten copies of each of 50 pictures are worth 50 faces: sqrt(10) = 3.16 times the width.
    pictures = (np.random.default_rng(3).random(50) < 0.7).astype(float)
    values = np.repeat(pictures, 10)[:, None]
    apart = np.subtract(*cluster_bootstrap(values, np.arange(500)))
    together = np.subtract(*cluster_bootstrap(values, np.repeat(np.arange(50), 10)))
    assert together[0] / apart[0] == pytest.approx(np.sqrt(10), rel=0.1)


def test_faces_that_do_not_count_change_nothing() -> None:
    random = np.random.default_rng(4)
    women = random.random((40, 1)).round()
    padded = np.vstack([women, np.full((60, 1), np.nan)])
    low, high = cluster_bootstrap(padded, np.arange(100))
    assert low[0] < women.mean() < high[0]
    nobody = cluster_bootstrap(np.full((5, 1), np.nan), np.arange(5))
    assert np.isnan(nobody).all()


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(5).random((80, 3)).round()
    first, again = (cluster_bootstrap(values, np.arange(80)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_bootstrap_covers_the_truth_at_the_stated_rate() -> None:
    # 400 samples of 200 clusters of 1 to 3 faces that are right together, at a true rate of 0.8.
    # The count of hits has a standard error of sqrt(0.95 * 0.05 / 400) = 1.1 points.
    random = np.random.default_rng(6)
    clusters = np.repeat(np.arange(200), random.integers(1, 4, 200))
    samples = (random.random((200, 400)) < 0.8).astype(float)[clusters]
    low, high = cluster_bootstrap(samples, clusters)
    coverage = ((low <= 0.8) & (high >= 0.8)).mean()
    assert 0.93 <= coverage <= 0.97
