"""Faces to look at: the most confident errors, and possible label errors.

The labels may be right and the network wrong; nothing is ever relabelled. The tables tell where to
look. What the faces look like is for benchmark.evaluation.figures.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from benchmark.data.dataset import with_empty_cells
from benchmark.errors import RunError
from benchmark.evaluation.predictions import predicted_tasks, probability_columns
from benchmark.tasks import CLASS_NAMES, MISSING, TaskName

MISTAKE_COLUMNS: Final = (
    *("task", "file", "truth", "predicted", "probability", "probability_of_label"),
)
MISTAKES_PER_TASK: Final = 50
SUSPECT_COLUMNS: Final = (
    *("task", "rank", "file", "cluster", "age", "label", "contradicted_by"),
    *("probability_of_label", "probability", "margin"),
)
SUSPECTS_PER_TASK: Final = 100
N_FOLDS: Final = 5

CAUTION: Final = (
    "The labels may be right and the network wrong: these are the faces it contradicts most "
    "surely, and nothing was relabelled."
)


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the most confident errors on test faces, at most MISTAKES_PER_TASK per task.

    Returns MISTAKE_COLUMNS: class names, and the probabilities of the predicted class and of the
    label, in [0, 1].
    """
    tables = []
    for task in predicted_tasks(predictions):
        table = _test_faces(predictions, task)
        wrong = table[table["truth"] != table["predicted"]]
        surest = wrong.sort_values(["probability", "file"], ascending=[False, True])
        tables.append(surest.head(MISTAKES_PER_TASK))
    return pd.concat(tables, ignore_index=True)[list(MISTAKE_COLUMNS)]


def label_suspects(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the test faces whose label is contradicted most surely, per task.

    Returns SUSPECT_COLUMNS, widest margin first, at most SUSPECTS_PER_TASK per task. label and
    contradicted_by are class names, age the stated years: a label a year from an edge is no news.
    margin is the probability of the contradicting class less that of the label, in [0, 1].

    A face is listed when another class than its label is predicted with at least the mean
    probability that faces labelled as that class have of it: sure by the network's own measure,
    whatever its calibration. Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning", JAIR
    70 (2021), section 3.1. The network must not have been trained on these faces.
    """
    tables = []
    for task in predicted_tasks(predictions):
        table = _test_faces(predictions, task)
        # A class that nobody is labelled with has no usual probability, and contradicts nothing.
        usual = table.groupby("truth")["probability_of_label"].mean()
        sure = table["probability"] >= table["predicted"].map(usual).astype(float)
        suspects = table[sure & (table["truth"] != table["predicted"])].assign(
            margin=lambda rows: rows["probability"] - rows["probability_of_label"]
        )
        suspects = suspects.sort_values(["margin", "file"], ascending=[False, True])
        suspects = suspects.head(SUSPECTS_PER_TASK)
        tables.append(suspects.assign(rank=np.arange(1, len(suspects) + 1)))
    names = {"truth": "label", "predicted": "contradicted_by"}
    joined = with_empty_cells(pd.concat(tables, ignore_index=True)).rename(columns=names)
    return joined[list(SUSPECT_COLUMNS)]


def _test_faces(predictions: pd.DataFrame, task: TaskName) -> pd.DataFrame:
    """Give each labelled face's class names and probabilities of the predicted and true class."""
    tested = (predictions["part"] == "test") & (predictions[task] != MISSING)
    test = predictions[tested].reset_index(drop=True)
    names, rows = np.array(CLASS_NAMES[task]), np.arange(len(test))
    probabilities = test[probability_columns(task)].to_numpy()
    truth, predicted = test[task].to_numpy(), test[f"{task}_pred"].to_numpy()
    return test.assign(
        task=task,
        truth=names[truth],
        predicted=names[predicted],
        probability=probabilities[rows, predicted],
        probability_of_label=probabilities[rows, truth],
    )


def out_of_fold(folds: Mapping[int, pd.DataFrame], n_faces: int | None = None) -> pd.DataFrame:
    """Join the test parts of the five folds: each face once, by a network that never saw it.

    folds: predictions tables by fold, as read_predictions gives them. n_faces: how many faces have
    a place in the split, to be sure that none is missing. Raises RunError where a fold is missing,
    tasks differ, or a face is there twice or not at all.
    """
    if missing := sorted(set(range(N_FOLDS)) - set(folds)):
        raise RunError(
            f"fold {', '.join(map(str, missing))} is missing",
            allowed=f"the {N_FOLDS} folds of one experiment, 0 to {N_FOLDS - 1}",
            fix="Run the experiments of the missing folds first",
        )
    if len({predicted_tasks(table) for table in folds.values()}) > 1:
        raise RunError("the folds predict different tasks", allowed="folds of one experiment")
    joined = pd.concat([folds[fold].query("part == 'test'") for fold in sorted(folds)])
    twice = joined["file"].duplicated()
    if twice.any():
        raise RunError(
            f"face {joined['file'][twice].iloc[0]!r} is tested in two folds "
            f"({int(twice.sum())} such faces)",
            allowed="each face in one fold",
            fix="Use folds of one split",
        )
    if n_faces is not None and len(joined) != n_faces:
        raise RunError(
            f"the folds test {len(joined):,} faces",
            allowed=f"the {n_faces:,} that have a place in the split",
        )
    return joined.sort_values("file", ignore_index=True)
