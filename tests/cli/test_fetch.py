"""`facebench data fetch`: the licence first, then the archive, and what comes next."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmark.cli.data import app
from tests.cli.conftest import flat
from tests.faces.stand_in_hub import Hub, serving

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture(autouse=True)
def _hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(tmp_path) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield


def call(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["fetch", *arguments, "--data-dir", str(tmp_path / "data")])


def test_nothing_is_fetched_before_the_licence_is_accepted(tmp_path: Path) -> None:
    answer = call(tmp_path, "utkface")
    assert answer.exit_code == 2
    assert "for non-commercial research only" in flat(answer.stderr)
    assert "--accept-licence" in flat(answer.stderr)
    assert Hub.asked == []


def test_an_accepted_archive_is_here_and_what_comes_next_is_said(tmp_path: Path) -> None:
    answer = call(tmp_path, "utkface", "--accept-licence")
    assert answer.exit_code == 0
    archive = tmp_path / "data" / "UTKFace.tar.gz"
    assert f"facebench data prepare {archive}" in flat(answer.stdout)
    assert archive.read_bytes() == Hub.content


def test_a_machine_is_told_the_terms_and_the_sum(tmp_path: Path) -> None:
    answer = json.loads(call(tmp_path, "utkface", "--accept-licence", "--json").stdout)
    assert answer["data"]["faces"] == 5
    assert len(answer["data"]["sha256"]) == 64
    assert "non-commercial" in answer["data"]["terms"][0]


def test_an_unknown_data_set_is_a_sentence(tmp_path: Path) -> None:
    answer = call(tmp_path, "celeba")
    assert answer.exit_code == 2
    assert "allowed: utkface" in flat(answer.stderr)
