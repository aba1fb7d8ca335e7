"""95 % intervals of one run's rates and scores, Holm's correction, scores of confusion matrices.

Wilson's interval for rates, a cluster bootstrap for everything else. A bootstrap needs each score
of 2,000 matrices, where a library's function would be called 2,000 times: the functions on counts
take (…, k, k), rows true classes, columns predicted ones, and give the leading dimensions; tests
hold them to scikit-learn's.
"""

import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from statsmodels.stats.proportion import proportion_confint

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ALPHA: Final = 0.05
"""A corrected p of this or less is significant."""
CONFIDENCE: Final = 0.95
TAILS: Final = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
RESAMPLES: Final = 2_000
RESAMPLING_SEED: Final = 0


def wilson(n_right: Labels, n_faces: Labels) -> tuple[Floats, Floats]:
    """Give the ends of Wilson's 95 % interval for n_right of n_faces independent faces; both (k,).

    NaN where there is no face. Source: E. B. Wilson, "Probable Inference, the Law of Succession,
    and Statistical Inference", JASA 22 (1927); computed by statsmodels.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = proportion_confint(n_right, n_faces, alpha=1 - CONFIDENCE, method="wilson")
    return np.asarray(low), np.asarray(high)


def rate(n_right: int, n_faces: int) -> tuple[float, float, float]:
    """Give the share of n_right in n_faces, 1 or more, with the ends of Wilson's interval."""
    (low,), (high,) = wilson(np.array([n_right]), np.array([n_faces]))
    return float(n_right / n_faces), float(low), float(high)


def cluster_bootstrap(values: Floats, clusters: Labels) -> tuple[Floats, Floats]:
    """Give the low and high ends of the 95 % percentile interval of each column's mean; both (k,).

    values: (n_faces, k) in [0, 1], for instance correctness averaged over seeds; NaN where a face
    does not count for the column. clusters: (n_faces,), drawn as wholes, because the faces of one
    are the same picture. The seed is fixed, so that equal predictions give equal intervals.

    A column whose faces are all wrong or all right has no spread to resample; it gets Wilson's
    interval with its clusters as the sample. A column without a face is NaN.
    """
    counted = ~np.isnan(values)
    sums = cluster_sums(np.where(counted, values, 0.0), clusters)
    sizes = cluster_sums(counted.astype(np.float64), clusters)
    with np.errstate(invalid="ignore"):  # a resample without any face of a tiny column: left out
        means, mean = resampled(sums) / resampled(sizes), sums.sum(axis=0) / sizes.sum(axis=0)
    n_clusters, ends = (sizes > 0).sum(axis=0), np.full((2, values.shape[1]), np.nan)
    for column in np.flatnonzero((mean > 0) & (mean < 1)):
        ends[:, column] = np.nanquantile(means[:, column], TAILS)
    even = (mean == 0) | (mean == 1)
    ends[:, even] = wilson((mean * n_clusters)[even].astype(int), n_clusters[even])
    return ends[0], ends[1]


def cluster_sums(values: Floats, clusters: Labels) -> Floats:
    """Add up the rows of `values` (n_faces, k) by cluster; (n_clusters, k), clusters ascending."""
    members, codes = np.unique(clusters, return_inverse=True)
    sums = np.zeros((len(members), values.shape[1]))
    np.add.at(sums, codes, values)
    return sums


def resampled(sums: Floats) -> Floats:
    """Add up cluster sums (n_clusters, k) over each resample of whole clusters; (RESAMPLES, k).

    The draws depend on the number of clusters alone: sums of the same faces are resampled together
    in all calls, as paired differences need.
    """
    return np.asarray(_resampling_weights(len(sums)) @ sums)


def spread(values: Floats) -> tuple[float, float]:
    """Give the percentile interval of resampled values, (RESAMPLES,); NaN where all are equal."""
    existing = values[~np.isnan(values)]
    if len(existing) == 0 or np.ptp(existing) < 1e-12:
        return float("nan"), float("nan")
    low, high = np.quantile(existing, TAILS)
    return float(low), float(high)


def mean_span(values: Floats, clusters: Labels) -> tuple[float, float]:
    """Give the cluster bootstrap's percentile interval of the mean of `values`, (n_faces,)."""
    totals = resampled(cluster_sums(np.stack([values, np.ones(len(values))], axis=1), clusters))
    return spread(totals[:, 0] / totals[:, 1])


@functools.lru_cache(maxsize=2)
def _resampling_weights(n_clusters: int) -> Floats:
    """Count how often each resample draws each cluster; (RESAMPLES, n_clusters)."""
    # Kept: a table's experiments share their test clusters, and the draws are the costly part
    # (about 37 MB and 0.1 s for 2,315 faces).
    random = np.random.default_rng(RESAMPLING_SEED)
    draws = random.integers(n_clusters, size=(RESAMPLES, n_clusters))
    draws += np.arange(RESAMPLES)[:, None] * n_clusters
    counts = np.bincount(draws.ravel(), minlength=RESAMPLES * n_clusters)
    return counts.reshape(RESAMPLES, n_clusters).astype(np.float64)


def holm(p_values: Sequence[float]) -> tuple[list[float], float]:
    """Correct the p-values of one family, and give the level left for those not rejected.

    After r of m rejections, any of the others would have been rejected too at 0.05 / (m - r) or
    less, all else staying as it is. Source: S. Holm, "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 6 (1979). Not by statsmodels' multipletests, to
    which a test holds it: that one collects garbage on every call, which a leaderboard of 200 rows
    waited 2.3 s for.
    """
    p, n = np.asarray(p_values, dtype=np.float64), len(p_values)
    ascending = np.argsort(p)
    corrected = np.empty(n)
    corrected[ascending] = np.maximum.accumulate(p[ascending] * np.arange(n, 0, -1)).clip(max=1.0)
    n_rejected = int((corrected <= ALPHA).sum())
    return corrected.tolist(), ALPHA / max(n - n_rejected, 1)


def confusion(truth: Labels, predicted: Labels, n_classes: int) -> Counts:
    """Count faces by true and predicted class, (n_classes, n_classes)."""
    cells = np.asarray(truth) * n_classes + predicted
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(counts: Floats | Counts) -> Floats:
    """Give the share of faces on the diagonal; NaN without a face."""
    return _ratio(diagonal(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def class_recall(counts: Floats | Counts) -> Floats:
    """Give each true class's share that is right, (…, k); NaN for a class that does not occur."""
    return _ratio(diagonal(counts), counts.sum(axis=-1))


def class_f1(counts: Floats | Counts) -> Floats:
    """Give F1 = 2 TP / (2 TP + FP + FN) per class, (…, k); NaN for a class that does not occur."""
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    f1 = _ratio(2 * diagonal(counts), true + predicted)
    return np.where(true > 0, f1, np.nan)


def macro_f1_of_counts(counts: Floats | Counts) -> Floats:
    """Average F1 over the classes that occur among the true labels; NaN where fewer than two do. A
    class nobody has would have F1 0 after one false alarm, which counts as a miss already."""
    several = (counts.sum(axis=-1) > 0).sum(axis=-1) >= 2
    return np.where(several, _mean_of_existing(class_f1(counts)), np.nan)


def balanced_accuracy(counts: Floats | Counts) -> Floats:
    """Average recall over the classes that occur."""
    return _mean_of_existing(class_recall(counts))


def mean_group_error(counts: Floats | Counts) -> Floats:
    """Give the mean distance between true and predicted class, in classes."""
    return _ratio((counts * _distances(counts)).sum(axis=(-2, -1)), counts.sum(axis=(-2, -1)))


def quadratic_kappa(counts: Floats | Counts) -> Floats:
    """Give quadratic-weighted kappa; NaN where truth and prediction know one and the same class."""
    n_faces = counts.sum(axis=(-2, -1))
    squares = _distances(counts) ** 2
    observed = (counts * squares).sum(axis=(-2, -1))
    sums = counts.sum(axis=-1), counts.sum(axis=-2)
    expected = np.einsum("...i,...j,ij->...", *sums, squares, optimize=True)
    return 1 - _ratio(observed, _ratio(expected, n_faces))


def diagonal(counts: Any) -> Any:
    """Give the faces that are right, by class, (…, k)."""
    return np.asarray(np.diagonal(counts, axis1=-2, axis2=-1))


def _distances(counts: Floats | Counts) -> Floats:
    labels = np.arange(counts.shape[-1], dtype=np.float64)
    return np.abs(labels[:, None] - labels)


def _ratio(part: Any, whole: Any) -> Floats:
    """Divide, with NaN where there is nothing to divide by."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))


def _mean_of_existing(values: Floats) -> Floats:
    """Average over the last axis what is not NaN."""
    exists = ~np.isnan(values)
    return _ratio(np.where(exists, values, 0.0).sum(axis=-1), exists.sum(axis=-1))
