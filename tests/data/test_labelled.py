"""A folder and a table become a data set as any other; what the table does not tell is counted."""

import os
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli.data import _print_labels
from benchmark.cli.output import out
from benchmark.data.dataset import FaceSet, draw_sample
from benchmark.data.labelled import findings, gaps, label_gaps
from benchmark.data.labels import parse_map
from benchmark.data.prepare import audit, prepare
from benchmark.data.splits import parts_of
from benchmark.errors import DataError
from benchmark.tasks import MISSING
from tests.data.sources import encoded, folder_of, jpeg, picture, zip_of

GENDERS = ("male", "female")
RACES = ("White", "Black", "East Asian", "Indian", "Latino_Hispanic")
ROWS = [f"p{i}.jpg,{1 + i * 7 % 90},{GENDERS[i % 2]},{RACES[i % 5]}" for i in range(40)]


def photos(tmp_path: Path, n: int = 40, **more: bytes) -> Path:
    """A folder of n pictures called p0.jpg … and others."""
    return folder_of(tmp_path / "photos", {f"p{i}.jpg": jpeg(i) for i in range(n)} | more)


def prepared(
    source: Path, rows: list[str], head: str = "file,age,gender,race", **options: Any
) -> FaceSet:
    """The source with labels.csv beside it."""
    table = source.parent / "labels.csv"
    table.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    data_dir = source.parent / "data"
    return prepare(source, data_dir, image_px=24, labels=[table], **options).faces


def test_a_folder_or_archive_with_a_table_is_a_sound_data_set(tmp_path: Path) -> None:
    faces = prepared(photos(tmp_path), ROWS)
    assert [len(rows) for rows in parts_of(faces).values()] == [32, 4, 4]
    assert audit(faces)["findings"] == []
    first = faces.table.set_index("file").loc["p4.jpg"]
    assert first[["age", "age_group", "gender", "race"]].tolist() == [29, 2, 0, 4]
    assert (words := faces.words()) is not None
    assert words.set_index("file").loc["p4.jpg"].tolist() == ["29", "male", "Latino_Hispanic"]
    archive = zip_of(tmp_path / "photos.zip", {f"deep/p{i}.jpg": jpeg(i) for i in range(40)})
    zipped = prepared(archive, ROWS, name="zipped")
    assert zipped.split_digest == faces.split_digest
    assert zipped.labels_digest == faces.labels_digest
    changed = FaceSet(faces.folder, faces.manifest, faces.table.assign(gender=0))
    assert "other labels than the table of labels" in audit(changed)["findings"][0]
    with pytest.raises(DataError, match="prepared with labels"):
        prepared(tmp_path / "photos", ROWS, given={("race", "white"): 4})


def test_a_task_the_table_does_not_tell_is_empty_in_a_sample_too(tmp_path: Path) -> None:
    rows = [f"p{i}.jpg,{GENDERS[i % 2]}" for i in range(120)]
    faces = prepared(photos(tmp_path, 120), rows, "file,gender")
    lines = (faces.folder / "table.csv").read_text().splitlines()
    assert lines[1].split(",")[2:6] in (["", "", "0", ""], ["", "", "1", ""])
    assert [(faces.table[task] != MISSING).sum() for task in ("gender", "race")] == [120, 0]
    said = " ".join(gaps(faces.manifest["labels"], 120))
    assert "120 of 120 faces (100.0 %) have no race: left out of whatever needs it" in said
    sample = draw_sample(faces, 100, "small")
    assert audit(faces)["findings"] == audit(sample)["findings"] == []
    assert sample.manifest["labels"]["without"]["race"] == len(sample.table)


def test_a_row_means_one_picture_a_picture_one_row_and_others_are_listed(tmp_path: Path) -> None:
    others = ("train/1", "val/1", "x/2", "y/2", "3", "deep/p4", "deep/q")
    files = {f"{name}.jpg": jpeg(40 + i) for i, name in enumerate(others)}
    files |= {f"p{n}.png": encoded(picture(n), "PNG") for n in (30, 31)} | {"p31.jpeg": jpeg(31)}
    files |= {f"p{n}.jpg": jpeg(32 + n // 34) for n in (32, 33, 34, 35)}  # two and two are equal
    files |= {os.fsdecode(b"caf\xe9.jpg"): jpeg(50), "c.heic": b"\0\0\0\x18ftypheic"}
    source = photos(tmp_path, 30, **files, **{"notes.txt": b"x"})
    paths = ["D:\\faces\\photos\\p0.jpg", f"{source}/p1.jpg", "./photos/p2.jpg", "far/away/p3.jpg"]
    paths += ["z/2.jpg", "a/3.jpg", "b/3.jpg", "deep/q.jpg", "q.jpg", "gone.jpg"]
    rows = [f"{path},30,male,White" for path in (*paths, "p30.jpg", "p31.jpg", "p32.jpg")]
    rows += ["set/train/1.jpg,10,male,White", "C:/set/val/1.jpg,70,female,Black"]
    rows += ["p33.jpg,30,male,", "p34.jpg,30,male,White", "p35.jpg,30,female,White", ROWS[4]]
    rows += ["p5.jpg,20-29,male,White", "p6.jpg,20-29,male,Martian", "p7.jpg,NA,female,White"]
    rows += ["p8.jpg,30-39,,Black", ROWS[9], ROWS[9], ROWS[10], f"{ROWS[10]}s", "p11.jpg,NA,,"]
    messy = prepared(source, rows + ROWS[13:30])
    no_row, again = "no row in the table of labels", "another row names the same picture"
    rejected = messy.rejected().set_index("file")
    assert rejected["reason"].to_dict() == {
        **dict.fromkeys(("p12.jpg", "p31.png", "p31.jpeg", "x/2.jpg", "y/2.jpg"), no_row),
        **dict.fromkeys(("caf\\udce9.jpg", "c.heic"), no_row),
        "deep/p4.jpg": no_row,  # p4.jpg is the one of that very path
        "gone.jpg": "no picture of this name",
        **dict.fromkeys(("z/2.jpg", "p31.jpg"), "2 pictures of this name"),
        **dict.fromkeys(("a/3.jpg", "b/3.jpg", "q.jpg"), again),
        "3.jpg": "several rows may name it",
        "p10.jpg": "its rows contradict each other",
        "p11.jpg": "no label that has a class here",
        "notes.txt": "not a picture by its name",
    }
    assert rejected["kind"].value_counts().to_dict() == {"name": 11, "row": 6, "other": 1}
    table = messy.table.set_index("file")
    files = {f"p{n}.jpg" for n in (*range(10), *range(13, 31), *range(32, 36))}
    assert set(table.index) == {*files, "train/1.jpg", "val/1.jpg", "deep/q.jpg"}
    assert table.loc[["train/1.jpg", "val/1.jpg"], "age"].tolist() == [10, 70]
    # Equal pictures disagree only where both are labelled.
    assert table.loc[["p32.jpg", "p33.jpg"], "is_copy"].tolist() == [0, 1]
    assert table.loc[["p34.jpg", "p35.jpg"], "label_conflict"].tolist() == [1, 1]
    # Words without a class are counted, and unknown ones are findings.
    labels = messy.manifest["labels"]
    assert labels["rows_matched_by_last_parts"] == 6
    found = {
        (column, entry["word"]): entry["rows"]
        for column, entries in labels["mapping"].items()
        for entry in entries
        if entry["class"] is None
    }
    races = {("race", "Martian"): 1, ("race", ""): 2}
    assert found == {("age", "20-29"): 2, ("age", "NA"): 2, ("gender", ""): 2, **races}
    assert labels["without"] == {"age": 4, "age_group": 3, "gender": 1, "race": 2}
    assert labels["contradicted_faces"] == 1
    words, *others = findings(labels, 6)
    assert "race 'Martian' (1: not a word that is known)" in words
    assert [said.split()[0] for said in others] == ["1", "6"]


def test_thousands_of_unknown_words_are_counted_and_a_few_are_shown(tmp_path: Path) -> None:
    faces = prepared(photos(tmp_path), ROWS + [f"q{i}.jpg,30,male,word{i}" for i in range(7000)])
    said = findings(faces.manifest["labels"], 7000)
    assert "7,000 words of the labels are not known, in 7,000 rows: " in said[0]
    assert max(map(len, said)) < 500
    with out.capture() as printed:
        _print_labels(faces)
    assert "6,975 more words" in printed.get()
    assert len(printed.get().splitlines()) < 60


def test_codes_of_another_scheme_are_findings_with_the_map_that_reads_them(tmp_path: Path) -> None:
    source, given = photos(tmp_path), parse_map(["gender:1=male", "gender:2=female"])
    rows = [f"p{i}.jpg,{1 + i % 2},{RACES[i % 5]}" for i in range(40)]
    faces = prepared(source, rows, "file,gender,race")
    assert (faces.table["gender"] == MISSING).all()
    (said,) = findings(faces.manifest["labels"], 0)
    assert "ISO 5218: --map gender:1=male --map gender:2=female" in said
    mapped = prepared(source, rows, "file,gender,race", given=given, name="mapped").table
    assert mapped.set_index("file").loc[["p0.jpg", "p1.jpg"], "gender"].tolist() == [0, 1]
    with pytest.raises(DataError, match="a label that has a class here.*--map gender:1=male"):
        prepared(source, [row.rpartition(",")[0] for row in rows], "file,gender", name="none")


def test_a_spreadsheets_dates_are_read_back_in_fairfaces_layout_alone(tmp_path: Path) -> None:
    # As English spreadsheets of America and of Britain show 3-9 and 10-19, and as they write dates.
    young = ("9-Mar", "03-Sep", "Mar-09", "3/9/2026", "09.03.2026", "2026-03-09 00:00:00", "3-9")
    dates = [*young, "Oct-19", "19-Oct", "2026-10-19", "10/19/2026", "3.9"]  # the last is an age
    rows = [f"p{i}.jpg,{cell},male" for i, cell in enumerate(dates + ["20-29"] * 12)]
    source = photos(tmp_path, 24)
    faces = prepared(source, rows, "file,age,gender", layout="fairface")
    ages = {entry["word"]: entry["rows"] for entry in faces.manifest["labels"]["mapping"]["age"]}
    assert ages == {"3-9": len(young), "10-19": 4, "20-29": 12}
    assert (faces.table["age_group"] == 0).sum() == len(young) + 1
    assert findings(faces.manifest["labels"], 0) == []
    assert any(said.startswith("10 dates that a spreadsheet") for said in label_gaps(faces))
    plain = prepared(source, rows, "file,age,gender", name="plain")
    assert "10 words of the labels are not known" in findings(plain.manifest["labels"], 0)[0]


def test_layouts_and_tables_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    source, table = photos(tmp_path), tmp_path / "labels.csv"
    table.write_text("file,age,gender,race\nq0.jpg,25,male,White\n")
    in_names = "was given for faces whose names"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"layout": "table"}, "has no table of labels"),
        ({"labels": [tmp_path / "none.csv"]}, "there is no table of labels"),
        ({"layout": "fairface"}, "holds no fairface_label_train.csv"),
        ({"given": {("race", "x"): 0}}, f"--map {in_names}"),
        ({"layout": "utkface", "labels": [table]}, f"--labels {in_names}"),
        ({"labels": [table]}, "has a row in labels.csv"),
    ]
    for options, found in cases:
        with pytest.raises(DataError, match=found):
            prepare(source, tmp_path / "data", **options)
    assert list((tmp_path / "data").glob("*")) == []
