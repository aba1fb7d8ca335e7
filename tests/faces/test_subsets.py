"""Subsets take rows away from the parts of a split, and never move one."""

import numpy as np
import pandas as pd
import pytest

from benchmark.data.splits import PartName, Rows
from benchmark.data.subsets import members, stratified_sample, subset_parts
from benchmark.errors import DataError
from benchmark.experiment.definition import Subset


def a_table(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "file": [f"{number:04d}.jpg" for number in range(n)],
            "age_group": rng.integers(0, 5, n),
            "gender": rng.integers(0, 2, n),
            "race": rng.choice(5, n, p=[0.5, 0.2, 0.1, 0.1, 0.1]),
        }
    )


def some_parts(n: int = 400) -> dict[PartName, Rows]:
    rows = np.arange(n)
    return {"train": rows[: n * 8 // 10], "val": rows[n * 8 // 10 : n * 9 // 10],
            "test": rows[n * 9 // 10 :]}  # fmt: skip


def test_a_specialist_sees_its_own_faces_alone() -> None:
    table, whole = a_table(), some_parts()
    women = members(table, Subset(gender="female"))
    found = subset_parts(table, whole, Subset(gender="female"), seed=0)
    for name, rows in found.items():
        assert np.array_equal(rows, whole[name][women[whole[name]]])


def test_the_three_arms_are_selected_and_tested_on_the_same_faces() -> None:
    table, whole = a_table(), some_parts()
    arms = {
        training: subset_parts(table, whole, Subset(race="Black", training=training), seed=0)
        for training in ("subset", "everyone", "size_matched")
    }
    for name in ("val", "test"):
        assert all(np.array_equal(arm[name], arms["subset"][name]) for arm in arms.values())
    assert np.array_equal(arms["everyone"]["train"], whole["train"])
    assert len(arms["size_matched"]["train"]) == len(arms["subset"]["train"])


def test_a_sample_has_the_shares_of_everyone() -> None:
    # ten faces in three strata of 6, 3 and 1; five of them: shares 3, 1.5 and 0.5. The whole parts
    # are 3, 1 and 0; the one left over goes to the first of the two remainders of 0.5.
    table = pd.DataFrame(
        {
            "file": [str(number) for number in range(10)],
            "age_group": [0] * 6 + [1] * 3 + [2],
            "gender": 0,
            "race": 0,
        }
    )
    rows = stratified_sample(table, np.arange(10), 5, seed=0)
    assert table.iloc[rows]["age_group"].tolist() == [0, 0, 0, 1, 1]


def test_a_sample_depends_on_the_seed_and_not_on_the_order_of_the_table() -> None:
    table = a_table()
    first = stratified_sample(table, np.arange(400), 50, seed=0)
    other = stratified_sample(table, np.arange(400), 50, seed=1)
    assert not np.array_equal(first, other)
    turned = table.iloc[::-1].reset_index(drop=True)
    again = stratified_sample(turned, np.arange(400), 50, seed=0)
    assert set(turned["file"].iloc[again]) == set(table["file"].iloc[first])


def test_a_subset_without_a_face_is_refused() -> None:
    table = a_table().assign(race=0)
    with pytest.raises(DataError, match="no face of the subset 'women_indian'"):
        subset_parts(table, some_parts(), Subset(gender="female", race="Indian"), seed=0)


def test_without_a_subset_the_parts_stay() -> None:
    whole = some_parts()
    assert subset_parts(a_table(), whole, None, seed=0) == whole
