"""The loop of a search, and the objective that trains a trial.

The loop of a search. It yields what happens; whoever reads it shows, counts or stops.

Reading no further stops it as Ctrl-C does: the running trial is marked and queued again, and the
same search goes on next time.

What a trial does: the seam between a search, which chooses, and a training, which learns.

A search knows only this: from a point come scores, one per epoch, and closing the generator stops
the trial. The training behind it is an ordinary run, tracked like any other.
"""

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, RunError
from benchmark.experiment.definition import Experiment
from benchmark.experiment.search_points import experiment_at
from benchmark.files import write_json
from benchmark.record import SCHEMA, TRIAL_FILE, RunRecord
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.runs.run import Advanced, Event, Finished, Prepared, Skipped, Started, run
from benchmark.training.trainer import EpochResult, Progress
from benchmark.tuning.recipes import FreshScores
from benchmark.tuning.study import FRESH_SEEDS, OBJECTIVE, TRIAL_SEED, Study
from benchmark.tuning.trials import Ledger, Ticket, Told

TRIAL_POLL_SECONDS: Final = 1.0


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
                    time.sleep(TRIAL_POLL_SECONDS)
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


POLL_SECONDS: Final = 0.5
FEWEST_FAILURES: Final = 5
"""A search without a single good trial ends after so many failed, or after as many as wanted."""


@dataclass(frozen=True)
class Began:
    """A trial began."""

    number: int
    point: Mapping[str, Any]


@dataclass(frozen=True)
class Moved:
    """A trial trained on: an epoch's score, progress within one, or a remark."""

    number: int
    step: Score | Noted | Progress


@dataclass(frozen=True)
class Ended:
    """A trial ended: `complete`, `pruned` or `failed`."""

    number: int
    state: str
    value: float | None
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Remarked:
    """Something about the search that a person should know."""

    sentence: str


SearchEvent = Began | Moved | Ended | Remarked


@dataclass(frozen=True)
class Limits:
    """When a search ends."""

    n_trials: int
    """Complete and pruned ones, of all processes and sessions together."""
    seconds: float | None = None
    """Of this process; no trial begins after it."""
    began: float = field(default_factory=time.monotonic)

    @property
    def is_out_of_time(self) -> bool:
        """Whether no further trial may begin."""
        return self.seconds is not None and time.monotonic() - self.began >= self.seconds


def search(ledger: Ledger, objective: Objective, limits: Limits) -> Generator[SearchEvent]:
    """Try point after point until there are enough trials; resumes whatever is in the ledger."""
    n_failed = 0
    while True:
        if limits.is_out_of_time:
            yield Remarked(f"the time of {limits.seconds:g} s is over: no further trial begins")
            return
        taken = ledger.take(limits.n_trials)
        while ledger.left:
            yield Remarked(ledger.left.pop(0))
        if taken == "enough":
            return
        if taken == "wait":
            time.sleep(POLL_SECONDS)
            continue
        assert isinstance(taken, Ticket)
        ended = yield from _tried(ledger, objective, taken)
        yield ended
        n_failed += ended.state == "failed"
        if _is_hopeless(ledger, n_failed, limits):
            yield Remarked(f"{n_failed} trials failed and none was good: the search ends here")
            return


def compared(
    objective: Objective, trials: Sequence[Told]
) -> Generator[SearchEvent, None, tuple[FreshScores, ...]]:
    """Train the recipes of finalists with fresh seeds; give what each scores.

    The best of many trials is flattered by its choice, and the seed it was chosen by is part of
    that. One that cannot be trained again is remarked and left out.
    """
    found = []
    for trial in trials if len(trials) > 1 else ():
        scores: dict[int, float] = {}
        runs: list[str] = []
        try:
            for seed in FRESH_SEEDS:
                scores[seed] = _best_score(objective(trial.point, trial.number, seed), runs)
                yield Remarked(f"trial {trial.number}, fresh seed {seed}: {scores[seed]:.2%}")
        except BenchmarkError as error:
            yield Remarked(f"trial {trial.number} cannot be trained anew: {error}")
        else:
            found.append(FreshScores(trial, scores, tuple(runs)))
    return tuple(found)


def _best_score(steps: Generator[Step], runs: list[str]) -> float:
    """Read a training's scores and return the best; note which run it is."""
    best = -math.inf
    with contextlib.closing(steps):
        for step in steps:
            if isinstance(step, Underway):
                runs.append(step.record.identity)
            elif isinstance(step, Score):
                best = max(best, step.value)
    if not math.isfinite(best):
        raise RunError("the training ended without a score", allowed="one epoch or more")
    return best


def _is_hopeless(ledger: Ledger, n_failed: int, limits: Limits) -> bool:
    """Tell whether this process has seen enough failures to expect nothing else."""
    if n_failed >= max(limits.n_trials, FEWEST_FAILURES):
        return True
    patience = min(limits.n_trials, FEWEST_FAILURES)
    return n_failed >= patience and not any(trial.counts for trial in ledger.trials())


def _tried(
    ledger: Ledger, objective: Objective, ticket: Ticket
) -> Generator[SearchEvent, None, Ended]:
    """Run one trial to its end, whatever that is."""
    try:
        yield Began(ticket.number, ticket.point)
        steps = objective(ticket.point, ticket.number)
        with contextlib.closing(steps):
            value = yield from _followed(ledger, ticket, steps)
    except BenchmarkError as error:
        ledger.fail(ticket, str(error))
        return _ended(ticket, "failed", None, str(error))
    except (KeyboardInterrupt, GeneratorExit):
        ledger.fail(ticket, "stopped from outside, queued again", again=True)
        raise
    if value is None:
        ledger.prune(ticket)
        return _ended(ticket, "pruned", None)
    ledger.complete(ticket, value)
    return _ended(ticket, "complete", value)


def _followed(
    ledger: Ledger, ticket: Ticket, steps: Generator[Step]
) -> Generator[SearchEvent, None, float | None]:
    """Read a trial's scores and return the best; None where it is to be given up."""
    best = -math.inf
    for step in steps:
        if isinstance(step, Underway):
            ledger.note_run(ticket, step.record.identity)
            continue
        yield Moved(ticket.number, step)
        if not isinstance(step, Score):
            continue
        if not math.isfinite(step.value):
            raise RunError(
                f"the score of epoch {step.epoch + 1} is {step.value}", allowed="a finite number"
            )
        best = max(best, step.value)
        if ledger.report(ticket, step.epoch, step.value) and not step.is_last:
            return None
    if best == -math.inf:
        raise RunError("the trial ended without a score", allowed="one epoch or more")
    return best


def _ended(ticket: Ticket, state: str, value: float | None, reason: str = "") -> Ended:
    return Ended(ticket.number, state, value, time.monotonic() - ticket.began, reason)
