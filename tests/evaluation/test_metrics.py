"""Scores and their intervals: by hand on a few faces, equal to the libraries, and never a crash.

At the end, the age group with its years: accuracy near edges and errors in years.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from benchmark.evaluation.intervals import cluster_bootstrap
from benchmark.evaluation.metrics import (
    BOOTSTRAP,
    WILSON,
    Scores,
    accuracy_by_edge,
    errors_in_years,
    mean_ages_of,
    score,
)
from benchmark.evaluation.predictions import predictions_table
from benchmark.tasks import TASKS
from tests.made_runs import certain, made_up_faces, made_up_predictions

SKILLS = {"age_group": 1.2, "gender": 1.5, "race": 1.5}


def faces_of(age_groups: Any, genders: Any) -> pd.DataFrame:
    faces = made_up_faces(len(age_groups))
    return faces.assign(age=30, age_group=age_groups, gender=genders, race=0)


def said_of(faces: pd.DataFrame, part: str = "test", **said: Any) -> pd.DataFrame:
    answers = {task: certain(labels, task) for task, labels in said.items()}  # type: ignore[arg-type]
    return predictions_table(faces, part, answers)  # type: ignore[arg-type]


def scored_age_groups(truth: list[int], predicted: list[int], genders: Any = 0) -> Scores:
    return score(said_of(faces_of(truth, genders), age_group=predicted))


def intervals_of(table: pd.DataFrame) -> pd.DataFrame:
    return score(table).intervals.set_index(["metric", "method"])


def test_age_group_distances_by_hand() -> None:
    # Truth 0 1 2 4, predicted 0 2 4 0: off by 0 1 2 4, so within one 2/4 and mean 7/4.
    # Quadratic kappa = 1 - sum(observed d²) / sum(expected d²). Observed 0+1+4+16 = 21; expected:
    # all 16 pairs of a truth and a prediction over 4: truth 0: 0+4+16+0, 1: 1+1+9+1, 2: 4+0+4+4,
    # 4: 16+4+0+16; (20+12+12+36) / 4 = 20. So 1 - 21/20 = -0.05.
    metrics = scored_age_groups([0, 1, 2, 4], [0, 2, 4, 0], [0, 0, 1, 1]).metrics
    names = ("accuracy", "within_one", "mae_groups", "qwk")
    found = [metrics[f"test/age_group/{name}"] for name in names]
    assert found == pytest.approx([0.25, 0.5, 1.75, -0.05])


def test_combined_weighs_the_tasks_and_a_single_task_counts_alone() -> None:
    # Age group 1 of 2, gender 2 of 2, race 0 of 2 right: 0.4 * 0.5 + 0.2 * 1 + 0.4 * 0 = 0.4.
    faces = faces_of([0, 1], [0, 1])
    said = {"age_group": [0, 0], "gender": [0, 1], "race": [1, 1]}
    metrics = score(pd.concat([said_of(faces, part, **said) for part in ("val", "test")])).metrics
    assert metrics["test/combined"] == metrics["selected/val/combined"] == pytest.approx(0.4)
    metrics = score(made_up_predictions({"gender": 1.5})).metrics
    assert metrics["test/combined"] == metrics["test/gender/accuracy"]
    assert metrics["selected/val/combined"] == metrics["selected/val/gender/accuracy"]


def test_numbers_equal_the_libraries_on_random_tables() -> None:
    table = made_up_predictions(SKILLS, n=1_200, seed=1)
    scores, test = score(table), table[table["part"] == "test"]
    for task in TASKS:
        both = test[task], test[f"{task}_pred"]
        expected = {
            "accuracy": sklearn_metrics.accuracy_score(*both),
            "macro_f1": sklearn_metrics.f1_score(*both, average="macro"),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(*both),
        }
        assert {n: scores.metrics[f"test/{task}/{n}"] for n in expected} == pytest.approx(expected)
        matrix, report = sklearn_metrics.confusion_matrix(*both), scores.reports[task]
        np.testing.assert_array_equal(scores.confusion[task], matrix)
        theirs = sklearn_metrics.precision_recall_fscore_support(*both)
        for name, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
            np.testing.assert_allclose(report[name], values)
        for name in ("precision", "recall", "f1"):
            assert (report[f"{name}_low"] < report[name]).all()
            assert (report[name] < report[f"{name}_high"]).all()
    both = test["age_group"], test["age_group_pred"]
    kappa = sklearn_metrics.cohen_kappa_score(*both, weights="quadratic")
    assert scores.metrics["test/age_group/qwk"] == pytest.approx(kappa)


def test_a_class_that_does_not_occur_is_missing_in_the_report() -> None:
    # Truth 0 0 1 1, predicted 0 2 1 1: class 0 has precision 1, recall 1/2, F1 2/3; class 2 is
    # predicted once in vain and has no face; class 3 is neither.
    report = scored_age_groups([0, 0, 1, 1], [0, 2, 1, 1]).reports["age_group"]
    assert report["class"].tolist() == ["0-14", "15-25", "26-40", "41-60", "61+"]
    assert report["support"].tolist() == [2, 2, 0, 0, 0]
    assert report.loc[0, ["precision", "recall", "f1"]].tolist() == pytest.approx([1, 0.5, 2 / 3])
    assert report.loc[2, "precision"] == 0.0
    assert report.loc[2:, ["recall", "f1"]].isna().all(axis=None)
    assert pd.isna(report.loc[3, "precision"])


def test_groups_under_thirty_faces_are_in_the_table_and_not_in_the_metrics() -> None:
    scores = scored_age_groups([0] * 60, [0] * 31 + [1] * 29, [0] * 31 + [1] * 29)
    women = scores.subgroups.query("by == 'gender' and group == 'female'").iloc[0]
    assert (women["n"], women["accuracy"]) == (29, 0.0)
    assert "test/age_group/accuracy/gender/male" in scores.metrics
    absent = ("accuracy/gender/female", "worst_gender", "worst_race", "macro_f1")
    assert scores.metrics.keys().isdisjoint(f"test/age_group/{name}" for name in absent)
    assert "test/age_group/qwk" not in scored_age_groups([2] * 40, [2] * 40).metrics


def test_without_test_faces_only_validation_is_scored() -> None:
    table = made_up_predictions(SKILLS)
    scores = score(table[table["part"] == "val"])
    numbers = ("accuracy", "macro_f1", "temperature")
    names = {f"selected/val/{task}/{name}" for task in TASKS for name in numbers}
    assert set(scores.metrics) == {"selected/val/combined", *names}
    assert all(len(table) == 0 for table in (scores.subgroups, scores.gaps, scores.intervals))


def test_the_combined_score_is_resampled_over_the_same_faces() -> None:
    # The same predictions of every task: the combined accuracy is that of any of them.
    wrong = np.arange(300) % 4 == 0
    table = said_of(faces_of([0] * 300, 0), **dict.fromkeys(TASKS, wrong.astype(int)))
    combined = intervals_of(table).loc[("test/combined", BOOTSTRAP), ["low", "high"]].tolist()
    low, high = cluster_bootstrap(1.0 - wrong[:, None], np.arange(300))
    assert combined == pytest.approx([low[0], high[0]])


def test_all_faces_right_have_wilson_s_ends_where_the_score_is_made_of_rates() -> None:
    faces = made_up_faces(60).assign(gender=[0] * 20 + [1] * 40)
    table = said_of(faces, **{task: faces[task] for task in TASKS})
    scores, found = score(table), intervals_of(table)
    # Wilson, 60 of 60: low = 1 / (1 + 1.96²/60) = 0.9398.
    assert found.loc[("test/gender/accuracy", WILSON), "low"] == pytest.approx(0.9398, abs=1e-4)
    assert found.loc[("test/combined", BOOTSTRAP), "low"] == pytest.approx(0.9398, abs=1e-4)
    for name in ("macro_f1", "balanced_accuracy"):
        row = found.loc[(f"test/gender/{name}", BOOTSTRAP)]
        assert row[["value", "high"]].tolist() == pytest.approx([1, 1])
        assert 0.8 < row["low"] < 0.9398
    error = found.loc[("test/age_group/mae_groups", BOOTSTRAP)]
    assert error["value"] == 0.0
    assert error[["low", "high"]].isna().all()
    assert "test/age_group/mae_groups/low" not in scores.metrics
    # Men: 20 of 20 right and no woman taken for one: F1 = 1, J = TP / (TP + FP + FN) = 20 / 20,
    # Wilson 20 / (20 + 1.96²) = 0.8389, F1 = 2 J / (1 + J) = 0.9124.
    men = scores.reports["gender"].iloc[0]
    assert men[["f1", "f1_high"]].tolist() == [1.0, 1.0]
    assert men["f1_low"] == pytest.approx(0.9124, abs=1e-4)


def aged(ages: list[int], answers: list[int]) -> pd.DataFrame:
    groups = np.searchsorted([14, 25, 40, 60], ages)
    return said_of(faces_of(groups, 0).assign(age=ages), age_group=answers)


def test_accuracy_by_distance_from_an_edge_by_hand() -> None:
    # On an edge: 14 (predicted 0-14, right), 25 (26-40, wrong). One year from it: 26. 3 or 4: 10.
    # 5 to 9: 20 (from 25) and 33 (from 40). The farthest from all edges: 90.
    table = aged([14, 25, 26, 10, 20, 33, 90], [0, 2, 2, 0, 1, 2, 3])
    found = accuracy_by_edge(table).set_index("years_from_edge")
    assert found.index.tolist() == ["0", "1", "2", "3-4", "5-9", "10 or more"]
    assert found["n"].tolist() == [2, 1, 0, 1, 2, 1]
    assert found["accuracy"].dropna().tolist() == [0.5, 1, 1, 1, 0]
    assert np.isnan(found.loc["2", "accuracy"])


def test_errors_in_years_by_hand() -> None:
    # Predicted 0-14 (mean 5), 26-40 (mean 32): |10 - 5| = 5, |30 - 32| = 2, |50 - 32| = 18. Their
    # true groups' means are 5, 32 and 50: 5, 2, 0.
    means = pd.Series([5.0, 20, 32, 50, 70])
    found = errors_in_years(aged([10, 30, 50], [0, 2, 2]), means)
    assert found["mae_years"].tolist() == pytest.approx([25 / 3, 25 / 3, 7 / 3])
    # 0.5 · 20 + 0.5 · 32 = 26 for a face of 30: 4 years off; predicted 15-25 it is 10 off.
    half = {"age_group": np.array([[0, 0.5, 0.5, 0, 0]])}
    found = errors_in_years(predictions_table(faces_of([2], [0]), "test", half), means)
    assert found["mae_years"].tolist()[:2] == [10, 4]
    # A group without training faces lies between its neighbours.
    some = mean_ages_of(aged([10, 12, 30, 50, 70], [0] * 5))
    assert some.fillna(-1).tolist() == [11, -1, 30, 50, 70]
    found = errors_in_years(aged([20], [1]), some)
    assert found["mae_years"].iloc[0] == pytest.approx(abs(20 - (11 + 30) / 2))
