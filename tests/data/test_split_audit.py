"""However a picture is changed and renamed the audit finds it; other pictures it leaves alone."""

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmark.data.split_audit import SplitPart, audit_split, read_parts
from benchmark.errors import DataError
from tests.data.sources import CHANGES, PX, drawn, encoded, folder_of, jpeg, listed, part, zip_of

FACES = drawn(12)


def named(first: int, last: int) -> dict[str, Image.Image]:
    return {f"face{number}.jpg": FACES[number] for number in range(first, last)}


def audited(*paths: Path, images: Path | None = None) -> tuple[dict[str, Any], list[Any]]:
    """The audit, and every pair of files that it tells of."""
    audit, pairs = audit_split(paths, images)
    return audit, list(pairs.itertuples(index=False))


def counts(audit: dict[str, Any]) -> list[int]:
    (overlap,) = audit["overlaps"]
    return [overlap[key] for key in ("same_name", "same_bytes", "near_duplicates", "leaking")]


def test_a_renamed_and_changed_copy_is_a_near_duplicate(tmp_path: Path) -> None:
    train = part(tmp_path / "a", named(0, 6))
    for name in [*CHANGES][1:]:
        test = part(tmp_path / name, {"copy.jpg": FACES[2], "copy2.jpg": FACES[9]}, name)
        audit, (pair,) = audited(train, test)
        assert (audit["verdict"], counts(audit)) == ("leaking", [0, 0, 1, 1]), name
        assert (pair.file, pair.other_file) == ("copy.jpg", "face2.jpg"), name
        assert pair.mirrored == (name == "mirrored")


def test_each_file_counts_once_and_every_pair_is_told(tmp_path: Path) -> None:
    train = part(tmp_path / "a", {"face0.jpg": FACES[0], "again.jpg": FACES[0]})
    part(train, {"small.jpg": FACES[0]}, "re-encoded")
    audit, pairs = audited(train, part(tmp_path / "b", named(0, 1)))
    assert (counts(audit), len(pairs)) == ([1, 1, 1, 1], 3)
    frames = [encoded(FACES[0], quality=quality, subsampling=0) for quality in range(40, 80)]
    train = folder_of(tmp_path / "c", {f"{n}.jpg": frames[n] for n in range(0, 40, 2)})
    test = folder_of(tmp_path / "d", {f"{n}.jpg": frames[n] for n in range(1, 40, 2)})
    audit, pairs = audited(train, test)
    assert (counts(audit), len(audit["overlaps"][0]["examples"])) == ([0, 0, 20, 20], 1)
    assert len({(pair.file, pair.other_file) for pair in pairs}) == len(pairs) == 20 * 20


def test_other_pictures_of_one_name_and_plain_ones_do_no_harm(tmp_path: Path) -> None:
    black, white = Image.new("RGB", (PX, PX)), Image.new("RGB", (PX, PX), "white")
    train = part(tmp_path / "a", named(0, 6) | {"black.jpg": black})
    others = {"face0.jpg": FACES[6], "x/face1.png": FACES[7], "white.jpg": white}
    audit, pairs = audited(train, part(tmp_path / "b", others))
    assert (audit["verdict"], [pair.finding for pair in pairs]) == ("clean", ["other pictures"] * 2)
    (plain,) = audit["parts"][0]["not_comparable"]
    assert (plain["file"], "too plain" in plain["reason"]) == ("black.jpg", True)


def test_names_that_are_alike_leave_it_undecided(tmp_path: Path) -> None:
    for name, other in (
        *(("a/1.jpg", "b/1.jpg"), ("1.jpg", "/data/1.jpg"), ("A.JPG", "a.jpg")),
        *(("X/a.jpg", "x/a.jpg"), ("a.png", "a.jpg"), ("a.jpg", "b/A.jpg.chip.jpg")),
        ("00123", "00123.jpg"),
    ):
        train = listed(tmp_path / "train.txt", other, "z.jpg")
        audit, pairs = audited(train, listed(tmp_path / "test.txt", name, "y.jpg"))
        assert (audit["verdict"], audit["overlaps"][0]["undecided"]) == ("undecided", 1), name
        words = ("test", name, "train", other, "undecided", "name", "alike", None, False)
        assert list(map(tuple, pairs)) == [words]


def test_listed_pictures_are_found_and_compared(tmp_path: Path) -> None:
    faces = {f"faces/{name}": encoded(face) for name, face in named(0, 4).items()}
    faces["faces/sub/copy.png"] = CHANGES["as PNG"](FACES[0])
    train = listed(tmp_path / "train.txt", "/home/me/face0.jpg", "faces/face1.jpg")
    test = listed(tmp_path / "test.txt", "copy.png", "face2", "lost.jpg")
    for images in (folder_of(tmp_path / "images", faces), zip_of(tmp_path / "images.zip", faces)):
        audit, _ = audited(train, test, images=images)
        assert (audit["verdict"], counts(audit)) == ("leaking", [0, 0, 1, 1])
        assert [entry["not_found"] for entry in audit["parts"]] == [[], ["lost.jpg"]]
    for given, sentence in (
        ("nowhere", "--images .*nowhere does not exist"),
        ("test.txt", "is no folder and no archive"),
        ("images/faces/sub", "none of the 2 names of train is under .*; the first is /home/me/"),
    ):
        with pytest.raises(DataError, match=sentence):
            audit_split([train, test], tmp_path / given)


def test_pictures_that_cannot_be_decoded_are_named_and_compared_by_bytes(tmp_path: Path) -> None:
    broken = encoded(FACES[0])[:-400]
    bad = {"broken.jpg": broken, "empty.jpg": b"", "x.jpg": broken}
    train = folder_of(part(tmp_path / "a", named(1, 4)), bad)
    test = folder_of(part(tmp_path / "b", {"x.jpg": FACES[0]}), {"c.jpg": broken, "void.jpg": b""})
    audit, pairs = audited(train, test)
    reasons = {entry["file"]: entry["reason"] for entry in audit["parts"][1]["not_comparable"]}
    assert list(reasons) == ["c.jpg", "void.jpg"]
    assert "the file is empty" in reasons["void.jpg"]
    assert [(pair.file, pair.other_file, pair.finding) for pair in pairs] == [
        ("c.jpg", "broken.jpg", "leak"),
        ("c.jpg", "x.jpg", "leak"),
        ("x.jpg", "x.jpg", "undecided"),  # one name, and one of the two pictures has no hash
    ]


def test_each_two_parts_are_compared_and_no_two_have_one_name(tmp_path: Path) -> None:
    a = listed(tmp_path / "a" / "list.txt", "a.jpg", "b.jpg")
    b = listed(tmp_path / "b" / "list.txt", "c.jpg")
    audit, _ = audited(a, b, listed(tmp_path / "test.csv", "b.jpg", "c.jpg"))
    found = [(o["part"], o["other_part"], o["leaking"]) for o in audit["overlaps"]]
    assert found == [(str(b), str(a), 0), ("test", str(a), 1), ("test", str(b), 1)]
    for given in ([a], [a, a]):
        with pytest.raises(DataError, match="1 different parts of a split were given"):
            read_parts(given)


def read(path: Path) -> SplitPart:
    return read_parts([path, listed(path.parent / "another list.txt", "z.jpg")])[0]


def test_names_are_found_in_every_kind_of_list(tmp_path: Path) -> None:
    for name, text in (
        ("a.csv", "file,age\na.jpg,1\nb.jpg,2\n"),
        ("a.csv", "age;race;Image Path\n1;0;a.jpg\n2;0;b.jpg\n"),
        ("a.tsv", "image\tname\na.jpg\tAnn\nb.jpg\tBen\n"),
        ("a.csv", ",filename\n0,a.jpg\n1,b.jpg\n"),
        ("a.csv", "a.jpg|1\nb.jpg|2\n"),
        ("a.csv", "a.jpg;1,5\nb.jpg;2,5\n"),
        ("a.csv", "file;age, in years, of it\na.jpg;1\nb.jpg;2\n"),
        ("a.csv", 'face,note\r\n"a.jpg","old, ""torn"""\r\nb.jpg,\r\n'),
        ("a.csv", "a.jpg\nb.jpg\n"),
        ("a.txt", "a.jpg\r\n\r\n b.jpg \r\n"),
        ("a.txt", "a.jpg 3\nb.jpg 14\n"),
        ("a.lst", "a.jpg\t3\nb.jpg\t14"),
    ):
        (tmp_path / name).write_bytes(text.encode())
        assert read(tmp_path / name).files == ("a.jpg", "b.jpg"), text


def test_odd_names_are_kept_whole_and_repeated_and_empty_ones_counted(tmp_path: Path) -> None:
    for names in (("00123", "00124"), ("24_0_1_20170116220224657 .jpg.chip.jpg", "Smith, Ann.jpg")):
        assert read(listed(tmp_path / "odd.txt", *names)).files == names
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "a.csv").write_bytes("file\nä.jpg\n".encode(encoding))
        assert read(tmp_path / "a.csv").files == ("ä.jpg",)
    (tmp_path / "a.csv").write_text("age,file\n1,a.jpg\n2,./a.jpg\n3,\n4\n5,b.jpg\n6,b.jpg\n")
    found = read(tmp_path / "a.csv")
    assert (found.files, found.rows_left_out) == (("a.jpg", "b.jpg"), 4)


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # which is not waited for
    folder_of(tmp_path / "empty", {"x/notes.txt": b"", ".DS_Store": b""})
    for name, content, sentence in (
        ("none.txt", None, r"none.txt does not exist \(allowed: a CSV, a text list"),
        ("pipe", None, "pipe is neither a file nor a folder"),
        ("empty", None, r"empty holds no pictures \(2 other files\)"),
        ("a.txt", b"", "a.txt lists no names"),
        ("a.csv", b"file,age\n", "a.csv lists no names"),
        ("a.csv", b"age,gender\n25,1\n31,0\n", "no column of file names; its first line is 'age"),
        ("a.jpg", jpeg(1), "a.jpg is no list of names"),
        ("a.csv", b'file,age\n"a.jpg,1\n', "no column of file names"),
        ("a.zip", b"PK\x03\x04 cut short", "a.zip is damaged or cut short"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=sentence):
            read(tmp_path / name)
