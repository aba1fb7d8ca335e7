"""Checkpoints: as often as that is worth its time, and read as written or not at all."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmark.models.network import build_network
from benchmark.models.weight_formats import header_of
from benchmark.runs import folder
from benchmark.runs.folder import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from benchmark.training.trainer import EpochResult, start
from tests.runs.small import Place, an_experiment, settings
from tests.training.small import CPU

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

    def on_disk() -> tuple[int, int, int]:
        """Epochs of the checkpoint, of the history in it, and of history.csv."""
        checkpoint = load_checkpoint(plan.folder / CHECKPOINT_FILE) or {}
        table = pd.read_csv(plan.folder / "history.csv")
        return checkpoint["epochs_done"], len(checkpoint["history"]), len(table)

    monkeypatch.setattr(folder, "save_checkpoint", save)
    state = start(build_network(EXPERIMENT, None, 0), EXPERIMENT.recipe, CPU)
    writer = folder.CheckpointWriter(plan, settings(place.runs_dir), [], lambda: now)
    rates: dict[Any, float] = {"gender": 0.5}
    for epoch in range(epochs):
        now += seconds
        state.epochs_done += 1
        writer.add(state, EpochResult(epoch, 1e-3, 1.0, rates, rates, 0.5, False, 1.0, 100.0, {}))
    assert kept == written
    assert on_disk() == (written[-1],) * 3, "all that is written is of the same epoch"
    for _ in range(2):  # The end is written once.
        assert writer.finish(state)["epoch"].tolist() == [*range(1, epochs + 1)]
    assert kept == sorted({*written, epochs})
    assert on_disk() == (epochs,) * 3


STATE = {"network": {"weight": torch.arange(4096.0)}, "epochs_done": 3, "history": [{"epoch": 1}]}


def test_a_checkpoint_comes_back_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path) is None
    save_checkpoint(path, STATE)
    found = load_checkpoint(path)
    assert found is not None
    assert torch.equal(found["network"]["weight"], STATE["network"]["weight"])  # type: ignore[index]
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
