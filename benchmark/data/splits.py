"""Where a face may be used: the split leak-free-2, its folds, subsets, and the check for leaks.

A cluster is never divided. Within each age group x gender x race the order of the clusters is
that of a hash of their names, and each goes to the part that was furthest behind its share before
the cluster came; so clusters of several faces are spread over the parts like any other. (Version 1
counted the cluster's own faces first, and put all but a few of them into train.) The version is
the seed: no random generator takes part, so that every machine, and every order of the
files on disk, gives the same split. A subset takes rows away from its parts and never moves one.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.errors import DataError
from benchmark.experiment.definition import Subset
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS, TaskName

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

PartName = Literal["train", "val", "test"]
Rows = NDArray[np.int64]

SPLIT_VERSION: Final = "leak-free-2"
PARTS: Final[tuple[PartName, ...]] = ("train", "val", "test")
PART_SHARES: Final = (8, 1, 1)
N_FOLDS: Final = 5
FOLD_SHARES: Final = (7, 1)
"""Training and validation within the four parts that a fold does not test on."""

SUBSET_VERSION: Final = "size-matched-1"

IDENTITY_COLUMNS: Final = ("sha256", "cluster", "file")
"""No two parts may share a value of any of these."""


def with_split(table: pd.DataFrame) -> pd.DataFrame:
    """Add part and fold; faces with a no_place_reason get "" and -1. Needs cluster, too."""
    placed = np.flatnonzero(table["no_place_reason"].to_numpy() == "")
    part, fold = np.full(len(table), "", dtype=object), np.full(len(table), -1, np.int64)
    assigned = _assigned(table.iloc[placed], PART_SHARES, salt=SPLIT_VERSION)
    part[placed] = np.array(PARTS, dtype=object)[assigned]
    fold[placed] = _assigned(table.iloc[placed], (1,) * N_FOLDS, salt=f"{SPLIT_VERSION}/folds")
    return table.assign(part=part, fold=fold)


def _assigned(placed: pd.DataFrame, shares: Sequence[int], *, salt: str) -> Rows:
    """Give each face a part, (n,) from 0, clusters whole, stratified over the task labels.

    A cluster is known by its first face by file name: its stratum is that face's, and its place
    in the order is that of the sha256 of the salt and that name.
    """
    heads = placed.sort_values("file", kind="stable").drop_duplicates("cluster")
    sizes = heads["cluster"].map(placed["cluster"].value_counts())
    heads = heads.assign(size=sizes, key=hash_keys(heads["file"], salt))
    heads = heads.sort_values([*TASKS, "key"])
    part_of = dict(zip(heads["cluster"], _fill(heads["size"].tolist(), shares), strict=True))
    return np.array([part_of[cluster] for cluster in placed["cluster"]], np.int64)


def _fill(sizes: Sequence[int], shares: Sequence[int]) -> list[int]:
    """Put clusters, in order, where most faces are lacking; in integers, so that it is exact.

    What a part lacks is measured before the cluster joins, so that a cluster's size does not decide
    where it goes, and is carried from stratum to stratum: each stratum is within a cluster or two
    of its share, and so is the whole.
    """
    counts, chosen = np.zeros(len(shares), np.int64), []
    for size in sizes:
        part = int(np.argmax(np.array(shares) * counts.sum() - sum(shares) * counts))
        counts[part] += size
        chosen.append(part)
    return chosen


def split_digest(table: pd.DataFrame) -> str:
    """Digest who is where: sha256 of the sorted lines `file,part` of the faces with a place."""
    placed = table[table["part"] != ""]
    lines = sorted(placed["file"] + "," + placed["part"] + "\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def parts_of(faces: "FaceSet", fold: int | None = None) -> dict[PartName, Rows]:
    """Give the rows of each part, ascending: of the 80/10/10 split, or of one of its five folds,
    which tests on a fifth and validates on 1/8 of the rest. Raises DataError where a part is empty,
    and for a fold of an older version of the split."""
    if fold is not None:
        check_split_version(faces)
    return check_filled(part_rows(faces.table, fold), f"{len(faces.table)} faces are too few")


def check_filled(parts: dict[PartName, Rows], why: str) -> dict[PartName, Rows]:
    """Give the parts; raise DataError where one is empty."""
    if empty := [name for name, rows in parts.items() if len(rows) == 0]:
        allowed = "at least one face in each part, which takes some twenty"
        raise DataError(f"the {empty[0]} part is empty: {why}", allowed=allowed)
    return parts


def check_split_version(faces: "FaceSet") -> None:
    """Raise DataError for a data set that was split by an older version of the rule."""
    if faces.split_version != SPLIT_VERSION:
        raise DataError(
            f"data set {faces.name!r} has the split {faces.split_version}",
            allowed=f"{SPLIT_VERSION}, for training and evaluation",
            source=str(faces.folder),
            fix="Prepare its source again under another --name, or remove that folder first",
        )


def part_rows(table: pd.DataFrame, fold: int | None = None) -> dict[PartName, Rows]:
    """Give what `parts_of` gives, from the table alone; a part may be empty."""
    if fold is None:
        part = table["part"].to_numpy(dtype=object)
    elif fold in range(N_FOLDS):
        folds = table["fold"].to_numpy()
        part = np.where(folds == fold, "test", "").astype(object)
        rest = np.flatnonzero((folds != -1) & (folds != fold))
        assigned = _assigned(table.iloc[rest], FOLD_SHARES, salt=f"{SPLIT_VERSION}/fold-{fold}")
        part[rest] = np.array(PARTS[:2], dtype=object)[assigned]
    else:
        raise DataError(f"there is no fold {fold}", allowed=f"0 to {N_FOLDS - 1}")
    return {name: np.flatnonzero(part == name) for name in PARTS}


def overlaps(table: pd.DataFrame, parts: Mapping[PartName, Rows]) -> list[tuple[str, str]]:
    """Find what any two parts share by sha256, cluster or file name; empty means leak-free.
    Gives for each picture in two parts the column, and a sentence."""
    found = []
    for column in IDENTITY_COLUMNS:
        first = {
            name: table.iloc[rows].drop_duplicates(column).set_index(column, drop=False)["file"]
            for name, rows in parts.items()
        }
        for a, b in combinations(parts, 2):
            for value in first[a].index.intersection(first[b].index).sort_values():
                both = f"{first[a][value]} in {a} and {first[b][value]} in {b}"
                found.append((column, f"{both} have the same {column}"))
    return found


def check_no_overlap(table: pd.DataFrame, parts: Mapping[PartName, Rows]) -> None:
    """Raise DataError if two parts share a picture; every training calls this first."""
    if found := overlaps(table, parts):
        raise DataError(
            f"the split leaks: {found[0][1]} ({len(found)} such overlaps in all)",
            allowed="parts that share no file name, no sha256 and no cluster",
            fix="Use the split of the prepared data set, or put each cluster into one part",
        )


def subset_parts(
    table: pd.DataFrame, parts: Mapping[PartName, Rows], subset: Subset | None, seed: int
) -> dict[PartName, Rows]:
    """Reduce the parts of a split to what `subset` says; without one, give them as they are.

    Validation and test hold the subset's faces alone. Training holds these, or all faces, or a
    sample of all faces as large as the subset's, which depends on the run's seed. Rows ascend.
    Raises DataError where a part would be empty.
    """
    if subset is None:
        return dict(parts)
    inside = members(table, subset)
    chosen = {name: rows[inside[rows]] for name, rows in parts.items()}
    check_filled(chosen, f"it has no face of the subset {subset.label!r}")
    if subset.training == "everyone":
        chosen["train"] = parts["train"]
    elif subset.training == "size_matched":
        chosen["train"] = stratified_sample(table, parts["train"], len(chosen["train"]), seed)
    return chosen


def labelled_parts(
    table: pd.DataFrame, parts: Mapping[PartName, Rows], tasks: Sequence[TaskName]
) -> dict[PartName, Rows]:
    """Leave out the faces without any label of `tasks`: there is nothing to learn or evaluate on.
    Raises DataError where a part has no face labelled for a task."""
    known = (table[list(tasks)] != MISSING).any(axis=1).to_numpy()
    chosen = {name: rows[known[rows]] for name, rows in parts.items()}
    check_labelled(table, chosen, tasks)
    return chosen


def labelled_counts(
    table: pd.DataFrame, parts: Mapping[PartName, Rows], tasks: Sequence[TaskName]
) -> dict[str, dict[str, int]]:
    """Count the faces of each part that have a task's label, by task and part."""
    has = {task: table[task].to_numpy() != MISSING for task in tasks}
    return {
        task: {name: int(has[task][rows].sum()) for name, rows in parts.items()} for task in tasks
    }


def check_labelled(
    table: pd.DataFrame, parts: Mapping[PartName, Rows], tasks: Sequence[TaskName]
) -> None:
    """Raise DataError where a part has no face that is labelled for one of the tasks."""
    counts = labelled_counts(table, parts, tasks)
    short = [TASK_TITLES[task] for task in tasks if not all(counts[task].values())]
    if short:
        there = [TASK_TITLES[task] for task in TASKS if (table[task] != MISSING).any()]
        raise DataError(
            f"too few faces, or none, are labelled with {', '.join(short)}",
            allowed=f"experiments of {', '.join(there)}",
            fix="`facebench list` shows which experiments predict one task alone",
        )


def members(table: pd.DataFrame, subset: Subset) -> NDArray[np.bool_]:
    """Tell for each row of a face table whether its true labels are the subset's; (n,)."""
    inside = np.ones(len(table), dtype=bool)
    asked: dict[TaskName, str | None] = {"gender": subset.gender, "race": subset.race}
    for task, name in asked.items():
        if name is not None:
            inside &= table[task].to_numpy() == CLASS_NAMES[task].index(name)
    return inside


def stratified_sample(table: pd.DataFrame, rows: Rows, n_wanted: int, seed: int) -> Rows:
    """Draw `n_wanted` of `rows`, in the shares that age group x gender x race have among them.

    Within a stratum faces are ordered by a hash of seed and file name, which is the same on every
    machine; what rounding leaves over goes to the strata with the largest remainders.
    """
    keys = hash_keys(table["file"].iloc[rows], f"{SUBSET_VERSION}/{seed}")
    faces = table.iloc[rows].assign(row=rows, key=keys).sort_values("key")
    strata = faces.groupby(list(TASKS))
    shares = strata.size() * n_wanted / len(rows)
    counts = shares.astype(int).rename("n_chosen")
    most = np.argsort((counts - shares).to_numpy(), kind="stable")
    counts.iloc[most[: n_wanted - counts.sum()]] += 1
    is_chosen = strata.cumcount() < faces.join(counts, on=list(TASKS))["n_chosen"]
    return np.sort(faces.loc[is_chosen, "row"].to_numpy(np.int64))


def hash_keys(files: Iterable[str], salt: str) -> list[str]:
    """Give what orders files alike on every machine: the sha256 of the salt and each name."""
    return [hashlib.sha256(f"{salt}\n{file}".encode()).hexdigest() for file in files]
