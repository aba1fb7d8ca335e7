"""`facebench data crop` as a person and as a machine use it: text, JSON and exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.cli.data import app
from tests.data.detectors import WHITE, scene
from tests.data.sources import encoded, folder_of

FACE = encoded(scene((40, 20, 60, 60)), "PNG")


def crop(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["crop", "--detector", WHITE.name, *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_crops_lie_here_and_a_picture_without_one_gives_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_of(tmp_path / "photos", {"a.png": FACE})
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = crop(source)
    assert (code, stderr, "photos-crops, by white-1" in stdout) == (0, "", True)
    assert (tmp_path / "photos-crops" / "a.png").is_file()
    assert json.loads(crop(source, "--json")[1])["data"]["new"] == 0
    folder_of(source, {"b.png": b"x", "notes.txt": b""})
    code, _, stderr = crop(source, "--out", tmp_path / "faces")
    assert (code, "1 of 2 pictures have no crop; b.png: it is not a picture" in stderr) == (1, True)
    assert "1 files are no pictures by their names, and were passed over: notes.txt" in stderr
    code, stdout, stderr = crop(source, "--out", tmp_path / "again", "--json")
    answer = json.loads(stdout)
    assert (code, stderr, answer["ok"]) == (1, "", False)
    assert answer["data"]["outcomes"] == {"cropped": 1, "no face": 0, "unreadable": 1}
    assert [row["file"] for row in answer["data"]["without_crop"]] == ["b.png"]


def test_bad_options_and_sources_are_usage_errors(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "photos", {"a.png": FACE})
    for arguments in ((source, "--margin", -1), (tmp_path / "none",), (source, "--image-px", 2)):
        code, _, stderr = crop(*arguments, "--out", tmp_path / "faces")
        assert (code, stderr.startswith("Error: ")) == (2, True)
