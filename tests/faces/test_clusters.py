"""Equal bytes make groups; groups and near pairs make clusters; copies and conflicts are told."""

import numpy as np
import pandas as pd

from benchmark.data.duplicates import (
    cluster_of,
    connected,
    count_duplicates,
    describe_near,
    identical_groups,
    near_duplicates,
    placement_columns,
)


def table_of(*rows: tuple[str, str, int, int, int, int]) -> pd.DataFrame:
    columns = ["file", "sha256", "age", "age_group", "gender", "race"]
    return pd.DataFrame(list(rows), columns=columns)


TABLE = table_of(
    ("a.jpg", "x", 30, 2, 0, 0),
    ("b.jpg", "y", 20, 1, 0, 0),
    ("c.jpg", "x", 31, 2, 0, 0),  # a copy of a: another age, but the same group
    ("d.jpg", "z", 50, 3, 1, 2),
    ("e.jpg", "y", 20, 1, 1, 0),  # the same picture as b, of another gender
    ("f.jpg", "w", 70, 4, 1, 4),
)


def test_groups_know_what_they_disagree_on() -> None:
    copies, conflict = identical_groups(TABLE)
    assert (copies.rows, copies.disagrees_on, copies.is_label_conflict) == ((0, 2), ("age",), False)
    assert (conflict.rows, conflict.disagrees_on) == ((1, 4), ("gender",))
    assert conflict.is_label_conflict


def test_a_copy_is_any_but_the_first_and_a_conflict_every_member() -> None:
    columns = placement_columns(TABLE, identical_groups(TABLE))
    assert columns["is_copy"].tolist() == [0, 0, 1, 0, 0, 0]
    assert columns["label_conflict"].tolist() == [0, 1, 0, 0, 1, 0]
    assert columns["no_place_reason"].tolist() == [
        *("", "label conflict with e.jpg", "copy of a.jpg"),
        *("", "label conflict with b.jpg", ""),
    ]


def test_components_are_numbered_by_their_first_face() -> None:
    # 4-1, 1-3 and 5-2 leave {0}, {1, 3, 4}, {2, 5}.
    assert connected(6, [(4, 1), (1, 3), (5, 2)]).tolist() == [0, 1, 2, 1, 1, 2]


def test_a_cluster_joins_equal_bytes_and_near_pairs() -> None:
    # Groups {0, 2} and {1, 4}, and the near pair 2-3: {0, 2, 3}, {1, 4}, {5}.
    assert cluster_of(6, identical_groups(TABLE), [(2, 3)]).tolist() == [0, 1, 0, 0, 1, 2]


def test_duplicates_are_counted_by_label() -> None:
    counts = count_duplicates(TABLE)
    assert (counts["groups"], counts["files"], counts["groups_in_conflict"]) == (2, 4, 2)
    assert counts["groups_in_conflict_age"] == 1
    assert counts["groups_in_conflict_gender"] == 1
    assert counts["groups_in_conflict_any_task"] == 1


def test_files_of_equal_bytes_count_as_one_picture_among_near_pairs() -> None:
    sketch = np.random.default_rng(0).integers(0, 256, (16, 17), dtype=np.uint8)
    others = np.random.default_rng(1).integers(0, 256, (6, 16, 17), dtype=np.uint8)
    others[[0, 2, 3]] = sketch  # rows 0 and 2 are one file twice; row 3 looks the same
    thumbnails = np.random.default_rng(2).integers(0, 256, (6, 64, 64), dtype=np.uint8)
    thumbnails[2] = thumbnails[0]
    thumbnails[5] = thumbnails[3]  # which only the second detector can tell
    near = near_duplicates(TABLE, others, thumbnails)
    assert near.pairs() == [(0, 3), (3, 5)]
    described = describe_near(TABLE, near)
    assert (described["pairs"], described["pairs_by_either"]) == (1, 2)
    assert described["correlation"]["pairs_not_found_by_hash"] == 1
    # Pairs of files: 0-3, 2-3 and 3-5 are near, 0-2 and 1-4 equal.
    assert described["pairs_of_files_equal_or_near"] == 5
