"""A table of labels in any usual encoding; what is none is refused with what was found."""

from pathlib import Path

import pytest

from benchmark.data.label_tables import parse_label_file, read_label_file
from benchmark.errors import DataError

TEXT = "file,age,gender\nJosé.jpg,25,male\nb.jpg,30,female\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_usual_encodings_are_read_alike(encoding: str) -> None:
    table = parse_label_file("labels.csv", TEXT.encode(encoding))
    assert table.encoding == encoding
    assert table.cells["file"].tolist() == ["José.jpg", "b.jpg"]
    assert table.cells.columns.tolist() == ["file", "age", "gender"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_headings_are_known(delimiter: str) -> None:
    rows = [["Image_Path", "Sex", "AGE"], ["a, b.jpg", "F", "7"]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    table = parse_label_file("labels.csv", text.encode())
    assert table.cells.to_dict("list") == {"file": ["a, b.jpg"], "age": ["7"], "gender": ["F"]}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "it is empty"),
        (b"file,age\n", "it has no rows"),
        (b"name,years\na.jpg,3\n", "no column file and none of age.*'name', 'years'"),
        (b"file,hair\na.jpg,red\n", "no column age, age_group, gender or race"),
        (b"age,gender\n3,male\n", "no column file"),
        (b"file,gender,sex\na.jpg,m,f\n", "'gender' and 'sex' both say gender"),
        (b"file,age\na.jpg,3\nb.jpg\n", "row 3 has 1 cells"),
        (b"PK\x03\x04rest", "it is a spreadsheet"),
        (b"file,age\n\0\0\0", "bytes that no text has"),
        (b"\xff\xfef\xd8", "encoding"),
    ],
)
def test_what_is_no_table_of_labels_is_refused(content: bytes, found: str) -> None:
    with pytest.raises(DataError, match=found):
        parse_label_file("labels.csv", content)


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no table of labels"):
        read_label_file(tmp_path / "labels.csv")
