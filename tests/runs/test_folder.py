"""A run's folder: checkpoints as often as that is worth its time, equal files, what may go."""

import fcntl
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmark.files import file_lock
from benchmark.models.network import build_network
from benchmark.models.weight_formats import header_of
from benchmark.runs import folder
from benchmark.runs.folder import CHECKPOINT_FILE, KINDS, load_checkpoint, save_checkpoint
from tests.cli.conftest import facebench
from tests.runs.small import Place, an_experiment, settings

EXPERIMENT = an_experiment()


@pytest.mark.parametrize(
    ("cost", "seconds", "epochs", "written"),
    [
        (0.09, 0.01, 5, [1, 2, 3, 4, 5]),  # cheap
        # The first costs 0.5 s; so the next is due 10 s later, after 20 epochs of 0.5 s.
        (0.5, 0.5, 45, [1, 21, 41]),
        (2.0, 41, 4, [1, 2, 3, 4]),
        (30.0, 20, 7, [1, 4, 7]),  # a slow disk: a twentieth would be ten minutes
    ],
)
def test_checkpoints_take_a_twentieth_of_the_time_and_lose_a_minute_at_most(
    place: Place, monkeypatch: pytest.MonkeyPatch, cost: float, seconds: float, epochs: int,
    written: list[int],
) -> None:  # fmt: skip
    plan, kept, now = place.plan(EXPERIMENT), list[int](), 0.0
    plan.folder.mkdir(parents=True)

    def save(path: Path, checkpoint: dict[str, Any]) -> None:
        nonlocal now
        save_checkpoint(path, checkpoint)
        kept.append(checkpoint["epochs_done"])
        now += cost

    def on_disk() -> set[int]:
        """Epochs of the checkpoint, of the history in it, and of history.csv."""
        checkpoint = load_checkpoint(plan.folder / CHECKPOINT_FILE) or {}
        table = pd.read_csv(plan.folder / "history.csv")
        return {checkpoint["epochs_done"], len(checkpoint["history"]), len(table)}

    monkeypatch.setattr(folder, "save_checkpoint", save)
    state: Any = SimpleNamespace(checkpoint=lambda: {"epochs_done": state.epochs_done})
    writer = folder.CheckpointWriter(plan, settings(place.runs_dir), [], lambda: now)
    for epoch in range(epochs):
        now += seconds
        state.epochs_done = epoch + 1
        result: Any = SimpleNamespace(epoch=epoch, metrics=lambda: {"train/loss": 1.0})
        writer.add(state, result)
    assert kept == written
    assert on_disk() == {written[-1]}
    for _ in range(2):  # The end is written once.
        assert writer.finish(state)["epoch"].tolist() == [*range(1, epochs + 1)]
    assert kept == sorted({*written, epochs})
    assert on_disk() == {epochs}


def test_a_checkpoint_comes_back_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    path, weight = tmp_path / "checkpoint.pt", torch.arange(4096.0)
    assert load_checkpoint(path) is None
    save_checkpoint(path, {"weight": weight, "history": [{"epoch": 1}]})
    found = load_checkpoint(path)
    assert found is not None
    assert torch.equal(found["weight"], weight)
    assert found["history"] == [{"epoch": 1}]
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged in (bytes(flipped), *(content[:keep] for keep in (0, 10, 29, 500, -1))):
        path.write_bytes(damaged)
        assert load_checkpoint(path) is None


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    """In each process the library orders its notes otherwise, and in each call too."""
    network = build_network(EXPERIMENT, None, 0)
    paths = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for path in paths:
        folder.save_weights(path, network, EXPERIMENT, faces_px=32)
    assert len({path.read_bytes() for path in paths}) == 1
    stored = load_file(paths[0])
    assert all(torch.equal(stored[name], value) for name, value in network.state_dict().items())
    assert header_of(paths[0])["faces_px"] == "32"


PARTIAL = ".faces-100.1a2b3c4d.partial"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A runs and a data folder with one of everything that could go."""
    done = f"runs/work/{'d' * 64}"
    old = (f"{done}/.metrics.json.abcd1234.json", f"data/{PARTIAL}", "data/cache/l.partial")
    (tmp_path / "data" / PARTIAL).mkdir(parents=True)
    for name in (
        f"{done}/experiment.json", f"{done}/done.json", "data/cache/k.npy", "data/cache/k.json",
        "data/.manifest.json.abcd1234.json", old[0], old[2],
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"schema": 1}')
    past = time.time() - folder.SETTLED_SECONDS - 1
    for name in old:
        os.utime(tmp_path / name, (past, past))
    return tmp_path


def found(home: Path, *kinds: str) -> set[str]:
    return {item.path.name for item in removables(home) if item.kind in (kinds or KINDS)}


def removables(home: Path) -> list[folder.Removable]:
    return list(folder.removables(home / "runs", home / "data"))


def test_what_a_process_is_at_work_on_stays(home: Path) -> None:
    cached = next(item for item in removables(home) if item.kind == "cache")
    with file_lock(cached.path.with_suffix(".claim")):
        assert not cached.remove()
    assert cached.remove()
    partial = home / "data" / PARTIAL
    descriptor = os.open(partial, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as `data prepare` does
    assert PARTIAL not in found(home)
    os.close(descriptor)
    assert PARTIAL in found(home)


def test_what_nobody_can_miss_is_removed_and_more_where_it_is_asked_for(home: Path) -> None:
    def removed(*arguments: str) -> dict[str, int]:
        where = ("--runs-dir", home / "runs", "--data-dir", home / "data", "--json")
        answer = facebench("clean", *arguments, *where)
        assert answer.exit_code == 0, answer.output
        kinds = json.loads(answer.stdout)["data"]["kinds"]
        return {kind: row["n"] for kind, row in kinds.items()}

    assert removed("--dry-run").keys() == KINDS.keys()
    assert found(home, "leftovers") == {".metrics.json.abcd1234.json", "l.partial", PARTIAL}
    assert removed()["leftovers"] == 3
    assert found(home) == {"k.npy"}
    assert removed("--only", "cache") == {"cache": 1}
    assert not found(home)
    assert not (home / "data" / "cache" / "k.json").exists()
    refused = facebench("clean", "--only", "everything")
    assert refused.exit_code == 2
    assert "leftovers" in refused.stderr
