"""The predictions table: written and read back unchanged; every bad one refused with the reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.data.splits import PartName, Rows
from benchmark.errors import RunError
from benchmark.evaluation.predictions import (
    check_faces,
    check_same_faces,
    predictions_digest,
    predictions_table,
    read_predictions,
    write_predictions,
)
from benchmark.tasks import TASKS
from tests.results.conftest import certain, made_up_faces, made_up_predictions


@pytest.fixture
def table() -> pd.DataFrame:
    return made_up_predictions({"age_group": 1.0, "gender": 1.0, "race": 1.0}, n=8)


def test_a_table_is_read_as_it_was_written(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, table)
    pd.testing.assert_frame_equal(read_predictions(path), table, rtol=1e-8)


def test_nine_digits_give_the_fp32_value_back(tmp_path: Path) -> None:
    faces = made_up_faces(500)
    women = np.random.default_rng(0).random(500, dtype=np.float32)
    fp32 = np.column_stack([1 - women, women])
    path = tmp_path / "predictions.csv"
    write_predictions(path, predictions_table(faces, "test", {"gender": fp32}))
    stored = read_predictions(path)[["gender_p0", "gender_p1"]].to_numpy()
    np.testing.assert_array_equal(stored.astype(np.float32), fp32)


def test_equal_tables_give_equal_digests(table: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_predictions(tmp_path / name, table)
    assert predictions_digest(tmp_path / "a.csv") == predictions_digest(tmp_path / "b.csv")


def test_columns_stand_in_the_order_of_the_design() -> None:
    faces = made_up_faces(3)
    table = predictions_table(faces, "val", {"gender": certain([0, 1, 1], "gender")})
    assert list(table.columns) == [
        "schema", "file", "cluster", "part", "age", "age_group", "gender", "race",
        "gender_pred", "gender_p0", "gender_p1",
    ]  # fmt: skip
    assert table["gender_pred"].tolist() == [0, 1, 1]


def test_probabilities_of_another_shape_are_refused() -> None:
    with pytest.raises(RunError, match=r"race have the shape \(3, 2\).*\(3, 5\)"):
        predictions_table(made_up_faces(3), "val", {"race": certain([0, 1, 1], "gender")})


def _first(table: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """Put `value` into the first row."""
    values = table[column].astype(object)
    values.iloc[0] = value
    return table.assign(**{column: values})


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "other schema": (lambda t: t.assign(schema=2), "have schema 2 .*allowed: schema 1"),
    "two schemas": (lambda t: _first(t, "schema", 3), "have schema 1, 3"),
    "no schema": (lambda t: t.drop(columns="schema"), "no column 'schema'"),
    "lost column": (lambda t: t.drop(columns="race_p4"), "miss the column 'race_p4'"),
    "no truth": (lambda t: t.drop(columns="race"), "miss the column 'race'"),
    "strange column": (lambda t: t.assign(note=1), "unknown column 'note'"),
    "no task": (lambda t: t.iloc[:, :8], "hold no predicted task"),
    "no face": (lambda t: t.iloc[:0], "hold no face"),
    "NaN": (lambda t: _first(t, "race_p1", np.nan), "race_p1 of face '00000.jpg' is missing"),
    "no file name": (lambda t: _first(t, "file", None), "file of a face is missing"),
    "twice": (lambda t: pd.concat([t, t[:1]]), "'00000.jpg' is there twice in part 'val'"),
    "unknown part": (lambda t: t.assign(part="train"), "hold the part 'train'.*val or test"),
    "label out of range": (lambda t: _first(t, "race", 5), "race of face '00000.jpg' is 5.*0 to 4"),
    "negative label": (lambda t: _first(t, "gender", -1), "gender of face '00000.jpg' is -1"),
    "prediction out of range": (lambda t: _first(t, "gender_pred", 2), "gender_pred .* is 2"),
    "broken label": (lambda t: _first(t, "age_group", 1.5), "age_group .* is 1.5"),
    "label in words": (lambda t: _first(t, "gender", "female"), "gender .* is female"),
    "age 0": (lambda t: _first(t, "age", 0), "age .* is 0 .*1 to 116"),
    "cluster below 0": (lambda t: _first(t, "cluster", -1), "cluster .* is -1"),
    "sum": (lambda t: t.assign(race_p0=t["race_p0"] + 2e-4), r"race .* sum to 1\.0002"),
    "negative": (
        lambda t: t.assign(gender_p0=-0.1, gender_p1=1.1, gender_pred=1),
        "smallest at -0.1",
    ),
    "not the most probable": (
        lambda t: t.assign(gender_pred=1 - t["gender_pred"]),
        "gender_pred of face '00000.jpg' is ., but class . is more probable",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_with_the_reason(
    case: str, table: pd.DataFrame, tmp_path: Path
) -> None:
    spoil, reason = BAD[case]
    path = tmp_path / "predictions.csv"
    spoil(table).to_csv(path, index=False)
    with pytest.raises(RunError, match=reason):
        read_predictions(path)


def test_a_bad_table_is_not_written(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="hold the part"):
        write_predictions(tmp_path / "predictions.csv", table.assign(part="train"))
    assert list(tmp_path.iterdir()) == []


def test_sums_within_the_tolerance_are_accepted(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, table.assign(race_p0=table["race_p0"] + 0.9e-4))
    assert len(read_predictions(path)) == len(table)


def test_one_face_may_stand_in_both_parts(table: pd.DataFrame, tmp_path: Path) -> None:
    # The published protocol draws its parts independently; the leak is shown, not hidden.
    both = pd.concat([table, table[:1].assign(part="test")])
    write_predictions(tmp_path / "predictions.csv", both)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "there are no predictions"), ("", "cannot be read"), ('a,"b\nc', "cannot be read")],
)
def test_a_missing_or_broken_file_is_refused(
    content: str | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunError, match=reason):
        read_predictions(path)


def test_a_single_task_table_holds_all_truths(tmp_path: Path) -> None:
    table = made_up_predictions({"race": 1.0}, n=6)
    assert set(TASKS) < set(table.columns)
    assert "gender_pred" not in table


COUNTS = {"val": 4, "test": 4}


def test_all_faces_of_the_run_are_enough(table: pd.DataFrame) -> None:
    check_faces(table, COUNTS, "here")


def test_a_test_part_that_was_not_read_is_no_fault(table: pd.DataFrame) -> None:
    check_faces(table[table["part"] == "val"], COUNTS, "here")


@pytest.mark.parametrize("part", ["val", "test"])
def test_predictions_that_miss_a_face_are_refused(part: str, table: pd.DataFrame) -> None:
    first = table[table["part"] == part].index[0]
    with pytest.raises(RunError, match=f"hold 3 faces of part '{part}' .*the 4"):
        check_faces(table.drop(index=first), COUNTS, "here")


def the_data_set() -> tuple[pd.DataFrame, dict[PartName, Rows]]:
    """The faces that `table` predicts, and their parts."""
    rows = np.arange(8)
    return made_up_faces(8), {"train": rows[:0], "val": rows[:4], "test": rows[4:]}


def test_predictions_of_these_very_faces_are_accepted(table: pd.DataFrame) -> None:
    check_same_faces(table, *the_data_set(), "here")


def test_predictions_of_another_split_are_refused(table: pd.DataFrame) -> None:
    faces, parts = the_data_set()
    swapped: dict[PartName, Rows] = parts | {"val": parts["test"], "test": parts["val"]}
    with pytest.raises(RunError, match=r"val faces of this data set: 8 stand on one side"):
        check_same_faces(table, faces, swapped, "here")


def test_predictions_of_another_version_of_the_labels_are_refused(table: pd.DataFrame) -> None:
    faces, parts = the_data_set()
    with pytest.raises(RunError, match=r"gender of face '00000.jpg' is . \(4 such faces\)"):
        check_same_faces(table, faces.assign(gender=1 - faces["gender"]), parts, "here")
