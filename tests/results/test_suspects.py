"""Label suspects: confident contradictions, surest first; joined over folds, each face once."""

import numpy as np
import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.evaluation.predictions import predictions_table
from benchmark.evaluation.suspects import (
    SUSPECT_COLUMNS,
    SUSPECTS_PER_TASK,
    label_suspects,
    out_of_fold,
)
from tests.results.conftest import made_up_faces, made_up_predictions


def gender_table(labels: list[int], women: list[float], part: str = "test") -> pd.DataFrame:
    """Predict faces named by their place from the probability of being female."""
    faces = made_up_faces(len(labels)).assign(gender=labels)
    return predictions_table(faces, part, {"gender": np.column_stack([1 - np.array(women), women])})


def test_suspects_by_hand() -> None:
    # Female labels have 0.9, 0.8 and 0.1 of female, mean 0.6; male ones 0.1, 0.4, 0.3 of female,
    # so of male 0.9, 0.6, 0.7, mean 0.733. Face 2 is labelled female and read male at 0.9: sure.
    # No male label is read as female.
    table = gender_table([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.1, 0.1, 0.4, 0.3])
    found = label_suspects(table)
    assert list(found.columns) == list(SUSPECT_COLUMNS)
    row = found.iloc[0]
    assert len(found) == 1
    assert (row["file"], row["label"], row["contradicted_by"]) == ("00002.jpg", "female", "male")
    assert row[["probability_of_label", "probability", "margin"]].tolist() == pytest.approx(
        [0.1, 0.9, 0.8]
    )


def test_a_contradiction_below_the_usual_sureness_is_none() -> None:
    # Read male at 0.55, where faces labelled male have 0.9 on average.
    assert label_suspects(gender_table([1, 0, 0], [0.45, 0.1, 0.1])).empty


def test_the_widest_margin_comes_first_and_ranks_count_from_one() -> None:
    table = gender_table([0, 0, 0, 1], [0.7, 0.95, 0.8, 0.6])
    found = label_suspects(table)
    assert found["file"].tolist() == ["00001.jpg", "00002.jpg", "00000.jpg"]
    assert found["rank"].tolist() == [1, 2, 3]


def test_only_test_faces_are_suspects() -> None:
    table = gender_table([0, 1], [0.9, 0.6], part="val")
    assert label_suspects(table).empty


def test_a_class_nobody_is_labelled_with_contradicts_nothing() -> None:
    assert label_suspects(gender_table([0, 0], [0.99, 0.2])).empty


def test_a_list_is_no_longer_than_somebody_can_look_at() -> None:
    table = gender_table([0] * 300 + [1], [0.9] * 300 + [0.6])
    assert len(label_suspects(table)) == SUSPECTS_PER_TASK


def test_labels_are_never_changed() -> None:
    table = made_up_predictions({"race": 1.0}, n=200)
    before = table.copy()
    label_suspects(table)
    pd.testing.assert_frame_equal(table, before)


def folds_of(n: int = 50) -> dict[int, pd.DataFrame]:
    """Predict n faces, a fifth of them in the test part of each fold."""
    table = made_up_predictions({"gender": 1.0}, n=2 * n).query("part == 'test'")
    return {fold: table[fold::5] for fold in range(5)}


def test_five_folds_hold_each_face_once_and_only_their_test_part() -> None:
    folds = folds_of()
    folds[0] = pd.concat([folds[0], folds[1].assign(part="val")])
    joined = out_of_fold(folds, 50)
    assert len(joined) == 50
    assert joined["file"].is_unique
    assert (joined["part"] == "test").all()


def test_a_missing_fold_is_refused() -> None:
    folds = folds_of()
    del folds[2]
    with pytest.raises(RunError, match="fold 2 is missing"):
        out_of_fold(folds)


def test_a_face_in_two_folds_is_refused() -> None:
    folds = folds_of()
    folds[3] = pd.concat([folds[3], folds[4].head(1)])
    with pytest.raises(RunError, match="tested in two folds"):
        out_of_fold(folds)


def test_folds_that_miss_faces_are_refused() -> None:
    with pytest.raises(RunError, match=r"test 50 faces .*the 51"):
        out_of_fold(folds_of(), 51)


def test_folds_of_other_tasks_are_refused() -> None:
    folds = folds_of()
    folds[1] = made_up_predictions({"race": 1.0}, n=20)
    with pytest.raises(RunError, match="different tasks"):
        out_of_fold(folds)
