"""The one door for scoring: every number of a run, from its predictions table alone.

Runs call it once, after selection on validation; leaderboards read what it found. It logs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import cohen_kappa_score, confusion_matrix, precision_recall_fscore_support

from benchmark.results.predictions import predicted_tasks, probability_columns
from benchmark.results.subgroups import (
    BYS,
    COLUMNS,
    Labels,
    group_names,
    group_slugs,
    macro_f1,
    ranked,
    subgroup_table,
)
from benchmark.tasks import CLASS_NAMES, TASKS, TaskName, combined, n_classes

SELECTED: Final = "selected/"
"""Prefix of the validation metrics of the selected epoch; `val/…` alone is the history's."""

CALIBRATION_BINS: Final = 15
"""As in Guo et al. 2017."""

Metrics = dict[str, float]


@dataclass(frozen=True)
class Scores:
    """What a predictions table says of a network. All but `metrics` is about the test part."""

    metrics: Metrics
    """By MLflow name, rates in [0, 1]; a number that does not exist is absent, never 0 or NaN."""
    subgroups: pd.DataFrame
    """Columns task, by, group, n, accuracy, low, high, macro_f1; `all` is a group too."""
    confusion: dict[TaskName, npt.NDArray[np.int64]]
    """Per task (n_classes, n_classes) counts: rows are true classes, columns predicted ones."""
    reports: dict[TaskName, pd.DataFrame]
    """Per task: class, precision, recall, f1, support; precision is NaN for a class never
    predicted, recall and F1 for a class that does not occur."""


def score(predictions: pd.DataFrame) -> Scores:
    """Compute every number of a run from its predictions, as read_predictions gives them.

    Only predicted tasks are scored. A part that is absent (ad-hoc runs have no test faces) has no
    metrics. Subgroups of under 30 faces stay out of `metrics`, where they could not be marked.
    """
    tasks = predicted_tasks(predictions)
    validation = predictions[predictions["part"] == "val"]
    test = predictions[predictions["part"] == "test"]
    metrics = _validation_metrics(validation, tasks) if len(validation) else {}
    if test.empty:
        return Scores(metrics, pd.DataFrame(columns=list(COLUMNS)), {}, {})
    predicted = {task: test[f"{task}_pred"].to_numpy(dtype=np.int64) for task in tasks}
    confusion = {
        task: confusion_matrix(test[task], predicted[task], labels=range(n_classes(task)))
        for task in tasks
    }
    reports = {task: class_report(test[task].to_numpy(), predicted[task], task) for task in tasks}
    subgroups = subgroup_table(test[list(TASKS)], predicted)
    for task in tasks:
        metrics |= _test_metrics(test, task, reports[task])
    metrics["test/combined"] = combined({task: metrics[f"test/{task}/accuracy"] for task in tasks})
    metrics["test/n_faces"] = float(len(test))
    metrics["test/n_clusters"] = float(test["cluster"].nunique())
    metrics |= subgroup_metrics(subgroups)
    return Scores(_existing(metrics), subgroups, confusion, reports)


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
        "ece": calibration_error(test[probability_columns(task)].to_numpy(), truth),
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


def calibration_error(probabilities: npt.NDArray[np.floating[Any]], truth: Labels) -> float:
    """Give the expected calibration error of the top class, in [0, 1].

    probabilities: (n, n_classes). Faces fall into 15 bins of equal width by the probability of the
    predicted class, ((m-1)/15, m/15]; the error is the mean over faces of |accuracy - mean
    probability| of their bin. Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of
    Modern Neural Networks", ICML 2017, equation 3.
    """
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    bins = np.digitize(confidence, inner_edges, right=True)
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(truth))


def subgroup_metrics(subgroups: pd.DataFrame) -> Metrics:
    """Flatten a subgroup table into metrics, small groups left out.

    Per task and division: accuracy of each group, `worst_<by>`, `best_<by>` and `gap_<by>`, the
    last three where at least two groups can be ranked.
    """
    metrics: Metrics = {}
    slugs: Mapping[str, Mapping[str, str]] = {
        by: dict(zip(group_names(by), group_slugs(by), strict=True)) for by in BYS if by != "all"
    }
    large = ranked(subgroups[subgroups["by"] != "all"])
    for (task, by), groups in large.groupby(["task", "by"], sort=False):
        for name, accuracy in zip(groups["group"], groups["accuracy"], strict=True):
            metrics[f"test/{task}/accuracy/{by}/{slugs[str(by)][name]}"] = float(accuracy)
        if len(groups) >= 2:
            worst, best = float(groups["accuracy"].min()), float(groups["accuracy"].max())
            metrics[f"test/{task}/worst_{by}"] = worst
            metrics[f"test/{task}/best_{by}"] = best
            metrics[f"test/{task}/gap_{by}"] = best - worst
    return metrics
