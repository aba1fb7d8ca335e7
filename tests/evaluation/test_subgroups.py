"""Subgroups, their gaps and rates, women against men: by hand, equal to fairlearn and statsmodels,
and honest about chance."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from fairlearn import metrics as theirs_of
from fairlearn.metrics import MetricFrame, count
from sklearn.metrics import accuracy_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from benchmark.evaluation import subgroups as ours
from benchmark.evaluation.intervals import RESAMPLES
from benchmark.evaluation.subgroups import gap_table, group_codes, group_names, macro_f1, rate_table
from benchmark.tasks import CLASS_NAMES, MISSING, TASKS, TaskName, n_classes
from tests.made_runs import made_up_predictions

SKILLS = {"age_group": 1.2, "gender": 1.0, "race": 1.2}
FACES = pd.DataFrame({"age_group": [0, 0, 1, 1], "gender": [0, 0, 1, 1], "race": [0, 1, 0, 4]})


def faces_of(
    genders: npt.ArrayLike, races: npt.ArrayLike = 0, clusters: npt.ArrayLike | None = None
) -> pd.DataFrame:
    table = pd.DataFrame({"age_group": 2, "gender": genders, "race": races})
    return table.assign(cluster=np.arange(len(table)) if clusters is None else clusters)


def of_rates(numbers: list[int], rates: list[float]) -> np.ndarray:
    return np.concatenate([np.arange(n) < r * n for n, r in zip(numbers, rates, strict=True)])


def answered(faces: pd.DataFrame, task: TaskName, right: npt.ArrayLike) -> pd.DataFrame:
    """Predict a task: rightly where `right`, else the next class."""
    next_class = (faces[task] + 1) % n_classes(task)
    return faces.assign(**{f"{task}_pred": np.where(right, faces[task], next_class)})


def gaps_of(faces: pd.DataFrame, right: npt.ArrayLike) -> pd.DataFrame:
    """Score the age group of faces that are predicted right or not; index by division."""
    return gap_table(answered(faces, "age_group", right)).set_index("by")


def test_groups_are_scored_by_hand() -> None:
    # Predicted age groups 0 1 1 0 against 0 0 1 1: faces 0 and 2 are right. Genders 0 1 1 1
    # against 0 0 1 1: F1 of male 2*1/(2*1+0+1) = 2/3, of female 2*2/(2*2+1+0) = 4/5.
    test = FACES.assign(age_group_pred=[0, 1, 1, 0], gender_pred=[0, 1, 1, 1])
    table = ours.subgroup_table(test).set_index(["task", "by", "group"])
    white = table.loc[("age_group", "race", "White")]
    # Wilson, 2 of 2: low = 1 / (1 + 1.96²/2) = 1 / 2.9207 = 0.3424, high = 1.
    assert white[["n", "accuracy", "high"]].tolist() == [2, 1.0, 1.0]
    assert white["low"] == pytest.approx(0.3424, abs=1e-4)
    empty = table.loc[("gender", "race", "Asian")]
    assert empty["n"] == 0
    assert empty[["accuracy", "low", "high", "macro_f1"]].isna().all()
    assert table.loc[("gender", "all", "all"), "macro_f1"] == pytest.approx(11 / 15)
    assert pd.isna(table.loc[("gender", "gender", "male"), "macro_f1"])  # one class


def test_gender_and_race_are_crossed_in_the_order_of_the_names() -> None:
    names = np.array(group_names("gender_race"))
    assert names[group_codes(FACES, "gender_race")].tolist() == [
        "male White", "male Black", "female White", "female Others",
    ]  # fmt: skip
    # A face without one of the labels is in no group.
    faces = pd.DataFrame({"gender": [0, MISSING, 1], "race": [MISSING, 2, 4]})
    assert group_codes(faces, "gender_race").tolist() == [MISSING, MISSING, 9]


@pytest.mark.slow
def test_tables_equal_fairlearn_on_random_predictions() -> None:
    table = made_up_predictions(SKILLS, n=4_000, seed=3)
    test = table[table["part"] == "test"].reset_index(drop=True)
    subgroups = ours.subgroup_table(test)
    gaps = gap_table(test).set_index(["task", "by"])
    for task in TASKS:
        for by in ours.BYS[1:]:
            theirs = MetricFrame(
                metrics={"n": count, "accuracy": accuracy_score, "macro_f1": macro_f1},
                y_true=test[task].to_numpy(),
                y_pred=test[f"{task}_pred"].to_numpy(),
                sensitive_features=group_codes(test, by),
            )
            groups = subgroups.query("task == @task and by == @by").reset_index(drop=True)
            for number in ("n", "accuracy", "macro_f1"):
                np.testing.assert_allclose(groups[number], theirs.by_group[number])
            row = gaps.loc[(task, by)]
            assert row["n_small"] == 0
            assert row["worst"] == pytest.approx(theirs.group_min()["accuracy"])
            assert row["best"] == pytest.approx(theirs.group_max()["accuracy"])
            assert row["gap"] == pytest.approx(theirs.difference()["accuracy"])
            assert row["ratio"] == pytest.approx(theirs.ratio()["accuracy"])
    corrected = multipletests(gaps["p"], method="holm")[1]
    np.testing.assert_allclose(gaps["p_holm"], corrected)


def test_two_groups_have_about_the_interval_of_agresti_and_caffo() -> None:
    # With a right and a wrong face added to each: 301/402 = 0.7488 and 361/402 = 0.8980, apart by
    # 0.1493; error sqrt(0.7488 * 0.2512 / 402 + 0.8980 * 0.1020 / 402) = 0.0264. Plainly one
    # direction, so that both ends are 1.96 errors away: 0.0976 to 0.2010.
    row = gaps_of(faces_of([0] * 400 + [1] * 400), of_rates([400, 400], [0.75, 0.9])).loc["gender"]
    assert row["gap_low"] == pytest.approx(0.0976, abs=0.004)
    assert row["gap_high"] == pytest.approx(0.2010, abs=0.001)


def test_small_and_empty_groups_are_counted_and_never_ranked() -> None:
    # 31 White all right, 30 Black half right, 29 Asian all wrong, no other race.
    faces = faces_of([0] * 61 + [1] * 29, [0] * 31 + [1] * 30 + [2] * 29)
    found = gaps_of(faces, of_rates([31, 30, 29], [1, 0.5, 0]))
    row = found.loc["race"]
    assert row[["n_ranked", "n_small"]].tolist() == [2, 1]
    assert (row["worst_group"], row["worst"]) == ("Black", 0.5)
    row = found.loc["gender"]  # one large group alone
    assert row["n_ranked"] == 1
    assert row[list(ours.GAP_COLUMNS[4:])].isna().all()


def test_all_right_or_all_wrong_gives_intervals_and_no_crash() -> None:
    for all_right in (True, False):
        row = gaps_of(faces_of([0] * 40 + [1] * 50), [all_right] * 90).loc["gender"]
        assert (row["gap"], row["gap_low"], row["p"]) == (0.0, 0.0, 1.0)
        assert 0.03 < row["gap_high"] < 0.15
        assert row["worst_low"] < row["worst_high"]
        assert np.isnan(row["ratio"]) == (not all_right)


def test_a_shuffle_keeps_clusters_whole_and_strata_their_faces() -> None:
    clusters = np.array([7, 0, 7, 1, 2, 2])
    shuffles = ours.shuffled_faces(clusters)
    np.testing.assert_array_equal(np.sort(shuffles, axis=1), np.tile(np.arange(6), (RESAMPLES, 1)))
    taken = clusters[shuffles]
    assert (taken[:, 0] == taken[:, 2]).all()
    assert (taken[:, 4] == taken[:, 5]).all()
    assert (taken[:, [1, 3]] < 2).all()
    clusters = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5])
    strata = np.array([0, 1, 1, 0, 0, 0, 1, 1, 0])
    shuffles = ours.shuffled_faces(clusters, strata)
    assert (strata[shuffles] == strata).all()
    # The two clusters of both strata change places, face by face; one alone in its kind stays.
    assert set(map(tuple, shuffles[:, :4])) == {(0, 1, 2, 3), (3, 2, 1, 0)}
    assert (shuffles[:, [4, 5, 8]] == [4, 5, 8]).all()


def test_the_gap_that_chance_gives_is_that_of_the_hypergeometric_law() -> None:
    # Two of 60 faces wrong: both in one gender with probability 2 * (30 * 29) / (60 * 59) = 0.4915,
    # gap 2/30, else none: mean 0.03277, and 0.4915 of the shuffles are as wide as ours.
    row = gaps_of(faces_of([0] * 30 + [1] * 30), [0, 0] + [1] * 58).loc["gender"]
    assert row["chance_gap"] == pytest.approx(0.03277, abs=0.0025)
    assert row["p"] == pytest.approx(0.4915, abs=0.04)


RATES = {
    "equal": np.full(10, 0.7),
    "mild": np.array([0.72, 0.70, 0.74, 0.68, 0.66, 0.72, 0.68, 0.68, 0.68, 0.72]),
    "plain": np.array([0.89, 0.87, 0.93, 0.82, 0.30, 0.90, 0.88, 0.92, 0.82, 0.27]),
}


def simulated_gaps(name: str, *, clustered: bool, repeats: int) -> pd.DataFrame:
    """Predict 600 faces, 60 of each gender and race, again and again at these rates; tell whether
    each interval held the truth, and whether p was 0.05 or less."""
    random = np.random.default_rng(11)
    rates = RATES[name]
    # Where clustered, every second picture is there twice, with one label and one prediction.
    pictures = np.repeat(np.arange(400), np.tile([2, 1], 200)) if clustered else np.arange(600)
    groups = pictures * 10 // (pictures[-1] + 1)
    faces = faces_of(groups // 5, groups % 5, pictures)
    shuffles, tables = ours.shuffled_faces(pictures), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "shuffled_faces", lambda _: shuffles)  # once for all predictions
        for _ in range(repeats):
            right = random.random(600)[pictures] < rates[groups]
            tables.append(gap_table(answered(faces, "age_group", right), ["gender_race"]))
    gaps = pd.concat(tables, ignore_index=True)
    truths = {"gap": np.ptp(rates), "worst": rates.min(), "ratio": rates.min() / rates.max()}
    held = {"found": gaps["p"] <= 0.05}
    for number, truth in truths.items():
        held[number] = (gaps[f"{number}_low"] <= truth) & (truth <= gaps[f"{number}_high"])
    return pd.DataFrame(held)


@pytest.mark.parametrize(
    ("name", "clustered"),
    [("mild", True), pytest.param("plain", False, marks=pytest.mark.slow), ("plain", True)],
)
def test_intervals_hold_the_truth_at_the_stated_rate_or_more(name: str, clustered: bool) -> None:
    # 200 predictions: the rate has a standard error of 1.5 points, and 92 is two below 95.
    held = simulated_gaps(name, clustered=clustered, repeats=200)
    assert (held[["gap", "worst", "ratio"]].mean() >= 0.92).all()
    assert name == "mild" or held["found"].all(), "a planted gap is found"


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_equal_groups_are_found_to_differ_as_rarely_as_stated(clustered: bool) -> None:
    # A twentieth of 300 predictions, with a standard error of 1.3 points.
    held = simulated_gaps("equal", clustered=clustered, repeats=300)
    assert held["found"].mean() <= 0.08
    assert held["gap"].mean() >= 0.93


@pytest.mark.slow
def test_rate_differences_equal_fairlearn() -> None:
    table = made_up_predictions(SKILLS, n=9_000, seed=3)
    test = table[table["part"] == "test"].reset_index(drop=True)
    rates = rate_table(test)
    theirs = {
        ours.TRUE_POSITIVE: theirs_of.true_positive_rate_difference,
        ours.FALSE_POSITIVE: theirs_of.false_positive_rate_difference,
        ours.EQUALIZED_ODDS: theirs_of.equalized_odds_difference,
    }
    assert len(rates) == 3 * (5 + 1 + 5)
    # Rates over few faces are theirs to compare, and not ours.
    small = rates.loc[rates["n_left_out"] > 0, ["task", "class"]].itertuples(index=False, name=None)
    compared = ~pd.MultiIndex.from_frame(rates[["task", "class"]]).isin(set(small))
    assert compared.sum() >= 20
    for row in rates[compared].to_dict("records"):
        task, label = row["task"], CLASS_NAMES[row["task"]].index(row["class"])
        expected = theirs[row["rate"]](
            test[task] == label,
            test[f"{task}_pred"] == label,
            sensitive_features=group_codes(test, ours.GAP_BY[task]),
        )
        assert row["difference"] == pytest.approx(expected), row
        assert row["low"] <= row["difference"] <= row["high"], row


def test_rates_over_few_faces_are_counted_and_not_compared() -> None:
    # 40 White and 40 Black women, 29 of them Asian: 0.75, 0.5 and (left out) 0 predicted as women.
    faces = faces_of(1, np.repeat([0, 1, 2], [40, 40, 29]))
    said = of_rates([40, 40, 29], [0.75, 0.5, 0]).astype(int)
    rates = rate_table(faces.assign(gender_pred=said)).set_index("rate")
    row = rates.loc[ours.TRUE_POSITIVE]
    assert row["n_left_out"] == 1
    assert (row["lowest_group"], row["lowest"]) == ("Black", 0.5)
    assert row["difference"] == pytest.approx(0.25)
    # Without any man there is no false positive, and no equalized odds.
    assert pd.isna(rates.loc[ours.FALSE_POSITIVE, "difference"])
    assert ours.EQUALIZED_ODDS not in rates.index


def test_rates_that_follow_from_the_labels_alone_are_what_permutation_gives() -> None:
    # White is predicted for half of the Asian and none of the Black faces, whatever the gender;
    # women are Asian and men Black more often. The false positives of White differ, and within
    # each true class they do not: permutation within it expects the same difference.
    faces = faces_of(np.repeat([0, 1], 200), [1] * 150 + [2] * 50 + [1] * 50 + [2] * 150)
    said = np.where((faces["race"] == 2) & (np.arange(400) % 2 == 0), 0, faces["race"])
    rates = rate_table(faces.assign(race_pred=said)).set_index(["class", "rate"])
    row = rates.loc["White", ours.FALSE_POSITIVE]
    assert row["difference"] == pytest.approx(75 / 200 - 25 / 200)
    assert row["permuted"] == pytest.approx(0.25, abs=0.01)
    assert row["p"] > 0.4


@pytest.mark.parametrize(
    ("shift", "least", "most"),
    [(0.0, 0.0, 0.10), pytest.param(0.4, 0.95, 1.0, marks=pytest.mark.slow)],
)
def test_equal_rates_seldom_differ_and_a_planted_difference_is_found(
    shift: float, least: float, most: float
) -> None:
    random = np.random.default_rng(5)
    faces = faces_of(np.tile([0, 1], 300), np.repeat(np.arange(3), 200))
    found = []
    for _ in range(100):
        missed = random.random(600) < 0.2 + shift * (faces["race"] == 1)
        rates = rate_table(answered(faces, "gender", ~missed)).set_index("rate")
        found.append(rates.loc[ours.EQUALIZED_ODDS, "p"] <= 0.05)
    assert least <= np.mean(found) <= most


def test_the_gender_gap_within_age_groups_by_hand() -> None:
    # 0-14: 40 girls, 20 right; 60 boys, 54 right: 0.5 - 0.9 = -0.4. 26-40: 300 women and 100 men,
    # 90 % right of both: 0. Adults alone are the latter. All: 290/340 - 144/160 = -0.0471.
    # Adjusted: (100 * -0.4 + 400 * 0) / 500 = -0.08.
    faces = faces_of([1] * 40 + [0] * 60 + [1] * 300 + [0] * 100)
    faces["age_group"] = [0] * 100 + [2] * 400
    right = of_rates([40, 60, 300, 100], [0.5, 0.9, 0.9, 0.9])
    gaps = ours.gender_gap_table(answered(faces, "gender", right)).set_index("within")
    assert gaps.index.tolist() == ["all", "0-14", "26-40", ours.ADULTS, ours.ADJUSTED]
    expected = [290 / 340 - 0.9, -0.4, 0, 0, -0.08]
    np.testing.assert_allclose(gaps["difference"], expected, atol=1e-12)
    assert gaps.loc["0-14", ["n_female", "n_male", "female", "male"]].tolist() == [40, 60, 0.5, 0.9]
    assert gaps.loc[ours.ADJUSTED, ["n_female", "n_male"]].tolist() == [340, 160]
    assert gaps.loc["0-14", "p"] < 0.001
    assert gaps.loc["26-40", "p"] > 0.9
    right = of_rates([400, 400], [0.75, 0.9])
    faces = faces_of([1] * 400 + [0] * 400)
    gaps = ours.gender_gap_table(answered(faces, "gender", right))
    expected = confint_proportions_2indep(300, 400, 360, 400, method="agresti-caffo")
    assert gaps.loc[0, ["low", "high"]].tolist() == pytest.approx(expected, abs=0.003)


def test_age_alone_makes_no_gender_gap_once_adjusted() -> None:
    # 0.6 of the children are right and 0.9 of the adults; most children are girls. Among adults
    # 26-40 are right at 0.9 and 61+ at 0.6, and men are older.
    for genders, ages, numbers, rates, named in (
        ([1, 0, 1, 0], [0, 0, 2, 2], [300, 100, 200, 600], [0.6, 0.6, 0.9, 0.9], "all"),
        ([1, 1, 0, 0], [2, 4, 2, 4], [400, 100, 100, 400], [0.9, 0.6, 0.9, 0.6], ours.ADULTS),
    ):
        faces = faces_of(np.repeat(genders, numbers))
        faces["age_group"] = np.repeat(ages, numbers)
        right = of_rates(numbers, rates)
        gaps = ours.gender_gap_table(answered(faces, "gender", right)).set_index("within")
        assert abs(gaps.loc[named, "difference"]) > 0.1
        assert gaps.loc[named, "p"] < 0.01
        assert gaps.loc[named, "permuted"] < 0.05
        assert gaps.loc[ours.ADJUSTED, "difference"] == pytest.approx(0)
        assert gaps.loc[ours.ADJUSTED, "p"] > 0.9


def test_faces_without_a_label_are_in_no_rate_and_no_gap_of_it() -> None:
    faces = faces_of([1] * 80 + [0] * 80).assign(race=[0] * 100 + [-1] * 60)
    faces = faces.assign(race_pred=0)
    ages = faces.assign(race=0, age_group=[-1] * 10 + [2] * 150)
    gaps = ours.gender_gap_table(ages).set_index("within")
    assert gaps[["n_female", "n_male"]].to_numpy()[:2].tolist() == [[80, 80], [70, 80]]
    for table_of in (rate_table, ours.gender_gap_table):
        pd.testing.assert_frame_equal(table_of(faces), table_of(faces[:100]))
