"""The age group with its years: accuracy near edges and errors in years, by hand."""

import numpy as np
import pandas as pd
import pytest

from benchmark.evaluation.metrics import accuracy_by_edge, errors_in_years, mean_ages_of
from benchmark.evaluation.predictions import predictions_table
from tests.evaluation.test_metrics import _faces
from tests.results.conftest import certain


def _aged(ages: list[int], answers: list[int]) -> pd.DataFrame:
    groups = [int(np.searchsorted([14, 25, 40, 60], age)) for age in ages]
    faces = _faces(groups, [0] * len(ages)).assign(age=ages)
    return predictions_table(faces, "test", {"age_group": certain(answers, "age_group")})


def test_accuracy_by_distance_from_an_edge_by_hand() -> None:
    # On an edge: 14 (predicted 0-14, right), 25 (26-40, wrong). One year from it: 26. 3 or 4: 10.
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
    # Predicted 0-14 (mean 5), 26-40 (mean 32): |10 - 5| = 5, |30 - 32| = 2, |50 - 32| = 18. Their
    # true groups' means are 5, 32 and 50: 5, 2, 0.
    means = [5, 20, 32, 50, 70]
    found = errors_in_years(_aged([10, 30, 50], [0, 2, 2]), means)
    found = found.set_index(["read_as", "group"])["mae_years"]
    assert found["predicted group", "all"] == pytest.approx(25 / 3)
    assert found["predicted group", "41-60"] == 18
    assert found["expected age", "all"] == pytest.approx(25 / 3)
    assert found["true group", "all"] == pytest.approx(7 / 3)
    # 0.5 · 20 + 0.5 · 32 = 26 for a face of 30: 4 years off; predicted 15-25 it is 10 off.
    half = {"age_group": np.array([[0, 0.5, 0.5, 0, 0]])}
    found = errors_in_years(predictions_table(_faces([2], [0]), "test", half), means)
    assert found.query("group == 'all'")["mae_years"].tolist()[:2] == [10, 4]


def test_a_group_without_training_faces_lies_between_its_neighbours() -> None:
    means = mean_ages_of(_aged([10, 12, 30, 50, 70], [0] * 5))
    assert means == [11, None, 30, 50, 70]
    found = errors_in_years(_aged([20], [1]), means)
    assert found["mae_years"].iloc[0] == pytest.approx(abs(20 - (11 + 30) / 2))
