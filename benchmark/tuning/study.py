"""What a search is: an experiment, what may change about it, on which faces, and by whom chosen.

A study is named by all that would make its trials incomparable with another's: a changed space,
definition, data set or trainer is a new study. Who samples and who prunes may change on the way.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmark.errors import require
from benchmark.experiment import Experiment
from benchmark.experiment_ranges import SearchSpace
from benchmark.experiment_search import BATCH_SIZE, faces_per_epoch
from benchmark.faces.store import FaceSet
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
