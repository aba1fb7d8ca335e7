"""Which faces an experiment on a subset trains on, and on which it is selected and tested.

The split stays what it is: a subset takes rows away from its parts and never moves one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from benchmark.data.splits import PartName, Rows
from benchmark.errors import DataError
from benchmark.experiment.definition import Subset
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS, TaskName

SAMPLE_VERSION: Final = "size-matched-1"


def subset_parts(
    table: pd.DataFrame, parts: Mapping[PartName, Rows], subset: Subset | None, seed: int
) -> dict[PartName, Rows]:
    """Reduce the parts of a split to what `subset` says; without one, give them as they are.

    Validation and test hold the subset's faces alone. Training holds these, or everyone's, or a
    sample of everyone's as large as the subset's, which depends on the run's seed. Rows ascend.
    Raises DataError where a part would be empty.
    """
    if subset is None:
        return dict(parts)
    inside = members(table, subset)
    chosen = {name: rows[inside[rows]] for name, rows in parts.items()}
    for name, rows in chosen.items():
        if len(rows) == 0:
            raise DataError(
                f"the {name} part has no face of the subset {subset.label!r}",
                allowed="at least one face in each part",
                fix="Choose a larger subset, or a data set that has such faces",
            )
    if subset.training == "everyone":
        chosen["train"] = parts["train"]
    elif subset.training == "size_matched":
        chosen["train"] = stratified_sample(table, parts["train"], len(chosen["train"]), seed)
    return chosen


def labelled_parts(
    table: pd.DataFrame, parts: Mapping[PartName, Rows], tasks: Sequence[TaskName],
    *, complete: bool = False,
) -> dict[PartName, Rows]:  # fmt: skip
    """Leave out the faces without any label of `tasks`: there is nothing to learn or judge by.

    complete: those too that lack one of several, as runs of older versions did. Raises DataError
    where a part has no face labelled for a task; its sentence names what the data set has.
    """
    has = np.stack([table[task].to_numpy() != MISSING for task in tasks])
    known = np.all(has, axis=0) if complete else np.any(has, axis=0)
    chosen = {name: rows[known[rows]] for name, rows in parts.items()}
    if any(map(len, parts.values())):
        check_labelled(table, chosen, tasks)
    return chosen


def labelled_counts(
    table: pd.DataFrame, parts: Mapping[PartName, Rows], tasks: Sequence[TaskName]
) -> dict[str, dict[str, int]]:
    """Count the faces of each part that have a task's label, by task and part."""
    return {
        task: {name: int((table[task].to_numpy()[rows] != MISSING).sum())
               for name, rows in parts.items()}
        for task in tasks
    }  # fmt: skip


def check_labelled(
    table: pd.DataFrame, parts: Mapping[PartName, Rows], tasks: Sequence[TaskName]
) -> None:
    """Raise DataError where a part has no face that is labelled for one of the tasks."""
    counts = labelled_counts(table, parts, tasks)
    short = [task for task in tasks if not all(counts[task].values())]
    if not short:
        return
    lacking = [task for task in tasks if not (table[task] != MISSING).any()]
    there = [task for task in TASKS if (table[task] != MISSING).any()]
    what = ", ".join(TASK_TITLES[task] for task in lacking or short)
    raise DataError(
        f"the data set has too few faces labelled with {what}"
        if not lacking
        else f"no face of the data set is labelled with {what}",
        allowed="experiments of " + ", ".join(TASK_TITLES[task] for task in there),
        fix="`facebench list` shows which experiments read one task alone",
    )


def members(table: pd.DataFrame, subset: Subset) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell for each row of a face table whether its true labels are the subset's; (n,)."""
    inside = np.ones(len(table), dtype=bool)
    if subset.gender is not None:
        inside &= table["gender"].to_numpy() == CLASS_NAMES["gender"].index(subset.gender)
    if subset.race is not None:
        inside &= table["race"].to_numpy() == CLASS_NAMES["race"].index(subset.race)
    return inside


def stratified_sample(table: pd.DataFrame, rows: Rows, n_wanted: int, seed: int) -> Rows:
    """Draw `n_wanted` of `rows`, in the shares that age group x gender x race have among them.

    Within a stratum faces are ordered by a hash of seed and file name, which is the same on every
    machine; what rounding leaves over goes to the strata with the largest remainders.
    """
    strata = table.iloc[rows].groupby(list(TASKS), sort=True).indices
    shares = [len(places) * n_wanted / len(rows) for places in strata.values()]
    counts = [int(share) for share in shares]
    remainders = [share - count for share, count in zip(shares, counts, strict=True)]
    most = sorted(range(len(counts)), key=lambda stratum: (-remainders[stratum], stratum))
    for stratum in most[: n_wanted - sum(counts)]:
        counts[stratum] += 1
    files: list[str] = table["file"].tolist()
    drawn: list[int] = []
    for places, count in zip(strata.values(), counts, strict=True):
        ordered = sorted(
            (int(rows[place]) for place in places), key=lambda row: _key(seed, files[row])
        )
        drawn += ordered[:count]
    return np.array(sorted(drawn), dtype=np.int64)


def _key(seed: int, file: str) -> str:
    return hashlib.sha256(f"{SAMPLE_VERSION}/{seed}\n{file}".encode()).hexdigest()
