"""The study's split leaks as much as the study's did, and each step towards ours leaks less."""

import numpy as np
import pandas as pd
import pytest

from benchmark.data import replays
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import PARTS, PartName, Rows, with_split
from benchmark.errors import DataError

STUDY_FILES = [f"{number}.jpg" for number in range(23_561)]


def table_of(n_faces: int) -> pd.DataFrame:
    """Clusters of two: faces 0 and 1, 2 and 3, ...; every tenth cluster is of two copies."""
    numbers = np.arange(n_faces)
    table = pd.DataFrame({"file": [f"{number}.jpg" for number in numbers], "cluster": numbers // 2})
    for task in ("age_group", "gender", "race"):
        table[task] = 0
    is_copy = (numbers % 20 == 1).tolist()
    return with_split(table.assign(no_place_reason=["copy" if copy else "" for copy in is_copy]))


def shared(parts: dict[PartName, Rows], one: PartName, other: PartName) -> float:
    """How much of one part is in another, in [0, 1] of the first."""
    return float(np.isin(parts[one], parts[other]).mean())


def test_the_sizes_are_the_studys() -> None:
    assert replays.published_sizes(23_561) == (18_848, 2_356, 2_357)
    parts = replays.published_parts(STUDY_FILES)
    assert [len(np.unique(parts[name])) for name in PARTS] == [18_848, 2_356, 2_357]


def test_over_several_seeds_the_parts_overlap_as_independent_shuffles_do() -> None:
    # A face is in train with 18,848 / 23,561 = 0.800 and in val with 0.100, whatever else it is in.
    found = [replays.published_parts(STUDY_FILES, seed) for seed in range(4)]
    for one, other, share in (("test", "train", 0.8), ("val", "train", 0.8), ("test", "val", 0.1)):
        shares = [shared(parts, one, other) for parts in found]  # type: ignore[arg-type]
        assert np.mean(shares) == pytest.approx(share, abs=0.01)
        assert len(set(shares)) > 1


def test_the_published_split_is_the_same_everywhere_in_whatever_order_files_come() -> None:
    files = [f"{number}.jpg" for number in range(20)]
    parts = replays.published_parts(files)
    # By `printf "published-1/0/val\n0.jpg" | sha256sum` of each name, sorted: the 17th and 18th.
    assert parts["val"].tolist() == [0, 17]
    # And of "published-1/0/test": the 19th and 20th.
    assert parts["test"].tolist() == [2, 19]
    backwards = replays.published_parts(files[::-1])
    for name in PARTS:
        assert {files[row] for row in parts[name]} == {files[::-1][row] for row in backwards[name]}


def test_rows_are_ascending_and_stand_once_in_a_part() -> None:
    for version in replays.REPLAYED_VERSIONS:
        for rows in replays.replayed_parts(table_of(400), version).values():
            assert rows.dtype == np.int64, version
            assert (np.diff(rows) > 0).all(), version


def test_faces_without_a_place_in_our_split_take_part() -> None:
    table = table_of(400)
    assert (table["part"] == "").sum() == 20
    for version in (replays.PUBLISHED_VERSION, replays.BY_FILE_VERSION):
        parts = replays.replayed_parts(table, version)
        assert [len(parts[name]) for name in PARTS] == [320, 40, 40]
        used = np.concatenate([parts[name] for name in PARTS])
        assert (table["part"].to_numpy()[used] == "").any()


def test_by_file_no_face_is_in_two_parts_but_clusters_are() -> None:
    table = table_of(400)
    parts = replays.replayed_parts(table, replays.BY_FILE_VERSION)
    assert np.sort(np.concatenate(list(parts.values()))).tolist() == list(range(400))
    clusters = [set(table["cluster"].to_numpy()[parts[name]]) for name in PARTS]
    assert clusters[0] & clusters[2]


def test_a_clean_test_is_ours_and_nothing_of_it_is_elsewhere() -> None:
    table = table_of(4_000)
    parts = replays.replayed_parts(table, replays.CLEAN_TEST_VERSION)
    assert parts["test"].tolist() == np.flatnonzero(table["part"] == "test").tolist()
    assert set(replays.exposure(table, parts)) == {"clean"}
    n_rest = len(parts["train"]) + len(parts["val"])
    assert len(parts["train"]) == n_rest * 8 // 9
    # 8 / 9 = 0.889 of val in train; its binomial sd is 0.016 for 390 faces.
    assert shared(parts, "val", "train") == pytest.approx(8 / 9, abs=0.05)


def test_a_test_apart_by_file_has_related_pictures_elsewhere_and_no_file() -> None:
    table = table_of(4_000)
    parts = replays.replayed_parts(table, replays.TEST_BY_FILE_VERSION)
    assert shared(parts, "test", "train") == shared(parts, "test", "val") == 0
    assert shared(parts, "val", "train") == pytest.approx(8 / 9, abs=0.05)
    assert "related" in set(replays.exposure(table, parts))


def test_a_clean_validation_is_ours_and_only_test_leaks() -> None:
    table = table_of(4_000)
    parts = replays.replayed_parts(table, replays.CLEAN_VAL_VERSION)
    assert parts["val"].tolist() == np.flatnonzero(table["part"] == "val").tolist()
    assert shared(parts, "val", "train") == shared(parts, "test", "val") == 0
    assert shared(parts, "test", "train") == pytest.approx(8 / 9, abs=0.05)


def test_one_face_of_each_cluster_leaks_by_file_alone() -> None:
    table = table_of(4_000)
    parts = replays.replayed_parts(table, replays.UNIQUE_VERSION)
    used = np.unique(np.concatenate(list(parts.values())))
    assert table["cluster"].iloc[used].is_unique
    assert shared(parts, "test", "train") == pytest.approx(0.8, abs=0.06)


def test_each_test_face_is_seen_related_or_clean() -> None:
    # Clusters: 0 1 | 2 3 | 4 5 | 6 7 | 8 9. Of test: 0 is in train itself; 3 is not, but 2 of its
    # cluster is; 4 is in val; 7 has 6 in val; 8 and 9 are of one cluster and nowhere else.
    table = table_of(10)
    parts = {"train": [0, 2], "val": [4, 6], "test": [0, 3, 4, 7, 8, 9]}
    found = replays.exposure(table, {name: np.array(rows) for name, rows in parts.items()})  # type: ignore[misc]
    assert found.tolist() == ["seen", "related", "related", "related", "clean", "clean"]


def test_each_step_towards_ours_has_more_clean_faces(drawn_faces: FaceSet) -> None:
    clean = [
        (
            replays.exposure(drawn_faces.table, replays.replayed_parts(drawn_faces.table, version))
            == "clean"
        ).mean()
        for version in replays.REPLAYED_VERSIONS
    ]
    assert clean[0] < 0.5 < clean[1] <= clean[2] == 1


def test_too_few_faces_are_refused() -> None:
    for version in replays.REPLAYED_VERSIONS:
        with pytest.raises(DataError, match="part is empty: 2 faces"):
            replays.replayed_parts(table_of(2), version)
