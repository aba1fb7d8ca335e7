"""What is about to be run: a definition with its seed, faces and weights, and its folder.

Planning is cheap, except for weights that have to be fetched first; benchmark.runs.run trains.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmark import record as provenance
from benchmark.data.dataset import FaceSet
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.data.splits import check_split_version
from benchmark.errors import WeightsError
from benchmark.evaluation.predictions import n_shared
from benchmark.experiment.definition import Experiment
from benchmark.identity import MASKED, Ingredients, group_identity, identity_of
from benchmark.models import weights as weight_files
from benchmark.models.network import Network
from benchmark.models.weights import WeightFile
from benchmark.record import SCHEMA, RunRecord, work_folder
from benchmark.tasks import MISSING
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CacheSettings
from benchmark.training.steps import SpeedSettings
from benchmark.training.trainer import TRAINER_VERSION

KeepWeights = Literal["best", "none"]
KEEP_WEIGHTS: Final = ("best", "none")


@dataclass(frozen=True)
class Settings:
    """Where and how to run; none of it changes what a run's numbers mean."""

    runs_dir: Path
    weights_dir: Path
    device: Device
    offline: bool = False
    """Never try to download weights."""
    evaluate_test: bool = False
    """Evaluate ad-hoc runs on the test set too."""
    keep_weights: KeepWeights = "best"
    figures: bool = True
    """Draw a finished run's figures; a search's trials have none."""
    mirror: Callable[[RunRecord], None] = field(default=lambda _record: None)
    """Called with a run's folder whenever it has something new."""
    on_download: Callable[[str], None] | None = None
    """Called with the name of a weight file when its download begins."""
    on_progress: OnProgress = keep_quiet
    """Of what takes long beside training: predictions, figures."""
    cache: CacheSettings | None = None
    """Where the frozen part's activations are kept; None: it is computed for every batch."""
    speed: SpeedSettings = field(default_factory=SpeedSettings)


@dataclass(frozen=True)
class Plan:
    """A run that could start now: definition, seed, faces and weights are available."""

    experiment: Experiment
    seed: int
    faces: FaceSet
    weights: WeightFile | None
    ingredients: Ingredients
    folder: Path

    @property
    def title(self) -> str:
        return f"{self.experiment.name}, seed {self.seed}"

    @property
    def record(self) -> RunRecord:
        return RunRecord(self.folder)

    @property
    def identity(self) -> str:
        """The run's sha256."""
        return self.folder.name

    @property
    def group_identity(self) -> str:
        """Identity without the seed: that of its run group."""
        return group_identity(self.experiment, self.ingredients)

    def about(self, device: Device, network: Network, counts: dict[str, int]) -> dict[str, Any]:
        """Give what `experiment.json` holds; counts: faces per part of the split."""
        total, trainable = network.parameter_counts()
        faces, weights, missing = self.faces, self.weights, self.ingredients.missing_labels
        faces_seen = list(weights.faces_seen) if weights else []
        return {
            "schema": SCHEMA, "identity": self.identity, "family": self.group_identity,
            "experiment": self.experiment.as_dict(), "seed": self.seed,
            "dataset": about_faces(faces, self.experiment.protocol.split, counts)
            | ({"missing_labels": missing} if missing else {}),
            "weights": {
                "source": self.experiment.backbone.weights,
                **{name: getattr(weights, name, None) for name in ("sha256", "origin", "from_run")},
                "faces_seen": faces_seen,
            },
            "trainer_version": TRAINER_VERSION,
            "protocol_name": self.experiment.protocol.name,
            "ad_hoc": self.experiment.ad_hoc,
            "leaky": self.experiment.protocol.leaky or any(it["leaky"] for it in faces_seen),
            "device": device.description, "device_kind": device.kind,
            "precision": device.precision, "arithmetic": device.as_dict(),
            "versions": provenance.versions(), "commit": provenance.commit(),
            "parameters": {"total": total, "trainable": trainable},
            "multiply_adds": network.multiply_adds(faces.image_px), "started": now(),
        }  # fmt: skip


def about_faces(faces: FaceSet, split: str, counts: dict[str, int]) -> dict[str, Any]:
    """Describe faces as `experiment.json` does; split: its version. counts: faces per part."""
    return {
        "name": faces.name, "drawn": faces.drawn, "pixel_digest": faces.pixel_digest,
        "split_version": split, "split_digest": faces.split_digest,
        "labels_digest": faces.labels_digest, "counts": counts,
        **({"datasheet": faces.datasheet} if faces.datasheet else {}),
    }  # fmt: skip


def plan_run(experiment: Experiment, seed: int, faces: FaceSet, settings: Settings) -> Plan:
    """Gather what a run needs and name its folder.

    Raises WeightsMissing, WeightsError, and DataError for a data set with an older split.
    """
    check_split_version(faces)
    architecture, source = experiment.backbone.architecture, experiment.backbone.weights
    if source == "none":
        weights = None
    elif source.startswith(weight_files.RUN):
        weights = weight_files.resolve_run(source, architecture, settings.runs_dir)
    else:
        weights = weight_files.resolve(
            architecture, source, settings.weights_dir,
            offline=settings.offline, on_download=settings.on_download,
        )  # fmt: skip
    for seen in weights.faces_seen if weights else ():
        _check_not_seen(seen, experiment, faces, settings.runs_dir)
    tasks = experiment.head.tasks
    some_are_missing = bool((faces.table[list(tasks)] == MISSING).to_numpy().any())
    ingredients = Ingredients(
        weights_sha256=weights.sha256 if weights else None,
        pixel_digest=faces.pixel_digest,
        split_digest=faces.split_digest,
        trainer_version=TRAINER_VERSION,
        labels_digest=faces.labels_digest,
        missing_labels=MASKED if some_are_missing and len(tasks) > 1 else None,
    )
    folder = work_folder(settings.runs_dir) / identity_of(experiment, ingredients, seed)
    return Plan(experiment, seed, faces, weights, ingredients, folder)


def _check_not_seen(
    seen: dict[str, Any], experiment: Experiment, faces: FaceSet, runs_dir: Path
) -> None:
    """Raise WeightsError where weights were trained on these very faces under another split.

    A re-encoded or resized copy is recognised by the run's evaluated faces, if it is here.
    """
    protocol = experiment.protocol
    there = (seen["split_digest"], seen["split_version"], seen["fold"])
    if there == (faces.split_digest, protocol.split, protocol.fold):
        return
    if faces.pixel_digest != seen["pixel_digest"] and faces.split_digest != seen["split_digest"]:
        path = RunRecord(work_folder(runs_dir) / seen["run"]).predictions_path
        if not path.is_file() or not n_shared(path, faces.table):
            return
    both = there[1:], (protocol.split, protocol.fold)
    under, here = (split if fold is None else f"{split}, fold {fold}" for split, fold in both)
    raise WeightsError(
        f"{experiment.backbone.weights!r} was trained on these faces under another split "
        f"({under}): its training faces may be test faces here",
        allowed="a run on other faces, or under this experiment's own split and fold",
        source=f"run {seen['run'][:12]} on {seen['dataset']}",
        fix=f"Train its experiment under {here}, and name that run",
    )


def now() -> str:
    """Give the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
