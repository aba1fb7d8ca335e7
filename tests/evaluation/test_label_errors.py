"""The most confident errors and possible label errors, by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.evaluation import figures
from benchmark.evaluation.artifacts import (
    SUSPECT_COLUMNS,
    SUSPECTS_PER_TASK,
    label_suspects,
    mistakes,
)
from benchmark.evaluation.predictions import predictions_table
from tests.evaluation.test_figures import CAPTION, texts
from tests.results.conftest import made_up_faces, made_up_predictions


def gender_table(labels: list[int], women: list[float], part: str = "test") -> pd.DataFrame:
    """Predict faces named by their place from the probability of being female."""
    faces = made_up_faces(len(labels)).assign(gender=labels)
    return predictions_table(faces, part, {"gender": np.column_stack([1 - np.array(women), women])})


def test_the_most_confident_errors_come_first_and_right_predictions_never() -> None:
    table = pd.concat([gender_table([0, 0, 1], [0.1, 0.95, 0.4]), gender_table([0], [0.9], "val")])
    found = mistakes(table)
    assert found[["file", "truth", "predicted"]].to_numpy().tolist() == [
        ["00001.jpg", "male", "female"], ["00002.jpg", "female", "male"],
    ]  # fmt: skip
    assert found["probability"].tolist() == pytest.approx([0.95, 0.6])
    assert found["probability_of_label"].tolist() == pytest.approx([0.05, 0.4])
    assert mistakes(gender_table([1], [0.9])).empty


def test_possible_label_errors_by_hand() -> None:
    # Female labels have 0.9, 0.8 and 0.1 of female, mean 0.6; male ones 0.1, 0.4, 0.3 of female,
    # so of male 0.9, 0.6, 0.7, mean 0.733. Face 2 is labelled female and predicted male at 0.9:
    # sure. No male label is predicted female.
    table = gender_table([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.1, 0.1, 0.4, 0.3])
    before = table.copy()
    found = label_suspects(table)
    pd.testing.assert_frame_equal(table, before)  # labels are never changed
    assert list(found.columns) == list(SUSPECT_COLUMNS)
    (row,) = found.to_dict("records")
    assert (row["file"], row["label"], row["contradicted_by"]) == ("00002.jpg", "female", "male")
    numbers = [row[name] for name in ("probability_of_label", "probability", "margin")]
    assert numbers == pytest.approx([0.1, 0.9, 0.8])


def test_the_widest_margin_comes_first_in_a_list_that_somebody_can_look_at() -> None:
    found = label_suspects(gender_table([0, 0, 0, 1], [0.7, 0.95, 0.8, 0.6]))
    assert found["file"].tolist() == ["00001.jpg", "00002.jpg", "00000.jpg"]
    assert found["rank"].tolist() == [1, 2, 3]
    long = gender_table([0] * 300 + [1], [0.9] * 300 + [0.6])
    assert len(label_suspects(long)) == SUSPECTS_PER_TASK


NO_SUSPECT = {
    "below the usual probability": gender_table([1, 0, 0], [0.45, 0.1, 0.1]),
    "validation faces": gender_table([0, 1], [0.9, 0.6], part="val"),
    "a class nobody is labelled with": gender_table([0, 0], [0.99, 0.2]),
}


def test_what_is_no_possible_label_error() -> None:
    for why, table in NO_SUSPECT.items():
        assert label_suspects(table).empty, why


def test_the_sheet_shows_each_possible_error_with_both_classes() -> None:
    table = made_up_predictions({"age_group": 1.0, "race": 1.2}, n=900)
    suspects, files = label_suspects(table), table["file"].unique()
    pixels = np.full((len(files), 8, 8, 3), 128, dtype=np.uint8)
    faces: Any = SimpleNamespace(table=pd.DataFrame({"file": files}), pixels=lambda: pixels)
    figure = figures.contact_sheet(suspects, faces, CAPTION)
    first = suspects[suspects["task"] == "race"].iloc[0]
    assert f"label {first['label']}\npredicted {first['contradicted_by']}" in texts(figure)
    assert figures.CAUTION in texts(figure)
    shown = suspects.groupby("task").size().clip(upper=figures.FACES_PER_TASK).sum()
    assert len(figure.axes[0].images) == shown > 16
