"""A table survives being written and read, and what is no table is refused with a reason."""

from pathlib import Path

import pandas as pd
import pytest

from benchmark.data.table import (
    TABLE_COLUMNS,
    check_same_faces,
    placed,
    placed_as,
    read_table,
    write_table,
)
from benchmark.errors import DataError


def faces(n: int = 12) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "file": [f"25_0_{i % 5}_2017,{i:02d} .jpg" for i in range(n)],
            "sha256": [f"{i:064x}" for i in range(n)],
            "age": 25,
            "age_group": 1,
            "gender": 0,
            "race": [i % 5 for i in range(n)],
            "mode": "RGB",
            "width": 200,
            "height": 200,
        }
    ).sort_values("file", ignore_index=True)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = placed(faces(), near=[(0, 3)])
    write_table(tmp_path / "table.csv", table)
    read = read_table(tmp_path / "table.csv")
    assert list(read.columns) == list(TABLE_COLUMNS)
    assert read.to_dict("list") == table.to_dict("list")


def test_a_file_called_nothing_is_not_taken_for_a_missing_value(tmp_path: Path) -> None:
    table = placed(faces(), near=[])
    table.loc[0, "file"] = "NA"
    write_table(tmp_path / "table.csv", table)
    assert read_table(tmp_path / "table.csv")["file"][0] == "NA"


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("part", "holdout", "column part or fold"),
        ("part", "", "both or neither"),
        ("fold", 5, "column part or fold"),
        ("no_place_reason", "copy of x", "both or neither"),
        ("gender", 2, "labels outside 0 to 1"),
        ("cluster", "one", "something other than integers"),
        ("file", "25_0_1_2017,01 .jpg", "stands in it twice"),
    ],
)
def test_a_table_with_impossible_values_is_refused(
    tmp_path: Path, column: str, value: object, problem: str
) -> None:
    table = placed(faces(), near=[]).astype(object)
    table.loc[0, column] = value
    write_table(tmp_path / "table.csv", table)
    with pytest.raises(DataError, match=problem):
        read_table(tmp_path / "table.csv")


@pytest.mark.parametrize("text", ["", "file,part\na.jpg,train\n", "\x00\xff"])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="is not a table of faces"):
        read_table(tmp_path / "table.csv")


def test_a_placement_is_taken_over_by_file_name() -> None:
    there = placed(faces(), near=[(0, 3), (1, 2)])
    shuffled = there.sample(frac=1, random_state=0)
    here = placed_as(faces().assign(sha256="other bytes"), shuffled)
    assert here.drop(columns="sha256").equals(there.drop(columns="sha256"))


def test_missing_and_extra_faces_are_listed() -> None:
    there = placed(faces(), near=[])
    with pytest.raises(DataError, match=r"5 faces of the table .* and 2 more"):
        check_same_faces(faces(7), there, "table.csv")
    with pytest.raises(DataError, match="1 faces of the source are not in the table"):
        check_same_faces(faces(13), there, "table.csv")


def test_labels_that_disagree_are_told() -> None:
    there = placed(faces(), near=[])
    with pytest.raises(DataError, match="1 faces have another race"):
        check_same_faces(faces().assign(race=[1, *faces()["race"][1:]]), there, "table.csv")
