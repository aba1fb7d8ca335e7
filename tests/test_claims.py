"""A claim is one process's, and dies with it."""

import os
import subprocess
import sys
from pathlib import Path

from benchmark.files import claimed, holder, is_held


def test_a_claim_is_free_again_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    with claimed(path) as mine:
        assert mine
        assert holder(path)["pid"] == os.getpid()
    with claimed(path) as mine_again:
        assert mine_again


def test_another_process_sees_the_claim_and_its_death_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    code = (
        "import sys, pathlib; from benchmark.files import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1])) as mine: print(mine, flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        with claimed(path) as mine:
            assert not mine
        other.kill()
    with claimed(path) as mine:
        assert mine


def test_asking_who_holds_a_claim_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    assert not is_held(path)
    assert not path.exists()
    with claimed(path) as mine:
        assert mine
        assert is_held(path)
    assert not is_held(path)
    with claimed(path) as mine_again:
        assert mine_again
