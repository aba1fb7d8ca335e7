"""Every number of a run, with its 95 % interval, from its predictions table alone.

Runs are scored once, after selection on validation; leaderboards read what was found. Wilson's
interval for rates, a cluster bootstrap for everything else: what follows from a confusion matrix is
resampled as counts, all resamples at once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmark.evaluation import calibration as calibrations
from benchmark.evaluation import intervals as counts
from benchmark.evaluation import subgroups as groups
from benchmark.evaluation.calibration import Calibration
from benchmark.evaluation.intervals import Counts, Floats, Labels, mean_span, rate, spread, wilson
from benchmark.evaluation.predictions import by_task, labelled, predicted_tasks, probability_columns
from benchmark.record import SUBGROUP_COLUMNS
from benchmark.tasks import (
    AGE_GROUP_UPPER_YEARS,
    CLASS_NAMES,
    COMBINED_WEIGHTS,
    MISSING,
    TaskName,
    combined,
    n_classes,
)

SCORING_VERSION: Final = 5
"""Raised whenever the same predictions would give other numbers or further ones."""

SELECTED: Final = "selected/val"
"""Prefix of the validation metrics of the selected epoch; `val/…` alone is the history's."""

EDGE_YEARS: Final = {"0": 0, "1": 1, "2": 2, "3-4": 4, "5-9": 9, "10 or more": np.inf}
"""Rows of the table by distance from an edge: the most years of each."""
AGE_YEARS_COLUMNS: Final = ("read_as", "group", "n", "mae_years", "low", "high")

INTERVAL_COLUMNS: Final = ("metric", "value", "low", "high", "method")
WILSON: Final = "Wilson"
BOOTSTRAP: Final = "cluster bootstrap"

Metrics = dict[str, float]


@dataclass(frozen=True)
class Scores:
    """What a predictions table says of a network; all but metrics and calibration is of test."""

    test: pd.DataFrame
    """The predictions of the test faces; none where there are none."""
    metrics: Metrics
    """By MLflow name, rates in [0, 1]; a number that does not exist is absent."""
    subgroups: pd.DataFrame
    """A row per task and group, `all` too; record.SUBGROUP_COLUMNS."""
    gaps: pd.DataFrame
    """A row per task and division; subgroups.GAP_COLUMNS."""
    intervals: pd.DataFrame
    """A row per number that has a 95 % interval; INTERVAL_COLUMNS."""
    confusion: dict[TaskName, Counts]
    """Per task (n_classes, n_classes) counts: rows are true classes, columns predicted ones."""
    reports: dict[TaskName, pd.DataFrame]
    """Per task, as class_report gives it."""
    calibration: dict[TaskName, Calibration]


def score(predictions: pd.DataFrame) -> Scores:
    """Compute every number of a run from its predictions, as read_predictions gives them.

    A part that is absent (ad-hoc runs have no test faces) has no metrics. Subgroups of under 30
    faces stay out of `metrics`, where they could not be marked.
    """
    found = predictions.groupby("part")
    parts = {str(part): faces.reset_index(drop=True) for part, faces in found}
    calibration = {
        task: calibrations.calibrate({part: _probabilities(of, task) for part, of in parts.items()})
        for task in predicted_tasks(predictions)
    }
    metrics = _calibration_metrics(calibration)
    if "val" in parts:
        metrics |= _validation_metrics(parts["val"])
    test = parts.get("test", predictions[:0])
    if test.empty:
        empty = pd.DataFrame(columns=list(SUBGROUP_COLUMNS))
        return Scores(test, _existing(metrics), empty, empty, empty, {}, {}, calibration)

    confusion, again, reports, rows = {}, {}, {}, list[Row]()
    for task, faces, truth, predicted in by_task(test):
        matrix = confusion[task] = counts.confusion(truth, predicted, n_classes(task))
        drawn = resampled_confusion(faces, task)
        report = reports[task] = class_report(task, matrix, drawn)
        rows += _scores_of(faces, task, matrix, drawn, report)
        # Together: over the clusters of all faces, whichever of the tasks they are labelled for.
        again[task] = drawn if faces is test else resampled_confusion(test, task)
    rows = [row for row in (*rows, _combined_row(confusion, again)) if not np.isnan(row[1])]
    intervals = pd.DataFrame(rows, columns=list(INTERVAL_COLUMNS))
    subgroups, gaps = groups.subgroup_table(test), groups.gap_table(test)
    metrics |= {"test/n_faces": len(test), "test/n_clusters": test["cluster"].nunique()}
    for name, value, low, high, _ in rows:
        metrics |= {name: value, f"{name}/low": low, f"{name}/high": high}
    metrics |= _subgroup_metrics(subgroups) | _gap_metrics(gaps)
    tables = subgroups, gaps, intervals
    return Scores(test, _existing(metrics), *tables, confusion, reports, calibration)


def _probabilities(faces: pd.DataFrame, task: TaskName) -> tuple[Floats, Labels]:
    """Give class probabilities and labels of the faces that have the task's label."""
    faces = labelled(faces, task)
    return faces[probability_columns(task)].to_numpy(), faces[task].to_numpy()


def _existing(metrics: Metrics) -> Metrics:
    return {name: float(value) for name, value in metrics.items() if not np.isnan(value)}


def resampled_confusion(test: pd.DataFrame, task: TaskName) -> Floats:
    """Give confusion matrices of test faces drawn by whole clusters, (RESAMPLES, k, k); a face
    without the task's label is drawn like the others, and counts in no cell."""
    k, truth = n_classes(task), test[task].to_numpy()
    cell = truth * k + test[f"{task}_pred"].to_numpy()
    ones = np.where(truth[:, None] == MISSING, 0.0, np.eye(k * k)[cell])
    sums = counts.cluster_sums(ones, test["cluster"].to_numpy())
    return counts.resampled(sums).reshape(-1, k, k)


def class_report(task: TaskName, matrix: Counts, again: Floats) -> pd.DataFrame:
    """Give precision, recall and F1 of each class in [0, 1], each with low and high, and support.

    Precision is NaN for a class never predicted, recall and F1 for a class that does not occur.
    Precision and recall have Wilson's interval, F1 the bootstrap's. A class that is all right, or
    never, has no spread to resample: its F1 = 2 J / (1 + J) has Wilson's ends of the rate
    J = TP / (TP + FP + FN).
    """
    right, true, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    of_jaccard = [2 * end / (1 + end) for end in wilson(right, true + predicted - right)]
    f1_spans = np.array([spread(of_class) for of_class in counts.class_f1(again).T]).T
    f1_ends = np.where(np.isnan(f1_spans), of_jaccard, f1_spans)
    f1_ends[:, true == 0] = np.nan
    columns: dict[str, object] = {"class": CLASS_NAMES[task]}
    for name, values, (low, high) in (
        ("precision", counts.class_recall(matrix.T), wilson(right, predicted)),
        ("recall", counts.class_recall(matrix), wilson(right, true)),
        ("f1", counts.class_f1(matrix), f1_ends),
    ):
        columns |= {name: values, f"{name}_low": low, f"{name}_high": high}
    return pd.DataFrame(columns | {"support": true})


Row = tuple[str, float, float, float, str]
"""Name, value, ends of the interval and method of a number."""


def _scores_of(
    test: pd.DataFrame, task: TaskName, matrix: Counts, again: Floats, report: pd.DataFrame
) -> Iterator[Row]:
    """Score one task on all test faces.

    What cannot be resampled because all faces are right has Wilson's ends, averaged over classes
    (wider than need be), where the score is made of rates, and none where it is not.
    """
    faces, clusters = _probabilities(test, task), test["cluster"].to_numpy()
    per_class, start = report.mean(numeric_only=True), f"test/{task}"

    def resampled_score(name: str, score_of: Callable[[Any], Floats], part: str = "") -> Row:
        span = spread(score_of(again))
        if part and np.isnan(span[0]):
            span = float(per_class[f"{part}_low"]), float(per_class[f"{part}_high"])
        return f"{start}/{name}", float(score_of(matrix)), *span, BOOTSTRAP

    yield f"{start}/accuracy", *rate(np.trace(matrix), matrix.sum()), WILSON
    yield resampled_score("macro_f1", counts.macro_f1_of_counts, "f1")
    yield resampled_score("balanced_accuracy", counts.balanced_accuracy, "recall")
    error = calibrations.calibration_error(*faces)
    yield f"{start}/ece", error, *calibrations.error_interval(*faces, clusters), BOOTSTRAP
    for name, loss in (("nll", calibrations.log_losses), ("brier", calibrations.brier_losses)):
        losses = loss(*faces)
        yield f"{start}/{name}", float(losses.mean()), *mean_span(losses, clusters), BOOTSTRAP
    if task == "age_group":
        near = sum(int(np.trace(matrix, offset)) for offset in (-1, 0, 1))
        yield f"{start}/within_one", *rate(near, matrix.sum()), WILSON
        yield resampled_score("mae_groups", counts.mean_group_error)
        yield resampled_score("qwk", counts.quadratic_kappa)


def _combined_row(confusion: Mapping[TaskName, Counts], again: Mapping[TaskName, Floats]) -> Row:
    """Weigh the tasks' accuracies; resampled together, because they are of the same faces."""
    weights = [COMBINED_WEIGHTS[task] for task in confusion]
    accuracies = [counts.accuracy(again[task]) for task in confusion]
    span = spread(np.average(accuracies, axis=0, weights=weights))
    rates = {task: rate(np.trace(matrix), matrix.sum()) for task, matrix in confusion.items()}
    value, *ends = (combined({task: of[at] for task, of in rates.items()}) for at in range(3))
    low, high = ends if np.isnan(span[0]) else span
    return "test/combined", value, low, high, BOOTSTRAP


def _validation_metrics(validation: pd.DataFrame) -> Metrics:
    metrics, accuracies = Metrics(), dict[TaskName, float]()
    for task, _, truth, predicted in by_task(validation):
        matrix = counts.confusion(truth, predicted, n_classes(task))
        accuracies[task] = metrics[f"{SELECTED}/{task}/accuracy"] = float(counts.accuracy(matrix))
        metrics[f"{SELECTED}/{task}/macro_f1"] = float(counts.macro_f1_of_counts(matrix))
    return metrics | {f"{SELECTED}/combined": combined(accuracies)}


def _calibration_metrics(calibration: Mapping[TaskName, Calibration]) -> Metrics:
    metrics: Metrics = {}
    for task, found in calibration.items():
        if found.temperature is not None and not found.temperature_is_at_an_end:
            metrics[f"{SELECTED}/{task}/temperature"] = found.temperature
            if "test" in found.ece_tempered:
                metrics[f"test/{task}/ece_tempered"] = found.ece_tempered["test"]
        if found.ece_by_chance is not None:
            metrics[f"test/{task}/ece/chance"] = found.ece_by_chance
    return metrics


def _gap_metrics(gaps: pd.DataFrame) -> Metrics:
    metrics = Metrics()
    for row in gaps[gaps["n_ranked"] >= 2].to_dict("records"):
        start, by = f"test/{row['task']}", row["by"]
        metrics[f"{start}/best_{by}"] = row["best"]
        for number in ("worst", "gap", "ratio"):
            name, low, high = f"{start}/{number}_{by}", row[f"{number}_low"], row[f"{number}_high"]
            metrics |= {name: row[number], f"{name}/low": low, f"{name}/high": high}
        metrics[f"{start}/gap_{by}/chance"] = row["chance_gap"]
    return metrics


def _subgroup_metrics(subgroups: pd.DataFrame) -> Metrics:
    metrics = Metrics()
    chosen = subgroups[(subgroups["by"] != "all") & (subgroups["n"] >= groups.SMALL_GROUP)]
    for row in chosen.to_dict("records"):
        slug = row["group"].lower().replace("+", "-plus").replace(" ", "-")
        place = f"{row['by']}/{slug}"
        for number in ("accuracy", "macro_f1"):
            metrics[f"test/{row['task']}/{number}/{place}"] = row[number]
        metrics[f"test/n_faces/{place}"] = row["n"]
    return metrics


def accuracy_by_edge(test: pd.DataFrame) -> pd.DataFrame:
    """Score the age group by the true age's distance in years from the nearest edge of a group, 14,
    25, 40 or 60: the last year of a group, from which the next one is one year away. With Wilson's
    95 % interval. test: faces whose age in years and age group are known."""
    edges = np.array(AGE_GROUP_UPPER_YEARS[:-1])
    distance = np.abs(test["age"].to_numpy()[:, None] - edges).min(axis=1)
    bins = pd.cut(distance, [-1, *EDGE_YEARS.values()], labels=[*EDGE_YEARS])
    right = (test["age_group_pred"] == test["age_group"]).groupby(bins, observed=False)
    table = right.agg(["size", "sum", "mean"]).set_axis(["n", "right", "accuracy"], axis=1)
    low, high = wilson(table.pop("right").to_numpy(), table["n"].to_numpy())
    return table.assign(low=low, high=high).rename_axis("years_from_edge").reset_index()


def errors_in_years(test: pd.DataFrame, mean_ages: pd.Series) -> pd.DataFrame:
    """Give the mean absolute error in years of age groups that stand for their mean ages.

    mean_ages: as mean_ages_of gives them; a group without faces lies on the line between its
    neighbours' means. read_as: `predicted group`; `expected age`, the means weighted by the
    probabilities; `true group`, as if every prediction were right. The columns of
    AGE_YEARS_COLUMNS, with the cluster bootstrap's 95 % interval. test: faces whose age in years
    and age group are known.
    """
    means = mean_ages.interpolate(limit_direction="both").to_numpy()
    years_of = {
        "predicted group": means[test["age_group_pred"]],
        "expected age": test[probability_columns("age_group")].to_numpy() @ means,
        "true group": means[test["age_group"]],
    }
    rows = []
    for name, years in years_of.items():
        error = np.abs(years - test["age"].to_numpy())
        ends = mean_span(error, test["cluster"].to_numpy())
        rows.append((name, "all", len(test), float(error.mean()), *ends))
    return pd.DataFrame(rows, columns=list(AGE_YEARS_COLUMNS))


def mean_ages_of(training: pd.DataFrame) -> pd.Series:
    """Average the age in years of the training faces of each age group; NaN for one without."""
    known = training[(training["age"] != MISSING) & (training["age_group"] != MISSING)]
    return known.groupby("age_group")["age"].mean().reindex(range(n_classes("age_group")))
