"""A trained network by run or file, with all that using it needs.

The file holds tensors and, in its header, the definition that they fit: no code is ever loaded.
MLflow calls `_load_pyfunc` for a model that facebench logged; without MLflow, `load_trained`.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmark.data.batches import FaceBatches
from benchmark.errors import DataError, ExperimentError, RunError
from benchmark.evaluation.predictions import Probabilities, probability_columns
from benchmark.experiment.definition import Experiment
from benchmark.models.network import Network, rebuild_network
from benchmark.models.weight_formats import header_of, read_weight_file, refused
from benchmark.record import MODEL_FILE, RunRecord
from benchmark.registry import finished_run
from benchmark.tasks import TaskName
from benchmark.training.steps import in_fp32

Pixels = npt.NDArray[np.uint8]
_WRITTEN: Final = "model.safetensors as a run of facebench wrote it"


@dataclass(frozen=True)
class TrainedNetwork:
    """A network as its run left it, in eval mode on the CPU, and what is known of it."""

    network: Network
    experiment: Experiment
    path: Path
    """The file of its weights."""
    faces_px: int
    """Side of the faces that it was trained on; 0 where the file does not say."""
    title: str
    record: RunRecord | None = None
    """Its run; None for a checkpoint that lies by itself."""
    temperatures: dict[TaskName, float] = field(default_factory=dict)
    """Fitted on validation faces, where known."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it predicts, in the order of all tables."""
        return self.experiment.head.tasks

    def probabilities(self, pixels: Pixels) -> Probabilities:
        """Predict faces, (n, px, px, 3) uint8 RGB, where the network is: (n, classes) per task."""
        place = next(self.network.parameters()).device
        every = torch.arange(len(pixels), device=place)
        faces = FaceBatches(torch.from_numpy(pixels).to(place), {"gender": every})
        return dict(in_fp32(self.network, faces).probabilities(every))

    def predict(self, images: Pixels, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Predict faces, (n, px, px, 3) uint8 RGB of the size that it was trained on: classes and
        probabilities as in predictions.csv. Raise DataError for other arrays. params: MLflow's.
        """
        faces = np.asarray(images)
        if faces.ndim != 4 or faces.shape[3] != 3 or faces.dtype != np.uint8 or not len(faces):
            raise DataError(
                f"pictures as an array of {faces.dtype} with the shape {faces.shape}",
                allowed="uint8 (n, px, px, 3), RGB, of one face or more",
            )
        columns: dict[str, npt.NDArray[Any]] = {}
        for task, found in self.probabilities(faces).items():
            columns[f"{task}_pred"] = found.argmax(axis=1)
            columns |= dict(zip(probability_columns(task), found.T, strict=True))
        return pd.DataFrame(columns)


def load_trained(path: Path | str) -> TrainedNetwork:
    """Load `model.safetensors` of a run; raise WeightsError where it is no such file or damaged.

    torch's own files and pickles are not opened: they may hold code.
    """
    path = Path(path)
    try:
        header = header_of(path)
        experiment = Experiment.from_dict(json.loads(header["experiment"]))
        description, tensors = dict(json.loads(header["network"])), read_weight_file(path).tensors
        network = rebuild_network(experiment, description, tensors).eval()
        return TrainedNetwork(network, experiment, path, int(header.get("faces_px", 0)), str(path))
    except (LookupError, TypeError, ValueError, AttributeError, ExperimentError) as error:
        found = f"does not say which network it is ({type(error).__name__}: {error})"
        raise refused(path, found, "", _WRITTEN) from None


_load_pyfunc = load_trained
"""What `mlflow.pyfunc.load_model` calls, by its rules."""


def trained_run(run: str | Path, runs_dir: Path) -> TrainedNetwork:
    """Load the network of the one finished run that is named, or of its file, as a Path.

    Raise RunError where there is no such run, or several, or it kept no weights; WeightsError for
    another or a damaged file.
    """
    if isinstance(run, Path):
        in_run = run.name == MODEL_FILE and (run.parent / "experiment.json").is_file()
        path, record = run, RunRecord(run.parent) if in_run else None
    else:
        record = finished_run(run, runs_dir)
        path = record.model_path()
    trained = load_trained(path)
    if not trained.faces_px:
        found = "does not say how large the faces were that it was trained on"
        raise refused(path, found, "Run its experiment again", _WRITTEN)
    if record is None:
        return trained
    title = f"{record.experiment_name}, seed {record.seed}, run {record.identity[:12]}"
    title += ", trained on SYNTHETIC FACES" * bool(record.about["dataset"]["drawn"])
    temperatures: dict[TaskName, float] = {}
    with contextlib.suppress(RunError, ValueError, LookupError, TypeError):
        temperatures = {
            task: float(it["temperature"])
            for task, it in record.calibration.items()
            if not it["temperature_is_at_an_end"]
        }
    return replace(trained, title=title, record=record, temperatures=temperatures)
