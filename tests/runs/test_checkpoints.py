"""Checkpoints: as often as that is worth its time, and taken up as written or not at all."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmark.evaluation.predictions import read_predictions
from benchmark.models.network import build_network
from benchmark.models.weight_formats import header_of
from benchmark.runs import folder
from benchmark.runs.folder import load_checkpoint, save_checkpoint
from benchmark.runs.plan import Plan, Settings
from benchmark.runs.run import Advanced, Started
from benchmark.training.trainer import EpochResult, start
from tests.runs.small import Place, an_experiment, settings
from tests.training.small import CPU

EXPERIMENT = an_experiment("mtl-cnn-none-full-kept", max_epochs=4, steps_per_epoch=4)


def epoch(number: int) -> EpochResult:
    rates: dict[Any, float] = {"gender": 0.5}
    return EpochResult(number, 1e-3, 1.0, rates, rates, 0.5, False, 1.0, 100.0, {})


class Course:
    """A training whose epochs and whose keeping take as long as they are told."""

    def __init__(self, plan: Plan, where: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        network = build_network(EXPERIMENT, None, 0)
        self.plan, self.state = plan, start(network, EXPERIMENT.recipe, CPU)
        self.now = self.cost = 0.0
        self.kept: list[int] = []
        self.writer = folder.CheckpointWriter(plan, where, [], lambda: self.now)
        monkeypatch.setattr(folder, "save_checkpoint", self._save)

    def _save(self, path: Path, checkpoint: dict[str, Any]) -> None:
        save_checkpoint(path, checkpoint)
        self.kept.append(checkpoint["epochs_done"])
        self.now += self.cost

    def train(self, epochs: int, seconds: float) -> None:
        for _ in range(epochs):
            self.now += seconds
            self.state.epochs_done += 1
            self.writer.add(self.state, epoch(self.state.epochs_done - 1))

    def on_disk(self) -> tuple[int, int, int]:
        """Epochs of the checkpoint, of the history in it, and of history.csv."""
        checkpoint = load_checkpoint(self.plan.folder / folder.CHECKPOINT_FILE)
        assert checkpoint is not None
        table = pd.read_csv(self.plan.folder / "history.csv")
        return checkpoint["epochs_done"], len(checkpoint["history"]), len(table)


@pytest.fixture
def course(place: Place, monkeypatch: pytest.MonkeyPatch) -> Course:
    plan = place.plan(EXPERIMENT)
    plan.folder.mkdir(parents=True)
    return Course(plan, settings(place.runs_dir), monkeypatch)


@pytest.mark.parametrize(
    ("cost", "seconds", "epochs", "written"),
    [
        (0.09, 0.01, 5, [1, 2, 3, 4, 5]),
        # The first costs 0.5 s; so the next is due 10 s later, after 20 epochs of 0.5 s.
        (0.5, 0.5, 45, [1, 21, 41]),
        (2.0, 41, 4, [1, 2, 3, 4]),
        (30.0, 20, 7, [1, 4, 7]),  # a slow disk: a twentieth would be ten minutes
    ],
    ids=["cheap", "costly", "long epochs", "a minute at most"],
)
def test_checkpoints_take_a_twentieth_of_the_time_and_lose_a_minute_at_most(
    course: Course, cost: float, seconds: float, epochs: int, written: list[int]
) -> None:
    course.cost = cost
    course.train(epochs, seconds)
    assert course.kept == written
    assert course.on_disk() == (written[-1],) * 3, "all that is written is of the same epoch"


def test_the_end_is_kept_once(course: Course) -> None:
    course.cost = 0.5
    course.train(6, seconds=0.5)
    assert course.on_disk() == (1, 1, 1)
    course.writer.finish(course.state)
    table = course.writer.finish(course.state)
    assert course.kept == [1, 6]
    assert course.on_disk() == (6, 6, 6)
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_run_stopped_after_epochs_that_were_not_kept_ends_as_an_undisturbed_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = place.plan(EXPERIMENT)
    with monkeypatch.context() as patched:
        patched.setattr(folder, "CHEAP_SECONDS", 0.0)
        patched.setattr(folder, "SHARE", 1e-9)
        stopped = place.run(plan)
        for event in stopped:
            step = event.step if isinstance(event, Advanced) else None
            if isinstance(step, EpochResult) and step.epoch == 2:
                break
        stopped.close()
    assert plan.record.history()["epoch"].tolist() == [1]

    events = list(place.run(plan))
    assert isinstance(events[0], Started)
    assert events[0].epochs_done == 1
    whole = Place(place.faces, place.runs_dir / "whole").done(EXPERIMENT)
    pd.testing.assert_frame_equal(
        read_predictions(plan.record.predictions_path), read_predictions(whole.predictions_path)
    )
    assert plan.record.history()["epoch"].tolist() == [1, 2, 3, 4]


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
