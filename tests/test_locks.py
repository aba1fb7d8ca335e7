"""A lock is one process's, and dies with it."""

import os
import subprocess
import sys
from pathlib import Path

from benchmark.files import file_lock, is_locked, lock_owner


def test_a_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    with file_lock(path) as mine:
        assert mine
        assert lock_owner(path)["pid"] == os.getpid()
    with file_lock(path) as mine_again:
        assert mine_again


def test_another_process_sees_the_lock_and_its_death_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "claim"
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
        other.kill()
    with file_lock(path) as mine:
        assert mine


def test_asking_who_holds_a_lock_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    assert not is_locked(path)
    assert not path.exists()
    with file_lock(path) as mine:
        assert mine
        assert is_locked(path)
    assert not is_locked(path)
    with file_lock(path) as mine_again:
        assert mine_again
