"""What a search is, and the queue of its trials in Optuna's storage, shared by processes.

A study is named by all that would make its trials incomparable with another's: a changed space,
definition, data set or trainer is a new study. Sampler and pruner may change on the way.

Trials are taken and ended under one kernel lock, and a process holds another lock on each trial
that it runs: a trial that is running and unlocked was left by a dead process. It is marked failed
and its point is queued again, once. No trial is lost, none is tried twice, and N trials are N; why
not by Optuna's heartbeats says docs/notes/tuning.md. A kernel lock reaches no further than its
machine: trials of other machines on the same database are left alone.
"""

import contextlib
import hashlib
import socket
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError, StorageLost, require_choice
from benchmark.experiment.definition import Experiment, steering_content
from benchmark.experiment.space import Choices, Floats, GridSpace, Integers, SearchSpace
from benchmark.files import digest_of, file_lock
from benchmark.record import versions
from benchmark.runs.plan import about_faces
from benchmark.tracking.mirror import TrialView
from benchmark.training.trainer import TRAINER_VERSION

OBJECTIVE: Final = "val/combined"
TRIAL_SEED: Final = 1000
"""Of every trial's training: they differ in their recipes and in nothing else. No suite is run with
it, so that a tuned recipe is never shown with the seed that it was chosen by."""
N_RANDOM: Final = 6
"""Trials before a model of the earlier ones proposes."""
N_CANDIDATES: Final = 128
"""Points of which the trees propose the best; Optuna's own number is 24."""
DIED: Final = "its process died"
MOST_DEATHS: Final = 12
"""A point whose process died so often is not tried again: it may be what kills it."""
LOCK_SECONDS: Final = 60
"""How long one process waits for another's write; a write takes milliseconds."""
AWAY_SECONDS: Final = 120.0
"""How long a database server that has answered before is waited for; a restart takes seconds."""
_answering: Final = set[str]()
"""Addresses of databases that answered when they were asked last."""
ASK_AGAIN_SECONDS: Final = 0.5
STATES: Final = {
    "failed" if state == TrialState.FAIL else state.name.lower(): state for state in TrialState
}
STATE_NAMES: Final = {state: name for name, state in STATES.items()}
EndState = Literal["complete", "pruned", "failed"]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Study:
    """A search, before anything of it was tried.

    experiment: where it starts; with the changes of `--set`, marked ad hoc.
    folder: of all studies; this one's is beneath it.
    points: tried before those that the sampler chooses; of a grid, there are no others.
    """

    experiment: Experiment
    space: SearchSpace
    faces: FaceSet
    folder: Path
    sampler: str = "tpe"
    sampler_seed: int = 0
    pruner: str = "median"
    points: tuple[Mapping[str, Any], ...] = ()
    grid: GridSpace | None = None

    def __post_init__(self) -> None:
        require_choice("--sampler", self.sampler, ("tpe", "random"))
        require_choice("--pruner", self.pruner, ("median", "hyperband", "none"))

    @property
    def about(self) -> dict[str, Any]:
        """All that makes two searches the same, as plain values."""
        return {
            "experiment": self.experiment.name, "space": self.space.words,
            "definition": steering_content(self.experiment.as_dict()), "dataset": self.faces.name,
            "pixel_digest": self.faces.pixel_digest, "split_digest": self.faces.split_digest,
            "trainer_version": TRAINER_VERSION, "trial_seed": TRIAL_SEED,
        }  # fmt: skip

    @property
    def identity(self) -> str:
        """sha256 of `about`, 64 hexadecimal digits."""
        return digest_of(self.about)

    @property
    def name(self) -> str:
        """As Optuna and MLflow list it."""
        return f"{self.experiment.name} on {self.faces.name} #{self.identity[:12]}"

    @property
    def own_folder(self) -> Path:
        """Where locks, table, page and recipe of this study are."""
        return self.folder / self.identity[:16]

    @property
    def dataset(self) -> dict[str, Any]:
        """The faces, as a run's `experiment.json` describes them."""
        parts = self.faces.table["part"].value_counts()
        counts = {part: int(parts.get(part, 0)) for part in ("train", "val", "test")}
        return about_faces(self.faces, self.experiment.protocol.split, counts)

    def new_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Make the sampler that proposes trial `number`, seeded by the study's seed and the number.

        Optuna keeps no random state: a sampler that lived as long as its process would propose the
        same first points again after a restart, and so would two processes at the same time.
        """
        digest = hashlib.sha256(f"{self.sampler_seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=N_RANDOM, n_ei_candidates=N_CANDIDATES, multivariate=True
        )

    def new_pruner(self) -> optuna.pruners.BasePruner:
        """Make the pruner: by the `median` of the earlier trials at that epoch, or `hyperband`.

        By the median, the first quarter of the epochs and the first five trials are never pruned.
        """
        max_epochs = self.experiment.recipe.max_epochs
        if self.pruner == "none":
            return optuna.pruners.NopPruner()
        if self.pruner == "hyperband":
            return optuna.pruners.HyperbandPruner(min(3, max_epochs), max_epochs)
        return optuna.pruners.MedianPruner(
            n_startup_trials=5, n_warmup_steps=max(1, max_epochs // 4), n_min_trials=3
        )


STORAGE_ERRORS: Final = (
    SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError, ImportError,
)  # fmt: skip
# The last is raised where a connection broke within a transaction, when it is ended.
CONNECTION_ERRORS: Final = (OperationalError, InterfaceError, PendingRollbackError)


def storage_trouble(error: Exception, address: str) -> RunError:
    """Say what a broken storage raised, by a StorageLost where it is a server that does not answer;
    a password is not shown."""
    inner = error.__cause__ or error
    text = str(getattr(inner, "orig", None) or inner).strip() or repr(inner)
    is_of_connection = any(isinstance(one, CONNECTION_ERRORS) for one in (error, inner))
    is_away = is_of_connection and not address.startswith("sqlite")
    fix = "Wait until no other program holds it, make it writable, or name another"
    if is_away:
        fix = "Start it, or check its address; the same command resumes, and no trial is lost"
    elif "version" in text:
        fix = "`optuna storage upgrade --storage URL` brings it to this version of Optuna"
    return (StorageLost if is_away else RunError)(
        f"the study's storage cannot be used: {text.splitlines()[0]}",
        allowed="--storage sqlite:///FILE, or the URL of a database whose driver is installed",
        source=address.split("@")[-1],
        fix=fix,
    )


@dataclass(frozen=True)
class TrialHandle:
    """A trial that this process has taken and must end."""

    trial: optuna.Trial
    lock: contextlib.ExitStack


class TrialQueue:
    """A study in its storage; every method may be called while other processes do the same.

    address: a database's URL; if empty, SQLite in the folder of the studies. A server that goes
    away once it has answered is waited for, up to AWAY_SECONDS, which `say` says.
    """

    def __init__(
        self, study: Study, address: str = "", say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.study, self._say = study, say
        self.address = address or f"sqlite:///{(study.folder / 'optuna.db').resolve()}"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        with self._locked():
            self._stored(self._open)

    def _locked(self) -> contextlib.AbstractContextManager[bool]:
        return file_lock(self.study.own_folder / "ledger.lock", wait=True)

    def _stored(self, operation: Callable[[], Found]) -> Found:
        """Do something in the storage, which may be done twice; wait for a server that is away."""
        end = time.monotonic() + AWAY_SECONDS if self.address in _answering else 0.0
        while True:
            try:
                found = operation()
            except STORAGE_ERRORS as error:
                trouble = storage_trouble(error, self.address)
                if not isinstance(trouble, StorageLost) or time.monotonic() > end:
                    raise trouble from error
                if self.address in _answering:
                    self._say(f"{trouble.found}; it is waited for, {AWAY_SECONDS:g} s at most")
                _answering.discard(self.address)  # Given up or stopped, nobody waits again.
                time.sleep(ASK_AGAIN_SECONDS)
            else:
                _answering.add(self.address)
                return found

    def _open(self) -> None:
        """Open the storage, note how trials are made there, queue the first points."""
        # A server that was restarted is connected to anew.
        engine: dict[str, Any] = {"pool_pre_ping": True}
        if self.address.startswith("sqlite:///"):
            Path(self.address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            engine["connect_args"] = {"timeout": LOCK_SECONDS}
        of = self.study
        self._storage = optuna.storages.RDBStorage(self.address, engine)
        self.optuna_study = optuna.create_study(
            storage=self._storage, study_name=of.name, direction="maximize", load_if_exists=True,
            pruner=of.new_pruner(), sampler=of.new_sampler(0),
        )  # fmt: skip
        if "facebench" not in self.optuna_study.user_attrs:
            self.optuna_study.set_user_attr("facebench", of.about)
            self.optuna_study.set_metric_names([OBJECTIVE])  # as Optuna Dashboard shows it
        session = {
            "sampler": of.sampler, "sampler_seed": of.sampler_seed, "pruner": of.pruner,
            "optuna": optuna.__version__, "facebench": versions()["facebench"],
        }  # fmt: skip
        if self.sessions[-1:] != [session]:
            self.optuna_study.set_user_attr("sessions", [*self.sessions, session])
        for point in of.points:
            self.optuna_study.enqueue_trial(dict(point), skip_if_exists=True)

    def _lock_of(self, number: int) -> contextlib.AbstractContextManager[bool]:
        return file_lock(self.study.own_folder / "claims" / f"{number:05d}")

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Samplers and pruners that were used, with versions, from the first trial on."""
        return self._stored(lambda: list(self.optuna_study.user_attrs.get("sessions", [])))

    def trials(self) -> list[TrialView]:
        """Give every trial as it stands, in the order of their numbers."""
        return [_view(trial) for trial in self._all_trials()]

    def _all_trials(self) -> list[FrozenTrial]:
        return self._stored(lambda: self.optuna_study.get_trials(deepcopy=False))

    def snapshot(self) -> optuna.Study:
        """Give the study as it stands, in memory: whoever reads it there meets no database."""
        copied = optuna.create_study(direction="maximize")
        copied.add_trials(self._all_trials())
        return copied

    def take(self, n_wanted: int) -> TrialHandle | Literal["enough", "wait"]:
        """Take the next trial; `wait` while other processes run as many as are still wanted."""
        with self._locked():
            return self._stored(lambda: self._take(n_wanted))

    def _take(self, n_wanted: int) -> TrialHandle | Literal["enough", "wait"]:
        self._fail_abandoned()
        states = [trial.state for trial in self.optuna_study.get_trials(deepcopy=False)]
        n_running = states.count(TrialState.RUNNING)
        n_done = states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED)
        is_grid_over = self.study.grid is not None and TrialState.WAITING not in states
        if n_done + n_running >= n_wanted or is_grid_over:
            return "wait" if n_running and n_done < n_wanted else "enough"
        self.optuna_study.sampler = self.study.new_sampler(len(states))
        ranges = {item.path: _distribution(item) for item in self.study.space.ranges}
        trial = self.optuna_study.ask(ranges)
        trial.set_user_attr("host", socket.gethostname())
        lock = contextlib.ExitStack()
        lock.enter_context(self._lock_of(trial.number))
        return TrialHandle(trial, lock)

    def _fail_abandoned(self) -> None:
        """Fail the trials that dead processes left running, and queue their points again."""
        here, trials = socket.gethostname(), self.optuna_study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state != TrialState.RUNNING or trial.user_attrs.get("host", here) != here:
                continue
            with self._lock_of(trial.number) as is_abandoned:
                if not is_abandoned:
                    continue
            deaths = sum(
                other.params == trial.params and other.user_attrs.get("reason", "").startswith(DIED)
                for other in trials
            )
            self._end(trial._trial_id, "failed", None, DIED, again=deaths + 1 < MOST_DEATHS)
            self._say(f"trial {trial.number} was left running by a process that died")

    def note_run(self, handle: TrialHandle, identity: str) -> None:
        """Write down which run a trial is."""
        self._stored(lambda: handle.trial.set_user_attr("run", identity))

    def report(self, handle: TrialHandle, epoch: int, value: float) -> bool:
        """Store an epoch's score and tell whether the trial should be pruned."""
        self._stored(lambda: handle.trial.report(value, epoch))
        return self._stored(handle.trial.should_prune)

    def end(
        self, handle: TrialHandle, state: EndState, value: float | None = None, reason: str = "",
        *, again: bool = False,
    ) -> None:  # fmt: skip
        """End a trial and release its lock, as one act: between the two it would look abandoned.

        again: it was stopped from outside; its point is queued again.
        """
        with self._locked(), handle.lock:
            self._stored(lambda: self._end(handle.trial._trial_id, state, value, reason, again))

    def _end(
        self, trial_id: int, state: EndState, value: float | None, reason: str, again: bool
    ) -> None:
        trial = self._storage.get_trial(trial_id)
        if trial.state.is_finished():
            return  # It was stored, and the answer was lost.
        trials = self.optuna_study.get_trials(deepcopy=False)
        retried = [one.user_attrs.get("retry_of") for one in trials]
        # Queued first: if this process dies between the two, the next one finds it queued.
        if again and trial.number not in retried:
            point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            self.optuna_study.enqueue_trial(point, user_attrs={"retry_of": trial.number})
        if reason:
            reason += ", queued again" if again else ""
            self._storage.set_trial_user_attr(trial_id, "reason", reason)
        self.optuna_study.tell(trial.number, value, STATES[state])


def _distribution(of: Floats | Choices) -> optuna.distributions.BaseDistribution:
    if isinstance(of, Choices):
        return optuna.distributions.CategoricalDistribution(of.values)
    if isinstance(of, Integers):
        return optuna.distributions.IntDistribution(of.low, of.high)
    return optuna.distributions.FloatDistribution(of.low, of.high, log=of.log)


def _view(trial: FrozenTrial) -> TrialView:
    duration = trial.duration
    return TrialView(
        trial.number,
        STATE_NAMES[trial.state],
        point=dict(trial.params or trial.system_attrs.get("fixed_params", {})),
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        run=trial.user_attrs.get("run", ""),
        reason=trial.user_attrs.get("reason", ""),
        seconds=None if duration is None else duration.total_seconds(),
    )
