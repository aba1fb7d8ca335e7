"""`facebench audit-split` as a person and as a machine use it: text, JSON, pairs, exit codes."""

import json
import os
from pathlib import Path

import pandas as pd

from tests.cli.conftest import fits, outcome
from tests.data.sources import drawn, folder_of, listed, part

FACES = drawn(8)


def test_names_that_are_not_utf8_and_files_that_are_no_pictures_are_told(tmp_path: Path) -> None:
    odd, pairs = os.fsdecode(b"caf\xe9.jpg"), tmp_path / "pairs.csv"
    train, test = (part(tmp_path / f"{n}", {odd: FACES[0], f"{n}.jpg": FACES[n]}) for n in (1, 2))
    (train / "labels.txt").write_text("x")
    code, stdout, stderr = outcome("audit-split", train, test, "--csv", pairs)
    assert (code, "caf\\udce9.jpg" in stdout) == (1, True)
    assert "1 files of 1 are no pictures by their names" in stderr
    assert "caf\\udce9.jpg" in pairs.read_text()


def test_base_names_in_other_folders_are_counted_and_shown(tmp_path: Path) -> None:
    train = listed(tmp_path / "train.txt", "cats/1.jpg", "dogs/1.jpg", "cats/2.jpg", "x/3.jpg")
    test = listed(tmp_path / "test.txt", "birds/1.jpg", "birds/2.jpg", "x/3.jpg", "x/4.jpg")
    code, stdout, stderr = outcome("audit-split", train, test)
    assert (code, "--images FOLDER compares the pictures" in stderr) == (1, True)
    row = ["test", "train", "1", "2", "–", "–", "1", "25.0", "%"]
    assert row in [line.split() for line in stdout.splitlines()]
    assert "1 of 4 files of test may be in train" in stderr  # birds/2.jpg; 1.jpg says nothing


def test_a_leak_is_a_sentence_and_each_pair_a_row(tmp_path: Path) -> None:
    """Of seven test faces one is in training re-encoded, one mirrored, two byte by byte."""
    train = part(tmp_path / "train", {f"{number}.jpg": FACES[number] for number in range(5)})
    test = part(tmp_path / "test", {"same.jpg": FACES[0], "other.jpg": FACES[6], "3.png": FACES[7]})
    part(test, {"small.jpg": FACES[1]}, "re-encoded")
    part(test, {"turned.jpg": FACES[2]}, "mirrored")
    long, leaking = f"{'1_0_0_20170112213500903' * 3}.jpg.chip.jpg", ("audit-split", train, test)
    folder_of(test, {long: (train / "4.jpg").read_bytes(), "x/0.jpg": b""})
    code, stdout, stderr = outcome(*leaking)
    # 0.7 + 4 / 7 x 0.3 = 0.871
    found = "57.1 % of test (4 of 7 files) is in train: an honest 70 % can read as up to 87.1 %."
    assert (code, found in stderr, fits(stdout)) == (1, True, True)
    assert all(shown in stdout for shown in ("near-duplicate", "mirrored", "Leaking."))
    part(train, {"again.jpg": FACES[0]})
    code, stdout, stderr = outcome(*leaking, "--json", "--csv", tmp_path / "new" / "pairs.csv")
    answer = json.loads(stdout)
    assert (code, stderr, answer["ok"], answer["command"]) == (1, "", False, "audit-split")
    assert answer["data"]["verdict"] == "leaking"
    assert answer["errors"][0]["found"].startswith("57.1 % of test")
    rows = pd.read_csv(tmp_path / "new" / "pairs.csv", dtype=str)
    columns = ["file", "other_file", "found_by", "mirrored"]
    compared = rows.loc[rows["found_by"] != "name", columns]
    assert sorted(compared.to_numpy().tolist()) == [
        [long, "4.jpg", "bytes", "False"],
        ["same.jpg", "0.jpg", "bytes", "False"],
        ["same.jpg", "again.jpg", "bytes", "False"],
        ["small.jpg", "1.jpg", "near-duplicate", "False"],
        ["turned.jpg", "2.jpg", "near-duplicate", "True"],
    ]


def test_a_clean_split_gives_exit_code_0_and_a_note_of_what_was_not_compared(
    tmp_path: Path,
) -> None:
    images = part(tmp_path / "images", {"1.jpg": FACES[1], "2.jpg": FACES[2]})
    folder_of(images, {"3.jpg": b"no picture"})
    train = listed(tmp_path / "train.csv", "file,age", "1.jpg,3", "1.jpg,3", ",9", "lost.jpg,4")
    test = listed(tmp_path / "test.txt", "2.jpg", "3.jpg")
    code, stdout, stderr = outcome("audit-split", train, test, "--images", images)
    notes = stderr.splitlines()
    assert (code, len(notes), "Clean as far as names tell" in stdout) == (0, 3, True)
    assert "2 rows of train have no name, or one that is listed already" in notes[0]
    assert "1 of 2 names of train have no picture, and are compared by name only" in notes[1]
    assert "1 pictures of test are not compared as near-duplicates (3.jpg: it is not" in notes[2]


def test_options_and_parts_that_cannot_be_used_give_exit_code_2(tmp_path: Path) -> None:
    train, test = listed(tmp_path / "train.txt", "1.jpg"), listed(tmp_path / "test.txt", "2.jpg")
    (tmp_path / "unreadable.txt").write_bytes(b"\xff\xfe\x00\xd8")
    for arguments, sentence in (
        ((test, "--csv", test, "--overwrite"), "is an input of this command"),
        ((test, "--csv", __file__), "exists already"),
        ((test, "--csv", tmp_path), "Is a directory"),
        ((tmp_path / "unreadable.txt",), "unreadable.txt is no list of names"),
        ((), "PART"),
    ):
        code, stdout, stderr = outcome("audit-split", train, *arguments)
        assert (code, stdout, sentence in stderr) == (2, "", True), arguments
    assert test.read_text(encoding="utf-8") == "2.jpg\n"
