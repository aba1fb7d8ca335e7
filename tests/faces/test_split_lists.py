"""Names are found in whatever people keep their splits in, and what is no list is told plainly."""

import os
from pathlib import Path

import pytest

from benchmark.data.split_lists import SplitPart, name_key, read_parts, stem_key
from benchmark.errors import DataError
from tests.faces.sources import folder_of, jpeg, zip_of
from tests.faces.split_parts import listed


def read(path: Path) -> SplitPart:
    other = listed(path.parent / "another list.txt", "z.jpg")
    return read_parts([path, other])[0]


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.csv", "file,age\na.jpg,1\nb.jpg,2\n", 'CSV, column "file"'),
        ("a.csv", "age;race;Image Path\n1;0;a.jpg\n2;0;b.jpg\n", 'CSV, column "Image Path"'),
        ("a.tsv", "image\tname\na.jpg\tAnn\nb.jpg\tBen\n", 'CSV, column "image"'),
        ("a.csv", ",filename\n0,a.jpg\n1,b.jpg\n", 'CSV, column "filename"'),
        ("a.csv", "file\na.jpg\nb.jpg\n", 'CSV, column "file"'),
        ("a.csv", "a.jpg|1\nb.jpg|2\n", "CSV, first column"),
        ("a.csv", 'face,note\r\n"a.jpg","old, ""torn"""\r\nb.jpg,\r\n', "CSV, first column"),
        ("a.csv", "a.jpg\nb.jpg\n", "CSV"),
        ("a.txt", "a.jpg\r\n\r\n b.jpg \r\n", "text list"),
        ("a.txt", "a.jpg 3\nb.jpg 14\n", "text list, first column"),
        ("a.lst", "a.jpg\t3\nb.jpg\t14", "text list, first column"),
    ],
)
def test_names_are_found(tmp_path: Path, name: str, text: str, form: str) -> None:
    part = read(written(tmp_path, name, text))
    assert (part.files, part.form) == (("a.jpg", "b.jpg"), form)


def test_a_list_of_bare_numbers_is_taken_line_by_line(tmp_path: Path) -> None:
    assert read(listed(tmp_path / "ids.txt", "00123", "00124")).files == ("00123", "00124")


def test_a_name_with_a_space_or_a_comma_is_not_cut(tmp_path: Path) -> None:
    names = ("24_0_1_20170116220224657 .jpg.chip.jpg", "Smith, Ann.jpg")
    assert read(listed(tmp_path / "odd.txt", *names)).files == names


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_spreadsheets_put_before_the_text_is_no_part_of_it(
    tmp_path: Path, encoding: str
) -> None:
    assert read(written(tmp_path, "a.csv", "file\nä.jpg\n", encoding)).files == ("ä.jpg",)


def test_names_met_again_and_rows_without_one_are_counted(tmp_path: Path) -> None:
    part = read(
        written(tmp_path, "a.csv", "age,file\n1,a.jpg\n2,./a.jpg\n3,\n4\n5,b.jpg\n6,b.jpg\n")
    )
    assert (part.files, part.repeated) == (("a.jpg", "b.jpg"), ("a.jpg", "b.jpg"))
    assert part.n_nameless == 2


def test_a_folder_is_searched_to_its_depths_for_pictures_alone(tmp_path: Path) -> None:
    names = ("a.jpg", "x/b.JPEG", "x/y/c.png", "d.webp", "e.bmp", "x/._b.jpg", "notes.txt")
    part = read(folder_of(tmp_path / "faces", dict.fromkeys(names, b"")))
    assert part.files == ("a.jpg", "d.webp", "e.bmp", "x/b.JPEG", "x/y/c.png")
    assert part.form == "folder of pictures"


def test_an_archive_is_read_as_a_folder_is(tmp_path: Path) -> None:
    part = read(zip_of(tmp_path / "faces.zip", {"x/a.jpg": jpeg(1), "read.me": b""}))
    assert (part.name, part.files) == ("faces", ("x/a.jpg",))


def test_parts_with_one_name_are_told_apart(tmp_path: Path) -> None:
    a, b = (
        listed(tmp_path / "a" / "list.txt", "a.jpg"),
        listed(tmp_path / "b" / "list.txt", "b.jpg"),
    )
    c = listed(tmp_path / "test.csv", "c.jpg")
    assert [part.name for part in read_parts([a, b, c, b])] == [str(a), str(b), "test", f"{b} (2)"]


def test_a_path_is_one_name_however_it_is_spelled() -> None:
    spellings = ("x/a.jpg", "./x/a.jpg", "x//a.jpg", "x\\a.jpg", "y/../x/a.jpg")
    assert {name_key(spelling) for spelling in spellings} == {"x/a.jpg"}
    assert name_key("a\u0308.jpg") == name_key("\u00e4.jpg")  # as macOS writes it, and others


def test_a_stem_is_without_folder_case_and_suffixes() -> None:
    names = ("x/A.JPG", "a.png", "a.jpg.chip.jpg", "a")
    assert {stem_key(name) for name in names} == {"a"}
    assert stem_key(".jpg") == ".jpg"
    assert stem_key("a.1.jpg") == "a.1"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", None, r"a.txt does not exist \(allowed: a CSV, a text list"),
        ("a.txt", b"", "a.txt lists no names"),
        ("a.csv", b" \n\n", "a.csv lists no names"),
        ("a.csv", b"file,age\n", "a.csv lists no names"),
        ("a.csv", b"age,gender\n25,1\n31,0\n", "no column of file names; its first line is 'age,g"),
        ("a.csv", b"00123\n00124\n", r"no column of file names.*one name a line"),
        ("a.jpg", jpeg(1), "a.jpg is a binary file and no list of names"),
        ("a.txt", b"caf\xe9.jpg\n", "a.txt is not UTF-8 text"),
        ("a.csv", b'file,age\n"a.jpg,1\n', "no column of file names"),
        ("a.zip", b"PK\x03\x04 cut short", "a.zip is damaged or cut short"),
    ],
)
def test_what_is_no_list_is_told(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path / name)


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "empty", {"x/notes.txt": b"", ".DS_Store": b""})
    with pytest.raises(DataError, match=r"empty holds no pictures \(2 other files\)"):
        read(folder)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is neither a file nor a folder"):
        read(tmp_path / "pipe")


def test_one_part_is_no_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 part of a split was given"):
        read_parts([listed(tmp_path / "a.txt", "a.jpg")])
