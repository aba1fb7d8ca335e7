"""Scoring: by hand on a few faces, equal to the libraries on random ones, and never a crash."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from benchmark.evaluation.metrics import accuracy_by_edge, errors_in_years, mean_ages_of, score
from benchmark.evaluation.predictions import predictions_table, read_predictions, write_predictions
from benchmark.tasks import TASKS
from tests.results.conftest import certain, made_up_faces, made_up_predictions

SKILLS = {"age_group": 1.2, "gender": 1.5, "race": 1.5}


def _faces(age_groups: list[int], genders: list[int]) -> pd.DataFrame:
    n = len(age_groups)
    return pd.DataFrame(
        {
            "file": [f"{index}.jpg" for index in range(n)],
            "cluster": range(n),
            "age": 30,
            "age_group": age_groups,
            "gender": genders,
            "race": 0,
        }
    )


def test_age_group_distances_by_hand() -> None:
    # Truth 0 1 2 4, predicted 0 2 4 0: off by 0 1 2 4, so within one 2/4 and mean 7/4.
    # Quadratic kappa = 1 - sum(observed d²) / sum(expected d²). Observed 0+1+4+16 = 21; expected:
    # all 16 pairs of a truth and a prediction over 4: truth 0: 0+4+16+0, 1: 1+1+9+1, 2: 4+0+4+4,
    # 4: 16+4+0+16; (20+12+12+36) / 4 = 20. So 1 - 21/20 = -0.05.
    faces = _faces([0, 1, 2, 4], [0, 0, 1, 1])
    table = predictions_table(faces, "test", {"age_group": certain([0, 2, 4, 0], "age_group")})
    metrics = score(table).metrics
    assert metrics["test/age_group/accuracy"] == 0.25
    assert metrics["test/age_group/within_one"] == 0.5
    assert metrics["test/age_group/mae_groups"] == 1.75
    assert metrics["test/age_group/qwk"] == pytest.approx(-0.05)


def test_kappa_of_two_groups_by_hand() -> None:
    # Truth 0 0 1 1, predicted 0 1 1 1: agreement 3/4, by chance 2/4 * 1/4 + 2/4 * 3/4 = 1/2; of two
    # neighbouring groups the weights are those of plain kappa: (3/4 - 1/2) / (1 - 1/2) = 1/2.
    faces = _faces([0, 0, 1, 1], [0, 0, 1, 1])
    table = predictions_table(faces, "test", {"age_group": certain([0, 1, 1, 1], "age_group")})
    assert score(table).metrics["test/age_group/qwk"] == pytest.approx(0.5)


def test_a_class_of_a_single_face_is_in_the_report() -> None:
    faces = _faces([0, 0, 1], [0, 0, 1])
    table = predictions_table(faces, "test", {"age_group": certain([0, 0, 1], "age_group")})
    report = score(table).reports["age_group"]
    assert report.loc[1, ["precision", "recall", "f1", "support"]].tolist() == [1, 1, 1, 1]


def test_combined_weighs_the_tasks() -> None:
    # Age group 1 of 2, gender 2 of 2, race 0 of 2 right: 0.4 * 0.5 + 0.2 * 1 + 0.4 * 0 = 0.4.
    answers = {
        "age_group": certain([0, 0], "age_group"),
        "gender": certain([0, 1], "gender"),
        "race": certain([1, 1], "race"),
    }
    faces = _faces([0, 1], [0, 1])
    both = [predictions_table(faces, part, answers) for part in ("val", "test")]
    metrics = score(pd.concat(both)).metrics
    assert metrics["test/combined"] == pytest.approx(0.4)
    assert metrics["selected/val/combined"] == pytest.approx(0.4)


def test_a_single_task_counts_alone_and_scores_nothing_else() -> None:
    metrics = score(made_up_predictions({"gender": 1.5})).metrics
    assert metrics["test/combined"] == metrics["test/gender/accuracy"]
    assert metrics["selected/val/combined"] == metrics["selected/val/gender/accuracy"]
    assert not any("/race/macro_f1" in name or "age_group/qwk" in name for name in metrics)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_the_libraries_on_random_tables(seed: int) -> None:
    table = made_up_predictions(SKILLS, n=1_200, seed=seed)
    scores, test = score(table), table[table["part"] == "test"]
    for task in TASKS:
        truth, predicted = test[task], test[f"{task}_pred"]
        ours = {name: scores.metrics[f"test/{task}/{name}"] for name in ("macro_f1", "accuracy")}
        assert ours["accuracy"] == sklearn_metrics.accuracy_score(truth, predicted)
        assert ours["macro_f1"] == pytest.approx(
            sklearn_metrics.f1_score(truth, predicted, average="macro")
        )
        assert scores.metrics[f"test/{task}/balanced_accuracy"] == pytest.approx(
            sklearn_metrics.balanced_accuracy_score(truth, predicted)
        )
        np.testing.assert_array_equal(
            scores.confusion[task], sklearn_metrics.confusion_matrix(truth, predicted)
        )
    kappa = sklearn_metrics.cohen_kappa_score(
        test["age_group"], test["age_group_pred"], weights="quadratic"
    )
    assert scores.metrics["test/age_group/qwk"] == pytest.approx(kappa)


def test_subgroup_metrics_are_those_of_the_table() -> None:
    table = made_up_predictions(SKILLS, n=2_000)
    scores, test = score(table), table[table["part"] == "test"]
    black_women = test[(test["gender"] == 1) & (test["race"] == 1)]
    accuracy = (black_women["gender"] == black_women["gender_pred"]).mean()
    assert scores.metrics["test/gender/accuracy/gender_race/female-black"] == accuracy
    assert scores.metrics["test/race/accuracy/age_group/61-plus"] > 0


def test_gap_is_the_best_less_the_worst_of_the_large_groups() -> None:
    # 40 men, 30 right; 50 women, 50 right; one race only, so that no race can be the worst.
    faces = _faces([0] * 90, [0] * 40 + [1] * 50)
    answers = [0] * 30 + [1] * 10 + [0] * 50
    table = predictions_table(faces, "test", {"age_group": certain(answers, "age_group")})
    metrics = score(table).metrics
    assert metrics["test/age_group/worst_gender"] == 0.75
    assert metrics["test/age_group/gap_gender"] == 0.25
    assert "test/age_group/worst_race" not in metrics


def test_groups_under_thirty_faces_are_in_the_table_and_not_in_the_metrics() -> None:
    faces = _faces([0] * 60, [0] * 31 + [1] * 29)
    answers = certain([0] * 31 + [1] * 29, "age_group")
    scores = score(predictions_table(faces, "test", {"age_group": answers}))
    women = scores.subgroups.query("by == 'gender' and group == 'female'").iloc[0]
    assert (women["n"], women["accuracy"]) == (29, 0.0)
    assert "test/age_group/accuracy/gender/male" in scores.metrics
    assert "test/age_group/accuracy/gender/female" not in scores.metrics
    assert "test/age_group/worst_gender" not in scores.metrics


def test_an_empty_group_has_no_metric() -> None:
    scores = score(made_up_predictions(SKILLS, n=100).query("race != 2"))
    assert not any(name.endswith("/asian") for name in scores.metrics)
    assert not any(np.isnan(value) for value in scores.metrics.values())


def test_one_class_and_all_right_gives_numbers_not_a_crash() -> None:
    faces = _faces([2] * 40, [1] * 40)
    answers = {task: certain(faces[task], task) for task in TASKS}
    scores = score(predictions_table(faces, "test", answers))
    assert scores.metrics["test/age_group/accuracy"] == 1.0
    assert scores.metrics["test/age_group/balanced_accuracy"] == 1.0
    assert "test/age_group/qwk" not in scores.metrics
    assert "test/age_group/macro_f1" not in scores.metrics


def test_a_class_that_does_not_occur_is_missing_in_the_report() -> None:
    # Truth 0 0 1 1, predicted 0 2 1 1: class 0 has precision 1, recall 1/2, F1 2/3; class 2 is
    # predicted once in vain and has no face; class 3 is neither.
    faces = _faces([0, 0, 1, 1], [0, 0, 1, 1])
    answers = {"age_group": certain([0, 2, 1, 1], "age_group")}
    report = score(predictions_table(faces, "test", answers)).reports["age_group"]
    assert report["class"].tolist() == ["0-14", "15-25", "26-40", "41-60", "61+"]
    assert report["support"].tolist() == [2, 2, 0, 0, 0]
    assert report.loc[0, ["precision", "recall", "f1"]].tolist() == pytest.approx([1, 0.5, 2 / 3])
    assert report.loc[2, "precision"] == 0.0
    assert report.loc[2:, ["recall", "f1"]].isna().all(axis=None)
    assert pd.isna(report.loc[3, "precision"])


def test_without_test_faces_only_validation_is_scored() -> None:
    table = made_up_predictions(SKILLS)
    scores = score(table[table["part"] == "val"])
    numbers = ("accuracy", "macro_f1", "temperature")
    assert set(scores.metrics) == {
        "selected/val/combined",
        *(f"selected/val/{task}/{name}" for task in TASKS for name in numbers),
    }
    assert all(len(table) == 0 for table in (scores.subgroups, scores.gaps, scores.intervals))
    assert scores.confusion == {}


def test_metric_names_hold_nothing_that_mlflow_refuses() -> None:
    names = score(made_up_predictions(SKILLS, n=3_000)).metrics
    assert not any(set(name) & set("+=@%()") for name in names)


def test_a_stored_table_gives_the_same_numbers(tmp_path: Path) -> None:
    table = made_up_predictions(SKILLS)
    write_predictions(tmp_path / "predictions.csv", table)
    stored = score(read_predictions(tmp_path / "predictions.csv"))
    assert stored.metrics == pytest.approx(score(table).metrics)


def test_scoring_a_whole_run_takes_under_five_seconds() -> None:
    table = made_up_predictions(SKILLS, n=4_630)
    started = time.process_time()
    score(table)
    assert time.process_time() - started < 5.0


def test_ends_of_intervals_and_what_chance_gives_are_metrics() -> None:
    scores = score(made_up_predictions(SKILLS, n=1_000))
    intervals = scores.intervals.drop_duplicates("metric").set_index("metric")
    for name in ("test/race/accuracy", "test/race/ece", "test/age_group/qwk", "test/combined"):
        ends = [scores.metrics[f"{name}/{end}"] for end in ("low", "high")]
        assert ends == intervals.loc[name, ["low", "high"]].tolist()
        assert ends[0] <= scores.metrics[name] <= ends[1]
    gap = scores.gaps.query("task == 'gender' and by == 'race'").iloc[0]
    assert scores.metrics["test/gender/gap_race"] == gap["gap"]
    assert scores.metrics["test/gender/gap_race/chance"] == gap["chance_gap"]
    assert scores.metrics["test/gender/ratio_race/low"] == gap["ratio_low"]


def test_a_groups_number_travels_with_its_count() -> None:
    table = made_up_predictions(SKILLS, n=2_000)
    metrics, test = score(table).metrics, table[table["part"] == "test"]
    assert metrics["test/n_faces/race/black"] == (test["race"] == 1).sum()
    assert 0 < metrics["test/gender/macro_f1/race/black"] < 1


def test_scores_cannot_be_changed() -> None:
    scores = score(made_up_predictions({"gender": 1.5}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.metrics = {}  # type: ignore[misc]


def test_faces_of_one_cluster_are_counted() -> None:
    faces = made_up_faces(10).assign(cluster=[0, 0, 0, *range(1, 8)])
    table = predictions_table(faces, "test", {"gender": certain(faces["gender"], "gender")})
    metrics = score(table).metrics
    assert metrics["test/n_faces"] - metrics["test/n_clusters"] == 2


def _aged(ages: list[int], answers: list[int]) -> pd.DataFrame:
    groups = [int(np.searchsorted([14, 25, 40, 60], age)) for age in ages]
    faces = _faces(groups, [0] * len(ages)).assign(age=ages)
    return predictions_table(faces, "test", {"age_group": certain(answers, "age_group")})


def test_accuracy_by_distance_from_an_edge_by_hand() -> None:
    # On an edge: 14 (read 0-14, right), 25 (read 26-40, wrong). One year from it: 26. 3 or 4: 10.
    # 5 to 9: 20 (from 25) and 33 (from 40). The farthest from all edges: 90.
    table = _aged([14, 25, 26, 10, 20, 33, 90], [0, 2, 2, 0, 1, 2, 3])
    found = accuracy_by_edge(table).set_index("years_from_edge")
    assert found.index.tolist() == ["0", "1", "2", "3-4", "5-9", "10 or more"]
    assert found["n"].tolist() == [2, 1, 0, 1, 2, 1]
    assert found["accuracy"].dropna().tolist() == [0.5, 1, 1, 1, 0]
    assert np.isnan(found.loc["2", "accuracy"])
    # Wilson, 1 of 1: low = 1 / (1 + 1.96²) = 0.2065.
    assert found.loc["1", ["low", "high"]].tolist() == pytest.approx([0.2065, 1], abs=1e-4)


def test_errors_in_years_by_hand() -> None:
    # Read as 0-14 (mean 5), 26-40 (mean 32): |10 - 5| = 5, |30 - 32| = 2, |50 - 32| = 18. Their
    # true groups' means are 5, 32 and 50: 5, 2, 0.
    table = _aged([10, 30, 50], [0, 2, 2])
    found = errors_in_years(table, [5, 20, 32, 50, 70]).set_index(["read_as", "group"])["mae_years"]
    assert found["predicted group", "all"] == pytest.approx(25 / 3)
    assert found["predicted group", "41-60"] == 18
    assert found["expected age", "all"] == pytest.approx(25 / 3)
    assert found["true group", "all"] == pytest.approx(7 / 3)


def test_an_expected_age_weighs_means_by_probabilities() -> None:
    # 0.5 · 20 + 0.5 · 32 = 26 for a face of 30: 4 years off; read as 15-25 it is 10 off.
    answer = np.array([[0, 0.5, 0.5, 0, 0]])
    table = predictions_table(_faces([2], [0]).assign(age=30), "test", {"age_group": answer})
    found = errors_in_years(table, [5, 20, 32, 50, 70]).set_index(["read_as", "group"])["mae_years"]
    assert found["expected age", "all"] == 4
    assert found["predicted group", "all"] == 10


def test_a_group_without_training_faces_lies_between_its_neighbours() -> None:
    means = mean_ages_of(_aged([10, 12, 30, 50, 70], [0] * 5))
    assert means == [11, None, 30, 50, 70]
    found = errors_in_years(_aged([20], [1]), means)
    assert found["mae_years"].iloc[0] == pytest.approx(abs(20 - (11 + 30) / 2))


def test_faces_without_an_age_have_no_errors_in_years() -> None:
    table = _aged([14, 30], [0, 2]).assign(age=-1)
    assert score(table, [5, 20, 32, 50, 70]).tables.keys().isdisjoint({"age_edges", "age_years"})


def test_further_tables_come_with_the_scores() -> None:
    scores = score(made_up_predictions(SKILLS, n=2_000), [7, 20, 33, 50, 70])
    assert set(scores.tables) == {
        "subgroup_ece", "subgroup_rates", "gender_gaps", "age_edges", "age_years",
    }  # fmt: skip
    assert all(len(table) for table in scores.tables.values())
    intervals = scores.intervals.set_index("metric")
    for name in ("nll", "brier"):
        value = scores.metrics[f"test/race/{name}"]
        assert intervals.loc[f"test/race/{name}", "low"] < value
        assert value < intervals.loc[f"test/race/{name}", "high"]
