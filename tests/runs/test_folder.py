"""A run's folder: checkpoints as often as that is worth its time, equal files, leftovers."""

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

from benchmark.data.progress import owned
from benchmark.models.network import build_network
from benchmark.models.weight_formats import header_of
from benchmark.runs import folder
from benchmark.runs.folder import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
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


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    done, partial = f"runs/work/{'d' * 64}", tmp_path / "data/.faces-100.partial"
    old = (f"{done}/.metrics.json.abcd1234.json", "data/cache/l.partial")
    partial.mkdir(parents=True)
    kept = (f"{done}/done.json", "data/cache/k.npy", "data/.manifest.json.abcd1234.json")
    for name in (*kept, *old):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"schema": 1}')
    past = time.time() - folder.SETTLED_SECONDS - 1
    for path in (partial, *(tmp_path / name for name in old)):
        os.utime(path, (past, past))
    where = ("--runs-dir", tmp_path / "runs", "--data-dir", tmp_path / "data", "--json")

    def n_removed(*arguments: str) -> int:
        answer = facebench("clean", *arguments, *where)
        assert answer.exit_code == 0, answer.output
        return int(json.loads(answer.stdout)["data"]["n"])

    with owned(tmp_path / "data/faces-100"):  # as `data prepare` does
        assert n_removed("--dry-run") == n_removed() == 2
    assert n_removed() == 1
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
