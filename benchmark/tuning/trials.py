"""The queue of a study's trials, shared by processes of which any may die at any moment.

Optuna's heartbeats exist only within `study.optimize` and only for databases, and cannot keep
several processes to exactly N trials. So trials are taken and ended under one kernel lock, and a
process holds another lock on each trial that it runs: a trial that is running and unlocked was left
by a dead process. It is marked failed and its point is queued again, once. No trial is lost, none
is tried twice, and N trials are N.

A kernel lock reaches no further than its machine. Trials of other machines on the same database
are left alone.
"""

import contextlib
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmark.experiment.space import Choices, Integers
from benchmark.files import file_lock
from benchmark.record import versions
from benchmark.tracking import TrialView
from benchmark.tuning.study import OBJECTIVE, Study, open_storage, storage_errors

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
EndState = Literal["complete", "pruned", "failed"]


@dataclass
class TrialHandle:
    """A trial that this process has taken and must end."""

    trial: optuna.Trial
    lock: contextlib.ExitStack
    began: float = field(default_factory=time.monotonic)

    @property
    def number(self) -> int:
        """As Optuna counts, from 0."""
        return self.trial.number

    @property
    def point(self) -> Mapping[str, Any]:
        """The values to try, by path."""
        return dict(self.trial.params)


class TrialQueue:
    """A study in its storage; every method may be called while other processes do the same."""

    def __init__(self, study: Study, address: str, max_epochs: int) -> None:
        self._plan, self.address = study, address
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            item.path: optuna.distributions.CategoricalDistribution(item.values)
            if isinstance(item, Choices)
            else optuna.distributions.IntDistribution(item.low, item.high)
            if isinstance(item, Integers)
            else optuna.distributions.FloatDistribution(item.low, item.high, log=item.log)
            for item in study.space.ranges
        }
        self.remarks: list[str] = []
        """What dead processes left behind, a sentence each; read and emptied by the search."""
        with self._locked(), storage_errors(address):
            self._storage = open_storage(address)
            names = optuna.get_all_study_names(self._storage)
            self.n_earlier = 0
            """How many other studies there are of this experiment on these faces, if it is new."""
            if study.name not in names:
                self.n_earlier = sum(name.startswith(f"{study.family} #") for name in names)
            self.optuna_study = optuna.create_study(
                storage=self._storage,
                study_name=study.name,
                direction="maximize",
                load_if_exists=True,
                pruner=study.new_pruner(max_epochs),
                sampler=study.new_sampler(0),
            )
            self._begin()

    def _locked(self) -> contextlib.AbstractContextManager[bool]:
        return file_lock(self._plan.own_folder / "ledger.lock", wait=True)

    def _lock_of(self, number: int) -> contextlib.AbstractContextManager[bool]:
        return file_lock(self._plan.own_folder / "claims" / f"{number:05d}")

    def _begin(self) -> None:
        """Write down which sampler and pruner are used from now on; queue the points of a grid."""
        study = self.optuna_study
        if ABOUT not in study.user_attrs:
            study.set_user_attr(ABOUT, self._plan.about)
            study.set_metric_names([OBJECTIVE])  # as Optuna Dashboard shows it
        session = {
            "sampler": self._plan.sampler, "sampler_seed": self._plan.sampler_seed,
            "pruner": self._plan.pruner, "optuna": optuna.__version__,
            "facebench": versions().get("facebench", ""),
        }  # fmt: skip
        if self.sessions[-1:] != [session]:
            study.set_user_attr(SESSIONS, [*self.sessions, session])
        known = [view.point for view in self.trials()] if self._plan.points else []
        for point in self._plan.points:
            if dict(point) not in known:
                study.enqueue_trial(dict(point))

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Samplers and pruners that were used, with versions, from the first trial on."""
        with storage_errors(self.address):
            return list(self.optuna_study.user_attrs.get(SESSIONS, []))

    def trials(self) -> list[TrialView]:
        """Give every trial as it stands, in the order of their numbers."""
        with storage_errors(self.address):
            return [_view(trial) for trial in self.optuna_study.get_trials(deepcopy=False)]

    def queue_first(self, point: Mapping[str, Any]) -> None:
        """Let a new study begin at a point; where it has trials already, nothing is done."""
        with self._locked(), storage_errors(self.address):
            if not self.optuna_study.get_trials(deepcopy=False):
                self.optuna_study.enqueue_trial(dict(point))

    def take(self, n_wanted: int) -> TrialHandle | Literal["enough", "wait"]:
        """Take the next trial; `wait` while other processes run as many as are still wanted."""
        with self._locked(), storage_errors(self.address):
            self._fail_abandoned()
            states = [view.state for view in self.trials()]
            n_done = sum(state in ("complete", "pruned") for state in states)
            n_running = states.count("running")
            if n_done >= n_wanted:
                return "enough"
            is_grid_over = bool(self._plan.points) and "waiting" not in states
            if n_done + n_running >= n_wanted or is_grid_over:
                return "wait" if n_running else "enough"
            self.optuna_study.sampler = self._plan.new_sampler(len(states))
            trial = self.optuna_study.ask(self._distributions)
            lock = contextlib.ExitStack()
            lock.enter_context(self._lock_of(trial.number))
            trial.set_user_attr(HOST, socket.gethostname())
            return TrialHandle(trial, lock)

    def _fail_abandoned(self) -> None:
        """Fail the trials that dead processes left running, and queue their points again."""
        trials = self.optuna_study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        for trial in trials:
            here = socket.gethostname()
            if trial.state != TrialState.RUNNING or trial.user_attrs.get(HOST, here) != here:
                continue
            with self._lock_of(trial.number) as is_abandoned:
                if not is_abandoned:
                    continue
            deaths = int(trial.user_attrs.get(DEATHS, 0)) + 1
            # Queued first: if this process dies between the two, the next one finds it queued.
            again = deaths < MOST_DEATHS and set(trial.params) == set(self._distributions)
            if again and trial.number not in retried:
                attributes = {RETRY_OF: trial.number, DEATHS: deaths}
                self.optuna_study.enqueue_trial(trial.params, user_attrs=attributes)
            reason = "its process died" + (", queued again" if again else "")
            self._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
            self.optuna_study.tell(trial.number, state=TrialState.FAIL)
            self.remarks.append(f"trial {trial.number} was left running by a process that died")

    def note_run(self, handle: TrialHandle, identity: str) -> None:
        """Write down which run a trial is."""
        with storage_errors(self.address):
            handle.trial.set_user_attr(RUN, identity)

    def report(self, handle: TrialHandle, epoch: int, value: float) -> bool:
        """Store an epoch's score and tell whether the trial should be pruned."""
        with storage_errors(self.address):
            handle.trial.report(value, epoch)
            return bool(handle.trial.should_prune())

    def end(
        self,
        handle: TrialHandle,
        state: EndState,
        value: float | None = None,
        reason: str = "",
        *,
        again: bool = False,
    ) -> None:
        """End a trial and release its lock, as one act: between the two it would look abandoned.

        again: it was stopped from outside; its point is queued again.
        """
        with self._locked(), storage_errors(self.address), handle.lock:
            if again:
                attributes = {RETRY_OF: handle.number}
                self.optuna_study.enqueue_trial(dict(handle.point), user_attrs=attributes)
            if reason:
                handle.trial.set_user_attr(REASON, reason)
            handle.trial.set_user_attr(SECONDS, round(time.monotonic() - handle.began, 3))
            ended = next(key for key, name in STATES.items() if name == state)
            self.optuna_study.tell(handle.trial, value, ended)


def _view(trial: FrozenTrial) -> TrialView:
    attributes = trial.user_attrs
    return TrialView(
        number=trial.number,
        state=STATES[trial.state],
        point=dict(trial.params or trial.system_attrs.get("fixed_params", {})),
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        scores=dict(trial.intermediate_values),
        run=str(attributes.get(RUN, "")),
        reason=str(attributes.get(REASON, "")),
        seconds=attributes.get(SECONDS),
        retry_of=attributes.get(RETRY_OF),
    )
