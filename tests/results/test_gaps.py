"""Gaps between groups: by hand, equal to fairlearn, and honest about what chance does."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

from benchmark.results.gaps import GAP_COLUMNS, gap_table, shuffled_faces
from benchmark.results.intervals import RESAMPLES
from benchmark.results.subgroups import BYS, By, group_codes, subgroup_table
from tests.results.conftest import made_up_predictions


def faces_of(
    genders: npt.ArrayLike, races: npt.ArrayLike = 0, clusters: npt.ArrayLike | None = None
) -> pd.DataFrame:
    """Make faces of age group 2 with these labels."""
    table = pd.DataFrame({"age_group": 2, "gender": genders, "race": races})
    return table.assign(cluster=np.arange(len(table)) if clusters is None else clusters)


def gaps_of(faces: pd.DataFrame, right: npt.ArrayLike) -> pd.DataFrame:
    """Score the age group of faces that are read rightly or not; index by division."""
    answers = np.asarray(right, dtype=bool)
    predicted = np.where(answers, faces["age_group"], 0)
    subgroups = subgroup_table(faces, {"age_group": predicted})
    return gap_table(subgroups, faces, {"age_group": answers}).set_index("by")


def test_worst_best_gap_and_ratio_by_hand() -> None:
    # 40 men, 30 right: 0.75; 50 women, 45 right: 0.9. Gap 0.15, ratio 0.75 / 0.9 = 5/6.
    row = gaps_of(faces_of([0] * 40 + [1] * 50), [1] * 30 + [0] * 10 + [1] * 45 + [0] * 5).loc[
        "gender"
    ]
    assert (row["worst_group"], row["worst_n"], row["worst"]) == ("male", 40, 0.75)
    assert (row["best_group"], row["best_n"], row["best"]) == ("female", 50, 0.9)
    assert row["gap"] == pytest.approx(0.15)
    assert row["ratio"] == pytest.approx(5 / 6)


def test_two_groups_have_about_the_interval_of_agresti_and_caffo() -> None:
    # With a right and a wrong face added to each: 301/402 = 0.7488 and 361/402 = 0.8980, apart by
    # 0.1493; error sqrt(0.7488 * 0.2512 / 402 + 0.8980 * 0.1020 / 402) = 0.0264. Plainly one
    # direction, so that both ends are 1.96 errors away: 0.0976 to 0.2010.
    right = [1] * 300 + [0] * 100 + [1] * 360 + [0] * 40
    row = gaps_of(faces_of([0] * 400 + [1] * 400), right).loc["gender"]
    assert row["gap_low"] == pytest.approx(0.0976, abs=0.004)
    assert row["gap_high"] == pytest.approx(0.2010, abs=0.001)
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"] < 1


@pytest.mark.parametrize("by", BYS[1:])
def test_worst_best_gap_and_ratio_equal_fairlearn(by: By) -> None:
    table = made_up_predictions({"age_group": 1.2}, n=4_000, seed=3)
    test = table[table["part"] == "test"].reset_index(drop=True)
    predicted = test["age_group_pred"].to_numpy()
    subgroups = subgroup_table(test, {"age_group": predicted})
    right = {"age_group": predicted == test["age_group"].to_numpy()}
    gaps = gap_table(subgroups, test, right).set_index("by")
    theirs = MetricFrame(
        metrics=accuracy_score,
        y_true=test["age_group"],
        y_pred=predicted,
        sensitive_features=group_codes(test, by),
    )
    assert gaps.loc[by, "n_small"] == 0
    assert gaps.loc[by, "worst"] == pytest.approx(theirs.group_min())
    assert gaps.loc[by, "best"] == pytest.approx(theirs.group_max())
    assert gaps.loc[by, "gap"] == pytest.approx(theirs.difference())
    assert gaps.loc[by, "ratio"] == pytest.approx(theirs.ratio())


def test_small_and_empty_groups_are_counted_and_never_ranked() -> None:
    # 31 White all right, 30 Black half right, 29 Asian all wrong, no other race.
    races = [0] * 31 + [1] * 30 + [2] * 29
    row = gaps_of(faces_of(0, races), [1] * 31 + [1] * 15 + [0] * 15 + [0] * 29).loc["race"]
    assert row[["n_ranked", "n_small", "n_empty"]].tolist() == [2, 1, 2]
    assert (row["worst_group"], row["worst"]) == ("Black", 0.5)


def test_with_fewer_than_two_large_groups_everything_is_missing() -> None:
    row = gaps_of(faces_of([0] * 40 + [1] * 29), [1] * 69).loc["gender"]
    assert row["n_ranked"] == 1
    rest = [name for name in GAP_COLUMNS[5:] if name not in ("task", "by")]
    assert row[rest].isna().all()


@pytest.mark.parametrize("all_right", [True, False])
def test_all_right_or_all_wrong_gives_intervals_and_no_crash(all_right: bool) -> None:
    row = gaps_of(faces_of([0] * 40 + [1] * 50), [all_right] * 90).loc["gender"]
    assert (row["gap"], row["gap_low"]) == (0.0, 0.0)
    assert 0.03 < row["gap_high"] < 0.15
    assert row["worst_low"] < row["worst_high"]
    assert np.isnan(row["ratio"]) == (not all_right)
    assert row["p"] == 1.0


def test_a_shuffle_keeps_clusters_whole() -> None:
    clusters = np.array([7, 0, 7, 1, 2, 2])
    shuffles = shuffled_faces(clusters)
    assert shuffles.shape == (RESAMPLES, 6)
    np.testing.assert_array_equal(np.sort(shuffles, axis=1), np.tile(np.arange(6), (RESAMPLES, 1)))
    taken = clusters[shuffles]
    assert (taken[:, 0] == taken[:, 2]).all()
    assert (taken[:, 4] == taken[:, 5]).all()
    assert (taken[:, [1, 3]] < 2).all()


def test_the_gap_that_chance_gives_by_hand() -> None:
    # 60 faces, 30 of each gender, one wrong: it is a man's or a woman's, and the gap is 1/30 in
    # every shuffle; so is ours, and p is 1.
    row = gaps_of(faces_of([0] * 30 + [1] * 30), [0] + [1] * 59).loc["gender"]
    assert row["chance_gap"] == pytest.approx(1 / 30)
    assert row["chance_gap_high"] == pytest.approx(1 / 30)
    assert row["p"] == 1.0


def test_the_gap_that_chance_gives_is_that_of_the_hypergeometric_law() -> None:
    # Two of 60 faces wrong: both in one gender with probability 2 * (30 * 29) / (60 * 59) = 0.4915,
    # gap 2/30, else none: mean 0.03277, and 0.4915 of the shuffles are as wide as ours.
    row = gaps_of(faces_of([0] * 30 + [1] * 30), [0, 0] + [1] * 58).loc["gender"]
    assert row["chance_gap"] == pytest.approx(0.03277, abs=0.0025)
    assert row["p"] == pytest.approx(0.4915, abs=0.04)


def test_p_values_are_corrected_over_the_table_as_holm_does() -> None:
    table = made_up_predictions({"age_group": 0.8, "gender": 0.8}, n=3_000)
    test = table[table["part"] == "test"].reset_index(drop=True)
    predicted = {task: test[f"{task}_pred"].to_numpy() for task in ("age_group", "gender")}
    right = {task: values == test[task].to_numpy() for task, values in predicted.items()}
    gaps = gap_table(subgroup_table(test, predicted), test, right)
    # Holm: the k-th smallest of m is multiplied by m - k + 1, and none may be below one before it.
    p = gaps["p"].sort_values()
    by_hand = np.minimum(np.maximum.accumulate(p * np.arange(len(p), 0, -1)), 1)
    np.testing.assert_allclose(gaps.loc[p.index, "p_holm"], by_hand)


RATES = {
    "equal": np.full(10, 0.7),
    "mild": np.array([0.72, 0.70, 0.74, 0.68, 0.66, 0.72, 0.68, 0.68, 0.68, 0.72]),
    "plain": np.array([0.89, 0.87, 0.93, 0.82, 0.30, 0.90, 0.88, 0.92, 0.82, 0.27]),
}


def simulate(name: str, *, clustered: bool, repeats: int = 200) -> pd.DataFrame:
    """Read 600 faces, 60 of each gender and race, again and again at these rates.

    Gives whether each interval held the truth, and whether p was 0.05 or less, per reading.
    """
    random = np.random.default_rng(11)
    rates = RATES[name]
    # Where clustered, every second picture is there twice, with one label and one answer.
    pictures = np.repeat(np.arange(400), np.tile([2, 1], 200)) if clustered else np.arange(600)
    groups = pictures * 10 // (pictures[-1] + 1)
    faces = faces_of(groups // 5, groups % 5, pictures)
    rows = []
    readings = {
        f"reading {index}": random.random(600)[pictures] < rates[groups] for index in range(repeats)
    }
    tables = [
        subgroup_table(faces, {"age_group": np.where(right, 2, 0)}).assign(task=reading)
        for reading, right in readings.items()
    ]
    gaps = gap_table(pd.concat(tables), faces, readings, ["gender_race"])  # type: ignore[arg-type]
    truths = {"gap": np.ptp(rates), "worst": rates.min(), "ratio": rates.min() / rates.max()}
    for row in gaps.to_dict("records"):
        held = {
            name: row[f"{name}_low"] <= truth <= row[f"{name}_high"]
            for name, truth in truths.items()
        }
        rows.append(held | {"found": row["p"] <= 0.05})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("name", "clustered"), [("mild", True), ("plain", False), ("plain", True)])
def test_intervals_hold_the_truth_at_the_stated_rate_or_more(name: str, clustered: bool) -> None:
    # 200 readings: the rate has a standard error of 1.5 points, and 92 is two below 95.
    held = simulate(name, clustered=clustered)
    assert (held[["gap", "worst", "ratio"]].mean() >= 0.92).all()


@pytest.mark.parametrize("clustered", [False, True])
def test_equal_groups_are_told_apart_as_rarely_as_stated(clustered: bool) -> None:
    # A twentieth of 300 readings, with a standard error of 1.3 points.
    held = simulate("equal", clustered=clustered, repeats=300)
    assert held["found"].mean() <= 0.08
    assert held["gap"].mean() >= 0.93


def test_a_planted_gap_is_found() -> None:
    assert simulate("plain", clustered=True, repeats=20)["found"].all()
