"""What takes disk space is found by kind, and what somebody is at work on stays."""

import json
import os
import time
from pathlib import Path

import pytest

from benchmark.files import file_lock
from benchmark.runs.folder import KINDS, SETTLED_SECONDS, removables
from tests.cli.test_run import facebench

PARTIAL = ".faces-100.1a2b3c4d.partial"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A runs and a data folder with one of everything that could go."""
    work, data = tmp_path / "runs" / "work", tmp_path / "data"
    for letter, ends in (("d", ["done.json"]), ("f", ["failed.json"]), ("1", [])):
        (work / (letter * 64)).mkdir(parents=True)
        for name in ("experiment.json", *ends):
            (work / (letter * 64) / name).write_text('{"schema": 1}')
    (work / ("d" * 64) / "model.safetensors").write_bytes(b"weights")
    (data / "cache").mkdir(parents=True)
    (data / PARTIAL).mkdir()
    for name in ("k.npy", "k.json", "l.partial"):
        (data / "cache" / name).touch()
    unfinished = work / ("d" * 64) / ".metrics.json.abcd1234.json"
    unfinished.touch()
    past = time.time() - SETTLED_SECONDS - 1
    for path in (unfinished, data / PARTIAL, data / "cache" / "l.partial"):
        os.utime(path, (past, past))
    (data / ".manifest.json.abcd1234.json").write_text("being written")
    return tmp_path


def found(home: Path, *kinds: str) -> set[str]:
    everything = removables(home / "runs", home / "data")
    return {item.path.name for item in everything if item.kind in (kinds or KINDS)}


def test_every_kind_is_found_and_nothing_that_is_being_written(home: Path) -> None:
    assert {kind: found(home, kind) for kind in KINDS} == {
        "leftovers": {".metrics.json.abcd1234.json", "l.partial", PARTIAL},
        "cache": {"k.npy"},
        "weights": {"model.safetensors"},
        "failed": {"f" * 64},
        "interrupted": {"1" * 64},
    }


def test_what_a_process_is_at_work_on_stays(home: Path) -> None:
    claim = home / "runs" / "work" / ("d" * 64) / "claim"
    everything = {item.path.name: item for item in removables(home / "runs", home / "data")}
    with file_lock(claim):
        assert "model.safetensors" not in found(home)
        for name in ("model.safetensors", ".metrics.json.abcd1234.json"):
            assert not everything[name].remove()
    assert everything["model.safetensors"].remove()
    assert "model.safetensors" not in found(home)


def test_the_command_removes_what_nobody_can_miss_and_more_where_it_is_asked_for(
    home: Path,
) -> None:
    def removed(*arguments: str) -> dict[str, int]:
        where = ("--runs-dir", home / "runs", "--data-dir", home / "data", "--json")
        answer = facebench("clean", *arguments, *where)
        assert answer.exit_code == 0, answer.output
        kinds = json.loads(answer.stdout)["data"]["kinds"]
        return {kind: row.get("removed", 0) for kind, row in kinds.items()}

    assert removed("--dry-run") == dict.fromkeys(KINDS, 0)
    assert len(found(home, "leftovers")) == 3
    assert removed()["leftovers"] == 3
    assert found(home) == {"k.npy", "model.safetensors", "f" * 64, "1" * 64}
    wanted = {"cache": 1, "failed": 1, "interrupted": 1}
    assert removed("--only", "failed,interrupted,cache") == wanted
    assert found(home) == {"model.safetensors"}
    assert not (home / "data" / "cache" / "k.json").exists()
    refused = facebench("clean", "--only", "everything")
    assert refused.exit_code == 2
    assert "interrupted" in refused.stderr
