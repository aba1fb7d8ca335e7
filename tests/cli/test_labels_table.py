"""`facebench data prepare --labels` says how the words were read, and finds those it cannot."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.cli.data import app
from tests.data.sources import folder_of, jpeg

runner = CliRunner()


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
    assert "20-29 none: reaches from 15-25 into 26-40 1" in shown
    assert "age 9-Mar, once 3-9 0-14 22" in shown
    assert "neither none: not a word that is known 1" in shown
    errors = " ".join(result.stderr.split())
    assert "22 ages had been made dates by a spreadsheet" in errors
    assert "1 of 24 faces (4.2 %) have no gender" in errors
    assert "1 words of the labels are not known, in 1 rows: gender 'neither'" in errors
    assert "Where: labels.csv" in errors
