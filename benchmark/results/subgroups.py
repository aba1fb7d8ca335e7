"""Who a network fails for: accuracy of every task by age group, gender, race and gender x race.

Groups are by true labels. What a group's numbers are ranked into is for metrics and leaderboards.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import f1_score

from benchmark.results.intervals import wilson
from benchmark.results.record import SUBGROUP_COLUMNS
from benchmark.tasks import CLASS_NAMES, MISSING, TASKS, TaskName, n_classes, slug

By = Literal["all", "age_group", "gender", "race", "gender_race"]
BYS: Final[tuple[By, ...]] = get_args(By)

SMALL_GROUP: Final = 30
"""A group of fewer faces is marked and never ranked: at 70 % accuracy, Wilson's 95 % interval of
30 faces spans 31 points."""

COLUMNS: Final = SUBGROUP_COLUMNS

Labels = npt.NDArray[np.integer[Any]]


def group_names(by: By) -> tuple[str, ...]:
    """Name the groups of a division as a person reads them: `61+`, `female Black`."""
    if by == "all":
        return ("all",)
    if by == "gender_race":
        return tuple(f"{g} {r}" for g in CLASS_NAMES["gender"] for r in CLASS_NAMES["race"])
    return CLASS_NAMES[by]


def group_slugs(by: By) -> tuple[str, ...]:
    """Name the groups of a division as metric names have them: `61-plus`, `female-black`."""
    if by == "all":
        return ("all",)
    if by == "gender_race":
        genders, races = group_slugs("gender"), group_slugs("race")
        return tuple(f"{g}-{r}" for g in genders for r in races)
    return tuple(slug(by, label) for label in range(n_classes(by)))


def group_codes(truths: pd.DataFrame, by: By) -> Labels:
    """Give each face's group of a division; (n,), numbers into group_names, or MISSING.

    truths: n faces with the true labels age_group, gender and race; one without the label that
    divides is in no group.
    """
    if by == "all":
        return np.zeros(len(truths), dtype=np.int64)
    if by == "gender_race":
        gender, race = group_codes(truths, "gender"), group_codes(truths, "race")
        known = (gender != MISSING) & (race != MISSING)
        return np.where(known, gender * n_classes("race") + race, MISSING)
    return truths[by].to_numpy(dtype=np.int64)


def subgroup_table(truths: pd.DataFrame, predicted: Mapping[TaskName, Labels]) -> pd.DataFrame:
    """Score every predicted task in every group; the columns of COLUMNS.

    truths: n faces with age_group, gender, race. predicted: (n,) classes per task. Rates in [0, 1]
    with Wilson's 95 % interval. A group without faces has n = 0 and no rate: missing, never 0.
    """
    rows: list[pd.DataFrame] = []
    for task in (task for task in TASKS if task in predicted):
        truth = truths[task].to_numpy(dtype=np.int64)
        for by in BYS:
            names, codes = group_names(by), group_codes(truths, by)
            n_groups = len(names)
            grouped = codes != MISSING
            n_faces = np.bincount(codes[grouped], minlength=n_groups)
            hits = grouped & (truth == predicted[task])
            right = np.bincount(codes[hits], minlength=n_groups)
            low, high = wilson(right, n_faces)
            accuracy = np.divide(right, n_faces, out=np.full(n_groups, np.nan), where=n_faces > 0)
            members = (codes == code for code in range(n_groups))
            f1 = [macro_f1(truth[which], predicted[task][which]) for which in members]
            values = (task, by, names, n_faces, accuracy, low, high, f1)
            rows.append(pd.DataFrame(dict(zip(COLUMNS, values, strict=True))))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(COLUMNS))


def macro_f1(truth: Labels, predicted: Labels) -> float:
    """Average F1 over the classes that occur among the true labels, in [0, 1].

    A class nobody in the group has is left out: its F1 would be 0 after a single false alarm,
    which already counts as a miss of the true class. NaN where fewer than two classes occur:
    within one class every precision is 1 and F1 says nothing that accuracy does not.
    """
    present = np.unique(truth)
    if len(present) < 2:
        return float("nan")
    return float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0.0))


def ranked(subgroups: pd.DataFrame) -> pd.DataFrame:
    """Keep the groups large enough to be ranked against each other."""
    return subgroups[subgroups["n"] >= SMALL_GROUP]
