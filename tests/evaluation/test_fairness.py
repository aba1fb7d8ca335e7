"""Rates of subgroups and the gender gap: by hand, equal to fairlearn and statsmodels."""

import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics
from statsmodels.stats.proportion import confint_proportions_2indep

from benchmark.evaluation import fairness
from benchmark.evaluation.fairness import gender_gap_table, rate_table
from benchmark.evaluation.subgroups import GAP_BY, group_codes
from benchmark.tasks import CLASS_NAMES, TASKS
from tests.evaluation.test_subgroups import SKILLS, faces_of, of_rates
from tests.made_runs import made_up_predictions


def test_rate_differences_equal_fairlearn() -> None:
    table = made_up_predictions(SKILLS, n=9_000, seed=3)
    test = table[table["part"] == "test"].reset_index(drop=True)
    rates = rate_table(test, {task: test[f"{task}_pred"].to_numpy() for task in TASKS})
    theirs = {
        fairness.TRUE_POSITIVE: metrics.true_positive_rate_difference,
        fairness.FALSE_POSITIVE: metrics.false_positive_rate_difference,
        fairness.EQUALIZED_ODDS: metrics.equalized_odds_difference,
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
            sensitive_features=group_codes(test, GAP_BY[task]),
        )
        assert row["difference"] == pytest.approx(expected), row
        assert row["low"] <= row["difference"] <= row["high"], row


def test_rates_over_few_faces_are_counted_and_not_compared() -> None:
    # 40 White and 40 Black women, 29 of them Asian: 0.75, 0.5 and (left out) 0 predicted as women.
    faces = faces_of(1, np.repeat([0, 1, 2], [40, 40, 29]))
    said = of_rates([40, 40, 29], [0.75, 0.5, 0]).astype(int)
    rates = rate_table(faces, {"gender": said}).set_index("rate")
    row = rates.loc[fairness.TRUE_POSITIVE]
    assert (row["n_ranked"], row["n_left_out"]) == (2, 1)
    assert (row["lowest_group"], row["lowest"]) == ("Black", 0.5)
    assert row["difference"] == pytest.approx(0.25)
    # Without any man there is no false positive, and no equalized odds.
    assert rates.loc[fairness.FALSE_POSITIVE, "n_ranked"] == 0
    assert fairness.EQUALIZED_ODDS not in rates.index


def test_rates_that_follow_from_the_labels_alone_are_what_permutation_gives() -> None:
    # White is predicted for half of the Asian and none of the Black faces, whatever the gender;
    # women are Asian and men Black more often. The false positives of White differ, and within
    # each true class they do not: permutation within it expects the same difference.
    faces = faces_of(np.repeat([0, 1], 200), [1] * 150 + [2] * 50 + [1] * 50 + [2] * 150)
    said = np.where((faces["race"] == 2) & (np.arange(400) % 2 == 0), 0, faces["race"])
    rates = rate_table(faces, {"race": said}).set_index(["class", "rate"])
    row = rates.loc["White", fairness.FALSE_POSITIVE]
    assert row["difference"] == pytest.approx(75 / 200 - 25 / 200)
    assert row["permuted"] == pytest.approx(0.25, abs=0.01)
    assert row["p"] > 0.4


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.0, 0.10), (0.4, 0.95, 1.0)])
def test_equal_rates_seldom_differ_and_a_planted_difference_is_found(
    shift: float, least: float, most: float
) -> None:
    random = np.random.default_rng(5)
    faces = faces_of(np.tile([0, 1], 300), np.repeat(np.arange(3), 200))
    found = []
    for _ in range(100):
        missed = random.random(600) < 0.2 + shift * (faces["race"] == 1)
        rates = rate_table(faces, {"gender": faces["gender"] ^ missed}).set_index("rate")
        found.append(rates.loc[fairness.EQUALIZED_ODDS, "p"] <= 0.05)
    assert least <= np.mean(found) <= most


def test_the_gender_gap_within_age_groups_by_hand() -> None:
    # 0-14: 40 girls, 20 right; 60 boys, 54 right: 0.5 - 0.9 = -0.4. 26-40: 300 women and 100 men,
    # 90 % right of both: 0. Adults alone are the latter. All: 290/340 - 144/160 = -0.0471.
    # Adjusted: (100 * -0.4 + 400 * 0) / 500 = -0.08.
    faces = faces_of([1] * 40 + [0] * 60 + [1] * 300 + [0] * 100)
    faces["age_group"] = [0] * 100 + [2] * 400
    right = of_rates([40, 60, 300, 100], [0.5, 0.9, 0.9, 0.9])
    gaps = gender_gap_table(faces, {"gender": right}).set_index("within")
    assert gaps.index.tolist() == ["all", "0-14", "26-40", fairness.ADULTS, fairness.ADJUSTED]
    expected = [290 / 340 - 0.9, -0.4, 0, 0, -0.08]
    np.testing.assert_allclose(gaps["difference"], expected, atol=1e-12)
    assert gaps.loc["0-14", ["n_female", "n_male", "female", "male"]].tolist() == [40, 60, 0.5, 0.9]
    assert gaps.loc[fairness.ADJUSTED, ["n_female", "n_male"]].tolist() == [340, 160]
    assert gaps.loc["0-14", "p"] < 0.001
    assert gaps.loc["26-40", "p"] > 0.9
    right = of_rates([400, 400], [0.75, 0.9])
    gaps = gender_gap_table(faces_of([1] * 400 + [0] * 400), {"gender": right})
    expected = confint_proportions_2indep(300, 400, 360, 400, method="agresti-caffo")
    assert gaps.loc[0, ["low", "high"]].tolist() == pytest.approx(expected, abs=0.003)


def test_age_alone_makes_no_gender_gap_once_adjusted() -> None:
    # 0.6 of the children are right and 0.9 of the adults; most children are girls. Among adults
    # 26-40 are right at 0.9 and 61+ at 0.6, and men are older.
    for genders, ages, numbers, rates, named in (
        ([1, 0, 1, 0], [0, 0, 2, 2], [300, 100, 200, 600], [0.6, 0.6, 0.9, 0.9], "all"),
        ([1, 1, 0, 0], [2, 4, 2, 4], [400, 100, 100, 400], [0.9, 0.6, 0.9, 0.6], fairness.ADULTS),
    ):
        faces = faces_of(np.repeat(genders, numbers))
        faces["age_group"] = np.repeat(ages, numbers)
        right = of_rates(numbers, rates)
        gaps = gender_gap_table(faces, {"gender": right}).set_index("within")
        assert abs(gaps.loc[named, "difference"]) > 0.1
        assert gaps.loc[named, "p"] < 0.01
        assert gaps.loc[named, "permuted"] < 0.05
        assert gaps.loc[fairness.ADJUSTED, "difference"] == pytest.approx(0)
        assert gaps.loc[fairness.ADJUSTED, "p"] > 0.9


def test_faces_without_a_label_are_in_no_rate_and_no_gap_of_it() -> None:
    faces = faces_of([1] * 80 + [0] * 80).assign(race=[0] * 100 + [-1] * 60)
    said = np.zeros(160, dtype=np.int64)
    known = faces[:100]
    ages = faces.assign(race=0, age_group=[-1] * 10 + [2] * 150)
    gaps = gender_gap_table(ages, {"race": said == 0}).set_index("within")
    assert gaps[["n_female", "n_male"]].to_numpy()[:2].tolist() == [[80, 80], [70, 80]]
    for table_of, answers in ((rate_table, said), (gender_gap_table, said == 0)):
        whole = table_of(faces, {"race": answers})
        pd.testing.assert_frame_equal(whole, table_of(known, {"race": answers[:100]}))
