"""What takes disk space is found by kind, and what somebody is at work on stays."""

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.files import file_lock
from benchmark.runs.folder import KINDS, SETTLED_SECONDS, removables


def a_run(runs_dir: Path, identity: str, *ends: str) -> Path:
    folder = runs_dir / "work" / identity
    folder.mkdir(parents=True)
    for name in ("experiment", *ends):
        (folder / f"{name}.json").write_text('{"schema": 1}', encoding="utf-8")
    return folder


def aged(path: Path) -> None:
    past = time.time() - SETTLED_SECONDS - 1
    os.utime(path, (past, past))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A runs and a data folder with one of everything that could go."""
    done = a_run(tmp_path / "runs", "d" * 64, "done")
    (done / "model.safetensors").write_bytes(b"weights")
    a_run(tmp_path / "runs", "f" * 64, "failed")
    a_run(tmp_path / "runs", "1" * 64)
    cache = tmp_path / "data" / "cache"
    cache.mkdir(parents=True)
    (cache / "k.npy").write_bytes(b"features")
    (cache / "k.json").write_bytes(b"their checksum")
    (tmp_path / "data" / ".faces-100.1a2b3c4d.partial").mkdir()
    for half in (done / ".metrics.json.abcd1234.json", cache / "l.partial"):
        half.write_bytes(b"half")
        aged(half)
    aged(tmp_path / "data" / ".faces-100.1a2b3c4d.partial")
    (tmp_path / "data" / ".manifest.json.abcd1234.json").write_text("being written")
    return tmp_path


def found(home: Path, *kinds: str) -> set[str]:
    everything = removables(home / "runs", home / "data")
    return {item.path.name for item in everything if item.kind in (kinds or KINDS)}


def test_every_kind_is_found_and_nothing_that_is_being_written(home: Path) -> None:
    assert {kind: found(home, kind) for kind in KINDS} == {
        "leftovers": {".metrics.json.abcd1234.json", "l.partial", ".faces-100.1a2b3c4d.partial"},
        "cache": {"k.npy"},
        "weights": {"model.safetensors"},
        "failed": {"f" * 64},
        "interrupted": {"1" * 64},
    }


def test_what_a_process_is_at_work_on_stays(home: Path) -> None:
    claim = home / "runs" / "work" / ("d" * 64) / "claim"
    with file_lock(claim):
        assert "model.safetensors" not in found(home)
    everything = list(removables(home / "runs", home / "data"))
    for name in ("model.safetensors", ".metrics.json.abcd1234.json"):
        item = next(item for item in everything if item.path.name == name)
        with file_lock(claim):
            assert not item.remove()
        assert item.remove()
        assert not item.path.exists()


def clean(home: Path, *arguments: str) -> dict[str, dict[str, int]]:
    where = ["--runs-dir", str(home / "runs"), "--data-dir", str(home / "data"), "--json"]
    answer = CliRunner().invoke(app, ["clean", *arguments, *where])
    assert answer.exit_code == 0, answer.output
    kinds: dict[str, dict[str, int]] = json.loads(answer.stdout)["data"]["kinds"]
    return kinds


def test_by_itself_the_command_removes_only_what_nobody_can_miss(home: Path) -> None:
    assert clean(home, "--dry-run").keys() == KINDS.keys()
    assert len(found(home, "leftovers")) == 3
    assert clean(home)["leftovers"]["removed"] == 3
    assert found(home) == {"k.npy", "model.safetensors", "f" * 64, "1" * 64}


def test_what_is_asked_for_goes(home: Path) -> None:
    removed = clean(home, "--only", "failed,interrupted,cache")
    assert {kind: row["removed"] for kind, row in removed.items()} == {
        "cache": 1, "failed": 1, "interrupted": 1,
    }  # fmt: skip
    assert not found(home, "failed", "interrupted", "cache")
    assert not (home / "data" / "cache" / "k.json").exists()


def test_an_unknown_kind_is_refused(home: Path) -> None:
    answer = CliRunner().invoke(app, ["clean", "--only", "everything"])
    assert answer.exit_code == 2
    assert "interrupted" in answer.stderr
