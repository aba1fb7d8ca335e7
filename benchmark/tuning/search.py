"""The loop of a search, which yields what happens, and the training that is a trial.

Reading no further stops a search as Ctrl-C does: the running trial is marked and queued again, and
the same search resumes next time. A search knows only this of a training: from a point come scores,
one per epoch, and closing the generator stops it. Behind it is an ordinary run, tracked like any.
"""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final, Literal

from benchmark.errors import BenchmarkError, ClusterLost, StorageLost, require
from benchmark.experiment.space import experiment_at
from benchmark.files import write_json
from benchmark.record import SCHEMA, TRIAL_FILE
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.runs.run import (
    ASK_AGAIN_SECONDS,
    Advanced,
    Event,
    Finished,
    Skipped,
    Started,
    in_this_process,
    interleaved,
)
from benchmark.tracking.searches import TrialView
from benchmark.training.trainer import EpochResult
from benchmark.tuning.study import (
    FRESH_SEEDS,
    OBJECTIVE,
    TRIAL_SEED,
    EndState,
    Study,
    TrialHandle,
    TrialQueue,
)

FEWEST_FAILURES: Final = 5
"""A search without a single good trial ends after so many failed, or after as many as wanted."""


@dataclass(frozen=True)
class TrialEvent:
    """A trial began or ended; a note is a sentence about the search."""

    kind: Literal["began", "note"] | EndState
    number: int = 0
    text: str = ""


Score = tuple[int, float]
"""An epoch, counted from 0, and its weighted validation accuracy in [0, 1]."""
Objective = Callable[..., Generator[str | Score | None]]
"""Of a point, a trial's number and, if given, a seed: yields the run's identity, then its scores,
None while nothing happens where it is computed elsewhere; closed, it stops."""


def training_objective(
    study: Study, settings: Settings,
    elsewhere: Callable[[Plan, Settings], Generator[Event | None]] | None = None,
) -> Objective:  # fmt: skip
    """Make the objective that trains the experiment at a point; RunError where training fails.

    No trial is evaluated on the test set or keeps a network. elsewhere: what trains a run, None
    while nothing happens there; this process if left out. Raises WeightsError where weights are
    missing: once, not in every trial.
    """
    settings = replace(settings, read_test=False, keep_weights="none", figures=False)
    plan_run(study.experiment, TRIAL_SEED, study.faces, settings)
    run_plan = elsewhere or in_this_process(study.faces, settings)

    def objective(
        point: Mapping[str, Any], number: int, seed: int = TRIAL_SEED
    ) -> Generator[str | Score | None]:
        plan = plan_run(experiment_at(study.experiment, point), seed, study.faces, settings)
        if plan.record.state == "absent":
            about = {"schema": SCHEMA, "study": study.identity, "trial": number}
            write_json(plan.folder / TRIAL_FILE, about)
        yield plan.identity
        is_waiting = True
        while is_waiting:
            is_waiting = False
            for event in run_plan(plan, settings):
                if isinstance(event, Skipped) and event.why != "done":
                    is_waiting = True  # Another process trains this very recipe: wait for scores.
                    time.sleep(ASK_AGAIN_SECONDS)
                yield from _scores(event, plan)

    return objective


def _scores(event: Event | None, plan: Plan) -> Iterator[Score | None]:
    """Give the scores that an event tells; those of earlier epochs are in the run's history."""
    n_before = 0
    match event:
        case None:
            yield None
        case Advanced(step=EpochResult(epoch=epoch, val_combined=value)):
            yield epoch, value
        case Started(epochs_done=n_epochs):
            n_before = n_epochs
        case Finished() | Skipped(why="done"):
            # All are given again: of a run elsewhere, some may not have come.
            n_before = plan.experiment.recipe.max_epochs
    if n_before:
        yield from enumerate(plan.record.history()[OBJECTIVE].head(n_before).tolist())


def search(
    queue: TrialQueue, objective: Objective, n_trials: int, seconds: float | None = None,
    n_at_once: Callable[[], int] = lambda: 1,
) -> Generator[TrialEvent]:  # fmt: skip
    """Try point after point until there are enough trials; resumes whatever is in the queue.

    n_trials: complete and pruned ones, of all processes and sessions together.
    seconds: of this process; no trial begins after them.
    n_at_once: how many trials may be under way, where they are trained elsewhere.
    """
    began, n_failed, end = time.monotonic(), 0, ""

    def trials() -> Iterator[Generator[TrialEvent | None] | None]:
        nonlocal end
        while not end:
            is_one_good = n_failed > 0 and any(trial.counts for trial in queue.trials())
            if seconds is not None and time.monotonic() - began >= seconds:
                end = f"the time of {seconds:g} s is over: no trial begins"
            elif n_failed >= (max if is_one_good else min)(n_trials, FEWEST_FAILURES):
                good = "" if is_one_good else " and none was good"
                end = f"{n_failed} trials failed{good}: the search ends here"
            elif (taken := queue.take(n_trials)) == "enough":
                return
            else:
                yield None if taken == "wait" else _tried(queue, objective, taken)

    with contextlib.closing(interleaved(trials(), n_at_once)) as events:
        for event in events:
            n_failed += event.kind == "failed"
            yield event
    if end:
        yield TrialEvent("note", text=end)


def _tried(
    queue: TrialQueue, objective: Objective, handle: TrialHandle
) -> Generator[TrialEvent | None]:
    """Run one trial to its end, whatever that is: the last event; its value is its best score."""
    number, scores = handle.trial.number, dict[int, float]()
    last_epoch = queue.study.experiment.recipe.max_epochs - 1
    state: EndState = "complete"
    reason = ""
    try:
        yield TrialEvent("began", number)
        with contextlib.closing(objective(handle.trial.params, number)) as told:
            for one in told:
                if one is None:
                    yield None
                elif isinstance(one, str):
                    queue.note_run(handle, one)
                elif one[0] not in scores:
                    epoch, value = one
                    found = f"the score of epoch {epoch + 1} is {value}"
                    require(math.isfinite(value), found, allowed="a finite number")
                    scores[epoch] = value
                    # Pruning after the last epoch would save nothing.
                    if queue.report(handle, epoch, value) and epoch < last_epoch:
                        state = "pruned"
                        break
    except (KeyboardInterrupt, GeneratorExit, ClusterLost, StorageLost):
        with contextlib.suppress(StorageLost):  # The next search finds it, and queues it again.
            queue.end(handle, "failed", reason="stopped from outside", again=True)
        raise
    except BenchmarkError as error:
        state, reason = "failed", str(error)
    best = max(scores.values()) if state == "complete" else None
    queue.end(handle, state, best, reason)
    yield TrialEvent(state, number)


@dataclass(frozen=True)
class FreshScores:
    """What a trial's recipe scores with seeds that it was not chosen by; runs: their identities."""

    trial: TrialView
    by_seed: Mapping[int, float]
    runs: tuple[str, ...]

    @property
    def mean(self) -> float:
        return fmean(self.by_seed.values())

    def as_dict(self) -> dict[str, Any]:
        return {"trial": self.trial.number, "by_seed": dict(self.by_seed), "mean": self.mean}


def fresh_scores(
    objective: Objective, finalists: Sequence[TrialView], say: Callable[[str], None]
) -> tuple[FreshScores, ...]:
    """Train the recipes of finalists with fresh seeds; give what each scores.

    The best of many trials is flattered by its choice, and the seed it was chosen by is part of
    that. One that cannot be trained again is left out, and said.
    """
    found = []
    for trial in finalists:
        scores, runs = dict[int, float](), list[str]()
        try:
            for seed in FRESH_SEEDS:
                told = list(objective(trial.point, trial.number, seed))
                runs += [one for one in told if isinstance(one, str)]
                scores[seed] = max(one[1] for one in told if isinstance(one, tuple))
                say(f"trial {trial.number}, fresh seed {seed}: {scores[seed]:.2%}")
        except BenchmarkError as error:
            say(f"trial {trial.number} cannot be trained anew: {error}")
        else:
            found.append(FreshScores(trial, scores, tuple(runs)))
    return tuple(found)
