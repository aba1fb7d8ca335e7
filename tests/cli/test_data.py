"""`facebench data` as a person and as a machine use it: text, JSON and exit codes."""

import functools
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import fits, flat, outcome
from tests.data.detectors import WHITE, scene
from tests.data.sources import encoded, face_name, faces, folder_of, jpeg, picture, tar_of


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


data = functools.partial(outcome, "data")


def archive(n: int, **more: bytes) -> Path:
    return tar_of(Path("faces.tar"), faces(n) | more)


def test_what_cannot_be_used_and_what_was_changed_give_exit_code_1() -> None:
    source = archive(20, **{face_name(90): b"no picture"})
    code, _, stderr = data("prepare", source)
    assert (code, "1 pictures could not be used" in stderr) == (1, True)
    assert Path("data/faces-100/manifest.json").is_file()
    code, stdout, _ = data("prepare", source, "--json")
    assert (code, json.loads(stdout)["ok"]) == (1, False)
    pixels = Path("data/faces-100/faces.npy")
    pixels.write_bytes(pixels.read_bytes()[:-1] + b"\0")
    code, stdout, _ = data("audit", "--json")
    answer = json.loads(stdout)
    assert (code, answer["ok"]) == (1, False)
    assert answer["data"]["overlaps"]["fold 0"] == {"sha256": 0, "cluster": 0, "file": 0}
    assert any("faces.npy was changed" in error["found"] for error in answer["errors"])


def test_names_without_labels_are_no_failure_and_an_audit_fits_eighty_columns() -> None:
    files = {"39_1_20170116174525125.jpg.chip.jpg": encoded(picture(1))}
    files |= {face_name(90): encoded(picture(90).convert("CMYK"))}
    code, stdout, stderr = data("prepare", archive(60, **files), "--image-px", 32)
    note = "Note: 1 pictures that were not RGB were converted to it: 1 CMYK.\n"
    assert (code, stderr, "faces-32 prepared" in stdout) == (0, note, True)
    code, stdout, _ = data("prepare", "faces.tar", "--image-px", 32)
    assert (code, "is there already" in stdout) == (0, True)
    code, stdout, _ = data("audit")
    assert (code, "Nothing found" in stdout) == (0, True)
    assert fits(stdout)
    table = pd.read_csv("data/faces-32/table.csv").query("part == 'train' and gender == 0")
    young = table[table["age_group"] == 0]
    numbers = [(young["race"] == race).sum() for race in range(5)]
    row = ["train", "0-14", "male", *map(str, numbers), str(len(young))]
    assert row in [line.split() for line in stdout.splitlines()]


def test_words_are_shown_with_their_class_and_unknown_ones_give_exit_code_1() -> None:
    folder_of(Path("photos"), {f"p{i}.jpg": jpeg(i) for i in range(24)})
    rows = [f"p{i}.jpg,{'9-Mar' if i else '20-29'},{'mf'[i % 2]}" for i in range(23)]
    Path("labels.csv").write_text("\n".join(["file,age,gender", *rows, "p23.jpg,30,neither"]))
    options = ("--labels", "labels.csv", "--layout", "fairface", "--image-px", 24)
    code, stdout, stderr = data("prepare", "photos", *options)
    assert code == 1
    shown = [" ".join(line.split()) for line in stdout.splitlines()]
    assert "age 20-29 none: reaches from 15-25 into 26-40 1" in shown
    assert "age 3-9 0-14 22" in shown
    assert "gender neither none: not a word that is known 1" in shown
    errors = flat(stderr)
    assert "1 of 24 faces (4.2 %) have no gender" in errors
    assert "1 words of the labels are not known, in 1 rows: gender 'neither'" in errors
    assert "Where: labels.csv" in errors
    code, stdout, _ = data("audit")
    assert (code, fits(stdout)) == (0, True)
    assert "age group, gender and race (–: not stated)" in flat(stdout)
    lines = [line.split() for line in stdout.splitlines()]
    n_of = {tuple(line[:3]): line[3:] for line in lines if line[3:8] == ["0"] * 5}
    assert sum(int(n[-1]) for n in n_of.values()) == 24
    assert int(n_of["train", "0-14", "male"][5]) > 0


def test_crops_lie_here_and_a_picture_without_one_gives_exit_code_1() -> None:
    crop = functools.partial(data, "crop", "--detector", WHITE.name)
    source = folder_of(Path("photos"), {"a.png": encoded(scene((40, 20, 60, 60)), "PNG")})
    code, stdout, stderr = crop(source)
    assert (code, stderr, "photos-crops, by white-1" in stdout) == (0, "", True)
    assert Path("photos-crops/a.png").is_file()
    assert json.loads(crop(source, "--json")[1])["data"]["new"] == 0
    folder_of(source, {"b.png": b"x", "notes.txt": b""})
    code, _, stderr = crop(source, "--out", "faces")
    assert (code, "1 of 2 pictures have no crop; b.png: it is not a picture" in stderr) == (1, True)
    assert "1 files were passed over: notes.txt (not a picture by its name)" in stderr
    found = json.loads(crop(source, "--out", "faces", "--json")[1])["data"]
    assert found["outcomes"] == {"cropped": 1, "no face": 0, "unreadable": 1}
    assert [row["file"] for row in found["without_crop"]] == ["b.png"]
    for arguments in ((source, "--margin", -1), ("none",), (source, "--image-px", 2)):
        code, _, stderr = crop(*arguments, "--out", "bad")
        assert (code, stderr.startswith("Error: ")) == (2, True)
