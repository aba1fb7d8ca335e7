"""A folder and a table become a data set as any other; what the table does not tell is counted."""

import os
from pathlib import Path

import pytest

from benchmark.cli.data import _print_labels
from benchmark.cli.output import out
from benchmark.data.dataset import FaceSet, draw_sample
from benchmark.data.label_tables import parse_map
from benchmark.data.labelled import findings, gaps, unmapped
from benchmark.data.prepare import audit, prepare
from benchmark.data.splits import parts_of
from benchmark.errors import DataError
from benchmark.tasks import MISSING
from tests.data.sources import encoded, folder_of, jpeg, picture, zip_of

GENDERS = ("male", "female")
RACES = ("White", "Black", "East Asian", "Indian", "Latino_Hispanic")


def labelled(
    tmp_path: Path, rows: list[str], n: int = 40, head: str = "file,age,gender,race"
) -> Path:
    """A folder of n pictures called p0.jpg …, and labels.csv beside it."""
    source = folder_of(tmp_path / "photos", {f"p{i}.jpg": jpeg(i) for i in range(n)})
    (tmp_path / "labels.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return source


def row(i: int) -> str:
    return f"p{i}.jpg,{1 + i * 7 % 90},{GENDERS[i % 2]},{RACES[i % 5]}"


def prepared(tmp_path: Path, source: Path, **options: object) -> FaceSet:
    labels = [tmp_path / "labels.csv"]
    result = prepare(source, tmp_path / "data", image_px=24, labels=labels, **options)  # type: ignore[arg-type]
    return result.faces


def test_a_folder_or_archive_with_a_table_is_a_data_set_whose_audit_finds_nothing(
    tmp_path: Path,
) -> None:
    folder = labelled(tmp_path, [row(i) for i in range(40)])
    archive = zip_of(tmp_path / "photos.zip", {f"deep/p{i}.jpg": jpeg(i) for i in range(40)})
    faces = prepared(tmp_path, folder)
    sizes = {name: len(rows) for name, rows in parts_of(faces).items()}
    assert sizes == {"train": 32, "val": 4, "test": 4}
    assert audit(faces)["findings"] == []
    first = faces.table.set_index("file").loc["p4.jpg"]
    assert first[["age", "age_group", "gender", "race"]].tolist() == [29, 2, 0, 4]
    words = faces.words()
    assert words is not None
    assert words.set_index("file").loc["p4.jpg"].tolist() == ["29", "male", "Latino_Hispanic"]
    zipped = prepared(tmp_path, archive, name="zipped")
    assert zipped.split_digest == faces.split_digest
    assert zipped.labels_digest == faces.labels_digest
    changed = FaceSet(faces.folder, faces.manifest, faces.table.assign(gender=0))
    assert "other labels than the table of labels" in audit(changed)["findings"][0]


def test_a_task_the_table_does_not_tell_is_empty_in_every_row(tmp_path: Path) -> None:
    rows = [f"p{i}.jpg,{GENDERS[i % 2]}" for i in range(40)]
    faces = prepared(tmp_path, labelled(tmp_path, rows, head="file,gender"))
    lines = (faces.folder / "table.csv").read_text().splitlines()
    assert lines[1].split(",")[2:6] in (["", "", "0", ""], ["", "", "1", ""])
    assert [(faces.table[task] != MISSING).sum() for task in ("gender", "race")] == [40, 0]
    said = " ".join(gaps(faces.manifest["labels"], 40))
    assert "No face is labelled with race: neither trained nor evaluated here" in said
    assert audit(faces)["findings"] == []


def test_words_without_a_class_are_counted_and_unknown_ones_are_findings(tmp_path: Path) -> None:
    rows = [row(i) for i in range(40)]
    rows[:4] = ["p0.jpg,20-29,male,White", "p1.jpg,20-29,male,Martian",
                "p2.jpg,NA,female,White", "p3.jpg,30-39,,Black"]  # fmt: skip
    faces = prepared(tmp_path, labelled(tmp_path, rows))
    labels = faces.manifest["labels"]
    found = {(entry["column"], entry["word"]): entry["rows"] for entry in unmapped(labels)}
    assert found == {
        ("age", "20-29"): 2, ("age", "NA"): 1, ("race", "Martian"): 1, ("gender", ""): 1,
    }  # fmt: skip
    assert labels["without"] == {"age": 4, "age_group": 3, "gender": 1, "race": 1}
    assert len(findings(labels, 0)) == 1
    assert "race 'Martian' (1: not a word that is known)" in findings(labels, 0)[0]


def test_duplicates_lost_pictures_and_faces_without_any_label_are_told(tmp_path: Path) -> None:
    rows = [row(i) for i in range(38)]
    rows += ["p1.jpg,8,female,Black",  # as row(1) has it
             "p2.jpg,15,female,White",  # other than row(2)
             "gone.jpg,30,male,White", "p38.jpg,NA,,"]  # fmt: skip
    faces = prepared(tmp_path, labelled(tmp_path, rows))
    labels, quarantine = faces.manifest["labels"], faces.rejected().set_index("file")
    assert labels["repeated_rows"] == 2
    assert labels["contradicted_faces"] == 1
    assert "p1.jpg" in faces.table["file"].tolist()
    assert quarantine["reason"].to_dict() == {
        "gone.jpg": "no picture of this name",
        "p2.jpg": "its rows contradict each other",
        "p38.jpg": "no label that has a class here",
        "p39.jpg": "no row in the table of labels",
    }
    assert len(findings(labels, 1)) == 2


def test_a_row_means_one_picture_and_a_picture_one_row(tmp_path: Path) -> None:
    files = {f"p{i}.jpg": jpeg(i) for i in range(30)} | {
        "deep/p0.jpg": jpeg(40),
        "deep/q.jpg": jpeg(41),
    }
    source = folder_of(tmp_path / "photos", files)
    rows = [*(row(i) for i in range(30)), "deep/q.jpg,30,male,White", "q.jpg,40,male,White"]
    (tmp_path / "labels.csv").write_text("\n".join(["file,age,gender,race", *rows]))
    faces = prepared(tmp_path, source)
    quarantine = faces.rejected().set_index("file")["reason"]
    assert "p0.jpg" in faces.table["file"].tolist()  # the one of that very path
    assert quarantine["q.jpg"] == "another row names the same picture"
    assert quarantine["deep/p0.jpg"] == "no row in the table of labels"


def test_a_row_finds_its_picture_by_the_last_parts_of_its_path(tmp_path: Path) -> None:
    files = {f"p{i}.jpg": jpeg(i) for i in range(30)} | {
        "train/1.jpg": jpeg(40),
        "val/1.jpg": jpeg(41),
        "x/2.jpg": jpeg(42),
        "y/2.jpg": jpeg(43),
        "3.jpg": jpeg(44),
    }
    source = folder_of(tmp_path / "photos", files)
    paths = ["D:\\\\faces\\\\photos\\\\p0.jpg", f"{source}/p1.jpg", "./photos/p2.jpg"]
    paths = [path.replace("\\\\", "\\") for path in paths]
    rows = [f"{path},30,male,White" for path in (*paths, "far/away/p3.jpg")]
    rows += [row(i) for i in range(4, 30)]
    rows += ["set/train/1.jpg,10,male,White", "C:/set/val/1.jpg,70,female,Black"]
    rows += ["z/2.jpg,30,male,White", "a/3.jpg,30,male,White", "b/3.jpg,30,female,White"]
    (tmp_path / "labels.csv").write_text("\n".join(["file,age,gender,race", *rows]))
    faces = prepared(tmp_path, source)
    age = faces.table.set_index("file")["age"]
    assert sorted(age.index) == sorted(
        [*(f"p{i}.jpg" for i in range(30)), "train/1.jpg", "val/1.jpg"]
    )
    assert (age["train/1.jpg"], age["val/1.jpg"]) == (10, 70)
    reasons = faces.rejected().set_index("file")["reason"].to_dict()
    assert reasons["z/2.jpg"] == "2 pictures of this name"
    assert reasons["a/3.jpg"] == reasons["b/3.jpg"] == "another row names the same picture"
    assert reasons["3.jpg"] == "several rows may name it"
    assert faces.manifest["labels"]["rows_matched_by_last_parts"] == 6
    words = faces.words()
    assert words is not None
    assert set(words["file"]) == set(age.index)


def test_codes_of_another_scheme_are_findings_with_the_map_that_reads_them(tmp_path: Path) -> None:
    rows = [f"p{i}.jpg,{1 + i % 2},{RACES[i % 5]}" for i in range(40)]
    source = labelled(tmp_path, rows, head="file,gender,race")
    faces = prepared(tmp_path, source)
    assert (faces.table["gender"] == MISSING).all()
    (said,) = findings(faces.manifest["labels"], 0)
    assert "ISO 5218: --map gender:1=male --map gender:2=female" in said
    given = parse_map(["gender:1=male", "gender:2=female"])
    mapped = prepared(tmp_path, source, given=given, name="mapped")
    assert mapped.table.set_index("file").loc[["p0.jpg", "p1.jpg"], "gender"].tolist() == [0, 1]
    labelled(tmp_path, [f"p{i}.jpg,{1 + i % 2}" for i in range(40)], head="file,gender")
    with pytest.raises(DataError, match="no picture .* has a label.*--map gender:1=male"):
        prepared(tmp_path, source, name="none")


def test_thousands_of_unknown_words_are_counted_and_a_few_are_shown(tmp_path: Path) -> None:
    rows = [*(row(i) for i in range(40)), *(f"q{i}.jpg,30,male,word{i}" for i in range(7000))]
    faces = prepared(tmp_path, labelled(tmp_path, rows))
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
    source = labelled(tmp_path, [row(i) for i in range(40)])
    for i in range(1, 40):
        (source / f"p{i}.jpg").write_bytes(encoded(picture(i), format="PNG"))
        (source / f"p{i}.jpg").rename(source / f"p{i}.png")
    (source / "p2.jpeg").write_bytes(jpeg(2))  # beside p2.png: which of them is p2.jpg?
    faces = prepared(tmp_path, source)
    assert sorted(faces.table["file"]) == sorted(f"p{i}.jpg" for i in range(40) if i != 2)
    left_out = faces.rejected().set_index("file")
    assert left_out.loc["p2.jpg", "reason"] == "2 pictures of this name"


def test_equal_pictures_disagree_only_where_both_are_labelled(tmp_path: Path) -> None:
    files = {f"p{i}.jpg": jpeg(i // 2 if i < 4 else i) for i in range(24)}
    source = folder_of(tmp_path / "photos", files)
    rows = [
        "file,gender,race",
        "p0.jpg,male,White",
        "p1.jpg,male,",
        "p2.jpg,male,",
        "p3.jpg,female,",
    ]
    rows += [f"p{i}.jpg,male,White" for i in range(4, 24)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    table = prepared(tmp_path, source).table.set_index("file")
    assert table.loc[["p0.jpg", "p1.jpg"], "is_copy"].tolist() == [0, 1]
    assert table.loc[["p2.jpg", "p3.jpg"], "label_conflict"].tolist() == [1, 1]


def test_names_that_are_not_utf8_and_pictures_that_cannot_be_read_are_listed(
    tmp_path: Path,
) -> None:
    source = labelled(tmp_path, [row(i) for i in range(40)])
    odd = {
        os.fsdecode(b"caf\xe9.jpg"): jpeg(50),
        "c.heic": b"\0\0\0\x18ftypheic",
        "notes.txt": b"x",
    }
    folder_of(source, odd)
    left_out = prepared(tmp_path, source).rejected().set_index("file")["kind"].to_dict()
    assert left_out == {"caf\\udce9.jpg": "name", "c.heic": "name", "notes.txt": "other"}


def test_preparing_again_does_nothing_and_other_labels_are_refused(tmp_path: Path) -> None:
    source = labelled(tmp_path, [row(i) for i in range(40)])
    prepared(tmp_path, source)
    labels = [tmp_path / "labels.csv"]
    options = {"image_px": 24, "labels": labels}
    assert not prepare(source, tmp_path / "data", **options).is_new  # type: ignore[arg-type]
    with pytest.raises(DataError, match="prepared with labels"):
        prepared(tmp_path, source, given={("race", "white"): 4})


def test_a_sample_of_a_labelled_data_set_is_sound(tmp_path: Path) -> None:
    rows = [f"p{i}.jpg,{GENDERS[i % 2]}" for i in range(120)]
    faces = prepared(tmp_path, labelled(tmp_path, rows, n=120, head="file,gender"))
    sample = draw_sample(faces, 100, "small")
    assert audit(sample)["findings"] == []
    assert sample.manifest["labels"]["without"]["race"] == len(sample.table)


def test_layouts_and_tables_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    source = labelled(tmp_path, ["q0.jpg,25,male,White"])
    for options, found in (
        ({"layout": "celeba"}, "no layout 'celeba'.*utkface, fairface, table"),
        ({"layout": "table"}, "has no table of labels"),
        ({"labels": [tmp_path / "none.csv"]}, "there is no table of labels"),
        ({"layout": "fairface"}, "holds no fairface_label_train.csv"),
        ({"given": {("race", "x"): 0}}, "--map was given for faces whose names"),
        (
            {"layout": "utkface", "labels": ["labels.csv"]},
            "--labels was given for faces whose names",
        ),
        ({"labels": [tmp_path / "labels.csv"]}, "no row of labels.csv names a picture"),
    ):
        with pytest.raises(DataError, match=found):
            prepare(source, tmp_path / "data", **options)  # type: ignore[arg-type]
    assert list((tmp_path / "data").glob("*")) == []
