"""The predictions table: read back as it was written, bad ones refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.evaluation.predictions import predictions_table, read_predictions, write_predictions
from benchmark.files import sha256_of
from tests.made_runs import certain, made_up_faces, made_up_predictions


@pytest.fixture
def table() -> pd.DataFrame:
    return made_up_predictions({"age_group": 1.0, "gender": 1.0, "race": 1.0}, n=8)


def test_a_table_is_read_as_it_was_written_to_the_fp32_digit_with_columns_in_order(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv")]
    for path in paths:
        write_predictions(path, table)
    pd.testing.assert_frame_equal(read_predictions(paths[0]), table, rtol=1e-8)
    assert sha256_of(paths[0]) == sha256_of(paths[1])
    women = np.random.default_rng(0).random(500, dtype=np.float32)
    fp32 = np.column_stack([1 - women, women])
    write_predictions(paths[0], predictions_table(made_up_faces(500), "test", {"gender": fp32}))
    stored = read_predictions(paths[0])[["gender_p0", "gender_p1"]].to_numpy()
    np.testing.assert_array_equal(stored.astype(np.float32), fp32)
    table = predictions_table(made_up_faces(3), "val", {"gender": certain([0, 1, 1], "gender")})
    assert list(table.columns) == [
        "schema", "file", "cluster", "part", "age", "age_group", "gender", "race",
        "gender_pred", "gender_p0", "gender_p1",
    ]  # fmt: skip
    assert table["gender_pred"].tolist() == [0, 1, 1]


def _first(table: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    values = table[column].astype(object)
    values.iloc[0] = value
    return table.assign(**{column: values})


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "other schema": (lambda t: t.assign(schema=2), "have schema 2 .*allowed: schema 1"),
    "no schema": (lambda t: t.drop(columns="schema"), "miss the column 'schema'"),
    "lost column": (lambda t: t.drop(columns="race_p4"), "miss the column 'race_p4'"),
    "strange column": (lambda t: t.assign(note=1), "unknown column 'note'"),
    "no task": (lambda t: t.iloc[:, :8], "hold no predicted task"),
    "no face": (lambda t: t.iloc[:0], "hold no face"),
    "NaN": (lambda t: _first(t, "race_p1", np.nan), "the sum of race's .* '00000.jpg' is nan"),
    "no file name": (lambda t: _first(t, "file", None), "the file name of face nan is nan"),
    "twice": (lambda t: pd.concat([t, t[:1]]), "of face '00000.jpg' is val, twice"),
    "unknown part": (lambda t: t.assign(part="train"), "part of face '00000.jpg' is train.*val or"),
    "label out of range": (lambda t: _first(t, "race", 5), "race of face '00000.jpg' is 5.*0 to 4"),
    "no label": (lambda t: t.assign(age_group=None, gender=None, race=None),
                 "of face '00000.jpg' is missing .*a label of at least one predicted task"),
    "prediction out of range": (lambda t: _first(t, "gender_pred", 2), "gender_pred .* is 2"),
    "broken label": (lambda t: _first(t, "age_group", 1.5), "age_group .* is 1.5"),
    "label in words": (lambda t: _first(t, "gender", "female"), "gender .* is female"),
    "age 0": (lambda t: _first(t, "age", 0), "age .* is 0 .*1 to 116"),
    "cluster below 0": (lambda t: _first(t, "cluster", -1), "cluster .* is -1"),
    "sum": (lambda t: t.assign(race_p0=t["race_p0"] + 2e-4), r"the sum of race's .* is 1\.0002"),
    "negative": (lambda t: t.assign(gender_p0=-0.1, gender_p1=1.1, gender_pred=1),
                 "the least of gender's probabilities .* is -0.1"),
    "not the most probable": (lambda t: t.assign(gender_pred=1 - t["gender_pred"]),
                              "gender_pred of face '00000.jpg' is .*the most probable class"),
}  # fmt: skip


def test_a_bad_table_is_refused_with_the_reason(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    for spoil, reason in BAD.values():
        spoil(table).to_csv(path, index=False)
        with pytest.raises(RunError, match=reason):
            read_predictions(path)
    path.unlink()
    with pytest.raises(RunError, match="the part of face"):
        write_predictions(path, table.assign(part="train"))
    assert not path.exists()
    for content, reason in ((None, "cannot be"), ("", "cannot be"), ('a,"b\nc', "cannot be")):
        _ = content is None or path.write_text(content)
        with pytest.raises(RunError, match=reason):
            read_predictions(path)


def test_sums_within_the_tolerance_and_a_face_in_both_parts_are_accepted(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    # The published protocol draws its parts independently; the leak is shown, not hidden.
    both = pd.concat([table, table[:1].assign(part="test")])
    write_predictions(tmp_path / "p.csv", both.assign(race_p0=both["race_p0"] + 0.9e-4))
    assert len(read_predictions(tmp_path / "p.csv")) == len(both)
