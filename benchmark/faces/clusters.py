"""Which faces are the same picture: groups of equal bytes, clusters, copies, label conflicts."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.faces import correlation
from benchmark.faces.correlation import AlignedPairs, aligned_pairs
from benchmark.faces.hashing import METHOD, NearPairs, near_pairs
from benchmark.faces.progress import OnProgress, keep_quiet
from benchmark.tasks import MISSING, TASKS

LABELS: Final = ("age", *TASKS)


@dataclass(frozen=True)
class IdenticalGroup:
    """Two or more faces whose files are equal byte by byte."""

    rows: tuple[int, ...]
    """In order of the file names."""
    disagrees_on: tuple[str, ...]
    """Labels among age, age_group, gender, race that are not the same for all that have them."""

    @property
    def is_label_conflict(self) -> bool:
        """Whether it disagrees on a task; a conflict of age within one age group is none."""
        return any(task in self.disagrees_on for task in TASKS)


def identical_groups(table: pd.DataFrame) -> list[IdenticalGroup]:
    """Find the groups of equal sha256 with more than one face; needs file, sha256 and labels."""
    ordered = table.reset_index(drop=True).sort_values("file", kind="stable")
    repeated = ordered[ordered["sha256"].duplicated(keep=False)]
    known = repeated[list(LABELS)].where(repeated[list(LABELS)] != MISSING)
    by_bytes = repeated["sha256"]
    n_different = known.groupby(by_bytes, sort=False).nunique().to_numpy()
    groups = []
    for (_, rows), counts in zip(by_bytes.groupby(by_bytes, sort=False), n_different, strict=True):
        disagrees_on = tuple(label for label, n in zip(LABELS, counts, strict=True) if n > 1)
        groups.append(IdenticalGroup(tuple(rows.index), disagrees_on))
    return groups


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of rows that show one photograph in files of different bytes, by either detector."""

    by_hash: NearPairs
    by_correlation: AlignedPairs

    def pairs(self) -> list[tuple[int, int]]:
        """Give the pairs of rows that at least one detector found, each once, ascending."""
        found = (
            pair
            for near in (self.by_hash, self.by_correlation)
            for pair in zip(near.first.tolist(), near.second.tolist(), strict=True)
        )
        return sorted(set(found))


def near_duplicates(
    table: pd.DataFrame,
    sketches: NDArray[np.uint8],
    thumbnails: NDArray[np.uint8],
    on_progress: OnProgress = keep_quiet,
) -> NearDuplicates:
    """Find the near-duplicates among pictures of different bytes, by rows of `table`.

    sketches: (n, 16, 17). thumbnails: (n, 64, 64). Of files equal byte by byte only the first is
    compared.
    """
    distinct = np.flatnonzero(~table["sha256"].duplicated().to_numpy())
    by_hash = near_pairs(sketches[distinct], on_progress=on_progress)
    by_correlation = aligned_pairs(thumbnails[distinct], on_progress)
    return NearDuplicates(_by_row(by_hash, distinct), _by_row(by_correlation, distinct))


Found = TypeVar("Found", NearPairs, AlignedPairs)


def _by_row(near: Found, rows: NDArray[np.int64]) -> Found:
    return dataclasses.replace(near, first=rows[near.first], second=rows[near.second])


def describe_near(table: pd.DataFrame, near: NearDuplicates) -> dict[str, Any]:
    """Count near-duplicates for the manifest: pairs of pictures by detector, and pairs of files."""
    n_files = table.groupby("sha256")["file"].transform("size").to_numpy()
    in_groups = table["sha256"].value_counts()
    pairs = near.pairs()
    by_hash, aligned = near.by_hash, near.by_correlation
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return {
        "method": METHOD,
        "threshold_bits": by_hash.threshold_bits,
        "pairs": len(by_hash),
        "mirrored_pairs": int(by_hash.is_mirrored.sum()),
        "correlation": {
            "method": correlation.METHOD,
            "threshold": correlation.THRESHOLD,
            "pairs": len(aligned),
            "mirrored_pairs": int(aligned.is_mirrored.sum()),
            "pairs_not_found_by_hash": len(pairs) - len(by_hash),
        },
        "pairs_by_either": len(pairs),
        "pairs_of_files_equal_or_near": int(
            (n_files[rows[:, 0]] * n_files[rows[:, 1]]).sum()
            + (in_groups * (in_groups - 1) // 2).sum()
        ),
    }


def near_in_words(described: Mapping[str, Any]) -> str:
    """Write the counts that `describe_near` gave, as a manifest keeps them, in one clause."""
    if described["threshold_bits"] is None:
        return str(described["method"])
    by_hash = f"{described['pairs']:,} pairs by perceptual hash"
    if "correlation" not in described:
        return by_hash
    aligned = described["correlation"]
    return (
        f"{by_hash}, {aligned['pairs']:,} by aligned correlation, "
        f"{described['pairs_by_either']:,} by either"
    )


def count_duplicates(table: pd.DataFrame) -> dict[str, int]:
    """Count groups of identical files and, for each label, those that disagree on it."""
    groups = identical_groups(table)
    counts = {
        "groups": len(groups),
        "files": sum(len(group.rows) for group in groups),
        "groups_in_conflict": sum(bool(group.disagrees_on) for group in groups),
    }
    for label in LABELS:
        counts[f"groups_in_conflict_{label}"] = sum(label in g.disagrees_on for g in groups)
    counts["groups_in_conflict_any_task"] = sum(group.is_label_conflict for group in groups)
    return counts


def connected(n_faces: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Number the connected components of `pairs`, (n_faces,), from 0 in order of first faces."""
    parent = list(range(n_faces))

    def root_of(face: int) -> int:
        while parent[face] != face:
            parent[face] = parent[parent[face]]
            face = parent[face]
        return face

    for first, second in pairs:
        a, b = root_of(first), root_of(second)
        parent[max(a, b)] = min(a, b)  # so that a root is the first face of its component
    roots = np.array([root_of(face) for face in range(n_faces)], np.int64)
    numbers: NDArray[np.int64] = np.unique(roots, return_inverse=True)[1].astype(np.int64)
    return numbers


def cluster_of(
    n_faces: int, groups: Iterable[IdenticalGroup], near: Iterable[tuple[int, int]]
) -> NDArray[np.int64]:
    """Give each face its cluster: joined by equal bytes or by being a near-duplicate."""
    same_bytes = ((group.rows[0], row) for group in groups for row in group.rows[1:])
    return connected(n_faces, [*same_bytes, *near])


def placement_columns(table: pd.DataFrame, groups: Iterable[IdenticalGroup]) -> pd.DataFrame:
    """Give the columns is_copy, label_conflict, no_place_reason for each row of `table`.

    A copy is any but the first by file name of a group that agrees on the tasks; a label conflict
    is every member of a group that does not. Neither has a place in a split.
    """
    files = table["file"].tolist()
    is_copy, is_conflict = np.zeros(len(files), np.int64), np.zeros(len(files), np.int64)
    reasons = [""] * len(files)
    for group in groups:
        for row in group.rows:
            if group.is_label_conflict:
                is_conflict[row] = 1
                others = ", ".join(files[other] for other in group.rows if other != row)
                reasons[row] = f"label conflict with {others}"
            elif row != group.rows[0]:
                is_copy[row] = 1
                reasons[row] = f"copy of {files[group.rows[0]]}"
    columns = {"is_copy": is_copy, "label_conflict": is_conflict, "no_place_reason": reasons}
    return pd.DataFrame(columns, index=table.index)
