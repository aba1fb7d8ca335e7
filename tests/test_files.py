"""No reader ever meets half a file; a lock is one process's, and dies with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from benchmark import files
from benchmark.files import file_lock, is_locked, lock_owner, replacing


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_a_library_keeps_to_its_owner_is_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    with replacing(tmp_path / "weights.safetensors") as temporary:
        save_file({}, temporary)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_sha256_is_the_standards(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1: the digest of "abc".
    assert files.sha256_of(tmp_path / "f").startswith("ba7816bf8f01cfea")


def test_a_lock_is_one_process_s_whose_death_frees_it_and_asking_takes_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "claim"
    assert not is_locked(path)
    assert not path.exists()
    code = (
        "import sys, pathlib; from benchmark.files import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1])) as mine: print(mine, flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        with file_lock(path) as mine:
            assert not mine
        assert lock_owner(path)["pid"] == other.pid
        other.kill()
    for _ in range(2):
        assert not is_locked(path)
        with file_lock(path) as mine:
            assert mine
            assert is_locked(path)
            assert lock_owner(path)["pid"] == os.getpid()
