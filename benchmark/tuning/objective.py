"""What a trial does: the seam between a search, which chooses, and a training, which learns.

A search knows only this: from a point come scores, one per epoch, and closing the generator stops
the trial. The training behind it is an ordinary run, tracked like any other.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from benchmark.experiment import Experiment
from benchmark.experiment_search import experiment_at
from benchmark.faces.batches import FaceBatches
from benchmark.faces.store import FaceSet
from benchmark.files import write_json
from benchmark.plans import Plan, Settings, plan_run
from benchmark.results.record import SCHEMA, TRIAL_FILE, RunRecord
from benchmark.runs import Advanced, Event, Finished, Prepared, Skipped, Started, run
from benchmark.training.trainer import EpochResult, Progress
from benchmark.tuning.study import OBJECTIVE, TRIAL_SEED, Study

POLL_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Score:
    """An epoch's combined validation accuracy; epochs count from 0."""

    epoch: int
    value: float
    is_last: bool = False
    """Known to be the last one: giving up then saves nothing."""


@dataclass(frozen=True)
class Underway:
    """The run that a trial is, once there is one."""

    record: RunRecord


@dataclass(frozen=True)
class Noted:
    """A sentence about how the trial trains."""

    sentence: str


Step = Score | Underway | Noted | Progress


class Objective(Protocol):
    """From a point, a trial's number and a seed to what happens, by epoch; closed, it stops."""

    def __call__(
        self, point: Mapping[str, Any], number: int, seed: int = TRIAL_SEED
    ) -> Generator[Step]: ...


def trial_settings(settings: Settings) -> Settings:
    """Give settings under which no trial reads a test face or keeps a network."""
    return replace(settings, read_test=False, keep_weights="none")


class Training:
    """The objective: train the experiment at a point, and hand on its validation scores."""

    def __init__(self, study: Study, settings: Settings) -> None:
        self._study = study
        self._settings = trial_settings(settings)
        faces: FaceSet = study.faces
        self._on_device = FaceBatches.on_device(
            faces.pixels(), faces.table, settings.device.torch_device, settings.speed.say
        )
        # Weights that are missing stop the search before it begins, and not every trial.
        self._plan(study.experiment, TRIAL_SEED)

    def _plan(self, experiment: Experiment, seed: int) -> Plan:
        return plan_run(experiment, seed, self._study.faces, self._settings)

    def __call__(
        self, point: Mapping[str, Any], number: int, seed: int = TRIAL_SEED
    ) -> Generator[Step]:
        """Train at a point; raises RunError where the training fails."""
        experiment = experiment_at(self._study.experiment, point)
        plan = self._plan(experiment, seed)
        if plan.record.state == "absent":
            about = {"schema": SCHEMA, "study": self._study.identity, "trial": number}
            write_json(plan.folder / TRIAL_FILE, about)
        yield Underway(plan.record)
        n_epochs = experiment.recipe.max_epochs
        waiting = True
        while waiting:
            waiting = False
            for event in run(plan, self._on_device, self._settings):
                if isinstance(event, Skipped) and event.why != "done":
                    waiting = True  # Another process trains this very recipe: its scores are ours.
                    time.sleep(POLL_SECONDS)
                yield from _steps(event, plan, n_epochs)


def _steps(event: Event, plan: Plan, n_epochs: int) -> Iterator[Step]:
    """Say what a run's event means to a search."""
    if isinstance(event, Started) and event.epochs_done:
        yield from _earlier(plan, event.epochs_done, n_epochs)
    elif isinstance(event, Skipped) and event.why == "done":
        yield from _earlier(plan, n_epochs, n_epochs)
    elif isinstance(event, Prepared) and event.sentence:
        yield Noted(event.sentence)
    elif isinstance(event, Advanced) and isinstance(event.step, EpochResult):
        step = event.step
        yield Score(step.epoch, step.val_combined, step.epoch + 1 == n_epochs)
    elif isinstance(event, Advanced) and isinstance(event.step, Progress):
        yield event.step
    assert isinstance(event, (Started, Prepared, Advanced, Finished, Skipped)), event


def _earlier(plan: Plan, n_done: int, n_epochs: int) -> Iterator[Score]:
    """Give the scores that a run had before this process came to it."""
    history = RunRecord(plan.folder).history()
    for epoch, value in enumerate(history[OBJECTIVE].head(n_done)):
        yield Score(epoch, float(value), epoch + 1 == n_epochs)
