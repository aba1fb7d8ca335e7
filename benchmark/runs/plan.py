"""What is about to be run: a definition with its seed, faces and weights, and where it is kept.

Planning is cheap, but for weights that have to be fetched first; benchmark.runs.run trains.
"""

import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmark import record as provenance
from benchmark.data.dataset import FaceSet
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.data.splits import check_split_version
from benchmark.errors import RunError, WeightsError
from benchmark.evaluation.predictions import read_predictions
from benchmark.experiment.definition import Experiment
from benchmark.identity import Ingredients, family_of, identity_of
from benchmark.models import weights as weight_files
from benchmark.models.network import Network
from benchmark.models.weight_store import FacesSeen, WeightFile
from benchmark.record import SCHEMA, RunRecord, work_folder
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CacheSettings
from benchmark.training.steps import SpeedSettings
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
    on_download: Callable[[str], None] | None = None
    """Told the name of a weight file when its download begins."""
    on_progress: OnProgress = keep_quiet
    """Told how far what takes long beside training is: reading faces, drawing pictures."""
    cache: CacheSettings | None = None
    """Where the frozen part's activations are kept; None: it is computed for every batch."""
    speed: SpeedSettings = field(default_factory=SpeedSettings)


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
                "labels_digest": faces.labels_digest,
                "counts": counts,
            },
            "weights": {
                "source": self.experiment.backbone.weights,
                "sha256": weights.sha256 if weights else None,
                "origin": weights.origin if weights else None,
                "from_run": weights.from_run if weights else None,
                "faces_seen": [asdict(seen) for seen in weights.faces_seen] if weights else [],
            },
            "trainer_version": TRAINER_VERSION,
            "protocol_name": self.experiment.protocol.name,
            "ad_hoc": self.experiment.ad_hoc,
            "leaky": self.experiment.protocol.leaky or (weights is not None and weights.leaky),
            "device": device.description,
            "device_kind": device.kind,
            "precision": device.precision,
            "arithmetic": device.as_dict(),
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "parameters": {"total": total, "trainable": trainable},
            "multiply_adds": network.multiply_adds(faces.image_px),
            "started": now(),
        }


def plan_run(experiment: Experiment, seed: int, faces: FaceSet, settings: Settings) -> Plan:
    """Gather what a run needs and name its folder.

    Raises WeightsMissing, WeightsError, and DataError for a data set with an older split.
    """
    check_split_version(faces)
    weights = _weights_for(experiment, settings)
    if weights is not None:
        for seen in weights.faces_seen:
            _check_not_seen(seen, experiment, faces, settings.runs_dir)
    ingredients = Ingredients(
        weights_sha256=weights.sha256 if weights else None,
        pixel_digest=faces.pixel_digest,
        split_digest=faces.split_digest,
        trainer_version=TRAINER_VERSION,
        labels_digest=faces.labels_digest,
    )
    folder = work_folder(settings.runs_dir) / identity_of(experiment, ingredients, seed)
    return Plan(experiment, seed, faces, weights, ingredients, folder)


def _weights_for(experiment: Experiment, settings: Settings) -> WeightFile | None:
    backbone = experiment.backbone
    if backbone.weights == "none":
        return None
    if backbone.weights.startswith(weight_files.RUN):
        return weight_files.resolve_run(backbone.weights, backbone.architecture, settings.runs_dir)
    return weight_files.resolve(
        backbone.architecture,
        backbone.weights,
        settings.weights_dir,
        offline=settings.offline,
        on_download=settings.on_download,
    )


def _check_not_seen(
    seen: FacesSeen, experiment: Experiment, faces: FaceSet, runs_dir: Path
) -> None:
    """Raise WeightsError where weights were trained on these very faces under another split.

    Faces that were training faces there may be test faces here.
    """
    protocol = experiment.protocol
    placed_alike = (seen.split_digest, seen.split_version, seen.fold) == (
        faces.split_digest, protocol.split, protocol.fold,
    )  # fmt: skip
    if placed_alike:
        return
    same_faces = faces.pixel_digest == seen.pixel_digest or faces.split_digest == seen.split_digest
    if not same_faces and not _share_files(seen, faces, runs_dir):
        return
    raise WeightsError(
        f"{experiment.backbone.weights!r} was trained on these faces under another split "
        f"({_placement(seen.split_version, seen.fold)}): what it learnt from may be tested on here",
        allowed="a run on other faces, or under this experiment's own split and fold",
        source=f"run {seen.run[:12]} on {seen.dataset}",
        fix=f"Train its experiment under {_placement(protocol.split, protocol.fold)}, and name "
        "that run",
    )


def _placement(split: str, fold: int | None) -> str:
    return split if fold is None else f"{split}, fold {fold}"


SHARED_FRACTION: Final = 0.1
"""Of one set's evaluated faces found in another: above it, the two are copies of the same."""


def _share_files(seen: FacesSeen, faces: FaceSet, runs_dir: Path) -> bool:
    """Tell by the names and labels of its evaluated faces whether a run saw copies of these.

    A re-encoded or resized copy has other pixels. Where that run is not here, nothing can be told.
    """
    known = ["file", "age", "gender", "race"]
    try:
        there = read_predictions(RunRecord(work_folder(runs_dir) / seen.run).predictions_path)
    except RunError:
        return False
    shared = there[known].drop_duplicates().merge(faces.table[known].drop_duplicates(), on=known)
    return len(shared) > SHARED_FRACTION * len(there)


def now() -> str:
    """Give the time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
