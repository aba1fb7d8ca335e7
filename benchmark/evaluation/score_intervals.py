"""The 95 % interval of every number of one run: Wilson's for rates, a cluster bootstrap else.

Everything that follows from a confusion matrix is resampled as counts, all resamples at once.
Gaps between groups have intervals of their own (benchmark.evaluation.subgroups).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.evaluation import intervals as counts
from benchmark.evaluation.calibration import Confidence, brier_losses, error_interval, log_losses
from benchmark.evaluation.intervals import Floats, cluster_sums, percentiles, resampled, wilson
from benchmark.evaluation.predictions import probability_columns
from benchmark.tasks import COMBINED_WEIGHTS, TaskName, combined, n_classes

INTERVAL_COLUMNS: Final = ("metric", "value", "low", "high", "method", "n_faces", "n_clusters")
WILSON: Final = "Wilson"
BOOTSTRAP: Final = "cluster bootstrap"

Span = tuple[float, float]
Matrix = npt.NDArray[np.int64]
NOTHING: Final[Span] = (float("nan"), float("nan"))


class ResampledRun:
    """One run's test faces, drawn again by whole clusters 2,000 times."""

    def __init__(self, test: pd.DataFrame, tasks: Sequence[TaskName]) -> None:
        self.test = test
        self.tasks = tuple(tasks)
        self.clusters = test["cluster"].to_numpy()
        self.counts: dict[TaskName, Floats] = {}
        for task in tasks:
            k = n_classes(task)
            cell = test[task].to_numpy() * k + test[f"{task}_pred"].to_numpy()
            again = resampled(cluster_sums(np.eye(k * k)[cell], self.clusters))
            self.counts[task] = again.reshape(-1, k, k)

    def span(self, task: TaskName, number: Callable[[Floats], Floats]) -> Span:
        """Give the percentile interval of a score of the confusion matrix.

        NaN at both ends where no resample has the score, or all have the same.
        """
        return spread(number(self.counts[task]))


def spread(values: Floats) -> Span:
    """Give the percentile interval of resampled values, (RESAMPLES,); NaN where they are equal.

    A bootstrap that only ever finds one value tells nothing of what else could have been found.
    """
    existing = values[~np.isnan(values)]
    if len(existing) == 0 or np.ptp(existing) < 1e-12:
        return NOTHING
    return percentiles(existing)


def score_intervals(
    run: ResampledRun,
    confusion: Mapping[TaskName, Matrix],
    reports: Mapping[TaskName, pd.DataFrame],
    values: Mapping[str, float],
) -> pd.DataFrame:
    """Give a row per number that has an interval; the columns of INTERVAL_COLUMNS.

    reports: per task, with the columns of class_spans. values: the numbers by metric name.

    One interval per number. What
    cannot be resampled because all faces are right has Wilson's ends, averaged over classes or
    tasks, where the score is made of rates, and none where it is not.
    """
    spans: list[tuple[str, str, Span]] = []
    for task in run.tasks:
        spans += _of_task(run, task, confusion[task], reports[task])
    spans.append(("test/combined", BOOTSTRAP, _of_combined(run, confusion)))
    size = (len(run.test), int(run.test["cluster"].nunique()))
    rows = [
        (name, values[name], *span, method, *size)
        for name, method, span in spans
        if not np.isnan(values.get(name, float("nan")))
    ]
    return pd.DataFrame(rows, columns=list(INTERVAL_COLUMNS))


def _of_task(
    run: ResampledRun, task: TaskName, matrix: Matrix, report: pd.DataFrame
) -> list[tuple[str, str, Span]]:
    start = f"test/{task}"
    recall = _mean_span(report["recall_low"], report["recall_high"])
    f1 = _mean_span(report["f1_low"], report["f1_high"])
    probabilities = run.test[probability_columns(task)].to_numpy()
    truth = run.test[task].to_numpy()
    confidence = Confidence.of(probabilities, truth)
    found = [
        (f"{start}/accuracy", WILSON, _rate(np.trace(matrix), matrix.sum())),
        (f"{start}/macro_f1", BOOTSTRAP, _or(run.span(task, counts.macro_f1_of_counts), f1)),
        (
            f"{start}/balanced_accuracy",
            BOOTSTRAP,
            _or(run.span(task, counts.balanced_accuracy), recall),
        ),
        (f"{start}/ece", BOOTSTRAP, error_interval(confidence, run.clusters)),
        (f"{start}/nll", BOOTSTRAP, mean_span(log_losses(probabilities, truth), run.clusters)),
        (f"{start}/brier", BOOTSTRAP, mean_span(brier_losses(probabilities, truth), run.clusters)),
    ]
    if task == "age_group":
        near = sum(int(np.trace(matrix, offset)) for offset in (-1, 0, 1))
        found += [
            (f"{start}/within_one", WILSON, _rate(near, matrix.sum())),
            (f"{start}/mae_groups", BOOTSTRAP, run.span(task, counts.mean_group_error)),
            (f"{start}/qwk", BOOTSTRAP, run.span(task, counts.quadratic_kappa)),
        ]
    return found


def mean_span(values: Floats, clusters: npt.NDArray[np.integer[Any]]) -> Span:
    """Give the cluster bootstrap's percentile interval of the mean of `values`, (n_faces,)."""
    totals = resampled(cluster_sums(np.stack([values, np.ones(len(values))], axis=1), clusters))
    return spread(totals[:, 0] / totals[:, 1])


def _rate(n_right: int, n_faces: int) -> Span:
    low, high = wilson(np.array([n_right]), np.array([n_faces]))
    return float(low[0]), float(high[0])


def _or(span: Span, otherwise: Span) -> Span:
    return otherwise if np.isnan(span[0]) else span


def _mean_span(lows: "pd.Series[float]", highs: "pd.Series[float]") -> Span:
    """Average the classes' ends: wider than need be, since not all classes err at once."""
    return float(lows.mean()), float(highs.mean())


def _of_combined(run: ResampledRun, confusion: Mapping[TaskName, Matrix]) -> Span:
    """Resample all tasks together: they are read from the same faces."""
    weights = [COMBINED_WEIGHTS[task] for task in run.tasks]
    again = [counts.accuracy(run.counts[task]) for task in run.tasks]
    ends = {task: _rate(np.trace(confusion[task]), confusion[task].sum()) for task in run.tasks}
    low, high = (combined({task: span[end] for task, span in ends.items()}) for end in (0, 1))
    return _or(spread(np.average(again, axis=0, weights=weights)), (low, high))


def class_spans(run: ResampledRun, task: TaskName, matrix: Matrix) -> dict[str, Floats]:
    """Give the ends of each class's precision, recall (Wilson) and F1 (bootstrap); (k,) each.

    A class that is all right, or never, has no spread to resample: its F1 = 2 J / (1 + J) then has
    Wilson's ends of J = TP / (TP + FP + FN), a rate. NaN for a class that does not occur, and for
    the precision of one never predicted.
    """
    right, true, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    either = true + predicted - right
    jaccard_low, jaccard_high = wilson(right, either)
    f1_low, f1_high = (2 * end / (1 + end) for end in (jaccard_low, jaccard_high))
    again = counts.class_f1(run.counts[task])
    for label in range(n_classes(task)):
        low, high = spread(again[:, label])
        if true[label] == 0:
            f1_low[label], f1_high[label] = NOTHING
        elif not np.isnan(low):
            f1_low[label], f1_high[label] = low, high
    precision_low, precision_high = wilson(right, predicted)
    recall_low, recall_high = wilson(right, true)
    return {
        "precision_low": precision_low,
        "precision_high": precision_high,
        "recall_low": recall_low,
        "recall_high": recall_high,
        "f1_low": f1_low,
        "f1_high": f1_high,
    }
