"""A folder and a table become a data set as any other; what the table does not tell is counted."""

import os
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli.data import _print_labels
from benchmark.cli.output import out
from benchmark.data.dataset import FaceSet, draw_sample
from benchmark.data.labelled import findings, gaps
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


def reasons(faces: FaceSet, column: str = "reason") -> dict[str, str]:
    return dict(faces.rejected().set_index("file")[column])


def test_a_folder_or_archive_with_a_table_is_a_data_set_whose_audit_finds_nothing(
    tmp_path: Path,
) -> None:
    faces = prepared(photos(tmp_path), ROWS)
    archive = zip_of(tmp_path / "photos.zip", {f"deep/p{i}.jpg": jpeg(i) for i in range(40)})
    sizes = {name: len(rows) for name, rows in parts_of(faces).items()}
    assert sizes == {"train": 32, "val": 4, "test": 4}
    assert audit(faces)["findings"] == []
    first = faces.table.set_index("file").loc["p4.jpg"]
    assert first[["age", "age_group", "gender", "race"]].tolist() == [29, 2, 0, 4]
    words = faces.words()
    assert words is not None
    assert words.set_index("file").loc["p4.jpg"].tolist() == ["29", "male", "Latino_Hispanic"]
    zipped = prepared(archive, ROWS, name="zipped")
    assert zipped.split_digest == faces.split_digest
    assert zipped.labels_digest == faces.labels_digest
    changed = FaceSet(faces.folder, faces.manifest, faces.table.assign(gender=0))
    assert "other labels than the table of labels" in audit(changed)["findings"][0]


def test_a_task_the_table_does_not_tell_is_empty_in_every_row(tmp_path: Path) -> None:
    rows = [f"p{i}.jpg,{GENDERS[i % 2]}" for i in range(40)]
    faces = prepared(photos(tmp_path), rows, "file,gender")
    lines = (faces.folder / "table.csv").read_text().splitlines()
    assert lines[1].split(",")[2:6] in (["", "", "0", ""], ["", "", "1", ""])
    assert [(faces.table[task] != MISSING).sum() for task in ("gender", "race")] == [40, 0]
    said = " ".join(gaps(faces.manifest["labels"], 40))
    assert "No face is labelled with race: neither trained nor evaluated here" in said
    assert audit(faces)["findings"] == []


def test_words_without_a_class_are_counted_and_unknown_ones_are_findings(tmp_path: Path) -> None:
    rows = ["p0.jpg,20-29,male,White", "p1.jpg,20-29,male,Martian", "p2.jpg,NA,female,White"]
    labels = prepared(photos(tmp_path), [*rows, "p3.jpg,30-39,,Black", *ROWS[4:]]).manifest[
        "labels"
    ]
    found = {
        (column, entry["word"]): entry["rows"]
        for column, entries in labels["mapping"].items()
        for entry in entries
        if entry["class"] is None
    }
    ages = {("age", "20-29"): 2, ("age", "NA"): 1}
    assert found == {**ages, ("race", "Martian"): 1, ("gender", ""): 1}
    assert labels["without"] == {"age": 4, "age_group": 3, "gender": 1, "race": 1}
    assert len(findings(labels, 0)) == 1
    assert "race 'Martian' (1: not a word that is known)" in findings(labels, 0)[0]


def test_duplicates_lost_pictures_and_faces_without_any_label_are_told(tmp_path: Path) -> None:
    again = ["p1.jpg,8,female,Black", "p2.jpg,15,female,White"]  # as ROWS[1] and unlike ROWS[2]
    rows = [*ROWS[:38], *again, "gone.jpg,30,male,White", "p38.jpg,NA,,"]
    faces = prepared(photos(tmp_path), rows)
    labels = faces.manifest["labels"]
    assert (labels["repeated_rows"], labels["contradicted_faces"]) == (2, 1)
    assert "p1.jpg" in faces.table["file"].tolist()
    assert reasons(faces) == {
        "gone.jpg": "no picture of this name",
        "p2.jpg": "its rows contradict each other",
        "p38.jpg": "no label that has a class here",
        "p39.jpg": "no row in the table of labels",
    }
    assert len(findings(labels, 1)) == 2


def test_a_row_means_one_picture_and_a_picture_one_row(tmp_path: Path) -> None:
    source = photos(tmp_path, 30, **{"deep/p0.jpg": jpeg(40), "deep/q.jpg": jpeg(41)})
    faces = prepared(source, [*ROWS[:30], "deep/q.jpg,30,male,White", "q.jpg,40,male,White"])
    assert "p0.jpg" in faces.table["file"].tolist()  # the one of that very path
    assert reasons(faces)["q.jpg"] == "another row names the same picture"
    assert reasons(faces)["deep/p0.jpg"] == "no row in the table of labels"


def test_a_row_finds_its_picture_by_the_last_parts_of_its_path(tmp_path: Path) -> None:
    others = ("train/1.jpg", "val/1.jpg", "x/2.jpg", "y/2.jpg", "3.jpg")
    source = photos(tmp_path, 30, **{file: jpeg(40 + i) for i, file in enumerate(others)})
    paths = ["D:\\faces\\photos\\p0.jpg", f"{source}/p1.jpg", "./photos/p2.jpg"]
    rows = [f"{path},30,male,White" for path in (*paths, "far/away/p3.jpg")] + ROWS[4:30]
    rows += ["set/train/1.jpg,10,male,White", "C:/set/val/1.jpg,70,female,Black"]
    rows += ["z/2.jpg,30,male,White", "a/3.jpg,30,male,White", "b/3.jpg,30,female,White"]
    faces = prepared(source, rows)
    age = faces.table.set_index("file")["age"]
    assert sorted(age.index) == sorted([f"p{i}.jpg" for i in range(30)] + [*others[:2]])
    assert (age["train/1.jpg"], age["val/1.jpg"]) == (10, 70)
    found = reasons(faces)
    assert found["z/2.jpg"] == "2 pictures of this name"
    assert found["a/3.jpg"] == found["b/3.jpg"] == "another row names the same picture"
    assert found["3.jpg"] == "several rows may name it"
    assert faces.manifest["labels"]["rows_matched_by_last_parts"] == 6
    words = faces.words()
    assert words is not None
    assert set(words["file"]) == set(age.index)


def test_codes_of_another_scheme_are_findings_with_the_map_that_reads_them(tmp_path: Path) -> None:
    rows = [f"p{i}.jpg,{1 + i % 2},{RACES[i % 5]}" for i in range(40)]
    faces = prepared(photos(tmp_path), rows, "file,gender,race")
    assert (faces.table["gender"] == MISSING).all()
    (said,) = findings(faces.manifest["labels"], 0)
    assert "ISO 5218: --map gender:1=male --map gender:2=female" in said
    given, source = parse_map(["gender:1=male", "gender:2=female"]), tmp_path / "photos"
    mapped = prepared(source, rows, "file,gender,race", given=given, name="mapped").table
    assert mapped.set_index("file").loc[["p0.jpg", "p1.jpg"], "gender"].tolist() == [0, 1]
    with pytest.raises(DataError, match="no picture .* has a label.*--map gender:1=male"):
        prepared(source, [row.rpartition(",")[0] for row in rows], "file,gender", name="none")


def test_thousands_of_unknown_words_are_counted_and_a_few_are_shown(tmp_path: Path) -> None:
    unknown = [f"q{i}.jpg,30,male,word{i}" for i in range(7000)]
    faces = prepared(photos(tmp_path), ROWS + unknown)
    said = findings(faces.manifest["labels"], 7000)
    assert "7,000 words of the labels are not known, in 7,000 rows: " in said[0]
    assert "and 6,996 more" in said[0]
    assert max(map(len, said)) < 500
    with out.capture() as printed:
        _print_labels(faces)
    assert "6,975 more words" in printed.get()
    assert len(printed.get().splitlines()) < 60


def test_a_crop_of_another_ending_is_the_picture_of_its_row_where_that_is_one(
    tmp_path: Path,
) -> None:
    source = photos(tmp_path)
    for i in range(1, 40):
        (source / f"p{i}.jpg").unlink()
        (source / f"p{i}.png").write_bytes(encoded(picture(i), format="PNG"))
    (source / "p2.jpeg").write_bytes(jpeg(2))  # beside p2.png: which of them is p2.jpg?
    faces = prepared(source, ROWS)
    assert sorted(faces.table["file"]) == sorted(f"p{i}.jpg" for i in range(40) if i != 2)
    assert reasons(faces)["p2.jpg"] == "2 pictures of this name"


def test_equal_pictures_disagree_only_where_both_are_labelled(tmp_path: Path) -> None:
    files = {f"p{i}.jpg": jpeg(i // 2 if i < 4 else i) for i in range(24)}
    rows = ["p0.jpg,male,White", "p1.jpg,male,", "p2.jpg,male,", "p3.jpg,female,"]
    rows += [f"p{i}.jpg,male,White" for i in range(4, 24)]
    faces = prepared(folder_of(tmp_path / "photos", files), rows, "file,gender,race")
    table = faces.table.set_index("file")
    assert table.loc[["p0.jpg", "p1.jpg"], "is_copy"].tolist() == [0, 1]
    assert table.loc[["p2.jpg", "p3.jpg"], "label_conflict"].tolist() == [1, 1]


def test_names_that_are_not_utf8_and_pictures_that_cannot_be_read_are_listed(
    tmp_path: Path,
) -> None:
    odd = {os.fsdecode(b"caf\xe9.jpg"): jpeg(50), "c.heic": b"\0\0\0\x18ftypheic"}
    faces = prepared(photos(tmp_path, **odd, **{"notes.txt": b"x"}), ROWS)
    kinds = {"caf\\udce9.jpg": "name", "c.heic": "name", "notes.txt": "other"}
    assert reasons(faces, "kind") == kinds


def test_preparing_again_does_nothing_and_other_labels_are_refused(tmp_path: Path) -> None:
    source = photos(tmp_path)
    prepared(source, ROWS)
    labels = [tmp_path / "labels.csv"]
    assert not prepare(source, tmp_path / "data", image_px=24, labels=labels).is_new
    with pytest.raises(DataError, match="prepared with labels"):
        prepared(source, ROWS, given={("race", "white"): 4})


def test_a_sample_of_a_labelled_data_set_is_sound(tmp_path: Path) -> None:
    rows = [f"p{i}.jpg,{GENDERS[i % 2]}" for i in range(120)]
    sample = draw_sample(prepared(photos(tmp_path, 120), rows, "file,gender"), 100, "small")
    assert audit(sample)["findings"] == []
    assert sample.manifest["labels"]["without"]["race"] == len(sample.table)


def test_layouts_and_tables_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    source, table = photos(tmp_path), tmp_path / "labels.csv"
    table.write_text("file,age,gender,race\nq0.jpg,25,male,White\n")
    in_names = "was given for faces whose names"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"layout": "celeba"}, "no layout 'celeba'.*utkface, fairface, table"),
        ({"layout": "table"}, "has no table of labels"),
        ({"labels": [tmp_path / "none.csv"]}, "there is no table of labels"),
        ({"layout": "fairface"}, "holds no fairface_label_train.csv"),
        ({"given": {("race", "x"): 0}}, f"--map {in_names}"),
        ({"layout": "utkface", "labels": ["labels.csv"]}, f"--labels {in_names}"),
        ({"labels": [table]}, "no row of labels.csv names a picture"),
    ]
    for options, found in cases:
        with pytest.raises(DataError, match=found):
            prepare(source, tmp_path / "data", **options)
    assert list((tmp_path / "data").glob("*")) == []
