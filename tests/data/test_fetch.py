"""A published archive is fetched after its licence was accepted: whole and checked, or not."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmark.cli.data import app
from benchmark.data.fetch import FILE_NAME, PART_FOLDER, fetch
from benchmark.errors import DataError
from tests.cli.conftest import flat
from tests.data.stand_in_hub import Hub, serving

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


def test_an_archive_arrives_whole_and_is_fetched_once(tmp_path: Path) -> None:
    first, second = (fetch(tmp_path / "data") for _ in range(2))
    assert first.path.read_bytes() == Hub.content
    assert (first.is_new, first.n_faces, second.is_new) == (True, 5, False)
    assert first.sha256 == second.sha256
    assert [path.name for path in (tmp_path / "data").iterdir()] == [FILE_NAME]
    assert len(Hub.asked) == 1


def test_a_connection_that_breaks_is_tried_again_and_what_a_kill_left_goes(tmp_path: Path) -> None:
    Hub.breaks_after = 50_000
    (tmp_path / "data" / PART_FOLDER / "left by a killed process").mkdir(parents=True)
    assert fetch(tmp_path / "data").path.read_bytes() == Hub.content
    assert len(Hub.asked) == 2
    assert [path.name for path in (tmp_path / "data").iterdir()] == [FILE_NAME]


def test_bytes_that_are_not_those_of_the_checksum_are_refused(tmp_path: Path) -> None:
    Hub.digest = "0" * 64
    with pytest.raises(DataError, match="not those of the hub's checksum"):
        fetch(tmp_path / "data")
    assert not (tmp_path / "data" / FILE_NAME).exists()


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b broken"])
def test_what_is_no_archive_of_faces_is_not_kept(content: bytes, tmp_path: Path) -> None:
    Hub.content = content
    with pytest.raises(DataError, match=r"what came as UTKFace\.tar\.gz is not the archive"):
        fetch(tmp_path / "data")
    assert not (tmp_path / "data" / FILE_NAME).exists()
    assert list((tmp_path / "data").iterdir()) == []


def test_no_network_no_file_and_no_package_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(DataError, match=r"could not be downloaded.*[Dd]ownload it by hand"):
            fetch(tmp_path / "data")
        patch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(DataError, match=r"pip install 'facebench\[fetch\]'"):
            fetch(tmp_path / "data")
    answer = call(tmp_path, "celeba")
    assert (answer.exit_code, "allowed: utkface" in flat(answer.stderr)) == (2, True)


def test_nothing_is_fetched_before_the_licence_is_accepted(tmp_path: Path) -> None:
    answer = call(tmp_path, "utkface")
    assert answer.exit_code == 2
    assert "for non-commercial research only" in flat(answer.stderr)
    assert "--accept-licence" in flat(answer.stderr)
    assert Hub.asked == []


def test_an_accepted_archive_is_here_and_the_next_command_is_named(tmp_path: Path) -> None:
    answer = call(tmp_path, "utkface", "--accept-licence")
    assert answer.exit_code == 0
    archive = tmp_path / "data" / "UTKFace.tar.gz"
    assert f"facebench data prepare {archive}" in flat(answer.stdout)
    assert archive.read_bytes() == Hub.content
    data = json.loads(call(tmp_path, "utkface", "--accept-licence", "--json").stdout)["data"]
    assert (data["faces"], len(data["sha256"])) == (5, 64)
    assert "non-commercial" in data["terms"][0]
