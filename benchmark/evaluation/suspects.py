"""Label suspects: the test faces whose stated label a network contradicts most surely.

The labels may be right and the network wrong; nothing is ever relabelled. The list tells where to
look. What the pictures look like is for benchmark.evaluation.figures.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from benchmark.data.table import with_empty_cells
from benchmark.errors import RunError
from benchmark.evaluation.predictions import predicted_tasks, probability_columns
from benchmark.tasks import CLASS_NAMES, TaskName, n_classes

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


def label_suspects(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the faces of the test part whose label is contradicted most surely, per task.

    Returns SUSPECT_COLUMNS, widest margin first, at most SUSPECTS_PER_TASK per task. label and
    contradicted_by are class names, age the stated years: a label a year from an edge is no news.
    margin is the probability of the contradicting class less that of the label, in [0, 1].

    A face is listed when it is read as another class than its label's with at least the mean
    probability that faces labelled as that class have of it: sure by the network's own measure,
    whatever its calibration. Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning", JAIR
    70 (2021), section 3.1. The network must not have been trained on these faces.
    """
    test = predictions[predictions["part"] == "test"]
    tables = [_of_task(test, task) for task in predicted_tasks(predictions)]
    return pd.concat(tables, ignore_index=True)


def _of_task(test: pd.DataFrame, task: TaskName) -> pd.DataFrame:
    names = np.array(CLASS_NAMES[task])
    probabilities = test[probability_columns(task)].to_numpy()
    label, read = test[task].to_numpy(), test[f"{task}_pred"].to_numpy()
    rows = np.arange(len(test))
    # A class that nobody is labelled with has no measure of sureness: nothing is sure of it.
    usual = np.full(n_classes(task), np.inf)
    for wanted in np.unique(label):
        usual[wanted] = probabilities[label == wanted, wanted].mean()
    of_read, of_label = probabilities[rows, read], probabilities[rows, label]
    sure = (read != label) & (of_read >= usual[read])
    table = pd.DataFrame(
        {
            "task": task,
            "rank": 0,
            "file": test["file"].to_numpy(),
            "cluster": test["cluster"].to_numpy(),
            "age": with_empty_cells(test)["age"].to_numpy(),
            "label": names[label],
            "contradicted_by": names[read],
            "probability_of_label": of_label,
            "probability": of_read,
            "margin": of_read - of_label,
        }
    )[sure]
    surest: pd.DataFrame = table.sort_values(["margin", "file"], ascending=[False, True])
    surest = surest.head(SUSPECTS_PER_TASK)
    return surest.assign(rank=np.arange(1, len(surest) + 1))


def out_of_fold(folds: Mapping[int, pd.DataFrame], n_faces: int | None = None) -> pd.DataFrame:
    """Join the test parts of the five folds: each face read once, by a network that never saw it.

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
    tasks = {predicted_tasks(table) for table in folds.values()}
    if len(tasks) > 1:
        raise RunError("the folds predict different tasks", allowed="folds of one experiment")
    joined = pd.concat(
        [table[table["part"] == "test"] for _, table in sorted(folds.items())], ignore_index=True
    )
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
