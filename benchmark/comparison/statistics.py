"""Two sides on the same test faces: how far apart they are, and whether chance alone could do that.

A side is one run, or a run group with several seeds. The one engine of every comparison is
`difference_of`. Each question is a family, declared in FAMILIES: Holm's correction runs over a
family's p-values on a page, whatever the tables, and a comparison belongs to one family alone, so
that it has one p and one verdict wherever the page shows it. Which sides are compared is in
benchmark.comparison.pairs, the words for it in .wording. Size, power and coverage are simulated
in tests/comparison/size_and_power.py and printed in docs/notes/size_and_power.md.

Differences are those of the group minus its reference, as fractions.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats
from statsmodels.stats.contingency_tables import mcnemar

from benchmark.errors import RunError
from benchmark.evaluation.intervals import ALPHA as ALPHA
from benchmark.evaluation.intervals import CONFIDENCE, Floats
from benchmark.evaluation.intervals import holm as holm

Labels = npt.NDArray[np.integer[Any]]
Test = Literal["mcnemar", "faces", "faces_and_seeds"]

POWER: Final = 0.8
"""The probability with which the minimum detectable difference is found."""
SMALLEST: Final = float(np.finfo(np.float64).tiny)
"""A p that is too small for a floating number does not read 0."""

Verdict = Literal["better", "worse", "no significant difference"]
NOT_SIGNIFICANT: Final = "no significant difference"

Family = Literal[
    "mtl_stl", "compare_with", "named", "weights", "depth", "conditioning", "first", "subsets"
]
FAMILIES: Final[dict[Family, str]] = {
    "mtl_stl": "MTL networks against their single-task counterparts",
    "compare_with": "each experiment against the one that its definition names",
    "named": "what was named",
    "weights": "networks that differ in their starting weights",
    "depth": "networks that differ in their unfreezing depth",
    "conditioning": "networks that differ in their conditioning",
    "first": "each network against the first of its table",
    "subsets": "specialists against networks trained on all faces",
}
"""The questions. A comparison that several of them ask for belongs to the first of these."""


@dataclass(frozen=True)
class Difference:
    """How much more a group predicts right than its reference; differences as fractions."""

    accuracy: float
    low: float
    """Ends of the 95 % interval: `accuracy` ± a t quantile times `se`, within [-1, 1]."""
    high: float
    se: float
    """Standard error, from clusters of faces and, of run groups, seeds."""
    se_seeds: float | None
    """What seeds alone add to it; None for one seed, which cannot tell."""
    df: float
    """Satterthwaite's degrees of freedom."""
    test: Test
    p: float
    """Two-sided, not corrected."""
    only_reference: int | None
    """Faces that the reference alone predicts right; as the next, of McNemar's test alone."""
    only_arm: int | None
    n_faces: int
    n_clusters: int
    macro_f1: float | None = None
    """None where the faces are of a single class, or where it was not asked for."""
    macro_f1_low: float | None = None
    macro_f1_high: float | None = None


def paired_difference(
    group: Labels, reference: Labels, truth: Labels, clusters: Labels
) -> Difference:
    """Compare two sides on one task, with macro-F1 beside accuracy.

    group, reference: (n_seeds, n_faces) predicted classes of the same faces in the same order; the
    sides' numbers of seeds may differ. truth, clusters: (n_faces,); faces of one cluster are the
    same picture.
    """
    found = difference_of(group == truth, reference == truth, clusters)
    if len(np.unique(truth)) < 2:
        return found
    f1 = difference_of(macro_f1_values(truth, group), macro_f1_values(truth, reference), clusters)
    return replace(found, macro_f1=f1.accuracy, macro_f1_low=f1.low, macro_f1_high=f1.high)


def difference_of(group: npt.ArrayLike, reference: npt.ArrayLike, clusters: Labels) -> Difference:
    """Compare the means of two sides' values of each face, such as right (1) or wrong (0).

    group, reference: (n_seeds, n_faces). Several seeds a side: seeds and faces are two crossed
    random factors. The variance of the difference is that of its clusters of faces, plus of each
    side what its seeds add; the noise of single faces within a seed is in both, and counted once
    (Cornfield & Tukey, "Average values of mean squares in factorials", Annals of Mathematical
    Statistics 27 (1956)). Degrees of freedom: F. E. Satterthwaite, "An approximate distribution of
    estimates of variance components", Biometrics Bulletin 2 (1946). One seed on each side: faces
    alone, and for values of 0 and 1 McNemar's exact test, about these two trainings only.
    RunError for one seed against several.
    """
    sides = [np.asarray(values, dtype=np.float64) for values in (group, reference)]
    n_seeds = [len(values) for values in sides]
    if min(n_seeds) == 1 < max(n_seeds):
        raise RunError(
            "one seed is compared with the mean of several",
            allowed="a run against a run, or several seeds against several",
        )
    per_face = sides[0].mean(axis=0) - sides[1].mean(axis=0)
    n_faces, mean = len(per_face), float(per_face.mean())
    codes = np.unique(clusters, return_inverse=True)[1]
    n_clusters = int(codes.max()) + 1
    scale = n_clusters / max(n_clusters - 1, 1) / n_faces**2
    # Never below one face of one side alone: that no face differs here proves no equality.
    of_faces = scale * max(float(np.square(np.bincount(codes, per_face - mean)).sum()), 1.0)
    variance, spread = of_faces, of_faces**2 / max(n_clusters - 1, 1)
    of_seeds = 0.0
    if min(n_seeds) > 1:
        for values in sides:
            between, within = _seed_variances(values, codes, scale)
            of_seeds += max(between - within, 0.0)
            spread += between**2 / (len(values) - 1)
        variance += of_seeds
    # What is taken out of a variance cannot leave it fewer degrees than its least part has.
    df = max(variance**2 / spread, min(n_seeds) - 1.0)
    se = float(np.sqrt(variance))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * se
    only_group, only_reference = int((per_face > 0).sum()), int((per_face < 0).sum())
    exact = max(n_seeds) == 1 and all(np.isin(values, (0, 1)).all() for values in sides)
    p = 2 * float(stats.t.sf(abs(mean) / se, df))
    return Difference(
        accuracy=mean,
        low=max(mean - half, -1.0),
        high=min(mean + half, 1.0),
        se=se,
        se_seeds=float(np.sqrt(of_seeds)) if min(n_seeds) > 1 else None,
        df=float(df),
        test="mcnemar" if exact else "faces_and_seeds" if min(n_seeds) > 1 else "faces",
        p=mcnemar_p(only_reference, only_group) if exact else max(p, SMALLEST),
        only_reference=only_reference if exact else None,
        only_arm=only_group if exact else None,
        n_faces=n_faces,
        n_clusters=n_clusters,
    )


def _seed_variances(
    values: Floats, codes: npt.NDArray[np.intp], scale: float
) -> tuple[float, float]:
    """Give the variance of a side's mean over its seeds, and the part that faces explain."""
    n_seeds = len(values)
    rates = values.mean(axis=1, keepdims=True)
    deviations = values - rates
    noise = deviations - deviations.mean(axis=0)
    sums = np.stack([np.bincount(codes, of_seed) for of_seed in noise])
    within = scale * float(np.square(sums).sum()) / (n_seeds - 1) / n_seeds
    return float(rates.var(ddof=1)) / n_seeds, within


def mcnemar_p(only_reference: int, only_group: int) -> float:
    """Give the two-sided p of McNemar's exact test from the faces one side alone predicts right.

    Faces count as independent of each other. Source: Q. McNemar, "Note on the sampling error of
    the difference between correlated proportions or percentages", Psychometrika 12 (1947);
    computed by statsmodels.
    """
    table = [[0, only_reference], [only_group, 0]]
    return max(float(mcnemar(table, exact=True).pvalue), SMALLEST)


def macro_f1_values(truth: Labels, predicted: Labels) -> Floats:
    """Give each seed's macro-F1 as values of single faces whose mean it is; (n_seeds, n_faces).

    The value of a face is macro-F1 plus the face's influence on it, so that means, clusters and
    seeds count as they do for accuracy (infinitesimal jackknife: B. Efron, "The Jackknife, the
    Bootstrap and Other Resampling Plans" (1982), ch. 6). As benchmark.evaluation.subgroups has it,
    over the classes among the true labels. predicted: (n_seeds, n_faces).
    """
    values = np.zeros(predicted.shape)
    classes = np.unique(truth)
    for label in classes:
        true, chosen = truth == label, predicted == label
        both = true.sum() + chosen.sum(axis=1, keepdims=True)
        hits = chosen & true
        f1 = 2 * hits.sum(axis=1, keepdims=True) / both
        influence = (2 * hits - f1 * (true + chosen.astype(np.int64))) / both
        values += (f1 + len(truth) * influence) / len(classes)
    return values


def minimum_detectable(difference: Difference, level: float) -> float:
    """Give the smallest true difference that such a comparison finds in 80 % of cases; in (0, 1].

    level: the p at or below which a difference would be significant. The t quantiles of
    1 - level / 2 and of 0.8, added, times the standard error. Source: H. S. Bloom, "Minimum
    detectable effects: a simple way to report the statistical power of experimental designs",
    Evaluation Review 19 (1995). McNemar's test: the same with normal quantiles and the standard
    error of a tie; it cannot reject before log2(2 / level) faces are all right on one side alone,
    and where the sides differ on few, the smallest difference is the one that brings so many with
    a chance of 80 %, their number taken as Poisson distributed.
    """
    if difference.only_arm is None or difference.only_reference is None:
        quantiles = stats.t.isf(level / 2, difference.df) + stats.t.ppf(POWER, difference.df)
        return float(min(quantiles * difference.se, 1.0))
    quantiles = stats.norm.isf(level / 2) + stats.norm.ppf(POWER)
    sd = np.sqrt(difference.only_arm + difference.only_reference)
    floor = special.gammaincinv(np.ceil(np.log2(2 / level)), POWER)
    return float(min(max(quantiles * sd, floor) / difference.n_faces, 1.0))


@dataclass(frozen=True)
class PairResult:
    """A difference with its p corrected over its family."""

    difference: Difference
    p_holm: float
    minimum_detectable: float
    """The true difference that is found in 80 % of cases, at the level that Holm leaves."""
    family: Family
    n_family: int
    """Over how many p-values it was corrected."""

    @property
    def significant(self) -> bool:
        """Whether the corrected p is 0.05 or less."""
        return self.p_holm <= ALPHA

    @property
    def verdict(self) -> Verdict:
        if not self.significant:
            return NOT_SIGNIFICANT
        return "better" if self.difference.accuracy > 0 else "worse"


def results_of(asked: Iterable[tuple[Family, Hashable, Difference]]) -> dict[Hashable, PairResult]:
    """Correct all comparisons of a page, each once; by the key that says what was compared."""
    order, families = list(FAMILIES), dict[Hashable, tuple[Family, Difference]]()
    for family, key, difference in sorted(asked, key=lambda item: order.index(item[0])):
        families.setdefault(key, (family, difference))
    found: dict[Hashable, PairResult] = {}
    for family in FAMILIES:
        ours = {key: difference for key, (of, difference) in families.items() if of == family}
        corrected, level = holm([difference.p for difference in ours.values()])
        for (key, difference), p_holm in zip(ours.items(), corrected, strict=True):
            detectable = minimum_detectable(difference, level)
            found[key] = PairResult(difference, p_holm, detectable, family, len(ours))
    return found
