"""The trials of a study, shared by processes of which any may die at any moment.

Whoever takes a trial does so under one kernel lock, and holds a claim on it until it has ended. A
trial that is running and that nobody holds was left by a dead process: it is marked failed and its
point is queued again, once. So no trial is lost, none is tried twice, and N trials are N.

A kernel lock reaches no further than its machine. Trials of other machines on the same database
are left alone.
"""

import contextlib
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmark.experiment.space import Choices, Floats, Integers, Range
from benchmark.files import claimed
from benchmark.record import versions
from benchmark.tuning.study import (
    Study,
    new_pruner,
    new_sampler,
    open_storage,
    quiet,
    storage_errors,
)

ABOUT: Final = "facebench"
SESSIONS: Final = "sessions"
HOST: Final = "host"
RUN: Final = "run"
REASON: Final = "reason"
SECONDS: Final = "seconds"
RETRY_OF: Final = "retry_of"
DEATHS: Final = "deaths"
MOST_DEATHS: Final = 12
"""A point whose process died so often is not tried again: it may be what kills it."""

STATES: Final = {
    TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
    TrialState.RUNNING: "running", TrialState.WAITING: "waiting",
}  # fmt: skip
State = Literal["complete", "pruned", "failed", "running", "waiting"]


@dataclass(frozen=True)
class Told:
    """A trial as the storage has it."""

    number: int
    state: State
    point: Mapping[str, Any]
    value: float | None
    scores: Mapping[int, float]
    """By epoch, counted from 0."""
    run: str = ""
    reason: str = ""
    seconds: float | None = None
    retry_of: int | None = None

    @property
    def counts(self) -> bool:
        """Whether it is one of the N that were asked for."""
        return self.state in ("complete", "pruned")


@dataclass
class Ticket:
    """A trial that this process has taken and must end."""

    number: int
    point: Mapping[str, Any]
    trial: optuna.Trial
    claim: contextlib.ExitStack
    began: float = field(default_factory=time.monotonic)


class Ledger:
    """A study in its storage; every method may be called while other processes do the same."""

    def __init__(self, study: Study, address: str, max_epochs: int) -> None:
        quiet()
        self._plan = study
        self._address = address
        self._distributions = {item.path: _distribution(item) for item in study.space.ranges}
        self.was_there = False
        self.left: list[str] = []
        """Of what dead processes left behind, a sentence each; for the display."""
        with self._alone(), storage_errors(address):
            self._storage = open_storage(address)
            self._names = optuna.get_all_study_names(self._storage)
            self.was_there = study.name in self._names
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=study.name,
                direction="maximize",
                load_if_exists=True,
                pruner=new_pruner(study.pruner, max_epochs),
                sampler=new_sampler(study.sampler, study.sampler_seed, 0),
            )
            self._begin()

    def _alone(self) -> contextlib.AbstractContextManager[bool]:
        return claimed(self._plan.own_folder / "ledger.lock", wait=True)

    def _claim(self, number: int) -> Path:
        return self._plan.own_folder / "claims" / f"{number:05d}"

    def _begin(self) -> None:
        """Write down who samples and who prunes from now on, and queue the points of a grid."""
        study = self._study
        if ABOUT not in study.user_attrs:
            study.set_user_attr(ABOUT, self._plan.about)
        session = {
            "sampler": self._plan.sampler, "sampler_seed": self._plan.sampler_seed,
            "pruner": self._plan.pruner, "optuna": optuna.__version__,
            "facebench": versions().get("facebench", ""),
        }  # fmt: skip
        sessions = list(study.user_attrs.get(SESSIONS, []))
        if not sessions or sessions[-1] != session:
            study.set_user_attr(SESSIONS, [*sessions, session])
        known = [_point_of(trial) for trial in study.get_trials(deepcopy=False)]
        for point in self._plan.points:
            if dict(point) not in known:
                study.enqueue_trial(dict(point))

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Who sampled and pruned, with which versions, from the first trial on."""
        with storage_errors(self._address):
            return list(self._study.user_attrs.get(SESSIONS, []))

    @property
    def n_queued(self) -> int:
        """Count the different points that were tried or queued: of a grid, all that are wanted."""
        return len({tuple(sorted(trial.point.items())) for trial in self.trials()})

    @property
    def address(self) -> str:
        """Of the storage."""
        return self._address

    @property
    def optuna_study(self) -> optuna.Study:
        """The study itself, for pages that Optuna draws."""
        return self._study

    def earlier_studies(self) -> dict[str, Mapping[str, Any]]:
        """Give what other studies of this experiment on these faces were about, by their names."""
        start = f"{self._plan.family} #"
        others = [
            name for name in self._names if name.startswith(start) and name != self._plan.name
        ]
        with storage_errors(self._address):
            found = {
                name: optuna.load_study(study_name=name, storage=self._storage).user_attrs
                for name in others
            }
        return {name: attributes.get(ABOUT, {}) for name, attributes in found.items()}

    def queue_first(self, point: Mapping[str, Any]) -> None:
        """Let a new study begin at a point; where it has trials already, nothing is done."""
        with self._alone(), storage_errors(self._address):
            if not self._study.get_trials(deepcopy=False):
                self._study.enqueue_trial(dict(point))

    def trials(self) -> list[Told]:
        """Give every trial as it stands, in the order of their numbers."""
        with storage_errors(self._address):
            return [_told(trial) for trial in self._study.get_trials(deepcopy=False)]

    def take(self, n_wanted: int) -> Ticket | Literal["enough", "wait"]:
        """Take the next trial; `wait` while other processes run as many as are still wanted."""
        with self._alone(), storage_errors(self._address):
            self._reap()
            trials = self._study.get_trials(deepcopy=False)
            told = [_told(trial) for trial in trials]
            n_done = sum(trial.counts for trial in told)
            n_running = sum(trial.state == "running" for trial in told)
            if n_done >= n_wanted:
                return "enough"
            nothing_queued = all(trial.state != "waiting" for trial in told)
            if n_done + n_running >= n_wanted or (self._plan.points and nothing_queued):
                return "wait" if n_running else "enough"
            return self._asked(len(trials))

    def _asked(self, number: int) -> Ticket:
        self._study.sampler = new_sampler(self._plan.sampler, self._plan.sampler_seed, number)
        trial = self._study.ask(self._distributions)
        claim = contextlib.ExitStack()
        mine = claim.enter_context(claimed(self._claim(trial.number)))
        assert mine, trial.number
        trial.set_user_attr(HOST, socket.gethostname())
        return Ticket(trial.number, dict(trial.params), trial, claim)

    def _reap(self) -> None:
        """Fail the trials that dead processes left running, and queue their points again."""
        trials = self._study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        for trial in trials:
            if trial.state != TrialState.RUNNING or not self._is_left(trial):
                continue
            deaths = int(trial.user_attrs.get(DEATHS, 0)) + 1
            # Queued first: if this process dies between the two, the next one finds it queued.
            again = deaths < MOST_DEATHS and set(trial.params) == set(self._distributions)
            if again and trial.number not in retried:
                attributes = {RETRY_OF: trial.number, DEATHS: deaths}
                self._study.enqueue_trial(trial.params, user_attrs=attributes)
            self._end(trial.number, "its process died" + (", queued again" if again else ""))
            self.left.append(f"trial {trial.number} was left running by a process that died")

    def _is_left(self, trial: FrozenTrial) -> bool:
        if trial.user_attrs.get(HOST, socket.gethostname()) != socket.gethostname():
            return False
        with claimed(self._claim(trial.number)) as free:
            return free

    def _end(self, number: int, reason: str) -> None:
        trial_id = self._study.get_trials(deepcopy=False)[number]._trial_id
        self._storage.set_trial_user_attr(trial_id, REASON, reason)
        self._study.tell(number, state=TrialState.FAIL)

    def note_run(self, ticket: Ticket, identity: str) -> None:
        """Write down which run a trial is."""
        with storage_errors(self._address):
            ticket.trial.set_user_attr(RUN, identity)

    def report(self, ticket: Ticket, epoch: int, value: float) -> bool:
        """Take an epoch's score down and tell whether the trial should be given up."""
        with storage_errors(self._address):
            ticket.trial.report(value, epoch)
            return bool(ticket.trial.should_prune())

    def complete(self, ticket: Ticket, value: float) -> None:
        """End a trial well."""
        self._close(ticket, TrialState.COMPLETE, value)

    def prune(self, ticket: Ticket) -> None:
        """End a trial that was given up."""
        self._close(ticket, TrialState.PRUNED)

    def fail(self, ticket: Ticket, reason: str, *, again: bool = False) -> None:
        """End a trial that failed, or that was stopped from outside and is to be tried again."""
        self._close(ticket, TrialState.FAIL, reason=reason, again=again)

    def _close(
        self,
        ticket: Ticket,
        state: TrialState,
        value: float | None = None,
        reason: str = "",
        *,
        again: bool = False,
    ) -> None:
        """End a trial and let go of it, as one act: between the two it would look abandoned."""
        with self._alone(), storage_errors(self._address), ticket.claim:
            if again:
                self._study.enqueue_trial(dict(ticket.point), user_attrs={RETRY_OF: ticket.number})
            if reason:
                ticket.trial.set_user_attr(REASON, reason)
            ticket.trial.set_user_attr(SECONDS, round(time.monotonic() - ticket.began, 3))
            self._study.tell(ticket.trial, value, state)


def _distribution(item: Range) -> optuna.distributions.BaseDistribution:
    if isinstance(item, Choices):
        return optuna.distributions.CategoricalDistribution(item.values)
    if isinstance(item, Integers):
        return optuna.distributions.IntDistribution(item.low, item.high)
    assert isinstance(item, Floats)
    return optuna.distributions.FloatDistribution(item.low, item.high, log=item.log)


def _point_of(trial: FrozenTrial) -> dict[str, Any]:
    """Give a trial's point; of one that waits, the point it was queued with."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def _told(trial: FrozenTrial) -> Told:
    attributes = trial.user_attrs
    complete = trial.state == TrialState.COMPLETE
    return Told(
        number=trial.number,
        state=STATES[trial.state],  # type: ignore[arg-type]
        point=_point_of(trial),
        value=trial.value if complete else None,
        scores=dict(trial.intermediate_values),
        run=str(attributes.get(RUN, "")),
        reason=str(attributes.get(REASON, "")),
        seconds=attributes.get(SECONDS),
        retry_of=attributes.get(RETRY_OF),
    )
