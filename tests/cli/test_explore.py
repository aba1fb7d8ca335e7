"""`facebench data explore` as a person and as a machine use it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmark.cli.main import app
from tests.cli.conftest import flat


def call(data_dir: Path, *options: str) -> Result:
    arguments = ["data", "explore", "--dataset", "drawn", "--data-dir", str(data_dir)]
    return CliRunner().invoke(app, [*arguments, *options])


def test_it_answers_a_machine_and_lists_its_files(drawn_data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "who"
    result = call(drawn_data_dir, "--out", str(folder), "--json")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["ok"], answer["data"]["faces"]) == (0, True, 240)
    assert sum(answer["data"]["counts"]["gender"].values()) == 240
    assert sorted(answer["data"]["files"]) == sorted(map(str, folder.iterdir()))
    (folder / "ages.png").write_text("mine")
    result = call(drawn_data_dir, "--out", str(folder), "--json")
    assert (result.exit_code, "exists already" in result.stdout) == (2, True)
    assert (folder / "ages.png").read_text() == "mine"


def test_it_says_the_most_important_within_eighty_columns(
    drawn_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    result = call(drawn_data_dir, "--out", "who")
    assert result.exit_code == 0
    assert "240 usable synthetic faces" in flat(result.stdout)
    assert "Page: who/index.html" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_folder_that_cannot_be_written_is_told(drawn_data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = call(drawn_data_dir, "--out", str(tmp_path / "file" / "who"))
    assert result.exit_code == 2
    assert str(tmp_path / "file") in flat(result.stderr).replace(" ", "")
