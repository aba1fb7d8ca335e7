"""What a search is: an experiment, its space and faces; Optuna's storage, samplers and pruners.

A study is named by all that would make its trials incomparable with another's: a changed space,
definition, data set or trainer is a new study. Sampler and pruner may change on the way.
docs/notes/tuning.md says why SQLite is the default storage and how samplers were compared.
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
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError, require
from benchmark.experiment.definition import Experiment
from benchmark.experiment.space import BATCH_SIZE, SearchSpace, faces_per_epoch
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.training.trainer import TRAINER_VERSION

SAMPLERS: Final = ("tpe", "gp", "random")
PRUNERS: Final = ("median", "hyperband", "none")
OBJECTIVE: Final = "val/combined"
TRIAL_SEED: Final = 1000
"""Of every trial's training: they differ in their recipes and in nothing else. No suite is run with
it, so that a tuned recipe is never shown with the seed that it was chosen by."""
FRESH_SEEDS: Final = (1001, 1002, 1003)
"""Of the trainings that decide between the best trial and the runner-up."""
N_RANDOM: Final = 6
"""Trials before a model of the earlier ones proposes."""
N_CANDIDATES: Final = 128
"""Points of which the trees propose the best; Optuna's own number is 24."""
LOCK_SECONDS: Final = 60
"""How long one process waits for another's write; a write takes milliseconds."""
JOURNAL: Final = "journal:"
SQLITE: Final = "sqlite:///"


@dataclass(frozen=True)
class Study:
    """A search, before anything of it was tried.

    experiment: where it starts; with the changes of `--set`, marked ad hoc.
    folder: of all studies; this one's is beneath it.
    points: every point to be tried, where the search is a grid; empty where a sampler chooses.
    """

    experiment: Experiment
    space: SearchSpace
    faces: FaceSet
    folder: Path
    sampler: str = "tpe"
    sampler_seed: int = 0
    pruner: str = "median"
    points: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for word, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            value = getattr(self, word)
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
        """Where locks, table, page and recipe of this study are."""
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

    def new_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Make the sampler that proposes trial `number`, seeded by the study's seed and the number.

        Optuna keeps no random state: a sampler that lived as long as its process would propose the
        same first points again after a restart, and so would two processes at the same time.
        """
        digest = hashlib.sha256(f"{self.sampler_seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if self.sampler == "gp":
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=N_RANDOM, deterministic_objective=False
            )
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=N_RANDOM, n_ei_candidates=N_CANDIDATES, multivariate=True
        )

    def new_pruner(self, max_epochs: int) -> optuna.pruners.BasePruner:
        """Make the pruner: by the `median` of the earlier trials at that epoch, or `hyperband`.

        By the median, the first quarter of the epochs and the first five trials are never pruned.
        """
        if self.pruner == "none":
            return optuna.pruners.NopPruner()
        if self.pruner == "hyperband":
            return optuna.pruners.HyperbandPruner(min(3, max_epochs), max_epochs)
        return optuna.pruners.MedianPruner(
            n_startup_trials=5, n_warmup_steps=max(1, max_epochs // 4), n_min_trials=3
        )


def studies_folder(runs_dir: Path) -> Path:
    """Where all studies are kept."""
    return runs_dir / "studies"


def default_storage(folder: Path) -> str:
    """Give the address of the studies' own SQLite file."""
    return f"{SQLITE}{(folder / 'optuna.db').resolve()}"


def without_password(address: str) -> str:
    """Give an address as it may be shown."""
    return address.split("@")[-1]


def open_storage(address: str) -> optuna.storages.BaseStorage:
    """Open a storage: `sqlite:///FILE`, another database's URL, or `journal:FILE`.

    Raises RunError where it is locked, unreadable, or of another version of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    allowed = "sqlite:///FILE, the URL of a database whose driver is installed, or journal:FILE"
    if "://" not in address and not address.startswith(JOURNAL):
        raise RunError(f"the storage {address!r} is no address", allowed=allowed)
    with storage_errors(address):
        for prefix in (JOURNAL, SQLITE):
            if address.startswith(prefix):
                Path(address.removeprefix(prefix)).parent.mkdir(parents=True, exist_ok=True)
        if address.startswith(JOURNAL):
            backend = JournalFileBackend(address.removeprefix(JOURNAL))
            return optuna.storages.JournalStorage(backend)
        timeout = {"timeout": LOCK_SECONDS} if address.startswith(SQLITE) else {}
        try:
            return optuna.storages.RDBStorage(address, engine_kwargs={"connect_args": timeout})
        except (NoSuchModuleError, ArgumentError, ImportError) as error:
            raise RunError(
                f"the storage {without_password(address)} cannot be reached: {error}",
                allowed=allowed,
            ) from error


@contextlib.contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """Turn what a broken storage raises into a RunError that says what to do.

    An error that was not raised within Optuna's storages is a mistake in a program, not damage in a
    file, and comes through as it is.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if not any(f.f_globals.get("__name__", "").startswith("optuna.storages") for f in frames):
            raise
        inner = error.__cause__ or error
        text = str(getattr(inner, "orig", None) or inner).strip()
        if isinstance(error, (KeyError, AttributeError, TypeError, json.JSONDecodeError)):
            text = "a record in it is damaged"
        upgrade = "`optuna storage upgrade --storage URL` brings it up to date"
        fixes = {
            "locked": "Another program holds it: try again once that is done",
            "version": f"It is of another version of Optuna: {upgrade}",
            "readonly": "Make it writable, or name another with --storage",
            "unable to open": "Make it writable, or name another with --storage",
            "": "Move that file away and begin anew, or name another with --storage",
        }
        raise RunError(
            f"the study's storage cannot be used: {text.splitlines()[0] if text else repr(inner)}",
            source=without_password(address),
            fix=next(fix for word, fix in fixes.items() if word in str(inner)),
        ) from error
