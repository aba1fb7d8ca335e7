"""The surest mistakes come first, and right answers never."""

import pandas as pd

from benchmark.evaluation.suspects import mistakes


def test_mistakes_are_listed_surest_first_with_both_probabilities() -> None:
    predictions = pd.DataFrame(
        {
            "file": ["right", "sure", "unsure", "validation"],
            "part": ["test", "test", "test", "val"],
            "gender": [0, 0, 1, 0],
            "gender_pred": [0, 1, 0, 1],
            "gender_p0": [0.9, 0.05, 0.6, 0.1],
            "gender_p1": [0.1, 0.95, 0.4, 0.9],
        }
    )
    found = mistakes(predictions)
    assert found["file"].tolist() == ["sure", "unsure"]
    assert found["truth"].tolist() == ["male", "female"]
    assert found["predicted"].tolist() == ["female", "male"]
    assert found["probability"].tolist() == [0.95, 0.6]
    assert found["probability_of_label"].tolist() == [0.05, 0.4]


def test_a_network_without_mistakes_has_an_empty_list() -> None:
    predictions = pd.DataFrame(
        {
            "file": ["a"], "part": ["test"], "gender": [1], "gender_pred": [1],
            "gender_p0": [0.1], "gender_p1": [0.9],
        }
    )  # fmt: skip
    assert mistakes(predictions).empty
