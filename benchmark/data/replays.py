"""The study's split, replayed with its leak, and the splits on the way from it to leak-free-2.

Source of `published-1`: the study's notebooks, section on data. There the list of files was
shuffled by `list_files().shuffle(n, seed=42)` without `reshuffle_each_iteration=False`, so that
each of take(train), skip(train).take(val) and skip(train + val) read it in another order, and only
then was each part cached. Nothing measured on these splits is a benchmark; what they leak is what
they are here for. How a part is batched and trained on is for others.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.data.splits import PARTS, PartName, Rows
from benchmark.errors import DataError

PUBLISHED_VERSION: Final = "published-1"
"""As the study drew it: about 80 % of test and of val are in train, and 10 % of test in val."""
BY_FILE_VERSION: Final = "by-file-1"
"""One shuffle, cut in three: no file in two parts, but copies and near-duplicates are."""
CLEAN_TEST_VERSION: Final = "clean-test-1"
"""The test part of leak-free-2, nothing of whose clusters is elsewhere; 8/9 of val are in train."""
TEST_BY_FILE_VERSION: Final = "test-by-file-1"
"""No test file is elsewhere, but copies and near-duplicates are; 8/9 of val are in train."""
CLEAN_VAL_VERSION: Final = "clean-val-1"
"""The validation part of leak-free-2, apart from all else; 8/9 of test are in train."""
UNIQUE_VERSION: Final = "unique-1"
"""As published-1, from one face of each cluster: only the files themselves leak."""
REPLAYED_VERSIONS: Final = (
    PUBLISHED_VERSION,
    TEST_BY_FILE_VERSION,
    CLEAN_TEST_VERSION,
    CLEAN_VAL_VERSION,
    UNIQUE_VERSION,
    BY_FILE_VERSION,
)

Exposure = Literal["seen", "related", "clean"]
EXPOSURES: Final[tuple[Exposure, ...]] = ("seen", "related", "clean")


@dataclass(frozen=True)
class LeakFractions:
    """How much of one part stands in another, each in [0, 1] of the part named first."""

    test_in_train: float
    val_in_train: float
    test_in_val: float


def leak_fractions(parts: Mapping[PartName, Rows]) -> LeakFractions:
    """Measure what the parts share, row by row; 0.802 of test was in train in the study."""
    train, val, test = (parts[name] for name in PARTS)
    return LeakFractions(
        test_in_train=float(np.isin(test, train).mean()),
        val_in_train=float(np.isin(val, train).mean()),
        test_in_val=float(np.isin(test, val).mean()),
    )


def published_sizes(n_files: int) -> tuple[int, int, int]:
    """Give the study's sizes of train, val and test: 18,848, 2,356 and 2,357 of 23,561."""
    n_train, n_val = int(0.8 * n_files), int(0.1 * n_files)
    return n_train, n_val, n_files - n_train - n_val


def published_parts(files: Sequence[str], seed: int = 0) -> dict[PartName, Rows]:
    """Draw three parts from three independent shuffles of the same files; rows ascending.

    A shuffle is the order of the sha256 of the seed, the part and each name: it depends neither on
    the machine nor on the order of `files`. The split of `published-1` is that of seed 0.
    """
    n_train, n_val, _ = published_sizes(len(files))
    salt = f"{PUBLISHED_VERSION}/{seed}"
    train, val, test = (_shuffled(files, f"{salt}/{name}") for name in PARTS)
    return _ascending(train[:n_train], val[n_train:][:n_val], test[n_train + n_val :])


def replayed_parts(table: pd.DataFrame, version: str) -> dict[PartName, Rows]:
    """Give the rows of each part, ascending, under one of REPLAYED_VERSIONS.

    Needs file, cluster and part (of leak-free-2). Every row of `table` takes part, copies and
    label conflicts without a place in our own split included, as the study used every file it had;
    only `clean-test-1` leaves those out that are in a cluster of its test part. Raises DataError
    for another version, and where a part is empty.
    """
    if version not in DRAWN_BY:
        raise DataError(
            f"there is no replayed split {version!r}", allowed=", ".join(REPLAYED_VERSIONS)
        )
    parts = DRAWN_BY[version](table)
    for name, rows in parts.items():
        if len(rows) == 0:
            raise DataError(
                f"the {name} part of {version} is empty: {len(table)} faces are too few",
                allowed="some twenty faces or more",
            )
    return parts


def _by_file(table: pd.DataFrame) -> dict[PartName, Rows]:
    n_train, n_val, _ = published_sizes(len(table))
    order = _shuffled(table["file"].tolist(), BY_FILE_VERSION)
    return _ascending(*np.split(order, [n_train, n_train + n_val]))


def _published(table: pd.DataFrame) -> dict[PartName, Rows]:
    return published_parts(table["file"].tolist())


def _unique(table: pd.DataFrame) -> dict[PartName, Rows]:
    """Draw as published from the first face, by file name, of each cluster."""
    ordered = table.reset_index(drop=True).sort_values("file", kind="stable")
    firsts = np.sort(ordered.drop_duplicates("cluster").index.to_numpy(np.int64))
    drawn = published_parts(table["file"].iloc[firsts].tolist())
    return {name: firsts[rows] for name, rows in drawn.items()}


def _test_by_file(table: pd.DataFrame) -> dict[PartName, Rows]:
    n_test = published_sizes(len(table))[2]
    order = _shuffled(table["file"].tolist(), f"{TEST_BY_FILE_VERSION}/test")
    train, val = _two_shuffles(table, order[n_test:], f"{TEST_BY_FILE_VERSION}/train", "val")
    return _ascending(train, val, order[:n_test])


def _clean_test(table: pd.DataFrame) -> dict[PartName, Rows]:
    test = np.flatnonzero(table["part"].to_numpy() == "test")
    rest = _apart_from(table, test)
    train, val = _two_shuffles(table, rest, f"{CLEAN_TEST_VERSION}/train", "val")
    return _ascending(train, val, test)


def _clean_val(table: pd.DataFrame) -> dict[PartName, Rows]:
    val = np.flatnonzero(table["part"].to_numpy() == "val")
    rest = _apart_from(table, val)
    train, test = _two_shuffles(table, rest, f"{CLEAN_VAL_VERSION}/train", "test")
    return _ascending(train, val, test)


def _apart_from(table: pd.DataFrame, rows: Rows) -> Rows:
    """Give the rows of all clusters that `rows` has no face of."""
    cluster = table["cluster"].to_numpy()
    return np.flatnonzero(~np.isin(cluster, cluster[rows]))


def _two_shuffles(table: pd.DataFrame, rest: Rows, salt: str, other: PartName) -> tuple[Rows, Rows]:
    """Draw train and one other part from two shuffles of `rest`, 8 : 1 as the study did."""
    files = table["file"].iloc[rest].tolist()
    n_train = len(rest) * 8 // 9
    train = _shuffled(files, salt)[:n_train]
    leaking = _shuffled(files, f"{salt.rpartition('/')[0]}/{other}")[n_train:]
    return rest[train], rest[leaking]


def _shuffled(files: Sequence[str], salt: str) -> Rows:
    keys = [hashlib.sha256(f"{salt}\n{file}".encode()).digest() for file in files]
    return np.array(sorted(range(len(files)), key=keys.__getitem__), np.int64)


def _ascending(train: Rows, val: Rows, test: Rows) -> dict[PartName, Rows]:
    return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}


DRAWN_BY: Final[Mapping[str, Callable[[pd.DataFrame], dict[PartName, Rows]]]] = {
    PUBLISHED_VERSION: _published,
    TEST_BY_FILE_VERSION: _test_by_file,
    CLEAN_TEST_VERSION: _clean_test,
    CLEAN_VAL_VERSION: _clean_val,
    UNIQUE_VERSION: _unique,
    BY_FILE_VERSION: _by_file,
}


def exposure(table: pd.DataFrame, parts: Mapping[PartName, Rows]) -> NDArray[np.str_]:
    """Say of each test row, in order, how a network met it before: one of EXPOSURES.

    `seen` is in train. `related` is not, but is in val, or another picture of its cluster is in
    train or val. `clean` is neither, and the only one whose accuracy is honest. Needs cluster.
    """
    cluster = table["cluster"].to_numpy()
    test = parts["test"]
    used = np.concatenate([parts["train"], parts["val"]])
    is_seen = np.isin(test, parts["train"])
    is_related = np.isin(cluster[test], cluster[used])
    return np.where(is_seen, "seen", np.where(is_related, "related", "clean"))
