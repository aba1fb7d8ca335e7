"""Where a face may be used: the split leak-free-2, its five folds, and the check for leaks.

A cluster is never divided. Within each age group x gender x race the order of the clusters is
that of a hash of their names, and each goes to the part that was furthest behind its share before
the cluster came; so clusters of several faces are spread over the parts like any other. (Version 1
counted the cluster's own faces first, and put all but a few of them into train.) The version is
the seed: no random generator takes part, so that every machine, and every order of the
files on disk, gives the same split.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.errors import DataError
from benchmark.tasks import TASKS

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

IDENTITY_COLUMNS: Final = ("sha256", "cluster", "file")
"""No two parts may share a value of any of these."""


def with_split(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns part and fold; faces with a no_place_reason get "" and -1.

    Needs file, cluster, the labels and no_place_reason.
    """
    placed = np.flatnonzero(table["no_place_reason"].to_numpy() == "")
    part = np.full(len(table), "", dtype=object)
    fold = np.full(len(table), -1, np.int64)
    part[placed] = np.array(PARTS, dtype=object)[
        _assigned(table.iloc[placed], PART_SHARES, salt=SPLIT_VERSION)
    ]
    fold[placed] = _assigned(table.iloc[placed], (1,) * N_FOLDS, salt=f"{SPLIT_VERSION}/folds")
    return table.assign(part=part, fold=fold)


def _assigned(placed: pd.DataFrame, shares: Sequence[int], *, salt: str) -> Rows:
    """Give each face a part, (n,) from 0, clusters whole, stratified over the task labels.

    A cluster is known by its first face by file name: its stratum is that face's, and its place
    in the order is that of the sha256 of the salt and that name.
    """
    ordered = placed.sort_values("file", kind="stable")
    sizes = ordered.groupby("cluster").size()
    heads = ordered.drop_duplicates("cluster")
    files, clusters = heads["file"].tolist(), heads["cluster"].tolist()
    strata = list(zip(*(heads[task].tolist() for task in TASKS), strict=True))
    keys = [_hash(salt, file) for file in files]
    order = sorted(range(len(files)), key=lambda head: (strata[head], keys[head]))
    filled = _fill([int(sizes[clusters[head]]) for head in order], shares)
    part_of = {clusters[head]: part for head, part in zip(order, filled, strict=True)}
    return np.array([part_of[cluster] for cluster in placed["cluster"].tolist()], np.int64)


def _hash(salt: str, file: str) -> str:
    return hashlib.sha256(f"{salt}\n{file}".encode()).hexdigest()


def _fill(sizes: Sequence[int], shares: Sequence[int]) -> list[int]:
    """Put clusters, in order, where most faces are lacking; in integers, so that it is exact.

    What a part lacks is measured before the cluster joins, so that a cluster's size does not decide
    where it goes, and is carried from stratum to stratum: each stratum is within a cluster or two
    of its share, and so is the whole.
    """
    counts = [0] * len(shares)
    n_faces, total_share = 0, sum(shares)
    chosen = []
    for size in sizes:
        lacking = [
            share * n_faces - total_share * count
            for share, count in zip(shares, counts, strict=True)
        ]
        part = lacking.index(max(lacking))
        counts[part] += size
        n_faces += size
        chosen.append(part)
    return chosen


def split_digest(table: pd.DataFrame) -> str:
    """Digest who is where: sha256 of the sorted lines `file,part` of the faces with a place."""
    placed = table[table["part"] != ""]
    lines = sorted(
        f"{file},{part}\n" for file, part in zip(placed["file"], placed["part"], strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def parts_of(faces: "FaceSet", fold: int | None = None) -> dict[PartName, Rows]:
    """Give the rows of each part, ascending: of the 80/10/10 split, or of one of its five folds.

    Fold k tests on part k of five and validates on 1/8 of the rest, chosen by the same rule.
    Raises DataError where a part is empty, and for a fold of an older version of the split.
    """
    if fold is not None:
        check_split_version(faces)
    rows = part_rows(faces.table, fold)
    for name, members in rows.items():
        if len(members) == 0:
            raise DataError(
                f"the {name} part of {faces.name} is empty: {len(faces.table)} faces are too few",
                allowed="some twenty faces or more",
                source=str(faces.folder),
            )
    return rows


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
        part = _fold_parts(table, fold)
    else:
        raise DataError(f"there is no fold {fold}", allowed=f"0 to {N_FOLDS - 1}")
    return {name: np.flatnonzero(part == name) for name in PARTS}


def _fold_parts(table: pd.DataFrame, fold: int) -> NDArray[np.object_]:
    folds = table["fold"].to_numpy()
    part = np.full(len(table), "", dtype=object)
    part[folds == fold] = "test"
    rest = np.flatnonzero((folds != -1) & (folds != fold))
    salt = f"{SPLIT_VERSION}/fold-{fold}"
    part[rest] = np.array(PARTS[:2], dtype=object)[
        _assigned(table.iloc[rest], FOLD_SHARES, salt=salt)
    ]
    return part


@dataclass(frozen=True)
class Overlap:
    """A picture that stands in two parts at once."""

    column: str
    """sha256, cluster or file."""
    value: str
    parts: tuple[str, str]
    files: tuple[str, str]
    """A face of the first part and one of the second."""

    def __str__(self) -> str:
        return (
            f"{self.files[0]} in {self.parts[0]} and {self.files[1]} in {self.parts[1]} "
            f"have the same {self.column}"
        )


def overlaps(table: pd.DataFrame, parts: Mapping[PartName, Rows]) -> list[Overlap]:
    """Find what any two parts share by sha256, cluster or file name; empty means leak-free."""
    names = list(parts)
    found = []
    for column in IDENTITY_COLUMNS:
        values, files = table[column].tolist(), table["file"].tolist()
        first_row = {name: _first_rows(values, parts[name]) for name in names}
        for position, a in enumerate(names):
            for b in names[position + 1 :]:
                for value in sorted(first_row[a].keys() & first_row[b].keys()):
                    shown = (files[first_row[a][value]], files[first_row[b][value]])
                    found.append(Overlap(column, str(value), (a, b), shown))
    return found


def _first_rows(values: list[str | int], rows: Rows) -> dict[str | int, int]:
    return {values[row]: row for row in reversed(rows.tolist())}


def check_no_overlap(table: pd.DataFrame, parts: Mapping[PartName, Rows]) -> None:
    """Raise DataError if two parts share a picture; every training calls this first."""
    found = overlaps(table, parts)
    if found:
        raise DataError(
            f"the split leaks: {found[0]} ({len(found)} such overlaps in all)",
            allowed="parts that share no file name, no sha256 and no cluster",
            fix="Use the split of the prepared data set, or put each cluster into one part",
        )
