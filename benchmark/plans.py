"""What is about to be run: a definition with its seed, faces and weights, and where it is kept.

Planning is cheap and touches no network; doing it is for benchmark.runs.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmark import provenance
from benchmark.experiment import Experiment
from benchmark.faces.store import FaceSet
from benchmark.identity import Ingredients, family_of, identity_of
from benchmark.models import weights as weight_files
from benchmark.models.network import Network
from benchmark.models.weights import WeightFile
from benchmark.results.record import SCHEMA, RunRecord, work_folder
from benchmark.training.device import Device
from benchmark.training.trainer import TRAINER_VERSION

KeepWeights = Literal["best", "all", "none"]
KEEP_WEIGHTS: Final = ("best", "all", "none")


def _no_mirror(record: RunRecord) -> None:
    """Stand in for a tracker where only the run's folder is wanted."""


@dataclass(frozen=True)
class Settings:
    """Where and how to run; none of it changes what a run's numbers mean."""

    runs_dir: Path
    weights_dir: Path
    device: Device
    offline: bool = False
    """Never try to download weights."""
    read_test: bool = False
    """Read the test faces in ad-hoc runs too."""
    keep_weights: KeepWeights = "best"
    mirror: Callable[[RunRecord], None] = field(default=_no_mirror)
    """Told of a run's folder whenever it has something new."""


@dataclass(frozen=True)
class Plan:
    """A run that could start now: definition, seed, faces and weights are all at hand."""

    experiment: Experiment
    seed: int
    faces: FaceSet
    weights: WeightFile | None
    ingredients: Ingredients
    folder: Path

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.experiment.name}, seed {self.seed}"

    @property
    def record(self) -> RunRecord:
        """The run's folder."""
        return RunRecord(self.folder)

    @property
    def identity(self) -> str:
        """The run's sha256."""
        return self.folder.name

    def about(self, device: Device, network: Network, counts: dict[str, int]) -> dict[str, Any]:
        """Say all that `experiment.json` keeps: definition, seed, data, weights and versions.

        counts: faces per part of the split.
        """
        total, trainable = network.parameter_counts()
        faces, weights = self.faces, self.weights
        return {
            "schema": SCHEMA,
            "identity": self.identity,
            "family": family_of(self.experiment, self.ingredients),
            "experiment": self.experiment.as_dict(),
            "seed": self.seed,
            "dataset": {
                "name": faces.name,
                "drawn": faces.drawn,
                "pixel_digest": faces.pixel_digest,
                "split_version": self.experiment.protocol.split,
                "split_digest": faces.split_digest,
                "counts": counts,
            },
            "weights": {
                "source": self.experiment.backbone.weights,
                "sha256": weights.sha256 if weights else None,
                "origin": weights.origin if weights else None,
            },
            "trainer_version": TRAINER_VERSION,
            "protocol_name": self.experiment.protocol.name,
            "ad_hoc": self.experiment.ad_hoc,
            "leaky": False,
            "device": device.description,
            "device_kind": device.kind,
            "precision": device.precision,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "parameters": {"total": total, "trainable": trainable},
            "multiply_adds": network.multiply_adds(faces.image_px),
            "started": now(),
        }


def plan_run(experiment: Experiment, seed: int, faces: FaceSet, settings: Settings) -> Plan:
    """Gather what a run needs and name its folder; raises WeightsMissing or WeightsError."""
    backbone = experiment.backbone
    weights = None
    if backbone.weights != "none":
        weights = weight_files.resolve(
            backbone.architecture,
            backbone.weights,
            settings.weights_dir,
            offline=settings.offline,
        )
    ingredients = Ingredients(
        weights_sha256=weights.sha256 if weights else None,
        pixel_digest=faces.pixel_digest,
        split_digest=faces.split_digest,
        trainer_version=TRAINER_VERSION,
    )
    folder = work_folder(settings.runs_dir) / identity_of(experiment, ingredients, seed)
    return Plan(experiment, seed, faces, weights, ingredients, folder)


def now() -> str:
    """Give the time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
