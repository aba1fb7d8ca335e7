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

from benchmark.errors import BenchmarkError, ClusterLost, RunError, StorageLost
from benchmark.experiment.space import experiment_at
from benchmark.files import write_json
from benchmark.record import SCHEMA, TRIAL_FILE
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.runs.run import (
    ASK_AGAIN_SECONDS,
    Advanced,
    Event,
    Finished,
    Prepared,
    Skipped,
    Started,
    in_this_process,
    interleaved,
)
from benchmark.tracking import TrialView
from benchmark.training.trainer import EpochResult, Progress
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
    """What happened in a trial, or, where the number is None, in the search.

    epoch: of `score`, counted from 0; of `progress`, epochs done, the current one in part.
    value: of `score`, the weighted validation accuracy in [0, 1].
    text: of `run`, the run's identity; of `note`, a sentence.
    """

    kind: Literal["began", "run", "note", "progress", "score"] | EndState
    number: int | None = None
    epoch: float = 0
    value: float = 0.0
    text: str = ""


Objective = Callable[..., Generator[TrialEvent | None]]
"""Of a point, a trial's number and, if given, a seed: yields what happens, None while nothing does
where it is computed elsewhere; closed, it stops."""
RunPlan = Callable[[Plan, Settings], Generator[Event | None]]
"""Brings a run to its end somewhere; yields None while nothing happens there."""


def training_objective(
    study: Study, settings: Settings, elsewhere: RunPlan | None = None
) -> Objective:
    """Make the objective that trains the experiment at a point; RunError where training fails.

    No trial is evaluated on the test set or keeps a network. elsewhere: what trains a run; None:
    this process. Raises WeightsError where weights are missing: once, not in every trial.
    """
    settings = replace(settings, read_test=False, keep_weights="none", figures=False)
    plan_run(study.experiment, TRIAL_SEED, study.faces, settings)
    run_plan = elsewhere or in_this_process(study.faces, settings)

    def objective(
        point: Mapping[str, Any], number: int, seed: int = TRIAL_SEED
    ) -> Generator[TrialEvent | None]:
        plan = plan_run(experiment_at(study.experiment, point), seed, study.faces, settings)
        if plan.record.state == "absent":
            about = {"schema": SCHEMA, "study": study.identity, "trial": number}
            write_json(plan.folder / TRIAL_FILE, about)
        yield TrialEvent("run", text=plan.identity)
        is_waiting = True
        while is_waiting:
            is_waiting = False
            for event in run_plan(plan, settings):
                if isinstance(event, Skipped) and event.why != "done":
                    is_waiting = True  # Another process trains this very recipe: wait for scores.
                    time.sleep(ASK_AGAIN_SECONDS)
                yield from _events_of(event, plan)

    return objective


def _events_of(event: Event | None, plan: Plan) -> Iterator[TrialEvent | None]:
    """Say what a run's event means to a search; scores of earlier epochs are in its history."""
    match event:
        case None:
            yield None
        case Prepared(sentence=sentence) if sentence:
            yield TrialEvent("note", text=sentence)
        case Advanced(step=EpochResult(epoch=epoch, val_combined=value)):
            yield TrialEvent("score", epoch=epoch, value=value)
        case Advanced(step=Progress() as step):
            part = step.images_done / max(1, step.images_total)
            yield TrialEvent("progress", epoch=step.epoch + part)
        case Started() | Finished() | Skipped(why="done"):
            # At its end all are given again: of a run elsewhere, some may not have come.
            n_epochs = plan.experiment.recipe.max_epochs
            n_before = event.epochs_done if isinstance(event, Started) else n_epochs
            history = plan.record.history()[OBJECTIVE].head(n_before) if n_before else ()
            for epoch, value in enumerate(history):
                yield TrialEvent("score", epoch=epoch, value=float(value))


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
    number, scores = handle.trial.number, dict[float, float]()
    last_epoch = queue.study.experiment.recipe.max_epochs - 1
    state: EndState = "complete"
    reason = ""
    try:
        yield TrialEvent("began", number)
        with contextlib.closing(objective(handle.trial.params, number)) as events:
            for event in events:
                if event is not None and event.kind == "run":
                    queue.note_run(handle, event.text)
                elif event is None or event.kind != "score":
                    yield event and replace(event, number=number)
                elif event.epoch not in scores:
                    yield replace(event, number=number)
                    if not math.isfinite(event.value):
                        found = f"the score of epoch {event.epoch + 1} is {event.value}"
                        raise RunError(found, allowed="a finite number")
                    scores[event.epoch] = event.value
                    # Pruning after the last epoch would save nothing.
                    if (
                        queue.report(handle, int(event.epoch), event.value)
                        and event.epoch < last_epoch
                    ):
                        state = "pruned"
                        break
    except (KeyboardInterrupt, GeneratorExit, ClusterLost, StorageLost):
        with contextlib.suppress(StorageLost):  # The next search finds it, and queues it again.
            queue.end(handle, "failed", reason="stopped from outside", again=True)
        raise
    except BenchmarkError as error:
        state, reason = "failed", str(error)
    value = max(scores.values()) if state == "complete" else None
    queue.end(handle, state, value, reason)
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
    """Train the recipes of several finalists with fresh seeds; give what each scores.

    The best of many trials is flattered by its choice, and the seed it was chosen by is part of
    that. One that cannot be trained again is left out, and said.
    """
    found = []
    for trial in finalists if len(finalists) > 1 else ():
        scores, runs = dict[int, float](), list[str]()
        try:
            for seed in FRESH_SEEDS:
                events = list(filter(None, objective(trial.point, trial.number, seed)))
                runs += [event.text for event in events if event.kind == "run"]
                scores[seed] = max(event.value for event in events if event.kind == "score")
                say(f"trial {trial.number}, fresh seed {seed}: {scores[seed]:.2%}")
        except BenchmarkError as error:
            say(f"trial {trial.number} cannot be trained anew: {error}")
        else:
            found.append(FreshScores(trial, scores, tuple(runs)))
    return tuple(found)
