"""`facebench audit-split` as a person and as a machine use it: text, JSON, pairs, exit codes."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmark.cli.main import app
from tests.data.sources import drawn, folder_of, listed, part

FACES = drawn(8)


@pytest.fixture
def leaking(tmp_path: Path) -> tuple[Path, Path]:
    """Of four test faces one is in training re-encoded, one mirrored, one byte by byte."""
    train = part(tmp_path / "train", {f"{number}.jpg": FACES[number] for number in range(5)})
    test = part(tmp_path / "test", {"same.jpg": FACES[0], "other.jpg": FACES[6]})
    part(test, {"small.jpg": FACES[1]}, "re-encoded")
    part(test, {"turned.jpg": FACES[2]}, "mirrored")
    return train, test


def audit(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["audit-split", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_names_that_are_not_utf8_and_files_that_are_no_pictures_are_told(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    train, test = (part(tmp_path / f"{n}", {odd: FACES[0], f"{n}.jpg": FACES[n]}) for n in (1, 2))
    (train / "labels.txt").write_text("x")
    pairs = tmp_path / "pairs.csv"
    code, stdout, stderr = audit(train, test, "--csv", pairs)
    assert (code, "caf\\udce9.jpg" in stdout) == (1, True)
    assert "1 files of 1 are no pictures by their names" in stderr
    assert "caf\\udce9.jpg" in pairs.read_text()


def test_base_names_in_other_folders_are_counted_and_shown(tmp_path: Path) -> None:
    train = listed(tmp_path / "train.txt", "cats/1.jpg", "dogs/1.jpg", "cats/2.jpg", "x/3.jpg")
    test = listed(tmp_path / "test.txt", "birds/1.jpg", "birds/2.jpg", "x/3.jpg", "x/4.jpg")
    code, stdout, stderr = audit(train, test)
    assert (code, "--images FOLDER compares the pictures" in stderr) == (1, True)
    lines = map(str.split, stdout.splitlines())
    assert ["test", "train", "1", "2", "–", "–", "1", "25.0", "%"] in lines
    assert "1 of 4 files of test may be in train" in stderr  # birds/2.jpg; 1.jpg says nothing
    (overlap,) = json.loads(audit(train, test, "--json")[1])["data"]["overlaps"]
    assert (overlap["same_name"], overlap["same_base_name"], overlap["undecided"]) == (1, 2, 1)
    code, stdout, _ = audit(*(listed(tmp_path / f"{name}.txt", f"{name}/1.jpg") for name in "ab"))
    assert (code, "Undecided" in stdout) == (1, True)


def test_a_leak_gives_exit_code_1_and_a_sentence_within_80_columns(
    leaking: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = f"{'1_0_0_20170112213500903' * 3}.jpg.chip.jpg"
    folder_of(leaking[1], {long: (leaking[0] / "4.jpg").read_bytes(), "x/0.jpg": b""})
    part(leaking[1], {"3.png": FACES[7]})
    code, stdout, stderr = audit(*leaking)
    # 0.7 + 4 / 7 x 0.3 = 0.871
    found = "57.1 % of test (4 of 7 files) is in train: an honest 70 % can read as up to 87.1 %."
    assert (code, found in stderr) == (1, True)
    assert max(len(line) for line in stdout.splitlines()) <= 80
    for shown in ("near-duplicate", "mirrored", "Leaking."):
        assert shown in stdout


def test_a_machine_gets_one_object_and_each_pair_a_row(
    leaking: tuple[Path, Path], tmp_path: Path
) -> None:
    part(leaking[0], {"again.jpg": FACES[0]})
    code, stdout, stderr = audit(*leaking, "--json", "--csv", tmp_path / "new" / "pairs.csv")
    answer = json.loads(stdout)
    assert (code, stderr, answer["ok"], answer["command"]) == (1, "", False, "audit-split")
    data = answer["data"]
    assert (data["verdict"], data["near_duplicates"]["threshold_bits"]) == ("leaking", 28)
    assert answer["errors"][0]["found"].startswith("75.0 % of test")
    rows = pd.read_csv(tmp_path / "new" / "pairs.csv", dtype=str)
    columns = ["file", "other_file", "found_by", "mirrored"]
    assert rows[columns].to_numpy().tolist() == [
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
    code, stdout, stderr = audit(train, test, "--images", images)
    notes = stderr.splitlines()
    assert (code, len(notes), "Clean as far as names tell" in stdout) == (0, 4, True)
    assert "1 names of train are repeated, and count once (1.jpg)" in notes[0]
    assert "1 rows of train have no name" in notes[1]
    assert "1 of 2 names of train have no picture, and are compared by name only" in notes[2]
    assert "1 pictures of test are not compared as near-duplicates (3.jpg: it is not" in notes[3]


def test_options_and_parts_that_cannot_be_used_give_exit_code_2(tmp_path: Path) -> None:
    train, test = listed(tmp_path / "train.txt", "1.jpg"), listed(tmp_path / "test.txt", "2.jpg")
    unreadable = tmp_path / "unreadable.txt"
    unreadable.write_bytes(b"\xff\xfe\x00\xd8")
    for arguments, sentence in (
        ((test, "--csv", test, "--overwrite"), "is an input of this command"),
        ((test, "--csv", __file__), "exists already"),
        ((test, "--csv", tmp_path), "Is a directory"),
        ((unreadable,), "unreadable.txt is no list of names"),
    ):
        code, stdout, stderr = audit(train, *arguments)
        assert (code, stdout, sentence in stderr) == (2, "", True), arguments
    assert audit(train)[0] == 2
    assert test.read_text(encoding="utf-8") == "2.jpg\n"
