"""Two arms on the same test faces: how far apart they are, and whether chance alone could do that.

An arm is one run, or an experiment with several seeds. Seeds are averaged face by face and never
pooled as if they were faces: what is resampled and tested are faces, whole clusters of them. How
far another training would move a number is told apart, by `seed_low` and `seed_high`.

Differences are those of the arm minus its reference, as fractions. Which arms are compared, and
what is said of the outcome, is in benchmark.results.comparison and .verdicts.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats
from statsmodels.stats.contingency_tables import mcnemar

from benchmark.errors import RunError
from benchmark.results.intervals import CONFIDENCE, Floats, cluster_sums, percentiles, resampled

Labels = npt.NDArray[np.integer[Any]]
Test = Literal["mcnemar", "sign_flip"]

ALPHA: Final = 0.05
"""A corrected p of this or less tells two arms apart."""
POWER: Final = 0.8
"""With what probability a difference "would have been seen"."""


@dataclass(frozen=True)
class Pair:
    """Both arms' answers to one task, about the same faces in the same order."""

    truth: Labels
    """(n_faces,) true classes."""
    clusters: Labels
    """(n_faces,); faces of one cluster are the same picture."""
    reference: Labels
    """(n_seeds, n_faces) predicted classes, a row per seed; the arms' numbers may differ."""
    arm: Labels

    def __post_init__(self) -> None:
        shapes = {answers.shape[1:] for answers in (self.reference, self.arm)}
        if shapes != {self.truth.shape} or self.truth.shape != self.clusters.shape:
            raise RunError("the arms answered about different numbers of faces")
        one_seed = [len(answers) == 1 for answers in (self.reference, self.arm)]
        if one_seed[0] != one_seed[1]:
            raise RunError(
                "one seed is compared with the mean of several",
                allowed="a run against a run, or several seeds against several",
            )

    @cached_property
    def steps(self) -> npt.NDArray[np.int64]:
        """Give the difference of each face in whole steps of 1 / `steps_per_face`; (n_faces,).

        Seed means are fractions with the numbers of seeds below the line; in steps of their least
        common multiple they are whole, and equal sums are equal exactly.
        """
        of_arm, of_reference = (
            (answers == self.truth).sum(axis=0) * (self.steps_per_face // len(answers))
            for answers in (self.arm, self.reference)
        )
        return np.asarray(of_arm - of_reference, dtype=np.int64)

    @property
    def steps_per_face(self) -> int:
        """How many steps there are from all seeds wrong to all seeds right."""
        return int(np.lcm(len(self.arm), len(self.reference)))

    @cached_property
    def cluster_steps(self) -> npt.NDArray[np.int64]:
        """Add up the steps of each cluster's faces: its mean difference times its size."""
        sums = cluster_sums(self.steps[:, None].astype(np.float64), self.clusters)
        return np.asarray(np.rint(sums[:, 0]), dtype=np.int64)


@dataclass(frozen=True)
class Difference:
    """How much more an arm reads than its reference; rates and their differences as fractions."""

    accuracy: float
    low: float
    """Ends of the 95 % interval: cluster bootstrap of the paired differences."""
    high: float
    macro_f1: float | None
    """None where the faces are of a single class; so are its ends."""
    macro_f1_low: float | None
    macro_f1_high: float | None
    seed_low: float | None
    """Ends of Welch's 95 % interval over seeds; None for one seed. It tells what other trainings
    could do on these test faces, as `low` and `high` tell what other test faces could do."""
    seed_high: float | None
    test: Test
    p: float
    """Two-sided, not corrected."""
    only_reference: int | None
    """Faces that the reference alone reads right; None but for McNemar's test, as is the next."""
    only_arm: int | None
    n_faces: int
    n_clusters: int
    chance_sd: float
    """Standard deviation of `accuracy` if the arms' names were drawn by lot in each cluster."""
    unit: float
    """By how much the mean cluster that is read differently moves `accuracy`."""


def paired_difference(pair: Pair) -> Difference:
    """Compare two arms on one task.

    Run against run: McNemar's exact test over faces. Several seeds against several: the sign-flip
    permutation test over clusters.
    """
    n_faces = len(pair.truth)
    low, high = paired_interval(pair.steps[:, None] / pair.steps_per_face, pair.clusters)
    f1, f1_low, f1_high = macro_f1_difference(pair)
    seed_low, seed_high = seed_interval(pair)
    sums = pair.cluster_steps / pair.steps_per_face
    differing = np.abs(sums[sums != 0])
    single = len(pair.arm) == 1
    only_reference, only_arm = (int((pair.steps == sign).sum()) for sign in (-1, 1))
    return Difference(
        accuracy=float(pair.steps.sum() / pair.steps_per_face / n_faces),
        low=float(low[0]),
        high=float(high[0]),
        macro_f1=f1,
        macro_f1_low=f1_low,
        macro_f1_high=f1_high,
        seed_low=seed_low,
        seed_high=seed_high,
        test="mcnemar" if single else "sign_flip",
        p=mcnemar_p(only_reference, only_arm) if single else sign_flip_p(pair.cluster_steps),
        only_reference=only_reference if single else None,
        only_arm=only_arm if single else None,
        n_faces=n_faces,
        n_clusters=len(sums),
        chance_sd=float(np.sqrt(np.square(sums).sum()) / n_faces),
        unit=float(differing.mean() / n_faces) if len(differing) else 1 / n_faces,
    )


def mcnemar_p(only_reference: int, only_arm: int) -> float:
    """Give the two-sided p of McNemar's exact test from the faces that one arm alone reads right.

    Faces count as independent of each other. Source: Q. McNemar, "Note on the sampling error of
    the difference between correlated proportions or percentages", Psychometrika 12 (1947);
    computed by statsmodels.
    """
    table = [[0, only_reference], [only_arm, 0]]
    return _above_zero(float(mcnemar(table, exact=True).pvalue))


def sign_flip_p(cluster_steps: npt.NDArray[np.int64]) -> float:
    """Give the two-sided p of the sign-flip permutation test; exact, whatever the number.

    cluster_steps: (n_clusters,) whole numbers, each cluster's mean difference times its size in
    steps of any unit. If the arms are alike, which of the two gave which answers of a cluster is a
    toss of a coin; p is the share of all 2^n tosses that give a total as far from 0 as the one
    found, the one found among them, so that it is never 0. Because steps are whole, totals lie
    on a lattice, and the tosses need not be drawn nor listed: clusters with equal steps add a
    binomial count of them, and the counts are convolved. Where every step is 1, this is McNemar's
    exact test. Source of the test: R. A. Fisher, "The Design of Experiments" (1935), §21.
    """
    sizes = np.abs(cluster_steps[cluster_steps != 0])
    if not len(sizes):
        return 1.0
    unit = int(np.gcd.reduce(sizes))
    # A toss's total is 2 * (steps that fall to the arm) - all; by symmetry one tail is enough.
    all_steps, found = int(sizes.sum()) // unit, abs(int(cluster_steps.sum())) // unit
    to_the_arm = np.ones(1)
    for size, count in zip(*np.unique(sizes // unit, return_counts=True), strict=True):
        to_the_arm = _with_tosses(to_the_arm, int(size), int(count))
    tail = float(to_the_arm[(all_steps + found) // 2 :].sum())
    return _above_zero(min(1.0, 2 * tail))


def _with_tosses(probabilities: Floats, size: int, count: int) -> Floats:
    """Add `count` coins worth `size` steps each to a distribution over whole steps."""
    together = np.zeros(len(probabilities) + size * count)
    # Tosses of `size` steps move within one remainder of it: each is a plain convolution.
    for remainder in range(min(size, len(probabilities))):
        ours = probabilities[remainder::size]
        together[remainder::size] = np.convolve(ours, _heads(count))
    return together


@functools.lru_cache(maxsize=4096)
def _heads(count: int) -> Floats:
    """Give the probabilities of 0 to `count` heads; kept, as tables ask for few counts often."""
    return np.asarray(stats.binom.pmf(np.arange(count + 1), count, 0.5))


def _above_zero(p: float) -> float:
    """Keep a p too small for a floating number from reading 0."""
    return max(p, float(np.finfo(np.float64).tiny))


def paired_interval(differences: Floats, clusters: Labels) -> tuple[Floats, Floats]:
    """Give the ends of the 95 % percentile interval of each column's mean; both (k,).

    differences: (n_faces, k) paired differences in [-1, 1]. Whole clusters are resampled, 2,000
    times with a fixed seed. Where nothing varies (the arms answer alike, or one is always right
    and the other always wrong) there is nothing to resample: then Wald's interval with half a
    cluster added to each cell of the 2 x 2 table. Source: A. Agresti, Y. Min, "Simple improved
    confidence intervals for comparing matched proportions", Statistics in Medicine 24 (2005).
    """
    sums = cluster_sums(differences, clusters)
    sizes = cluster_sums(np.ones((len(differences), 1)), clusters)
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    low, high = np.quantile(resampled(sums) / resampled(sizes), tails, axis=0)
    means = sums / sizes
    still = np.ptp(means, axis=0) == 0
    if still.any():
        n, means = len(means) + 2, means[:, still]
        centre = means.sum(axis=0) / n
        variance = (np.square(means).sum(axis=0) + 1) / n - centre**2
        half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance / n)
        low[still] = np.maximum(centre - half, -1.0)
        high[still] = np.minimum(centre + half, 1.0)
    return low, high


def macro_f1_difference(pair: Pair) -> tuple[float, float, float] | tuple[None, None, None]:
    """Give the difference of macro-F1, averaged over seeds, with its 95 % bootstrap interval.

    Macro-F1 as in benchmark.results.subgroups: over the classes that occur among the true labels,
    and missing where fewer than two do.
    """
    classes = np.unique(pair.truth)
    if len(classes) < 2:
        return None, None, None
    true = pair.truth[:, None] == classes
    n, columns = len(classes), [true]
    for answers in (*pair.arm, *pair.reference):
        answered = answers[:, None] == classes
        columns += [answered & true, answered]
    sums = cluster_sums(np.column_stack(columns).astype(np.float64), pair.clusters)
    counts = np.vstack([sums.sum(axis=0), resampled(sums)]).reshape(-1, len(columns), n)
    occurs = counts[:, :1] > 0
    hits, both = counts[:, 1::2], counts[:, :1] + counts[:, 2::2]
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=occurs & (both > 0))
    macro = f1.sum(axis=2) / occurs.sum(axis=2)
    macro[occurs.sum(axis=(1, 2)) < 2] = np.nan
    n_arm = len(pair.arm)
    differences = macro[:, :n_arm].mean(axis=1) - macro[:, n_arm:].mean(axis=1)
    return (float(differences[0]), *percentiles(differences[1:]))


def seed_interval(pair: Pair) -> tuple[float, float] | tuple[None, None]:
    """Give Welch's 95 % t interval of the difference of the arms' accuracies over seeds."""
    of_arm, of_reference = (
        (answers == pair.truth).mean(axis=1) for answers in (pair.arm, pair.reference)
    )
    return welch_interval(of_arm, of_reference)


def welch_interval(
    of_arm: npt.ArrayLike, of_reference: npt.ArrayLike
) -> tuple[float, float] | tuple[None, None]:
    """Give Welch's 95 % t interval of a difference of means; None for fewer than two values.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different
    population variances are involved", Biometrika 34 (1947). By hand, since scipy's warns where
    one side's seeds agree to the last face, which is no trouble here.
    """
    sides = [np.asarray(values, dtype=np.float64) for values in (of_arm, of_reference)]
    if min(len(values) for values in sides) < 2:
        return None, None
    mean = float(sides[0].mean() - sides[1].mean())
    shares = np.array([values.var(ddof=1) / len(values) for values in sides])
    if shares.sum() < np.finfo(np.float64).eps ** 2:
        return mean, mean
    freedom = shares.sum() ** 2 / sum(
        share**2 / (len(values) - 1) for share, values in zip(shares, sides, strict=True)
    )
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(shares.sum()))
    return mean - half, mean + half


def smallest_seen(difference: Difference, level: float) -> float:
    """Give the smallest true difference that such a comparison finds in 80 % of cases; in (0, 1].

    level: the p at or below which the arms would have been told apart. The standard normal
    quantiles of 1 - level / 2 and of 0.8, added, times `chance_sd`. Source: H. S. Bloom, "Minimum
    detectable effects: a simple way to report the statistical power of experimental designs",
    Evaluation Review 19 (1995). Neither test can reject before log2(2 / level) clusters are all
    read better by one arm; where arms differ on few faces, the smallest difference is the one
    that brings so many with a chance of 80 %, their number taken as Poisson distributed.
    """
    both = stats.norm.isf(level / 2) + stats.norm.ppf(POWER)
    fewest = np.ceil(np.log2(2 / level))
    floor = special.gammaincinv(fewest, POWER) * difference.unit
    return float(min(max(both * difference.chance_sd, floor), 1.0))


def holm(p_values: Sequence[float]) -> tuple[list[float], float]:
    """Correct the p-values of one printed table, and give the level left for those not rejected.

    Holm's procedure holds the smallest of m p-values against 0.05 / m, the next against
    0.05 / (m - 1), and so on until one fails. After r rejections, any of the others would have
    been rejected too at 0.05 / (m - r) or less, all else staying as it is.
    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6 (1979). Not by statsmodels' multipletests, to which a test holds it:
    that one collects garbage on every call, which a leaderboard of 200 rows waited 2.3 s for.
    """
    if not p_values:
        return [], ALPHA
    p, n = np.asarray(p_values, dtype=np.float64), len(p_values)
    ascending = np.argsort(p)
    corrected = np.empty(n)
    corrected[ascending] = np.maximum.accumulate(p[ascending] * np.arange(n, 0, -1)).clip(max=1.0)
    n_rejected = int((corrected <= ALPHA).sum())
    return corrected.tolist(), ALPHA / max(n - n_rejected, 1)
