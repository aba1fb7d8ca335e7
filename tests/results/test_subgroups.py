"""Subgroups: an empty one is missing, a small one is marked by its count, one class is no crash."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, count
from sklearn.metrics import accuracy_score

from benchmark.evaluation.subgroups import (
    BYS,
    By,
    group_codes,
    group_names,
    group_slug,
    macro_f1,
    subgroup_table,
)
from benchmark.tasks import MISSING, TASKS, TaskName
from tests.results.conftest import made_up_predictions

FACES = pd.DataFrame(
    {
        "age_group": [0, 0, 1, 1],
        "gender": [0, 0, 1, 1],
        "race": [0, 1, 0, 4],
    }
)


def _group(table: pd.DataFrame, by: str, group: str) -> pd.Series:
    found = table[(table["by"] == by) & (table["group"] == group)]
    assert len(found) == 1
    return found.iloc[0]


def test_groups_are_scored_by_hand() -> None:
    # Predicted age groups 0 1 1 0 against 0 0 1 1: faces 0 and 2 are right.
    table = subgroup_table(FACES, {"age_group": np.array([0, 1, 1, 0])})
    assert _group(table, "all", "all")[["n", "accuracy"]].tolist() == [4, 0.5]
    assert _group(table, "race", "White")[["n", "accuracy"]].tolist() == [2, 1.0]
    assert _group(table, "gender_race", "female Others")[["n", "accuracy"]].tolist() == [1, 0.0]


def test_an_empty_subgroup_is_missing_not_zero() -> None:
    with np.errstate(all="raise"):  # Nor is it 0 divided by 0.
        table = subgroup_table(FACES, {"gender": np.zeros(4, int)})
    empty = _group(table, "race", "Asian")
    assert empty["n"] == 0
    assert empty[["accuracy", "low", "high", "macro_f1"]].isna().all()


def test_a_subgroup_with_all_faces_right_has_an_interval() -> None:
    white = _group(subgroup_table(FACES, {"gender": np.array([0, 0, 1, 1])}), "race", "White")
    # Wilson, 2 of 2: low = 1 / (1 + 1.96²/2) = 1 / 2.9207 = 0.3424, high = 1.
    assert white["accuracy"] == 1.0
    assert white["low"] == pytest.approx(0.3424, abs=1e-4)
    assert white["high"] == 1.0


def test_a_subgroup_with_one_class_has_no_macro_f1() -> None:
    table = subgroup_table(FACES, {"gender": np.array([0, 1, 1, 1])})
    assert pd.isna(_group(table, "gender", "male")["macro_f1"])
    # All four faces, truth 0 0 1 1, predicted 0 1 1 1: F1 of male 2*1/(2*1+0+1) = 2/3,
    # of female 2*2/(2*2+1+0) = 4/5; their mean is 11/15.
    assert _group(table, "all", "all")["macro_f1"] == pytest.approx(11 / 15)


def test_macro_f1_leaves_out_classes_that_nobody_has() -> None:
    # Truth 0 0 1, predicted 0 2 1: F1 of 0 is 2/3, of 1 is 1; class 2 has no face.
    assert macro_f1(np.array([0, 0, 1]), np.array([0, 2, 1])) == pytest.approx(5 / 6)


def test_rows_of_several_tasks_are_numbered_through() -> None:
    table = subgroup_table(FACES, {"race": np.zeros(4, int), "gender": np.zeros(4, int)})
    assert table["task"].unique().tolist() == ["gender", "race"]
    assert table.index.tolist() == list(range(2 * 23))


def test_gender_and_race_are_crossed_in_the_order_of_the_names() -> None:
    names = np.array(group_names("gender_race"))
    assert names[group_codes(FACES, "gender_race")].tolist() == [
        "male White",
        "male Black",
        "female White",
        "female Others",
    ]


def test_a_face_without_one_of_the_labels_that_are_crossed_is_in_no_group() -> None:
    faces = pd.DataFrame({"gender": [0, MISSING, 1], "race": [MISSING, 2, 4]})
    assert group_codes(faces, "gender_race").tolist() == [MISSING, MISSING, 9]


def test_slugs_hold_nothing_that_mlflow_refuses() -> None:
    assert [group_slug(name) for name in ("all", "61+")] == ["all", "61-plus"]
    assert group_slug(group_names("gender_race")[6]) == "female-black"


@pytest.mark.parametrize("by", BYS[1:])
@pytest.mark.parametrize("task", TASKS)
def test_the_table_equals_fairlearn_on_random_tables(task: TaskName, by: By) -> None:
    table = made_up_predictions({task: 1.0}, n=1_200, seed=2)
    test = table[table["part"] == "test"].reset_index(drop=True)
    predicted = test[f"{task}_pred"].to_numpy()
    ours = subgroup_table(test, {task: predicted})
    theirs = MetricFrame(
        metrics={"n": count, "accuracy": accuracy_score, "macro_f1": macro_f1},
        y_true=test[task].to_numpy(),
        y_pred=predicted,
        sensitive_features=group_codes(test, by),
    )
    groups = ours[ours["by"] == by].reset_index(drop=True)
    occurring = groups.loc[theirs.by_group.index]
    for number in ("n", "accuracy", "macro_f1"):
        np.testing.assert_allclose(occurring[number], theirs.by_group[number])
    assert (groups.drop(theirs.by_group.index)["n"] == 0).all()
    assert ours.loc[ours["by"] == "all", "accuracy"].item() == theirs.overall["accuracy"]
