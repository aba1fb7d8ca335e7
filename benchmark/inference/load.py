"""Find a trained network by run or file, and load it with all that using it needs.

The file holds tensors and, in its header, the definition that they fit: no code is ever loaded.
Beside the network: the size of the faces that it was trained on, and its run's temperatures.
MLflow calls `_load_pyfunc` for a model that facebench logged; without MLflow, `load_trained`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmark.data.batches import FaceBatches
from benchmark.errors import BenchmarkError, DataError, ExperimentError, RunError, WeightsError
from benchmark.evaluation.predictions import probability_columns
from benchmark.experiment.definition import Experiment
from benchmark.files import sha256_of
from benchmark.models.network import Network, rebuild_network
from benchmark.models.weight_readers import header_of, read_json, read_weight_file
from benchmark.models.weight_store import MODEL_FILE
from benchmark.record import RunRecord, all_records, work_folder
from benchmark.tasks import TASKS, TaskName
from benchmark.training.predict import probabilities

N_DIGITS: Final = 8
"""Of a run's identity, at least, that name it."""
_WRITTEN: Final = "model.safetensors as a run of facebench wrote it"


@dataclass(frozen=True)
class TrainedNetwork:
    """A network as its run left it, in eval mode on the CPU, with its definition."""

    network: Network
    experiment: Experiment

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it predicts of a face, in the order of all tables."""
        return tuple(task for task in TASKS if task in self.experiment.head.tasks)

    def predict(
        self, images: npt.NDArray[np.uint8], params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict faces: images (n, px, px, 3), uint8 RGB, of the size that it was trained on.

        One row per face; per task `<task>_pred` and fp32 softmax probabilities `<task>_p0`…, as in
        predictions.csv. Raise DataError for other arrays. params: MLflow's; there are none.
        """
        faces = np.asarray(images)
        fits = faces.ndim == 4 and faces.shape[3] == 3 and faces.dtype == np.uint8
        if not fits or not len(faces):
            raise DataError(
                f"pictures as an array of {faces.dtype} with the shape {faces.shape}",
                allowed="uint8 (n, px, px, 3), RGB, of one face or more",
            )
        every = torch.arange(len(faces))
        batches = FaceBatches(torch.from_numpy(faces), {"gender": every})
        found = probabilities(self.network, batches, every)
        columns: dict[str, npt.NDArray[Any]] = {}
        for task in self.tasks:
            columns[f"{task}_pred"] = found[task].argmax(axis=1)
            columns |= dict(zip(probability_columns(task), found[task].T, strict=True))
        return pd.DataFrame(columns)


@dataclass(frozen=True)
class TrainedRun:
    """A trained network, and what is known of it."""

    trained: TrainedNetwork
    path: Path
    """The file of its weights."""
    faces_px: int
    """Side of the faces that it was trained on, to which pictures are brought first."""
    title: str
    """What a person calls it."""
    record: RunRecord | None = None
    """Its run; None for a checkpoint that lies by itself."""
    temperatures: dict[TaskName, float] = field(default_factory=dict)
    """Fitted on validation faces; empty where none is known."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it predicts of a face, in the order of all tables."""
        return self.trained.tasks

    def sha256(self) -> str:
        """Digest of the file of its weights."""
        return sha256_of(self.path)


def load_trained(path: Path | str) -> TrainedNetwork:
    """Load `model.safetensors` of a run; raise WeightsError where it is no such file or damaged."""
    path = Path(path)
    header = header_of(path)
    try:
        experiment = Experiment.from_dict(read_json(header["experiment"]))
        description = read_json(header["network"])
        if not isinstance(description, dict):
            raise TypeError("it is no description of a network")
    except (LookupError, TypeError, ValueError, BenchmarkError) as error:
        raise WeightsError(
            f"{path.name} does not say which network it is ({type(error).__name__}: {error})",
            allowed=_WRITTEN,
            source=str(path),
        ) from None
    tensors = read_weight_file(path).tensors
    try:
        return TrainedNetwork(rebuild_network(experiment, description, tensors).eval(), experiment)
    except (LookupError, TypeError, ValueError, AttributeError, ExperimentError) as error:
        raise WeightsError(
            f"{path.name} describes a network that cannot be built ({type(error).__name__}: "
            f"{error})",
            allowed=_WRITTEN,
            source=str(path),
        ) from None


def _load_pyfunc(path: str) -> TrainedNetwork:
    """Load a model for `mlflow.pyfunc.load_model`, which names this function by its rules."""
    return load_trained(path)


def network_of_run(
    name: str, runs_dir: Path, *, data_dir: Path | None = None, faces_px: int | None = None
) -> TrainedRun:
    """Load the network of a finished run, named by its id or by an experiment that has one run.

    data_dir: where its data set may be prepared, which tells the size of its faces where the run,
    of an older facebench, does not; faces_px says it by hand. Raises RunError where there is no
    such run, or several; where it is not finished, kept no weights, or the size is not known.
    Raises WeightsError where its file is damaged.
    """
    record = _run_named(name, runs_dir)
    return _loaded(weights_path(record), record, data_dir, faces_px)


def weights_path(record: RunRecord) -> Path:
    """Give the file of a run's weights; raise RunError where it is not finished or kept none."""
    named = f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed})"
    if record.state != "done":
        raise RunError(
            f"{named} is not finished but {record.state}",
            source=str(record.folder),
            fix=f"Finish it: facebench run {record.experiment_name} --seeds {record.seed}",
        )
    if not (record.folder / MODEL_FILE).is_file():
        raise RunError(
            f"{named} kept no weights",
            source=str(record.folder),
            fix="Remove its folder and run it again with --keep-weights best",
        )
    return record.folder / MODEL_FILE


def network_of_file(
    path: Path, *, data_dir: Path | None = None, faces_px: int | None = None
) -> TrainedRun:
    """Load a checkpoint: `model.safetensors` of a run, wherever it lies now.

    data_dir, faces_px: as for `network_of_run`. Raises WeightsError for any other file; nothing in
    it is ever run.
    """
    if not path.is_file():
        raise WeightsError(
            f"the checkpoint {path} {'is a folder' if path.is_dir() else 'does not exist'}",
            allowed="model.safetensors of a run",
            fix="Name a run of this machine with --run",
        )
    with path.open("rb") as stream:
        start = stream.read(9)
    # A safetensors file begins with the length of its header, which may look like a pickle's start.
    if start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80")):
        raise WeightsError(
            f"{path.name} is a pickle or a file of torch, which may hold code and is not opened",
            allowed=_WRITTEN,
            source=str(path),
            fix="A mid-run checkpoint.pt becomes one when its run is finished: run it again",
        )
    in_run = path.name == MODEL_FILE and (path.parent / "experiment.json").is_file()
    return _loaded(path, RunRecord(path.parent) if in_run else None, data_dir, faces_px)


def _loaded(
    path: Path, record: RunRecord | None, data_dir: Path | None, faces_px: int | None
) -> TrainedRun:
    trained, px = load_trained(path), _faces_px(path, record, data_dir, faces_px)
    if record is None:
        return TrainedRun(trained, path, px, str(path))
    title = f"{record.experiment_name}, seed {record.seed}, run {record.identity[:12]}"
    return TrainedRun(trained, path, px, title, record, _temperatures(record))


def _run_named(name: str, runs_dir: Path) -> RunRecord:
    """Find the one run by the first digits of its id, or the finished one of an experiment."""
    if re.fullmatch(rf"[0-9a-f]{{{N_DIGITS},64}}", name):
        folders = sorted(work_folder(runs_dir).glob(f"{name}*"))
        found = [RunRecord(folder) for folder in folders if (folder / "experiment.json").is_file()]
    else:
        found = [record for record in all_records(runs_dir) if _experiment_name(record) == name]
    done = [record for record in found if record.state == "done"]
    if len(done) > 1:
        listed = ", ".join(f"{record.identity[:12]} (seed {record.seed})" for record in done)
        raise RunError(
            f"{name!r} fits {len(done)} finished runs",
            allowed=f"one of {listed}",
            source=str(runs_dir),
            fix="Name one by its id",
        )
    if not found:
        raise RunError(
            f"there is no run {name!r}",
            allowed=f"{N_DIGITS} digits or more of a run's id, or the name of an experiment",
            source=str(runs_dir),
            fix="`facebench status --all` lists the runs; --checkpoint takes a file",
        )
    return (done or found)[0]


def _experiment_name(record: RunRecord) -> str | None:
    try:
        return record.experiment_name
    except (BenchmarkError, LookupError, TypeError):
        return None  # unreadable: it is not the one that is meant


def _faces_px(
    path: Path, record: RunRecord | None, data_dir: Path | None, given: int | None
) -> int:
    """Tell the side of the faces that a network was trained on, from whoever knows; never guess.

    It is not the side that the network works at: that one resizes what it is given.
    """
    known = header_of(path).get("faces_px") or _px_of_dataset(record, data_dir)
    if known and given and int(known) != given:
        raise RunError(f"{path.name} was trained on faces of {known} pixels, not {given}")
    if found := known or given:
        return int(found)
    raise RunError(
        f"{path.name} does not say how large the faces were that it was trained on",
        source=str(path),
        fix="Say it with --image-px, or prepare its data set: --data-dir is where it is looked for",
    )


def _px_of_dataset(record: RunRecord | None, data_dir: Path | None) -> int | None:
    """Look the size up in the data set that a run was trained on, where it is prepared."""
    if record is None or data_dir is None:
        return None
    digest = record.about["dataset"]["pixel_digest"]
    for path in sorted(data_dir.glob("[!.]*/manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["pixel_digest"] == digest:
                return int(manifest["image_px"])
        except (OSError, ValueError, LookupError, TypeError):
            continue  # a damaged data set is no obstacle
    return None


def _temperatures(record: RunRecord) -> dict[TaskName, float]:
    """Read the temperatures fitted on validation; a task without a usable one is left out."""
    try:
        text = (record.folder / "calibration.json").read_text(encoding="utf-8")
        tasks: dict[str, Any] = json.loads(text)["tasks"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return {
        task: float(tasks[task]["temperature"])
        for task in TASKS
        if task in tasks and not tasks[task]["temperature_is_at_an_end"]
    }
