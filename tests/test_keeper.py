"""A run is kept as often as that is worth its time, and a kill never costs more than said."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.evaluation.predictions import read_predictions
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.models.network import build_network
from benchmark.runs import checkpoints
from benchmark.runs.checkpoints import CHECKPOINT_FILE, Keeper, load_checkpoint, save_checkpoint
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.runs.run import Advanced, Started, run
from benchmark.training.trainer import EpochResult, TrainingState, start
from tests.training.small import CPU

EXPERIMENT = Experiment(
    name="mtl-cnn-none-full-kept",
    asks="How often is it kept?",
    backbone=Backbone("cnn", input_px=32),
    head=Head(hidden_units=16),
    recipe=Recipe(learning_rate=1e-3, max_epochs=4, steps_per_epoch=4),
)


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def plan(drawn_faces: FaceSet, tmp_path: Path) -> Plan:
    return a_plan(drawn_faces, settings(tmp_path))


def settings(runs_dir: Path) -> Settings:
    return Settings(runs_dir=runs_dir, weights_dir=runs_dir / "weights", device=CPU, offline=True)


def a_plan(faces: FaceSet, where: Settings) -> Plan:
    found = plan_run(EXPERIMENT, 0, faces, where)
    found.folder.mkdir(parents=True, exist_ok=True)
    return found


def a_state() -> TrainingState:
    return start(build_network(EXPERIMENT, None, 0), EXPERIMENT.recipe, CPU)


def epoch(number: int) -> EpochResult:
    rates: dict[Any, float] = {"gender": 0.5}
    return EpochResult(number, 1e-3, 1.0, rates, rates, 0.5, False, 1.0, 100.0, {})


class Course:
    """A training whose epochs and whose keeping take as long as they are told."""

    def __init__(self, plan: Plan, where: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.plan, self.state = Clock(), plan, a_state()
        self.cost = 0.0
        self.kept: list[int] = []
        self.keeper = Keeper(plan, where, [], self.clock)
        monkeypatch.setattr(checkpoints, "save_checkpoint", self._save)

    def _save(self, path: Path, checkpoint: dict[str, Any]) -> None:
        save_checkpoint(path, checkpoint)
        self.kept.append(checkpoint["epochs_done"])
        self.clock.now += self.cost

    def train(self, epochs: int, seconds: float) -> None:
        for _ in range(epochs):
            self.clock.now += seconds
            done = self.state.epochs_done
            self.state.epochs_done = done + 1
            self.keeper.add(self.state, epoch(done))

    def on_disk(self) -> tuple[int, int, int]:
        """Epochs of the checkpoint, of the history in it, and of history.csv."""
        checkpoint = load_checkpoint(self.plan.folder / CHECKPOINT_FILE)
        assert checkpoint is not None
        table = pd.read_csv(self.plan.folder / "history.csv")
        return checkpoint["epochs_done"], len(checkpoint["history"]), len(table)


@pytest.fixture
def course(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    return Course(plan, settings(tmp_path), monkeypatch)


def test_what_costs_little_is_kept_after_every_epoch(course: Course) -> None:
    course.cost = 0.09
    course.train(5, seconds=0.01)
    assert course.kept == [1, 2, 3, 4, 5]


def test_what_costs_much_is_kept_when_twenty_times_as_long_has_gone_by(course: Course) -> None:
    # The first costs 0.5 s; so the next is due 10 s later, after 20 epochs of 0.5 s.
    course.cost = 0.5
    course.train(45, seconds=0.5)
    assert course.kept == [1, 21, 41]
    assert course.on_disk() == (41, 41, 41), "all that is kept is of the same epoch"


def test_long_epochs_are_all_kept_whatever_that_costs(course: Course) -> None:
    course.cost = 2.0
    course.train(4, seconds=41)
    assert course.kept == [1, 2, 3, 4]


def test_no_more_than_a_minute_is_ever_lost(course: Course) -> None:
    course.cost = 30.0  # a slow disk: a twentieth would be ten minutes
    course.train(7, seconds=20)
    assert course.kept == [1, 4, 7]


def test_the_end_is_kept_once(course: Course) -> None:
    course.cost = 0.5
    course.train(6, seconds=0.5)
    assert course.on_disk() == (1, 1, 1)
    course.keeper.finish(course.state)
    course.keeper.finish(course.state)
    assert course.kept == [1, 6]
    assert course.on_disk() == (6, 6, 6)
    assert course.keeper.table()["epoch"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_run_stopped_after_epochs_that_were_not_kept_ends_as_an_undisturbed_one(
    drawn_faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = FaceBatches.on_device(drawn_faces.pixels(), drawn_faces.table, CPU.torch_device)
    where = settings(tmp_path / "stopped")
    plan = a_plan(drawn_faces, where)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "CHEAP_SECONDS", 0.0)
        patched.setattr(checkpoints, "SHARE", 1e-9)
        stopped = run(plan, faces, where)
        for event in stopped:
            step = event.step if isinstance(event, Advanced) else None
            if isinstance(step, EpochResult) and step.epoch == 2:
                break
        stopped.close()  # type: ignore[attr-defined]
    assert plan.record.history()["epoch"].tolist() == [1]

    events = list(run(plan, faces, where))
    assert isinstance(events[0], Started)
    assert events[0].epochs_done == 1
    whole_settings = settings(tmp_path / "whole")
    whole = a_plan(drawn_faces, whole_settings)
    list(run(whole, faces, whole_settings))
    pd.testing.assert_frame_equal(
        read_predictions(plan.record.predictions_path),
        read_predictions(whole.record.predictions_path),
    )
    assert plan.record.history()["epoch"].tolist() == [1, 2, 3, 4]
