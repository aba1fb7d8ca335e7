"""`facebench speed` as a person meets it: two tables, three files, and every wrong turn."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from benchmark.cli.main import app

TINY = ("--images", "32", "--rounds", "1", "--epochs", "1", "--workers", "0", "--device", "cpu")


def facebench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def result(drawn_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("speed")
    rows = ("--rows", "data,cnn,deterministic", "--against", "none")
    return facebench(
        "speed", *rows, *TINY, "--dataset", "drawn", "--data-dir", drawn_data_dir, "--out", folder
    ), folder


def test_two_tables_fit_a_terminal_and_say_what_was_measured(result: tuple[Result, Path]) -> None:
    shown, _folder = result
    assert shown.exit_code == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for text in ("SYNTHETIC FACES", "small CNN", "32", "PIL decodes JPEG", "TFLOP/s", "roofline"):
        assert text in shown.stdout
    assert "not people" in shown.stderr


def test_the_files_have_every_number_and_a_picture(result: tuple[Result, Path]) -> None:
    _shown, folder = result
    found = json.loads((folder / "speed.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["data", "cnn", "deterministic"]
    cnn = found["rows"][1]
    assert cnn["images"] == 32
    assert set(cnn["ways"]) == {"plain", "ours"}
    assert len(cnn["ways"]["plain"]["rounds"]) == 1
    assert cnn["ways"]["ours"]["tflops"] > 0
    assert found["machine"]["peak_tflops"]["fp32"] > 0
    assert "| small CNN, an epoch | 32 |" in (folder / "speed.md").read_text()
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")
    again = facebench("speed", "--rows", "data", "--dataset", "drawn", "--out", folder)
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)


def test_a_wrong_word_is_one_sentence_and_exit_code_two(drawn_data_dir: Path) -> None:
    for arguments, said in (
        (("--rows", "vgg61"), "there is no row 'vgg61'"),
        (("--against", "keras"), "--against names 'keras'"),
        (("--device", "abacus"), "unknown device"),
    ):
        result = facebench("speed", *arguments, "--dataset", "drawn", "--data-dir", drawn_data_dir)
        assert result.exit_code == 2, arguments
        assert said in result.stderr
        assert "Traceback" not in result.stderr
