"""The study's split, replayed with its leak, and the splits on the way from it to leak-free-2.

Source of `published-1`: the study's notebooks, section on data. There the list of files was
shuffled by `list_files().shuffle(n, seed=42)` without `reshuffle_each_iteration=False`, so that
each of take(train), skip(train).take(val) and skip(train + val) read it in another order, and only
then was each part cached. Nothing measured on these splits is a benchmark; what they leak is what
they are here for. How a part is batched and trained on is for others.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.data.splits import PARTS, PartName, Rows, check_filled, hash_keys

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
    *(PUBLISHED_VERSION, TEST_BY_FILE_VERSION, CLEAN_TEST_VERSION, CLEAN_VAL_VERSION),
    *(UNIQUE_VERSION, BY_FILE_VERSION),
)


def published_sizes(n_files: int) -> tuple[int, int, int]:
    """Give the study's sizes of train, val and test: 18,848, 2,356 and 2,357 of 23,561."""
    n_train, n_val = int(0.8 * n_files), int(0.1 * n_files)
    return n_train, n_val, n_files - n_train - n_val


def published_parts(files: Sequence[str], seed: int = 0) -> dict[PartName, Rows]:
    """Draw three parts from three independent shuffles of the same files; rows ascending.

    A shuffle is the order of the sha256 of seed, part and name, the same on every machine. The
    split of `published-1` is that of seed 0.
    """
    n_train, n_val, _ = published_sizes(len(files))
    salt = f"{PUBLISHED_VERSION}/{seed}"
    train, val, test = (_shuffled(files, f"{salt}/{name}") for name in PARTS)
    return _ascending(train[:n_train], val[n_train:][:n_val], test[n_train + n_val :])


def replayed_parts(table: pd.DataFrame, version: str) -> dict[PartName, Rows]:
    """Give the rows of each part, ascending, under one of REPLAYED_VERSIONS.

    Needs file, cluster and part (of leak-free-2). Every row takes part, copies and label conflicts
    included, as the study used every file it had; only `clean-test-1` and `clean-val-1` leave those
    out that are in a cluster of their part of leak-free-2. Raises DataError where a part is empty.
    """
    files = table["file"].tolist()
    n_train, n_val, n_test = published_sizes(len(files))
    if version == PUBLISHED_VERSION:
        parts = published_parts(files)
    elif version == UNIQUE_VERSION:
        ordered = table.reset_index(drop=True).sort_values("file", kind="stable")
        firsts = np.sort(ordered.drop_duplicates("cluster").index.to_numpy(np.int64))
        unique = published_parts([files[row] for row in firsts])
        parts = {name: firsts[rows] for name, rows in unique.items()}
    elif version == BY_FILE_VERSION:
        parts = _ascending(*np.split(_shuffled(files, version), [n_train, n_train + n_val]))
    else:  # one part stands apart; train and the other are two shuffles of the rest, 8 : 1
        held_out, other = ("val", "test") if version == CLEAN_VAL_VERSION else ("test", "val")
        if version == TEST_BY_FILE_VERSION:
            held, rest = np.split(_shuffled(files, f"{version}/test"), [n_test])
        else:
            cluster = table["cluster"].to_numpy()
            held = np.flatnonzero(table["part"].to_numpy() == held_out)
            rest = np.flatnonzero(~np.isin(cluster, cluster[held]))
        n_train = len(rest) * 8 // 9
        train, leaking = (
            rest[_shuffled([files[row] for row in rest], f"{version}/{name}")]
            for name in ("train", other)
        )
        last = (leaking[n_train:], held) if other == "val" else (held, leaking[n_train:])
        parts = _ascending(train[:n_train], *last)
    return check_filled(parts, f"{len(files)} faces are too few")


def _shuffled(files: Sequence[str], salt: str) -> Rows:
    return np.argsort(np.array(hash_keys(files, salt)), kind="stable")


def _ascending(*parts: Rows) -> dict[PartName, Rows]:
    return dict(zip(PARTS, map(np.sort, parts), strict=True))


def exposure(table: pd.DataFrame, parts: Mapping[PartName, Rows]) -> NDArray[np.str_]:
    """Say of each test row, in order, what a network had of it before: seen, related, clean.

    `seen` is in train. `related` is not, but is in val, or another picture of its cluster is in
    train or val. `clean` is neither, and the only one whose accuracy is honest. Needs cluster.
    """
    cluster = table["cluster"].to_numpy()
    test = parts["test"]
    used = np.concatenate([parts["train"], parts["val"]])
    is_seen = np.isin(test, parts["train"])
    is_related = np.isin(cluster[test], cluster[used])
    return np.where(is_seen, "seen", np.where(is_related, "related", "clean"))
