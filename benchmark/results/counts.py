"""Scores that follow from a confusion matrix, for one matrix or for thousands at once.

Intervals by resampling need each score of 2,000 matrices, where a library's function would be
called 2,000 times. Numbers that are shown come from scikit-learn (benchmark.results.metrics), and
tests hold these to it. Everywhere counts are (…, k, k): rows are true classes, columns predicted
ones; a result has the leading dimensions.
"""

import numpy as np

from benchmark.results.intervals import Floats


def accuracy(counts: Floats) -> Floats:
    """Give the share of faces on the diagonal; NaN without a face."""
    return _ratio(_diagonal(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def class_recall(counts: Floats) -> Floats:
    """Give each true class's share that is right, (…, k); NaN for a class that does not occur."""
    return _ratio(_diagonal(counts), counts.sum(axis=-1))


def class_f1(counts: Floats) -> Floats:
    """Give F1 = 2 TP / (2 TP + FP + FN) per class, (…, k); NaN for a class that does not occur."""
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    f1 = _ratio(2 * _diagonal(counts), true + predicted)
    return np.where(true > 0, f1, np.nan)


def macro_f1(counts: Floats) -> Floats:
    """Average F1 over the classes that occur; NaN where fewer than two do (see subgroups)."""
    several = (counts.sum(axis=-1) > 0).sum(axis=-1) >= 2
    return np.where(several, _mean_of_existing(class_f1(counts)), np.nan)


def balanced_accuracy(counts: Floats) -> Floats:
    """Average recall over the classes that occur."""
    return _mean_of_existing(class_recall(counts))


def mean_group_error(counts: Floats) -> Floats:
    """Give the mean distance between true and predicted class, in classes."""
    return _ratio((counts * _distances(counts)).sum(axis=(-2, -1)), counts.sum(axis=(-2, -1)))


def quadratic_kappa(counts: Floats) -> Floats:
    """Give quadratic-weighted kappa; NaN where truth and prediction know one and the same class."""
    n_faces = counts.sum(axis=(-2, -1))
    squares = _distances(counts) ** 2
    observed = (counts * squares).sum(axis=(-2, -1))
    by_chance = np.einsum(
        "...i,...j,ij->...", counts.sum(axis=-1), counts.sum(axis=-2), squares, optimize=True
    )
    return 1 - _ratio(observed, _ratio(by_chance, n_faces))


def _diagonal(counts: Floats) -> Floats:
    return np.asarray(np.diagonal(counts, axis1=-2, axis2=-1))


def _distances(counts: Floats) -> Floats:
    labels = np.arange(counts.shape[-1], dtype=np.float64)
    return np.abs(labels[:, None] - labels)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Divide, with NaN where there is nothing to divide by."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))


def _mean_of_existing(values: Floats) -> Floats:
    """Average over the last axis what is not NaN."""
    exists = ~np.isnan(values)
    return _ratio(np.where(exists, values, 0.0).sum(axis=-1), exists.sum(axis=-1))
