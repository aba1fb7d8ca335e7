"""Faces to look at: the most confident errors, and possible label errors.

The label may be right and the network wrong; nothing is ever relabelled. Of the five folds of an
experiment (`facebench run NAME --folds 0-4`) the tables cover every face of the data set, each by a
network that was not trained on it.
"""

from typing import Final

import numpy as np
import pandas as pd

from benchmark.data.dataset import with_empty_cells
from benchmark.evaluation.predictions import labelled, predicted_tasks, probability_columns
from benchmark.tasks import CLASS_NAMES, TaskName

MISTAKE_COLUMNS: Final = (
    *("task", "file", "truth", "predicted", "probability", "probability_of_label"),
)
MISTAKES_PER_TASK: Final = 50
SUSPECT_COLUMNS: Final = (
    *("task", "rank", "file", "cluster", "age", "label", "contradicted_by"),
    *("probability_of_label", "probability", "margin"),
)
SUSPECTS_PER_TASK: Final = 100


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the most confident errors on test faces, at most MISTAKES_PER_TASK per task.

    Returns MISTAKE_COLUMNS: class names, and the probabilities of the predicted class and of the
    label, in [0, 1].
    """
    tables = []
    for task in predicted_tasks(predictions):
        faces = _test_faces(predictions, task)
        wrong = faces[faces["truth"] != faces["predicted"]]
        surest = wrong.sort_values(["probability", "file"], ascending=[False, True])
        tables.append(surest.head(MISTAKES_PER_TASK))
    return pd.DataFrame(pd.concat(tables, ignore_index=True), columns=list(MISTAKE_COLUMNS))


def label_suspects(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the test faces whose label is contradicted most confidently, per task.

    Returns SUSPECT_COLUMNS, widest margin first, at most SUSPECTS_PER_TASK per task. label and
    contradicted_by are class names, age the stated years: a label a year from an edge is no news.
    margin is the probability of the contradicting class less that of the label, in [0, 1].

    A face is listed when another class than its label is predicted with at least the mean
    probability that faces labelled as that class have of it: sure by the network's own measure,
    whatever its calibration. Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning", JAIR
    70 (2021), section 3.1.
    """
    tables = []
    for task in predicted_tasks(predictions):
        faces = _test_faces(predictions, task)
        # A class that nobody is labelled with has no usual probability, and contradicts nothing.
        usual = faces.groupby("truth")["probability_of_label"].mean()
        sure = faces["probability"] >= faces["predicted"].map(usual).astype(float)
        suspects = faces[sure & (faces["truth"] != faces["predicted"])].assign(
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
    test = labelled(predictions[predictions["part"] == "test"], task)
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
