"""A folder is whole or not there, whatever happens while it is made."""

from pathlib import Path

import pytest

from benchmark.data.dataset import staged_folder
from benchmark.errors import DataError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_has_its_name_only_at_the_end(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "faces") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "faces").exists()
    assert names_in(tmp_path) == ["faces"]
    assert (tmp_path / "faces" / "a").read_text() == "a"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail_half_way() -> None:
        with staged_folder(tmp_path / "faces") as folder:
            (folder / "a").write_text("a")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert names_in(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_what_is_at_work_is_not(tmp_path: Path) -> None:
    (tmp_path / ".faces.killed.partial").mkdir()
    with staged_folder(tmp_path / "faces") as at_work:
        with staged_folder(tmp_path / "faces"):
            assert at_work.exists()
            assert not (tmp_path / ".faces.killed.partial").exists()
        (tmp_path / "faces").rmdir()


def test_a_name_that_is_taken_meanwhile_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="something called 'faces'"),
        staged_folder(tmp_path / "faces"),
    ):
        (tmp_path / "faces" / "other").mkdir(parents=True)
    assert names_in(tmp_path) == ["faces"]


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a folder")
    with (
        pytest.raises(DataError, match="cannot be written"),
        staged_folder(tmp_path / "data" / "x"),
    ):
        pass
