"""`facebench data` as a person and as a machine use it: text, JSON and exit codes."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmark.cli.data import app
from benchmark.tasks import CLASS_NAMES
from tests.data.sources import encoded, face_name, faces, folder_of, jpeg, picture, tar_of

runner = CliRunner()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tar_of(tmp_path / "faces.tar", faces(60))


def data(*arguments: object) -> tuple[int, str, str]:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_prepare_says_what_it_made_and_again_that_there_is_nothing_to_do(archive: Path) -> None:
    options = ("--data-dir", archive.parent / "data", "--image-px", 32)
    code, first, _ = data("prepare", archive, *options)
    assert code == 0
    assert "faces-32 prepared in" in first
    assert "usable faces" in first
    code, again, _ = data("prepare", archive, *options)
    assert (code, "is there already" in again) == (0, True)


def test_pictures_that_cannot_be_used_give_exit_code_1_and_a_whole_data_set(tmp_path: Path) -> None:
    files = {**faces(20), face_name(90): b"no picture"}
    source = tar_of(tmp_path / "faces.tar", files)
    code, _, stderr = data("prepare", source, "--data-dir", tmp_path / "data")
    assert code == 1
    assert "1 pictures could not be used" in stderr
    assert (tmp_path / "data" / "faces-100" / "manifest.json").is_file()
    code, stdout, _ = data("prepare", source, "--data-dir", tmp_path / "data", "--json")
    assert (code, json.loads(stdout)["ok"]) == (1, False)


def test_names_without_labels_do_not_fail_the_command_and_conversions_are_a_note(
    tmp_path: Path,
) -> None:
    files = {**faces(20), "39_1_20170116174525125.jpg.chip.jpg": encoded(picture(1))}
    files |= {face_name(90): encoded(picture(1).convert("CMYK"))}
    source = tar_of(tmp_path / "faces.tar", files)
    options = ("--data-dir", tmp_path / "data", "--image-px", 32)
    note = "Note: Pictures that were not RGB were converted to it: 1 CMYK.\n"
    code, _, stderr = data("prepare", source, *options)
    assert (code, stderr) == (0, note)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "susanqq.github.io/UTKFace"), (b"no archive", "is not an archive")],
)
def test_a_source_that_will_not_do_gives_exit_code_2(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    source = tmp_path / "UTKFace.tar.gz"
    if content is not None:
        source.write_bytes(content)
    code, stdout, stderr = data("prepare", source, "--data-dir", tmp_path / "data")
    assert (code, stdout) == (2, "")
    assert sentence in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "data").exists()


def test_audit_fits_eighty_columns_and_finds_no_leak(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    data("prepare", archive, "--data-dir", archive.parent / "data")
    code, stdout, _ = data("audit", "--data-dir", archive.parent / "data")
    assert code == 0
    assert "Nothing found" in stdout
    table = pd.read_csv(archive.parent / "data" / "faces-100" / "table.csv", dtype=str)
    lines = [line.split() for line in stdout.splitlines()]
    strata = table[table["part"].notna()].groupby(["part", "age_group", "gender"])
    assert len(strata) > 3
    for (part, age, gender), group in strata:
        numbers = [int((group["race"] == str(race)).sum()) for race in range(5)]
        names = [part, CLASS_NAMES["age_group"][int(age)], CLASS_NAMES["gender"][int(gender)]]
        assert [*names, *map(str, [*numbers, sum(numbers)])] in lines
    assert max(len(line) for line in stdout.splitlines()) <= 80


def test_audit_answers_a_machine_and_gives_exit_code_1_on_findings(archive: Path) -> None:
    data("prepare", archive, "--data-dir", archive.parent / "data")
    pixels = archive.parent / "data" / "faces-100" / "faces.npy"
    pixels.write_bytes(pixels.read_bytes()[:-1] + b"\0")
    code, stdout, _ = data("audit", "--data-dir", archive.parent / "data", "--json")
    answer = json.loads(stdout)
    assert (code, answer["ok"]) == (1, False)
    assert answer["data"]["overlaps"]["fold 0"] == {"sha256": 0, "cluster": 0, "file": 0}
    assert "faces.npy was changed" in answer["errors"][0]["found"]
    # A handful of pairs, if any, is counted and says nothing of the labels.
    noise = {(row["task"], row["files"]): row for row in answer["data"]["label_noise"]}
    assert noise["gender", "both"]["n_pairs"] < 30
    assert noise["gender", "both"]["disagree"] is None


def test_words_are_shown_with_their_class_and_unknown_ones_give_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    source = folder_of(tmp_path / "photos", {f"p{i}.jpg": jpeg(i) for i in range(24)})
    rows = [f"p{i}.jpg,{'9-Mar' if i else '20-29'},{'mf'[i % 2]}" for i in range(23)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,age,gender", *rows, "p23.jpg,30,neither"]))
    data_dir = ("--data-dir", tmp_path / "data", "--image-px", 24)
    arguments = ["prepare", source, "--labels", table, "--layout", "fairface", *data_dir]
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    shown = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "age 20-29 none: reaches from 15-25 into 26-40 1" in shown
    assert "age 9-Mar, once 3-9 0-14 22" in shown
    assert "gender neither none: not a word that is known 1" in shown
    errors = " ".join(result.stderr.split())
    assert "1 of 24 faces (4.2 %) have no gender" in errors
    assert "1 words of the labels are not known, in 1 rows: gender 'neither'" in errors
    assert "Where: labels.csv" in errors
    code, stdout, _ = data("audit", *data_dir[:2])
    assert (code, max(map(len, stdout.splitlines())) <= 80) == (0, True)
    assert "age group, gender and race (–: not stated)" in " ".join(stdout.split())
    lines = [line.split() for line in stdout.splitlines()]
    n_of = {tuple(line[:3]): line[3:] for line in lines if line[3:8] == ["0"] * 5}
    assert sum(int(n[-1]) for n in n_of.values()) == 24
    assert int(n_of["train", "0-14", "male"][5]) > 0
