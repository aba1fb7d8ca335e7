"""The one door for scoring: every number of a run, from its predictions table alone.

Runs call it once, after selection on validation; leaderboards read what it found. It logs nothing.
What a number's interval is stands in benchmark.evaluation.score_intervals; groups of people are set
against each other in benchmark.evaluation.subgroups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import cohen_kappa_score, confusion_matrix, precision_recall_fscore_support

from benchmark.evaluation.calibration import Calibration, Confidence, calibrate, subgroup_errors
from benchmark.evaluation.intervals import wilson
from benchmark.evaluation.predictions import predicted_tasks, probability_columns
from benchmark.evaluation.score_intervals import (
    INTERVAL_COLUMNS,
    ResampledRun,
    class_spans,
    mean_span,
    score_intervals,
)
from benchmark.evaluation.subgroups import (
    BYS,
    COLUMNS,
    GAP_COLUMNS,
    Labels,
    gap_table,
    gender_gap_table,
    group_names,
    group_slugs,
    macro_f1,
    ranked,
    rate_table,
    subgroup_table,
)
from benchmark.tasks import (
    AGE_GROUP_UPPER_YEARS,
    CLASS_NAMES,
    MISSING,
    TASKS,
    TaskName,
    combined,
    n_classes,
)

SCORING_VERSION: Final = 5
"""Raised whenever the same predictions would give other numbers or further ones."""

SELECTED: Final = "selected/"
"""Prefix of the validation metrics of the selected epoch; `val/…` alone is the history's."""

REPORT_COLUMNS: Final = (
    "class",
    *(f"{score}{end}" for score in ("precision", "recall", "f1") for end in ("", "_low", "_high")),
    "support",
)
ENDS: Final = ("low", "high")
AGE_EDGE_COLUMNS: Final = ("years_from_edge", "n", "accuracy", "low", "high")
EDGE_YEARS: Final = (0, 1, 2, 3, 5, 10)
"""Where a row of the table by distance from an edge begins; the last has no end."""
AGE_YEARS_COLUMNS: Final = ("read_as", "group", "n", "mae_years", "low", "high")

Metrics = dict[str, float]


@dataclass(frozen=True)
class Scores:
    """What a predictions table says of a network; all but metrics and calibration is of test."""

    metrics: Metrics
    """By MLflow name, rates in [0, 1]; a number that does not exist is absent, never 0 or NaN."""
    subgroups: pd.DataFrame
    """Columns task, by, group, n, accuracy, low, high, macro_f1; `all` is a group too."""
    gaps: pd.DataFrame
    """A row per task and division, with the columns of gaps.GAP_COLUMNS."""
    intervals: pd.DataFrame
    """A row per number that has a 95 % interval, as score_intervals.INTERVAL_COLUMNS says."""
    confusion: dict[TaskName, npt.NDArray[np.int64]]
    """Per task (n_classes, n_classes) counts: rows are true classes, columns predicted ones."""
    reports: dict[TaskName, pd.DataFrame]
    """Per task: class, precision, recall, f1, each with low and high, and support; precision is
    NaN for a class never predicted, recall and F1 for a class that does not occur."""
    calibration: dict[TaskName, Calibration]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Further tables of test, by file name: subgroup_ece (calibration.subgroup_errors),
    subgroup_rates (gaps.rate_table), gender_gaps (gaps.gender_gap_table), and of the age group
    age_edges (accuracy_by_edge) and age_years (errors_in_years)."""


def score(predictions: pd.DataFrame, mean_ages: Sequence[float | None] | None = None) -> Scores:
    """Compute every number of a run from its predictions, as read_predictions gives them.

    Only predicted tasks are scored. A part that is absent (ad-hoc runs have no test faces) has no
    metrics. Subgroups of under 30 faces stay out of `metrics`, where they could not be marked.
    mean_ages: mean age in years of the training faces of each age group; without it, errors in
    years are not computed.
    """
    tasks = predicted_tasks(predictions)
    validation = predictions[predictions["part"] == "val"]
    test = predictions[predictions["part"] == "test"].reset_index(drop=True)
    parts = {name: part for name, part in (("val", validation), ("test", test)) if len(part)}
    calibration = {
        task: calibrate({name: _probabilities(part, task) for name, part in parts.items()})
        for task in tasks
    }
    metrics = _validation_metrics(validation, tasks) if len(validation) else {}
    metrics |= _calibration_metrics(calibration)
    if test.empty:
        subgroups, gaps, intervals = (
            pd.DataFrame(columns=list(names)) for names in (COLUMNS, GAP_COLUMNS, INTERVAL_COLUMNS)
        )
        return Scores(metrics, subgroups, gaps, intervals, {}, {}, calibration)
    return _score_test(test, tasks, metrics, calibration, mean_ages)


def _score_test(
    test: pd.DataFrame,
    tasks: tuple[TaskName, ...],
    metrics: Metrics,
    calibration: dict[TaskName, Calibration],
    mean_ages: Sequence[float | None] | None,
) -> Scores:
    """Score one or more test faces; `metrics` is what validation and calibration gave."""
    predicted = {task: test[f"{task}_pred"].to_numpy(dtype=np.int64) for task in tasks}
    again = ResampledRun(test, tasks)
    confusion, reports = {}, {}
    for task in tasks:
        truth = test[task].to_numpy()
        matrix = confusion_matrix(truth, predicted[task], labels=range(n_classes(task)))
        report = class_report(truth, predicted[task], task)
        reports[task] = report.assign(**class_spans(again, task, matrix))[list(REPORT_COLUMNS)]
        confusion[task] = matrix
        metrics |= _test_metrics(test, task, report)
    metrics["test/combined"] = combined({task: metrics[f"test/{task}/accuracy"] for task in tasks})
    metrics["test/n_faces"] = float(len(test))
    metrics["test/n_clusters"] = float(test["cluster"].nunique())
    subgroups = subgroup_table(test[list(TASKS)], predicted)
    right = {task: predicted[task] == test[task].to_numpy() for task in tasks}
    gaps = gap_table(subgroups, test, right)
    intervals = score_intervals(again, confusion, reports, metrics)
    metrics |= interval_metrics(intervals) | subgroup_metrics(subgroups) | gap_metrics(gaps)
    tables = {
        "subgroup_ece": subgroup_errors(
            test, {task: Confidence.of(*_probabilities(test, task)) for task in tasks}
        ),
        "subgroup_rates": rate_table(test, predicted),
        "gender_gaps": gender_gap_table(test, right),
    }
    if "age_group" in tasks and (test["age"] != MISSING).any():
        tables["age_edges"] = accuracy_by_edge(test)
        if any(mean is not None for mean in mean_ages or ()):
            tables["age_years"] = errors_in_years(test, mean_ages or ())
    return Scores(
        _existing(metrics), subgroups, gaps, intervals, confusion, reports, calibration, tables
    )


def _probabilities(part: pd.DataFrame, task: TaskName) -> tuple[npt.NDArray[np.float64], Labels]:
    return part[probability_columns(task)].to_numpy(), part[task].to_numpy()


def _existing(metrics: Metrics) -> Metrics:
    return {name: float(value) for name, value in metrics.items() if not np.isnan(value)}


def _validation_metrics(validation: pd.DataFrame, tasks: tuple[TaskName, ...]) -> Metrics:
    metrics: Metrics = {}
    accuracies: dict[TaskName, float] = {}
    for task in tasks:
        truth, predicted = validation[task].to_numpy(), validation[f"{task}_pred"].to_numpy()
        accuracies[task] = float((truth == predicted).mean())
        metrics[f"{SELECTED}val/{task}/accuracy"] = accuracies[task]
        metrics[f"{SELECTED}val/{task}/macro_f1"] = macro_f1(truth, predicted)
    metrics[f"{SELECTED}val/combined"] = combined(accuracies)
    return _existing(metrics)


def _test_metrics(test: pd.DataFrame, task: TaskName, report: pd.DataFrame) -> Metrics:
    """Score one task on all test faces; balanced accuracy is over the classes that occur."""
    truth, predicted = test[task].to_numpy(), test[f"{task}_pred"].to_numpy()
    values = {
        "accuracy": float((truth == predicted).mean()),
        "macro_f1": macro_f1(truth, predicted),
        "balanced_accuracy": float(report["recall"].mean()),
    }
    if task == "age_group":
        values |= _age_group_distances(truth, predicted)
    return {f"test/{task}/{name}": value for name, value in values.items()}


def _age_group_distances(truth: Labels, predicted: Labels) -> Metrics:
    """Score how far off age groups are, in groups: `mae_groups` counts them, 0 to 4.

    Quadratic-weighted kappa is NaN where truth and prediction know a single, equal class.
    """
    off = np.abs(truth - predicted)
    labels = list(range(n_classes("age_group")))
    single = len(np.union1d(truth, predicted)) < 2
    qwk = (
        float("nan")
        if single
        else float(cohen_kappa_score(truth, predicted, labels=labels, weights="quadratic"))
    )
    return {"within_one": float((off <= 1).mean()), "mae_groups": float(off.mean()), "qwk": qwk}


def accuracy_by_edge(test: pd.DataFrame) -> pd.DataFrame:
    """Score the age group by the true age's distance in years from the nearest edge of a group.

    Edges are 14, 25, 40 and 60 years, each the last year of its group: a face of distance 0 is on
    an edge, and the next group is one year away. The columns of AGE_EDGE_COLUMNS, with Wilson's
    95 % interval; faces without an age in years are left out.
    """
    known = test[test["age"] != MISSING]
    edges = np.array(AGE_GROUP_UPPER_YEARS[:-1])
    distance = np.abs(known["age"].to_numpy()[:, None] - edges).min(axis=1)
    row = np.searchsorted(EDGE_YEARS, distance, side="right") - 1
    right = (known["age_group_pred"] == known["age_group"]).to_numpy()
    n_faces = np.bincount(row, minlength=len(EDGE_YEARS))
    n_right = np.bincount(row[right], minlength=len(EDGE_YEARS))
    ends = [*(begin - 1 for begin in EDGE_YEARS[1:]), None]
    names = [
        f"{begin} or more" if end is None else f"{begin}" if begin == end else f"{begin}-{end}"
        for begin, end in zip(EDGE_YEARS, ends, strict=True)
    ]
    accuracy = np.divide(n_right, n_faces, out=np.full(len(names), np.nan), where=n_faces > 0)
    values = (names, n_faces, accuracy, *wilson(n_right, n_faces))
    return pd.DataFrame(dict(zip(AGE_EDGE_COLUMNS, values, strict=True)))


def errors_in_years(test: pd.DataFrame, mean_ages: Sequence[float | None]) -> pd.DataFrame:
    """Give the mean absolute error in years of age groups that are read as their mean ages.

    mean_ages: of the training faces of each group, as mean_ages_of gives them; one without faces
    lies on the line between its neighbours' means. read_as: `predicted group`; `expected age`, the
    means weighted by the probabilities; `true group`, as if every prediction were right. group:
    `all`, or the true age group. The columns of AGE_YEARS_COLUMNS, with the cluster bootstrap's
    95 % interval; faces without an age in years are left out.
    """
    known = test[test["age"] != MISSING]
    truth, ages = known["age_group"].to_numpy(), known["age"].to_numpy()
    means = np.array([np.nan if mean is None else mean for mean in mean_ages])
    told = np.flatnonzero(~np.isnan(means))
    means = np.interp(np.arange(len(means)), told, means[told])
    probabilities = known[probability_columns("age_group")].to_numpy()
    readings = {
        "predicted group": means[known["age_group_pred"].to_numpy()],
        "expected age": probabilities @ means,
        "true group": means[truth],
    }
    rows = []
    for name, years in readings.items():
        for label, group in ((None, "all"), *enumerate(CLASS_NAMES["age_group"])):
            chosen = np.ones(len(known), dtype=bool) if label is None else truth == label
            if chosen.any():
                error = np.abs(years - ages)[chosen]
                ends = mean_span(error, known["cluster"].to_numpy()[chosen])
                rows.append((name, group, int(chosen.sum()), float(error.mean()), *ends))
    return pd.DataFrame(rows, columns=list(AGE_YEARS_COLUMNS))


def mean_ages_of(training: pd.DataFrame) -> list[float | None]:
    """Average the age in years of the training faces of each age group; None for one without."""
    known = training[(training["age"] != MISSING) & (training["age_group"] != MISSING)]
    means = known.groupby("age_group")["age"].mean()
    return [
        float(means[label]) if label in means.index else None
        for label in range(n_classes("age_group"))
    ]


def class_report(truth: Labels, predicted: Labels, task: TaskName) -> pd.DataFrame:
    """Give precision, recall, F1 in [0, 1] and support of each class of `task`."""
    labels = list(range(n_classes(task)))
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=np.nan
    )
    # F1 = 2 TP / (2 TP + FP + FN) exists wherever the class occurs, with or without a precision;
    # without any true face it would only count false alarms.
    f1 = np.where(support > 0, np.nan_to_num(f1), np.nan)
    return pd.DataFrame(
        {
            "class": CLASS_NAMES[task],
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": support,
        }
    )


def _calibration_metrics(calibration: Mapping[TaskName, Calibration]) -> Metrics:
    """Name the calibration error with and without temperature, and what chance alone gives."""
    metrics: Metrics = {}
    for task, found in calibration.items():
        if found.temperature is not None and not found.at_end:
            metrics[f"{SELECTED}val/{task}/temperature"] = found.temperature
        if "test" in found.error:
            metrics[f"test/{task}/ece"] = found.error["test"]
            metrics[f"test/{task}/nll"] = found.nll["test"]
            metrics[f"test/{task}/brier"] = found.brier["test"]
        if "test" in found.error_tempered and not found.at_end:
            metrics[f"test/{task}/ece_tempered"] = found.error_tempered["test"]
        if found.by_chance is not None:
            metrics[f"test/{task}/ece/chance"] = found.by_chance
    return metrics


def interval_metrics(intervals: pd.DataFrame) -> Metrics:
    """Name the ends of the numbers' intervals; where a number has two, Wilson's, which is first."""
    metrics: Metrics = {}
    first = intervals.drop_duplicates("metric")
    for name, low, high in zip(first["metric"], first["low"], first["high"], strict=True):
        metrics |= {f"{name}/low": float(low), f"{name}/high": float(high)}
    return metrics


def gap_metrics(gaps: pd.DataFrame) -> Metrics:
    """Name worst, best, gap and ratio per task and division, with intervals and chance's gap."""
    metrics: Metrics = {}
    for row in gaps[gaps["n_ranked"] >= 2].to_dict("records"):
        by = row["by"]
        for number in ("worst", "best", "gap", "ratio"):
            name = f"test/{row['task']}/{number}_{by}"
            metrics[name] = float(row[number])
            if number != "best":
                metrics |= {f"{name}/{end}": float(row[f"{number}_{end}"]) for end in ENDS}
        metrics[f"test/{row['task']}/gap_{by}/chance"] = float(row["chance_gap"])
    return metrics


def subgroup_metrics(subgroups: pd.DataFrame) -> Metrics:
    """Name accuracy and macro-F1 per task and group, and faces per group; small groups left out."""
    metrics: Metrics = {}
    slugs: Mapping[str, Mapping[str, str]] = {
        by: dict(zip(group_names(by), group_slugs(by), strict=True)) for by in BYS if by != "all"
    }
    for row in ranked(subgroups[subgroups["by"] != "all"]).to_dict("records"):
        task, place = row["task"], f"{row['by']}/{slugs[row['by']][row['group']]}"
        metrics[f"test/{task}/accuracy/{place}"] = float(row["accuracy"])
        metrics[f"test/{task}/macro_f1/{place}"] = float(row["macro_f1"])
        metrics[f"test/n_faces/{place}"] = float(row["n"])
    return metrics
