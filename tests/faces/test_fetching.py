"""A published archive is fetched whole, gone on with, looked through, and never half there."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.data.fetch import PART_FOLDER, UTKFACE, fetch, published_as
from benchmark.errors import DataError
from tests.faces.stand_in_hub import Hub, serving

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(tmp_path) as url:
        yield url


def test_an_archive_arrives_whole(address: str, tmp_path: Path) -> None:
    fetched = fetch(UTKFACE, tmp_path / "data", endpoint=address)
    assert fetched.path.read_bytes() == Hub.content
    assert (fetched.is_new, fetched.n_faces) == (True, 5)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [UTKFACE.file_name]


def test_an_archive_that_is_there_is_left_alone(address: str, tmp_path: Path) -> None:
    first = fetch(UTKFACE, tmp_path, endpoint=address)
    second = fetch(UTKFACE, tmp_path, endpoint=address)
    assert (first.is_new, second.is_new) == (True, False)
    assert first.sha256 == second.sha256
    assert len(Hub.asked) == 1


def test_bytes_that_are_not_those_of_the_checksum_are_refused(address: str, tmp_path: Path) -> None:
    Hub.digest = "0" * 64
    with pytest.raises(DataError, match="not those of the hub's checksum"):
        fetch(UTKFACE, tmp_path, endpoint=address)
    assert not (tmp_path / UTKFACE.file_name).exists()


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b broken"])
def test_what_is_no_archive_of_faces_is_not_kept(
    content: bytes, address: str, tmp_path: Path
) -> None:
    Hub.content = content
    with pytest.raises(DataError, match=r"what came as UTKFace\.tar\.gz is not the archive"):
        fetch(UTKFACE, tmp_path, endpoint=address)
    assert not (tmp_path / UTKFACE.file_name).exists()
    assert not (tmp_path / PART_FOLDER / UTKFACE.file_name).exists()


def test_a_hub_that_has_no_such_file_is_a_sentence(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not be downloaded.*[Dd]ownload it by hand"):
        fetch(UTKFACE, tmp_path, endpoint=f"{address}/elsewhere")


def test_no_network_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch(UTKFACE, tmp_path, endpoint="http://127.0.0.1:9")


def test_a_missing_package_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'facebench\[fetch\]'"):
        fetch(UTKFACE, tmp_path)


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(DataError, match="allowed: utkface"):
        published_as("celeba")
