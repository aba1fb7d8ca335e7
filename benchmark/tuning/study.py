"""A search: experiment, space, samplers, pruners and Optuna's storage.

What a search is: an experiment, what may change about it, on which faces, and by whom chosen.

A study is named by all that would make its trials incomparable with another's: a changed space,
definition, data set or trainer is a new study. Who samples and who prunes may change on the way.

Where Optuna keeps studies: opened so that processes may share it, its errors as sentences.

SQLite by default, in a file of its own. Both it and Optuna's journal file were killed and opened
again many times: docs/notes/tuning.md says what became of them.

Who proposes the next point, and who gives a trial up.

A sampler is made anew for every trial, from the study's seed and the trial's number: Optuna keeps
no random state, so that one that lived as long as its process would propose the same first points
again after a restart, and two processes would propose the same ones at the same time.
"""

import contextlib
import hashlib
import json
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, RunError, require
from benchmark.experiment.definition import Experiment
from benchmark.experiment.search_points import BATCH_SIZE, faces_per_epoch
from benchmark.experiment.space import SearchSpace
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.training.trainer import TRAINER_VERSION

FILE: Final = "optuna.db"
PATIENCE_SECONDS: Final = 60
"""How long one process waits for another's write; a write takes milliseconds."""
JOURNAL_PREFIX: Final = "journal:"


def default_storage(folder: Path) -> str:
    """Give the address of the studies' own SQLite file."""
    return f"sqlite:///{(folder / FILE).resolve()}"


def shown(address: str) -> str:
    """Give an address without a password in it."""
    return address.split("@")[-1]


def open_storage(address: str) -> optuna.storages.BaseStorage:
    """Open a storage: `sqlite:///FILE`, another database's URL, or `journal:FILE`.

    Raises RunError where it is locked, unreadable, or of another version of Optuna.
    """
    with storage_errors(address):
        if address.startswith(JOURNAL_PREFIX):
            path = Path(address.removeprefix(JOURNAL_PREFIX))
            path.parent.mkdir(parents=True, exist_ok=True)
            backend = JournalFileBackend(str(path))
            return optuna.storages.JournalStorage(backend)
        if "://" not in address:
            raise RunError(
                f"the storage {address!r} is no address",
                allowed="sqlite:///FILE, the URL of another database, or journal:FILE",
            )
        options = {}
        if address.startswith("sqlite:///"):
            Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"timeout": PATIENCE_SECONDS}}
        return optuna.storages.RDBStorage(address, engine_kwargs=options)


@contextlib.contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """Turn what a broken storage raises into a RunError that says what to do.

    An error that was not raised within Optuna's storages is a mistake in a program, not damage in a
    file, and comes through as it is.
    """
    try:
        yield
    except (NoSuchModuleError, ArgumentError, ImportError) as error:
        raise RunError(
            f"the storage {shown(address)} cannot be reached: {error}",
            allowed="sqlite:///FILE, journal:FILE, or a database whose driver is installed",
        ) from error
    except Exception as error:
        known = isinstance(error, (SQLAlchemyError, StorageInternalError, OSError))
        if isinstance(error, BenchmarkError) or not (known or _is_of_a_storage(error)):
            raise
        raise RunError(
            f"the study's storage cannot be used: {_reason(error)}",
            source=shown(address),
            fix=_remedy(str(error.__cause__ or error)),
        ) from error


def _is_of_a_storage(error: Exception) -> bool:
    """Tell whether an error came up while Optuna read or wrote: a torn line raises many kinds."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(
        frame.f_globals.get("__name__", "").startswith("optuna.storages") for frame, _ in frames
    )


def _reason(error: Exception) -> str:
    """Give the innermost error's first line, or what it means where only Optuna knows that."""
    if isinstance(error, (KeyError, AttributeError, TypeError, json.JSONDecodeError)):
        return "a record in it is damaged"
    inner = error.__cause__ or error
    inner = getattr(inner, "orig", None) or inner
    return (str(inner).strip().splitlines() or [repr(inner)])[0]


def _remedy(text: str) -> str:
    if "locked" in text:
        return "Another program holds it: try again once that is done"
    if "no longer compatible" in text or "version" in text or "schema" in text:
        return (
            "It is of another version of Optuna: `optuna storage upgrade --storage URL` brings it "
            "up to date, or name another with --storage"
        )
    if "readonly" in text or "Permission" in text or "unable to open" in text:
        return "Make it writable, or name another with --storage"
    return "Move that file away and begin anew, or name another with --storage"


N_RANDOM = 6
"""Trials before a model of the earlier ones proposes. Optuna's own number is ten, a third of a
search of thirty: docs/notes/tuning.md says what a planted problem made of both."""
N_CANDIDATES = 128
"""Points of which the trees propose the best; Optuna's own number is 24."""


def new_sampler(kind: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Make the sampler that proposes trial `number` of a study.

    `gp`: a Gaussian process; `tpe`: Parzen trees over all parameters together; `random`.
    """
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=own_seed)
    if kind == "gp":
        return optuna.samplers.GPSampler(
            seed=own_seed, n_startup_trials=N_RANDOM, deterministic_objective=False
        )
    return optuna.samplers.TPESampler(
        seed=own_seed,
        n_startup_trials=N_RANDOM,
        n_ei_candidates=N_CANDIDATES,
        multivariate=True,
    )


def new_pruner(kind: str, max_epochs: int) -> optuna.pruners.BasePruner:
    """Make what gives trials up: `median` of the earlier ones at that epoch, `hyperband`, `none`.

    The first quarter of the epochs, and the first five trials, are never given up.
    """
    if kind == "none":
        return optuna.pruners.NopPruner()
    if kind == "hyperband":
        lowest = min(3, max_epochs)
        return optuna.pruners.HyperbandPruner(
            min_resource=lowest, max_resource=max_epochs, reduction_factor=3
        )
    return optuna.pruners.MedianPruner(
        n_startup_trials=5, n_warmup_steps=max(1, max_epochs // 4), n_min_trials=3
    )


def quiet() -> None:
    """Let Optuna say nothing by itself: what happens is yielded, and shown by who reads it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


SAMPLERS: Final = ("tpe", "gp", "random")
PRUNERS: Final = ("median", "hyperband", "none")
OBJECTIVE: Final = "val/combined"
TRIAL_SEED: Final = 1000
"""Of every trial's training: they differ in their recipes and in nothing else. No suite is run with
it, so that a tuned recipe is never shown with the seed that it was chosen by."""
FRESH_SEEDS: Final = (1001, 1002, 1003)
"""Of the trainings that decide between the best trial and the runner-up."""


@dataclass(frozen=True)
class Study:
    """A search, before anything of it was tried."""

    experiment: Experiment
    """Where it starts; with the changes of `--set`, marked ad hoc."""
    space: SearchSpace
    faces: FaceSet
    folder: Path
    """Of all studies; this one's is beneath it."""
    sampler: str = "tpe"
    sampler_seed: int = 0
    pruner: str = "median"
    points: tuple[Mapping[str, Any], ...] = ()
    """Every point to be tried, where the search is a grid; empty where a sampler chooses."""

    def __post_init__(self) -> None:
        for word, value, allowed in (
            ("sampler", self.sampler, SAMPLERS),
            ("pruner", self.pruner, PRUNERS),
        ):
            require(value in allowed, f"--{word} is {value!r}", allowed=", ".join(allowed))

    @property
    def about(self) -> dict[str, Any]:
        """All that makes two searches the same, as plain values."""
        n_faces = faces_per_epoch(self.experiment) if BATCH_SIZE in self.space.paths else None
        same_faces = {} if n_faces is None else {"faces_per_epoch": n_faces}
        return same_faces | {
            "experiment": self.experiment.name,
            "definition": steering_content(self.experiment.as_dict()),
            "space": self.space.words,
            "dataset": self.faces.name,
            "pixel_digest": self.faces.pixel_digest,
            "split_digest": self.faces.split_digest,
            "trainer_version": TRAINER_VERSION,
            "trial_seed": TRIAL_SEED,
        }

    @property
    def identity(self) -> str:
        """sha256 of `about`, 64 hexadecimal digits."""
        return hashlib.sha256(canonical_json(self.about).encode()).hexdigest()

    @property
    def family(self) -> str:
        """What this study and those with another space have in common, as their names begin."""
        return f"{self.experiment.name} on {self.faces.name}"

    @property
    def name(self) -> str:
        """As Optuna and MLflow list it."""
        return f"{self.family} #{self.identity[:12]}"

    @property
    def own_folder(self) -> Path:
        """Where claims, table, pictures and recipe of this study are."""
        return self.folder / self.identity[:16]

    def dataset(self) -> dict[str, Any]:
        """Describe the faces as a run's `experiment.json` does."""
        parts = self.faces.table["part"].value_counts()
        return {
            "name": self.faces.name,
            "drawn": self.faces.drawn,
            "pixel_digest": self.faces.pixel_digest,
            "split_version": self.experiment.protocol.split,
            "split_digest": self.faces.split_digest,
            "counts": {part: int(parts.get(part, 0)) for part in ("train", "val", "test")},
        }


def studies_folder(runs_dir: Path) -> Path:
    """Where all studies are kept."""
    return runs_dir / "studies"
