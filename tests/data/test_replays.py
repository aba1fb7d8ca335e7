"""The study's split leaks as much as the study's did, and each step towards ours leaks less."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from benchmark.data import replays
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import PARTS, PartName, Rows, with_split

STUDY_FILES = [f"{number}.jpg" for number in range(23_561)]


def table_of(n_faces: int) -> pd.DataFrame:
    """Clusters of two: faces 0 and 1, 2 and 3, ...; every tenth cluster is of two copies."""
    numbers = np.arange(n_faces)
    table = pd.DataFrame({"file": [f"{number}.jpg" for number in numbers], "cluster": numbers // 2})
    reasons = np.where(numbers % 20 == 1, "copy", "")
    return with_split(table.assign(age_group=0, gender=0, race=0, no_place_reason=reasons))


def shares_of(parts: dict[PartName, Rows]) -> list[float]:
    """How much of val is in train, of test in train, of test in val: in [0, 1] of the first."""
    pairs = combinations(parts.values(), 2)
    return [float(np.isin(other, one).mean()) for one, other in pairs]


def test_the_parts_have_the_studys_sizes_and_overlap_as_independent_shuffles_do() -> None:
    assert replays.published_sizes(23_561) == (18_848, 2_356, 2_357)
    found = [replays.published_parts(STUDY_FILES, seed) for seed in range(4)]
    assert [len(np.unique(found[0][name])) for name in PARTS] == [18_848, 2_356, 2_357]
    # A face is in train with 18,848 / 23,561 = 0.800 and in val with 0.100, whatever else it is in.
    shares = np.array([shares_of(parts) for parts in found])
    assert shares.mean(axis=0) == pytest.approx([0.8, 0.8, 0.1], abs=0.01)
    assert all(len(set(column)) > 1 for column in shares.T)
    # The published split is the same everywhere, in whatever order files come.
    files = [f"{number}.jpg" for number in range(20)]
    parts = replays.published_parts(files)
    # By `printf "published-1/0/val\n0.jpg" | sha256sum` of each name, sorted: the 17th and 18th.
    assert parts["val"].tolist() == [0, 17]
    # And of "published-1/0/test": the 19th and 20th.
    assert parts["test"].tolist() == [2, 19]
    backwards = replays.published_parts(files[::-1])
    for name in PARTS:
        assert {files[row] for row in parts[name]} == {files[::-1][row] for row in backwards[name]}


def test_each_version_leaks_what_it_says_and_no_more() -> None:
    table = table_of(4_000)
    parts = {of: replays.replayed_parts(table, of) for of in replays.REPLAYED_VERSIONS}
    # Of val in train, of test in train, of test in val. 8 / 9 = 0.889 of what leaks is in train;
    # its binomial sd is 0.016 for 390 faces.
    for version, shares in (
        (replays.PUBLISHED_VERSION, (0.8, 0.8, 0.1)),
        (replays.UNIQUE_VERSION, (0.8, 0.8, 0.1)),
        (replays.BY_FILE_VERSION, (0, 0, 0)),
        (replays.TEST_BY_FILE_VERSION, (8 / 9, 0, 0)),
        (replays.CLEAN_TEST_VERSION, (8 / 9, 0, 0)),
        (replays.CLEAN_VAL_VERSION, (0, 8 / 9, 0)),
    ):
        found = shares_of(parts[version])
        assert found == pytest.approx(shares, abs=0.05), version
        assert [bool(share) for share in found] == [bool(share) for share in shares], version
        for rows in parts[version].values():
            assert (rows.dtype, (np.diff(rows) > 0).all()) == (np.int64, True), version
    # Faces without a place in our split take part; by file all do, and clusters are divided.
    assert (table["part"] == "").sum() == 200
    for version in (replays.PUBLISHED_VERSION, replays.BY_FILE_VERSION):
        assert [len(rows) for rows in parts[version].values()] == [3200, 400, 400]
        assert (table["part"].to_numpy()[np.concatenate([*parts[version].values()])] == "").any()
    by_file = parts[replays.BY_FILE_VERSION]
    assert np.sort(np.concatenate(list(by_file.values()))).tolist() == list(range(4_000))
    # A clean part is ours, and nothing of it is elsewhere; apart by file its clusters may be.
    for version, name in ((replays.CLEAN_TEST_VERSION, "test"), (replays.CLEAN_VAL_VERSION, "val")):
        assert parts[version][name].tolist() == np.flatnonzero(table["part"] == name).tolist()  # type: ignore[index]
    clean = parts[replays.CLEAN_TEST_VERSION]
    assert set(replays.exposure(table, clean)) == {"clean"}
    assert len(clean["train"]) == (len(clean["train"]) + len(clean["val"])) * 8 // 9
    for version in (replays.BY_FILE_VERSION, replays.TEST_BY_FILE_VERSION):
        assert "related" in set(replays.exposure(table, parts[version]))
    used = np.unique(np.concatenate([*parts[replays.UNIQUE_VERSION].values()]))
    assert table["cluster"].iloc[used].is_unique


def test_steps_towards_our_split_have_more_clean_test_faces(drawn_faces: FaceSet) -> None:
    # Clusters: 0 1 | 2 3 | 4 5 | 6 7 | 8 9. Of test: 0 is in train itself; 3 is not, but 2 of its
    # cluster is; 4 is in val; 7 has 6 in val; 8 and 9 are of one cluster and nowhere else.
    lists = {"train": [0, 2], "val": [4, 6], "test": [0, 3, 4, 7, 8, 9]}
    parts = {name: np.array(rows) for name, rows in lists.items()}
    found = replays.exposure(table_of(10), parts)  # type: ignore[arg-type]
    assert found.tolist() == ["seen", "related", "related", "related", "clean", "clean"]
    clean, table = [], drawn_faces.table
    for version in replays.REPLAYED_VERSIONS:
        had = replays.exposure(table, replays.replayed_parts(table, version))
        clean.append((had == "clean").mean())
    assert clean[0] < 0.5 < clean[1] <= clean[2] == 1
