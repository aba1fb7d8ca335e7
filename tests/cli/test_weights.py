"""`facebench weights` as a person and as a machine use it: text, JSON and exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.cli.weights import app
from tests.models import keras_squeezenet

runner = CliRunner()


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    return keras_squeezenet.write_h5(tmp_path / "any.h5", keras_squeezenet.random_kernels())


def weights(*arguments: object) -> tuple[int, str, str]:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_list_fits_eighty_columns_but_for_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, stdout, _ = weights("list", "--weights-dir", tmp_path)
    lines = [line for line in stdout.splitlines() if not line.lstrip().startswith("http")]
    assert code == 0
    assert "squeezenet1_1 imagenet" in stdout
    assert "missing" in stdout
    assert "facebench weights add FILE" in stdout
    assert max(len(line) for line in lines) <= 80


def test_list_answers_a_machine_with_one_object(tmp_path: Path) -> None:
    code, stdout, stderr = weights("list", "--weights-dir", tmp_path, "--json")
    answer = json.loads(stdout)
    assert (code, stderr, answer["ok"], answer["command"]) == (0, "", True, "weights list")
    (source,) = answer["data"]["sources"]
    assert (source["architecture"], source["state"], source["file"]) == (
        "squeezenet1_1",
        "missing",
        None,
    )
    assert source["published"][1]["sha256"] == "b8a52dc0"


def test_add_then_list_then_verify(h5: Path, tmp_path: Path) -> None:
    store = ("--data-dir", tmp_path / "data")
    code, stdout, stderr = weights("add", "--any-checksum", h5, *store)
    assert code == 0
    assert "squeezenet1_1 imagenet is here" in stdout
    assert "is not the published file" in stderr
    assert (tmp_path / "data" / "weights" / "squeezenet1_1-imagenet.safetensors").is_file()
    assert "here" in weights("list", *store)[1]
    code, stdout, _ = weights("verify", *store)
    assert (code, "squeezenet1_1-imagenet.safetensors: sound" in stdout) == (0, True)


def test_verify_finds_damage_with_exit_code_1(h5: Path, tmp_path: Path) -> None:
    weights("add", "--any-checksum", h5, "--weights-dir", tmp_path)
    stored = tmp_path / "squeezenet1_1-imagenet.safetensors"
    stored.write_bytes(stored.read_bytes()[:1000])
    code, stdout, stderr = weights("verify", "--weights-dir", tmp_path)
    assert (code, stdout) == (1, "")
    assert "is damaged" in stderr
    code, stdout, _ = weights("verify", "--weights-dir", tmp_path, "--json")
    assert (code, json.loads(stdout)["ok"]) == (1, False)


def test_verify_of_nothing_says_so(tmp_path: Path) -> None:
    code, stdout, _ = weights("verify", "--weights-dir", tmp_path)
    assert (code, "No weights in" in stdout) == (0, True)


def test_a_file_that_will_not_do_gives_exit_code_2_and_one_sentence(
    h5: Path, tmp_path: Path
) -> None:
    code, stdout, stderr = weights("add", h5, "--weights-dir", tmp_path / "store")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("WeightsError: any.h5 has the layout of a known file but")
    code, stdout, _ = weights("add", tmp_path / "no.h5", "--weights-dir", tmp_path, "--json")
    assert (code, json.loads(stdout)["ok"]) == (2, False)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("command", ["list", "add", "verify"])
def test_help_has_examples(command: str) -> None:
    code, stdout, _ = weights(command, "--help")
    assert code == 0
    assert f"facebench weights {command}" in stdout
