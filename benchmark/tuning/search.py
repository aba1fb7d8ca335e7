"""The loop of a search. It yields what happens; whoever reads it shows, counts or stops.

Reading no further stops it as Ctrl-C does: the running trial is marked and queued again, and the
same search goes on next time.
"""

import contextlib
import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmark.errors import BenchmarkError, RunError
from benchmark.training.trainer import Progress
from benchmark.tuning.ledger import Ledger, Ticket, Told
from benchmark.tuning.objective import Noted, Objective, Score, Step, Underway
from benchmark.tuning.recipes import FreshScores
from benchmark.tuning.study import FRESH_SEEDS

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


Event = Began | Moved | Ended | Remarked


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


def search(ledger: Ledger, objective: Objective, limits: Limits) -> Generator[Event]:
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
) -> Generator[Event, None, tuple[FreshScores, ...]]:
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


def _tried(ledger: Ledger, objective: Objective, ticket: Ticket) -> Generator[Event, None, Ended]:
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
) -> Generator[Event, None, float | None]:
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
