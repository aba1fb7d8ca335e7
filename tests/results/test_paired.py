"""Paired statistics: by hand, against statsmodels and scipy, and by simulation of what they say."""

import gc
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from benchmark.errors import RunError
from benchmark.results.intervals import cluster_sums, resampled
from benchmark.results.paired import (
    ALPHA,
    Difference,
    Pair,
    holm,
    macro_f1_difference,
    mcnemar_p,
    paired_difference,
    paired_interval,
    seed_interval,
    sign_flip_p,
    smallest_seen,
    welch_interval,
)
from benchmark.results.subgroups import macro_f1

Array = npt.NDArray[Any]


def a_pair(arm: Array, reference: Array, clusters: Array | None = None) -> Pair:
    """Make a pair of what each seed reads right; (n_seeds, n_faces) of 0 and 1."""
    arm, reference = np.atleast_2d(arm), np.atleast_2d(reference)
    n = arm.shape[1]
    truth = np.zeros(n, dtype=np.int64)
    clusters = np.arange(n) if clusters is None else clusters
    return Pair(truth, clusters, reference=1 - reference, arm=1 - arm)


def chance(chance_sd: float, n: int) -> Difference:
    """Give a difference of which only what the smallest one follows from is of interest."""
    nothing = (None, None, None, None, None)
    return Difference(0, 0, 0, *nothing, "sign_flip", 1, None, None, n, n, chance_sd, 1 / n)


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Let garbage collections overlook what is there: statsmodels collects at each correction."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_mcnemar_by_hand() -> None:
    # 7 faces are read by one arm alone, 1 of them by the reference: with a fair coin, P(0 or 1
    # heads of 7) = (1 + 7) / 128 = 0.0625; twice that is 0.125.
    pair = a_pair(np.array([1] * 6 + [0] + [1] * 3), np.array([0] * 6 + [1] + [1] * 3))
    found = paired_difference(pair)
    assert (found.test, found.only_arm, found.only_reference) == ("mcnemar", 6, 1)
    assert found.p == pytest.approx(0.125)
    assert found.accuracy == pytest.approx(0.5)
    assert found.unit == pytest.approx(1 / 10)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_agrees_with_statsmodels_on_random_tables(seed: int) -> None:
    right = np.random.default_rng(seed).random((2, 300)) < [[0.7], [0.75]]
    table = [[int((right[0] & right[1]).sum()), int((right[0] & ~right[1]).sum())],
             [int((~right[0] & right[1]).sum()), int((~right[0] & ~right[1]).sum())]]  # fmt: skip
    found = paired_difference(a_pair(right[0], right[1]))
    assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_arms_that_answer_alike_are_no_finding_and_have_an_interval() -> None:
    # Agresti and Min: 100 pairs without a discordant one, and half a pair in each cell: the mean
    # is 0, its standard error sqrt((0.5 + 0.5) / 102 / 102) = 1 / 102.
    answers = np.ones(100, dtype=int)
    found = paired_difference(a_pair(answers, answers))
    assert (found.accuracy, found.p) == (0.0, 1.0)
    assert (found.low, found.high) == pytest.approx((-1.95996 / 102, 1.95996 / 102), abs=1e-6)
    assert found.unit == 1 / 100
    assert smallest_seen(found, ALPHA) > 0


def test_an_arm_always_right_against_one_always_wrong_has_an_interval() -> None:
    # 20 clusters of two faces, all +1: mean 20 / 22, variance 21 / 22 - (20 / 22)² = 0.12810,
    # half width 1.96 sqrt(0.12810 / 22) = 0.14956: 0.75953 to 1, cut off there.
    low, high = paired_interval(np.ones((40, 1)), np.repeat(np.arange(20), 2))
    assert low[0] == pytest.approx(20 / 22 - 0.14956, abs=1e-4)
    assert high[0] == 1.0
    low, high = paired_interval(-np.ones((40, 1)), np.repeat(np.arange(20), 2))
    assert low[0] == -1.0
    assert high[0] == pytest.approx(-20 / 22 + 0.14956, abs=1e-4)


def test_sign_flip_by_hand() -> None:
    # Steps +2 +1 -1: totals of the 8 tosses are 4 2 2 0 0 -2 -2 -4; 6 of them are as far from 0
    # as the total of 2 that was found.
    assert sign_flip_p(np.array([2, 1, -1])) == pytest.approx(6 / 8)
    # All of one sign: only it and its opposite are as far, 2 of 2^5.
    assert sign_flip_p(np.array([1, 2, 3, 1, 1, 0])) == pytest.approx(2 / 32)
    assert sign_flip_p(np.zeros(4, dtype=np.int64)) == 1.0
    # +1 and -1: every toss is as far from 0 as the 0 found, two of four lie on both sides of it.
    assert sign_flip_p(np.array([1, -1])) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_sign_flip_agrees_with_scipys_exact_enumeration(seed: int) -> None:
    steps = np.random.default_rng(seed).integers(-3, 5, 11)
    theirs = stats.permutation_test(
        (steps, np.zeros(11)),
        lambda one, other, axis: np.sum(one - other, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flip_p(steps) == pytest.approx(theirs.pvalue)


def test_sign_flip_agrees_with_tosses_that_are_drawn() -> None:
    # 20,000 tosses of 400 clusters; their share has a standard error of at most 0.0035.
    random = np.random.default_rng(7)
    steps = random.integers(-6, 8, 400)
    signs = random.choice([-1, 1], (20_000, 400))
    drawn = (np.abs(signs @ steps) >= abs(steps.sum())).mean()
    assert sign_flip_p(steps) == pytest.approx(drawn, abs=0.012)


@pytest.mark.parametrize(("only_reference", "only_arm"), [(3, 9), (40, 25), (0, 1_500)])
def test_sign_flip_of_single_runs_is_mcnemars_test(only_reference: int, only_arm: int) -> None:
    steps = np.repeat([-1, 1, 0], [only_reference, only_arm, 50])
    p = sign_flip_p(steps)
    assert p == pytest.approx(mcnemar_p(only_reference, only_arm), rel=1e-9)
    assert p > 0


def test_seeds_are_averaged_face_by_face() -> None:
    # Two seeds against three, in steps of 1/6. Face 0: 2/2 - 1/3 = 4/6; face 1: 1/2 - 2/3 = -1/6;
    # face 2: 0 - 0. Faces 1 and 2 are one cluster: 4 and -1. The mean is 3/6/3 = 1/6.
    arm = np.array([[1, 1, 0], [1, 0, 0]])
    reference = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    pair = a_pair(arm, reference, np.array([5, 2, 2]))
    assert pair.steps.tolist() == [4, -1, 0]
    assert sorted(pair.cluster_steps.tolist()) == [-1, 4]
    found = paired_difference(pair)
    assert (found.test, found.n_clusters) == ("sign_flip", 2)
    assert found.accuracy == pytest.approx(1 / 6)
    # Totals of the four tosses: 5 3 -3 -5, all of them as far from 0 as the 3 found.
    assert found.p == 1.0
    # If the names were drawn by lot: sqrt(4² + 1²) / 6 / 3 faces.
    assert found.chance_sd == pytest.approx(math.sqrt(17) / 18)
    # The mean cluster of the two moves 5/2 sixths of 3 faces.
    assert found.unit == pytest.approx(5 / 36)


def test_more_seeds_of_the_same_answers_prove_nothing_more() -> None:
    random = np.random.default_rng(1)
    arm, reference = (random.random((2, 300)) < [[0.8], [0.7]]).astype(int)
    once = paired_difference(a_pair(arm, reference))
    thrice = paired_difference(a_pair(np.tile(arm, (3, 1)), np.tile(reference, (3, 1))))
    assert thrice.p == pytest.approx(once.p)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


def test_one_seed_never_meets_the_mean_of_several() -> None:
    answers = np.ones((3, 4), dtype=int)
    with pytest.raises(RunError, match="a run against a run, or several seeds"):
        a_pair(answers, answers[:1])
    with pytest.raises(RunError, match="different numbers of faces"):
        a_pair(answers, answers[:, :2])


def test_the_interval_agrees_with_scipys_paired_bootstrap() -> None:
    right = (np.random.default_rng(2).random((2, 400)) < [[0.8], [0.72]]).astype(float)
    low, high = paired_interval((right[0] - right[1])[:, None], np.arange(400))
    theirs = stats.bootstrap(
        (right[0], right[1]),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        paired=True,
        n_resamples=2_000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.008)


def test_the_ends_are_percentiles_of_the_means_of_resampled_clusters() -> None:
    random = np.random.default_rng(15)
    differences, clusters = random.integers(-1, 2, (300, 2)) / 1.0, random.integers(0, 120, 300)
    low, high = paired_interval(differences, clusters)
    sums, sizes = (cluster_sums(of, clusters) for of in (differences, np.ones((300, 1))))
    means = resampled(sums) / resampled(sizes)
    assert low == pytest.approx(np.percentile(means, 2.5, axis=0))
    assert high == pytest.approx(np.percentile(means, 97.5, axis=0))


def test_macro_f1_difference_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(4)
    truth = random.integers(0, 4, 200)
    arm, reference = (
        np.where(random.random((seeds, 200)) < 0.7, truth, random.integers(0, 5, (seeds, 200)))
        for seeds in (3, 2)
    )
    found, low, high = macro_f1_difference(Pair(truth, np.arange(200), reference, arm))
    expected = np.mean([macro_f1(truth, one) for one in arm]) - np.mean(
        [macro_f1(truth, one) for one in reference]
    )
    assert found == pytest.approx(expected)
    assert low is not None
    assert high is not None
    assert low < expected < high


def test_the_ends_of_macro_f1_are_percentiles_over_resampled_clusters() -> None:
    random = np.random.default_rng(16)
    truth, clusters = random.integers(0, 3, 90), np.repeat(np.arange(30), 3)
    arm, reference = (np.where(random.random(90) < skill, truth, 0) for skill in (0.8, 0.5))
    # How often each resample holds each face: macro-F1 by its definition, once for each.
    weights = resampled(np.eye(30))[:, clusters]
    of_arm, of_reference = (
        np.mean(
            [
                2 * (weights @ ((answers == label) & (truth == label)))
                / (weights @ (answers == label) + weights @ (truth == label))
                for label in range(3)
            ],
            axis=0,
        )
        for answers in (arm, reference)
    )  # fmt: skip
    _, low, high = macro_f1_difference(Pair(truth, clusters, reference[None], arm[None]))
    assert (low, high) == pytest.approx(np.percentile(of_arm - of_reference, [2.5, 97.5]))


def test_faces_of_one_class_have_no_macro_f1() -> None:
    assert macro_f1_difference(a_pair(np.ones(9), np.zeros(9))) == (None, None, None)


def test_a_class_that_a_resample_misses_is_left_out_of_it() -> None:
    # One face of class 1 among 30: a third of all resamples miss it, and have no macro-F1.
    truth = np.array([1] + [0] * 29)
    pair = Pair(truth, np.arange(30), reference=truth[None], arm=(1 - truth)[None])
    found, low, high = macro_f1_difference(pair)
    assert (found, low, high) == (-1.0, -1.0, -1.0)


def test_the_interval_over_seeds_is_welchs() -> None:
    random = np.random.default_rng(5)
    arm, reference = (random.random((2, 3, 60)) < 0.6).astype(int)
    low, high = seed_interval(a_pair(arm[:2], reference))
    rates = arm[:2].mean(axis=1), reference.mean(axis=1)
    theirs = stats.ttest_ind(*rates, equal_var=False).confidence_interval(0.95)
    assert (low, high) == pytest.approx((theirs.low, theirs.high))


def test_seeds_that_agree_leave_no_doubt_over_seeds_and_one_seed_has_no_such_interval() -> None:
    arm, reference = np.tile([1, 1, 1, 0], (2, 1)), np.tile([1, 0, 0, 0], (3, 1))
    assert seed_interval(a_pair(arm, reference)) == (0.5, 0.5)
    assert seed_interval(a_pair(arm[0], reference[0])) == (None, None)


def test_a_small_spread_over_seeds_is_one_and_rounding_is_none() -> None:
    # Means 1e-8 and 0, standard error sqrt(2e-16 / 2) = 1e-8 with one degree of freedom: t 12.706.
    assert welch_interval([0.0, 2e-8], [0.0, 0.0]) == pytest.approx(
        (-11.706e-8, 13.706e-8), rel=1e-3
    )
    third = np.array([0.1 + 0.2, 0.3])  # The same number but for rounding.
    assert welch_interval(third, [0.1, 0.1]) == pytest.approx((0.2, 0.2), abs=1e-15)


def test_holm_by_hand() -> None:
    # Of three: 0.01 * 3 = 0.03, then 0.02 * 2 = 0.04, then 0.2 * 1. Two are rejected, and the
    # third would have been at 0.05 / (3 - 2).
    corrected, level = holm([0.2, 0.01, 0.02])
    assert corrected == pytest.approx([0.2, 0.03, 0.04])
    assert level == pytest.approx(0.05)
    assert holm([0.03, 0.04])[1] == pytest.approx(0.025)
    # 0.025 * 2 is 0.05 to the last bit, and rejected: 0.05 / (2 - 1) is left for the other.
    assert holm([0.025, 0.5]) == ([0.05, 0.5], 0.05)
    assert holm([]) == ([], ALPHA)


@pytest.mark.usefixtures("few_objects")
def test_holm_is_statsmodels() -> None:
    random = np.random.default_rng(7)
    for n in range(1, 60):
        p_values = (random.choice([0.0, 1e-4, 0.1, 1.0], n) * random.random(n)).tolist()
        assert holm(p_values)[0] == multipletests(p_values, method="holm")[1].tolist()


@pytest.mark.usefixtures("few_objects")
def test_the_level_that_holm_leaves_is_where_a_verdict_turns() -> None:
    random = np.random.default_rng(6)
    for _ in range(100):
        p_values = random.choice([0.001, 0.02, 0.3], 6) * random.random(6)
        corrected, level = holm(p_values.tolist())
        for index in (index for index, p in enumerate(corrected) if p > ALPHA):
            for factor, rejected in ((0.999, True), (1.001, False)):
                p_values[index], before = level * factor, p_values[index]
                again = multipletests(p_values, alpha=ALPHA, method="holm")[0][index]
                assert again == rejected
                p_values[index] = before


def test_the_smallest_difference_seen_by_hand() -> None:
    # 100 of 1,000 faces are read by one arm alone: sd sqrt(100) / 1000 = 0.01; (1.960 + 0.842)
    # times that.
    assert smallest_seen(chance(0.01, 1_000), 0.05) == pytest.approx(0.02802, abs=1e-5)
    # No such face: 0.05 takes 6 faces all one way (2 / 2^6 = 0.031), and 7.906 are to be expected
    # for 6 or more with a chance of 0.8: P(Poisson(7.906) < 6) = 0.2.
    floor = smallest_seen(chance(0.0, 1_000), 0.05)
    assert floor == pytest.approx(7.906 / 1_000, abs=1e-6)
    assert stats.poisson.sf(5, 1_000 * floor) == pytest.approx(0.8)
    # No two arms are further apart than all faces.
    assert smallest_seen(chance(0.5, 4), 0.05) == 1.0


# What the statistics promise, over many simulated comparisons.


def simulated(
    n: int, *, gain: float, seed: int, n_seeds: int = 3, clusters: int = 200
) -> tuple[Array, Array, float]:
    """Simulate n comparisons of arms that read each picture as a toss of its own difficulty.

    Pictures have 1 to 3 copies, which are read alike. Gives differences in steps of 1 / n_seeds
    (n_faces, n), the faces' clusters, and the true difference.
    """
    random = np.random.default_rng(seed)
    of_face = np.repeat(np.arange(clusters), random.integers(1, 4, clusters))
    easy = random.beta(2, 0.8, (clusters, n))
    better = np.minimum(easy + gain, 1.0)
    right = [random.binomial(n_seeds, rate) for rate in (better, easy)]
    # The mean over all that Beta(2, 0.8) may draw, faces weighing alike whatever the cluster.
    grid = stats.beta(2, 0.8).ppf((np.arange(100_000) + 0.5) / 100_000)
    true = float((np.minimum(grid + gain, 1.0) - grid).mean())
    return (right[0] - right[1])[of_face], of_face, true


def p_values(steps: Array, clusters: Array) -> Array:
    """Test each column of steps (n_faces, n)."""
    sums = np.zeros((clusters.max() + 1, steps.shape[1]), dtype=np.int64)
    np.add.at(sums, clusters, steps)
    return np.array([sign_flip_p(column) for column in sums.T])


@pytest.mark.parametrize(("gain", "n_seeds"), [(0.0, 1), (0.0, 3), (0.1, 1), (0.1, 3)])
def test_the_interval_covers_the_true_difference_at_the_stated_rate(
    gain: float, n_seeds: int
) -> None:
    # 1,000 comparisons on clustered faces: the share has a standard error of 0.7 points.
    steps, clusters, true = simulated(1_000, gain=gain, seed=8, n_seeds=n_seeds)
    low, high = paired_interval(steps / n_seeds, clusters)
    assert 0.93 <= ((low <= true) & (true <= high)).mean() <= 0.97


def test_planted_ties_of_experiments_are_told_apart_in_one_case_of_twenty() -> None:
    # 1,000 ties: 50 are to be expected, with a standard error of 7.
    steps, clusters, _ = simulated(1_000, gain=0.0, seed=9)
    assert 30 <= (p_values(steps, clusters) <= ALPHA).sum() <= 50 + 2 * 7


def test_planted_ties_of_runs_are_told_apart_in_one_case_of_twenty_at_most() -> None:
    # 2,000 ties of 150 faces read by one arm alone, about; exact tests are a little cautious.
    random = np.random.default_rng(10)
    only_arm, only_reference, _ = random.multinomial(2_000, [0.04, 0.04, 0.92], 2_000).T
    p = [mcnemar_p(int(b), int(c)) for b, c in zip(only_reference, only_arm, strict=True)]
    assert 0.03 <= (np.array(p) <= ALPHA).mean() <= 0.05 + 2 * 0.005


@pytest.mark.usefixtures("few_objects")
def test_a_table_of_ties_tells_any_apart_in_one_case_of_twenty() -> None:
    # 1,000 tables of 8 p-values; without Holm a third of them would.
    p = np.random.default_rng(11).random((1_000, 8))
    found = np.array([min(holm(row.tolist())[0]) <= ALPHA for row in p])
    assert 0.03 <= found.mean() <= 0.05 + 2 * 0.007
    assert (p.min(axis=1) <= ALPHA).mean() > 0.3


def test_a_planted_effect_between_experiments_is_found_as_often_as_promised() -> None:
    # The gain is chosen so that the true difference is what ties promise to see in 80 % of cases;
    # 1,000 comparisons: a standard error of 1.3 points.
    ties, clusters, _ = simulated(200, gain=0.0, seed=12, clusters=400)
    sums = np.zeros((400, 200))
    np.add.at(sums, clusters, ties / 3)
    sd = np.sqrt(np.square(sums).sum(axis=0).mean()) / len(clusters)
    promised = smallest_seen(chance(float(sd), len(clusters)), ALPHA)
    steps, clusters, true = simulated(1_000, gain=0.0531, seed=12, clusters=400)
    assert true == pytest.approx(promised, rel=0.02)
    assert (p_values(steps, clusters) <= ALPHA).mean() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("level", [0.05, 0.05 / 12])
@pytest.mark.parametrize(("n", "differing"), [(2_315, 0.12), (2_315, 0.02), (200, 0.3), (2_315, 0)])
def test_a_planted_effect_between_runs_is_found_as_often_as_promised(
    n: int, differing: float, level: float
) -> None:
    # `differing`: the share of faces that only one arm reads, were there no difference.
    promised = smallest_seen(chance(math.sqrt(differing * n) / n, n), level)
    share = max(differing, promised)
    rates = [(share + promised) / 2, (share - promised) / 2, 1 - share]
    more, less, _ = np.random.default_rng(13).multinomial(n, rates, 20_000).T
    p = 2 * stats.binom.cdf(np.minimum(more, less), more + less, 0.5)
    assert (p <= level).mean() == pytest.approx(0.8, abs=0.04)


def test_the_interval_of_macro_f1_covers_the_true_difference_at_the_stated_rate() -> None:
    # Classes as frequent as age groups; a wrong answer is the group next to the true one. The
    # truth is that of 300,000 pictures; 600 comparisons: a standard error of 0.9 points.
    random = np.random.default_rng(14)
    true = macro_f1_of(drawn_answers(300_000, random))
    hits = []
    for _ in range(600):
        low, high = macro_f1_difference(drawn_answers(150, random))[1:]
        assert low is not None
        assert high is not None
        hits.append(low <= true <= high)
    assert 0.93 <= np.mean(hits) <= 0.97


def drawn_answers(n: int, random: np.random.Generator) -> Pair:
    """Draw n pictures, each of one or two copies, and what two seeds of two arms say of them."""
    copies = np.repeat(np.arange(n), random.integers(1, 3, n))
    truth = random.choice(5, n, p=[0.154, 0.168, 0.395, 0.182, 0.101])
    easy = random.beta(2, 0.8, n)
    said = []
    for gain in (0.0, 0.05):
        right = random.random((2, n)) < easy + gain
        beside = np.clip(truth + random.choice([-1, 1], (2, n)), 0, 4)
        said.append(np.where(right, truth, beside)[:, copies])
    return Pair(truth[copies], copies, *said)


def macro_f1_of(pair: Pair) -> float:
    arm, reference = (
        np.mean([macro_f1(pair.truth, one) for one in answers])
        for answers in (pair.arm, pair.reference)
    )
    return float(arm - reference)
