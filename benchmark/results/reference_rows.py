"""The rows that every table begins with: what is read without looking, and without deep learning.

The majority class answers by the training labels alone. A logistic regression is fitted by
benchmark.references, and is scored here from its stored predictions like any run.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.results.intervals import cluster_bootstrap
from benchmark.results.predictions import predicted_tasks
from benchmark.results.row import CombinedScore, Row, TaskScore
from benchmark.results.rows import worst_group
from benchmark.results.subgroups import subgroup_table
from benchmark.tasks import COMBINED_WEIGHTS, MISSING, TASKS, TaskName, combined, n_classes

MAJORITY: Final = "majority class"
LOGISTIC: Final = "logistic regression"

Predicted = Mapping[TaskName, npt.NDArray[np.int64]]


def majority_row(
    train_labels: pd.DataFrame, test_labels: pd.DataFrame, tasks: Sequence[TaskName] = TASKS
) -> Row:
    """Score always answering the training faces' most frequent class, on the test faces.

    Both tables hold the true labels age_group, gender and race; a tie goes to the lower class.
    """
    train_labels, test_labels = (
        table[(table[list(tasks)] != MISSING).all(axis=1)] for table in (train_labels, test_labels)
    )
    predicted: dict[TaskName, npt.NDArray[np.int64]] = {}
    for task in tasks:
        counts = np.bincount(train_labels[task].to_numpy(), minlength=n_classes(task))
        predicted[task] = np.full(len(test_labels), int(counts.argmax()), dtype=np.int64)
    # One answer on gender or race is wrong for whole groups by construction: no finding.
    return _row(MAJORITY, test_labels, predicted, with_worst="age_group" in tasks)


def logistic_row(
    on: str, predictions: pd.DataFrame, tasks: Sequence[TaskName], remarks: Sequence[str] = ()
) -> Row | None:
    """Score a fitted regression's predictions, as runs store them; None where a task is missing.

    on: what it looks at, as `pixels`.
    """
    if not set(tasks) <= set(predicted_tasks(predictions)):
        return None
    parts = {
        part: predictions[predictions["part"] == part].reset_index(drop=True)
        for part in ("val", "test")
    }
    answers: dict[str, Predicted] = {
        part: {task: table[f"{task}_pred"].to_numpy(dtype=np.int64) for task in tasks}
        for part, table in parts.items()
    }
    val = combined(
        {task: float((answers["val"][task] == parts["val"][task]).mean()) for task in tasks}
    )
    name = f"{LOGISTIC} on {on}"
    return _row(name, parts["test"], answers["test"], val=val, remarks=remarks)


def _row(
    name: str,
    test: pd.DataFrame,
    predicted: Predicted,
    *,
    with_worst: bool = True,
    val: float | None = None,
    remarks: Sequence[str] = (),
) -> Row:
    truths = test[list(TASKS)].reset_index(drop=True)
    subgroups = subgroup_table(truths, predicted)
    scores: dict[TaskName, TaskScore] = {}
    for _, everyone in subgroups[subgroups["by"] == "all"].iterrows():
        accuracy, low, high, f1 = (
            float(everyone[column]) for column in ("accuracy", "low", "high", "macro_f1")
        )
        scores[everyone["task"]] = TaskScore(accuracy, low, high, None if math.isnan(f1) else f1)
    return Row(
        "reference",
        name,
        val_combined=val,
        scores=scores,
        combined=_combined(test, predicted) if len(predicted) > 1 else None,
        worst=worst_group(subgroups, tuple(predicted)) if with_worst else None,
        remarks=tuple(remarks),
    )


def _combined(test: pd.DataFrame, predicted: Predicted) -> CombinedScore:
    """Weigh the tasks, with the interval of a cluster bootstrap."""
    right: list[Any] = [predicted[task] == test[task].to_numpy() for task in predicted]
    together = np.average(right, axis=0, weights=[COMBINED_WEIGHTS[task] for task in predicted])
    clusters = test["cluster"].to_numpy() if "cluster" in test else np.arange(len(test))
    low, high = cluster_bootstrap(together[:, None], clusters)
    return CombinedScore(float(together.mean()), float(low[0]), float(high[0]))
