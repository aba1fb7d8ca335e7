"""Clusters stay whole, shares are kept, leaks are seen; a subset only takes rows away."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from benchmark.data import splits
from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError
from benchmark.experiment.definition import Subset
from benchmark.tasks import MISSING


def table_of(n_faces: int, faces_per_cluster: int = 1) -> pd.DataFrame:
    """Faces of 20 strata in turn; the first of every hundred has no place."""
    number = np.arange(n_faces)
    cluster = number // faces_per_cluster
    files, sha256 = [f"{i:05d}.jpg" for i in number], [f"sha-{i}" for i in number]
    reasons = ["copy of x" if i % 100 == 0 else "" for i in number]
    columns = {"file": files, "sha256": sha256, "age_group": cluster % 5}
    columns |= {"gender": cluster // 5 % 2, "race": cluster // 10 % 2, "cluster": cluster}
    return pd.DataFrame(columns | {"no_place_reason": reasons})


def test_parts_have_their_shares_in_all_and_in_every_stratum_and_clusters_stay_whole() -> None:
    table = splits.with_split(table_of(2000))
    # 2,000 less 20 without a place = 1,980: 1,584 / 198 / 198.
    sizes = {"train": 1584, "val": 198, "test": 198, "": 20}
    assert table["part"].value_counts().to_dict() == sizes
    left_out = table[table["no_place_reason"] != ""]
    assert (set(left_out["part"]), set(left_out["fold"])) == ({""}, {-1})
    for _, stratum in table[table["part"] != ""].groupby(["age_group", "gender", "race"]):
        # At most 100 faces a stratum: 10 in the test part, give or take one.
        assert abs((stratum["part"] == "test").sum() - len(stratum) / 10) <= 1
    table = splits.with_split(table_of(900, faces_per_cluster=3))
    clusters = table[table["part"] != ""].groupby("cluster")
    assert (clusters[["part", "fold"]].nunique() == 1).all(axis=None)


def test_clusters_of_several_faces_are_spread_over_the_parts_as_their_number_demands() -> None:
    # One cluster in twenty has three faces, as near-duplicates have on UTKFace.
    clusters = np.repeat(np.arange(8000), np.where(np.arange(8000) % 20 == 7, 3, 1))
    table = table_of(len(clusters)).assign(
        cluster=clusters, age_group=clusters // 7 % 5, gender=clusters // 3 % 2, race=0
    )
    check_spread(splits.with_split(table.assign(no_place_reason="")))


def check_spread(placed: pd.DataFrame) -> None:
    """Hold parts and folds of clusters of several faces to the binomial distribution, two-sided."""
    clusters = placed.groupby("cluster")[["part", "fold"]].first()
    several = clusters[placed.groupby("cluster").size() > 1]
    shares = {"part": {"train": 0.8, "val": 0.1, "test": 0.1},
              "fold": dict.fromkeys(range(splits.N_FOLDS), 1 / splits.N_FOLDS)}  # fmt: skip
    for column, expected in shares.items():
        for name, share in expected.items():
            n = int((several[column] == name).sum())
            p = binomtest(n, len(several), share).pvalue
            assert p > 0.001, f"{n} of {len(several)} clusters in {column} {name}"


def test_the_split_depends_on_no_order_and_is_pinned_by_the_digest_of_its_sorted_lines() -> None:
    table = table_of(500, faces_per_cluster=2)
    shuffled = table.sample(frac=1, random_state=0).reset_index(drop=True)
    shuffled["cluster"] = 10_000 - shuffled["cluster"]
    one = splits.with_split(table).set_index("file")
    other = splits.with_split(shuffled).set_index("file").loc[one.index]
    assert one["part"].tolist() == other["part"].tolist()
    assert one["fold"].tolist() == other["fold"].tolist()
    # Whatever changes this needs a new split version: every number measured so far hangs on it.
    digest = splits.split_digest(splits.with_split(table_of(1000, faces_per_cluster=2)))
    assert digest == "fec8795c70784adbf3dfe5676e70c17e610731280bc69b5e0a32b0f68d643bef"
    table = pd.DataFrame({"file": ["b", "a", "c"], "part": ["test", "train", ""]})
    assert splits.split_digest(table) == hashlib.sha256(b"a,train\nb,test\n").hexdigest()


def faces_of(table: pd.DataFrame, version: str = splits.SPLIT_VERSION) -> FaceSet:
    return FaceSet(Path("some-faces"), {"name": "some-faces", "split_version": version}, table)


def test_folds_test_every_placed_face_once_and_validate_on_an_eighth_of_the_rest() -> None:
    faces = faces_of(splits.with_split(table_of(2000)))
    folds = [splits.parts_of(faces, fold) for fold in range(splits.N_FOLDS)]
    for parts in (splits.parts_of(faces), *folds):
        rows = np.concatenate([parts[name] for name in splits.PARTS])
        assert len(set(rows.tolist())) == len(rows) == 1980
        splits.check_no_overlap(faces.table, parts)
    tested = np.concatenate([parts["test"] for parts in folds])
    assert sorted(tested.tolist()) == [i for i in range(2000) if i % 100]
    # 1,980 faces: 396 tested, 1,584 left, an eighth of them 198.
    sizes = [(len(parts["test"]), len(parts["val"])) for parts in folds]
    assert sizes == [(396, 198)] * splits.N_FOLDS


def test_too_few_faces_an_unknown_fold_and_one_of_an_older_split_are_refused() -> None:
    with pytest.raises(DataError, match="part is empty: 4 faces are too few"):
        splits.parts_of(faces_of(splits.with_split(table_of(4))))
    table = splits.with_split(table_of(300))
    with pytest.raises(DataError, match="no fold 5"):
        splits.parts_of(faces_of(table), 5)
    older = faces_of(table, "leak-free-1")
    assert len(splits.parts_of(older)["test"]) > 0  # its parts are still read
    with pytest.raises(DataError, match="'some-faces' has the split leak-free-1"):
        splits.parts_of(older, 0)


def test_a_planted_duplicate_or_a_row_in_two_parts_is_refused() -> None:
    parts = {"train": np.arange(80), "val": np.arange(80, 90), "test": np.arange(90, 100)}
    for column in ("sha256", "cluster", "file"):
        table = splits.with_split(table_of(100))
        splits.check_no_overlap(table, parts)
        table.loc[95, column] = table.loc[3, column]
        with pytest.raises(DataError, match=f"in train and .* in test have the same {column}"):
            splits.check_no_overlap(table, parts)
    found = splits.overlaps(splits.with_split(table_of(100)), parts | {"val": np.arange(79, 90)})
    assert {column for column, _ in found} == {"sha256", "cluster", "file"}


def subset_table(n: int = 400) -> pd.DataFrame:
    rng, files = np.random.default_rng(3), [f"{number:04d}.jpg" for number in range(n)]
    labels = {"age_group": rng.integers(0, 5, n), "gender": rng.integers(0, 2, n)}
    race = rng.choice(5, n, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    return pd.DataFrame({"file": files} | labels | {"race": race})


WHOLE = {"train": np.arange(320), "val": np.arange(320, 360), "test": np.arange(360, 400)}


def test_a_subset_is_trained_on_as_it_says_and_selected_and_tested_on_its_own_faces() -> None:
    table, women = subset_table(), Subset(gender="female")
    inside = splits.members(table, women)
    assert inside.tolist() == (table["gender"] == 1).tolist()
    of_women = splits.subset_parts(table, WHOLE, women, seed=0)
    for name, rows in of_women.items():
        assert np.array_equal(rows, WHOLE[name][inside[WHOLE[name]]])
    assert splits.subset_parts(table, WHOLE, None, seed=0) == WHOLE
    for training, n_train in (("everyone", 320), ("size_matched", len(of_women["train"]))):
        subset = Subset(gender="female", training=training)
        parts = splits.subset_parts(table, WHOLE, subset, seed=0)
        assert len(parts["train"]) == n_train
        for name in ("val", "test"):
            assert np.array_equal(parts[name], of_women[name])


def test_a_sample_has_the_shares_of_all_by_seed_whatever_the_order_of_the_table() -> None:
    # ten faces in three strata of 6, 3 and 1; five of them: shares 3, 1.5 and 0.5. The whole parts
    # are 3, 1 and 0; the one left over goes to the first of the two remainders of 0.5.
    table = subset_table(10).assign(age_group=[0] * 6 + [1] * 3 + [2], gender=0, race=0)
    rows = splits.stratified_sample(table, np.arange(10), 5, seed=0)
    assert table.iloc[rows]["age_group"].tolist() == [0, 0, 0, 1, 1]
    table = subset_table()
    first = splits.stratified_sample(table, np.arange(400), 50, seed=0)
    assert not np.array_equal(first, splits.stratified_sample(table, np.arange(400), 50, seed=1))
    turned = table.iloc[::-1].reset_index(drop=True)
    again = splits.stratified_sample(turned, np.arange(400), 50, seed=0)
    assert set(turned["file"].iloc[again]) == set(table["file"].iloc[first])


def test_a_subset_or_a_task_without_a_face_is_refused() -> None:
    table = subset_table().assign(race=0)
    with pytest.raises(DataError, match="no face of the subset 'women_indian'"):
        splits.subset_parts(table, WHOLE, Subset(gender="female", race="Indian"), seed=0)
    with pytest.raises(DataError, match="too few faces, or none, are labelled with race"):
        splits.labelled_parts(table.assign(race=MISSING), WHOLE, ["gender", "race"])
