"""A trained network from the one file that its run kept: what it says of pictures of faces.

The file holds tensors and, in its header, the definition that they fit: no code is ever loaded.
MLflow calls `_load_pyfunc` for a model that facebench logged; without MLflow, `load_trained`.
"""

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmark.errors import BenchmarkError, DataError, ExperimentError, WeightsError
from benchmark.experiment import Experiment
from benchmark.faces.batches import FaceBatches
from benchmark.models.network import Network, rebuild_network
from benchmark.models.readers import header_of, read_json, read_tensors
from benchmark.results.predictions import probability_columns
from benchmark.tasks import TASKS
from benchmark.training.probabilities import probabilities


@dataclass(frozen=True)
class Trained:
    """A network as its run left it, in eval mode on the CPU, with its definition."""

    network: Network
    experiment: Experiment

    def predict(
        self, images: npt.NDArray[np.uint8], params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Read faces: images (n, px, px, 3), uint8 RGB, of the size that it was trained on.

        One row per face; per task `<task>_pred` and fp32 softmax probabilities `<task>_p0`…, as in
        predictions.csv. Raise DataError for other arrays. params: MLflow's; there are none.
        """
        pictures = np.asarray(images)
        _check(pictures)
        every = torch.arange(len(pictures))
        faces = FaceBatches(torch.from_numpy(pictures), {"gender": every})
        answers = probabilities(self.network, faces, every)
        columns: dict[str, npt.NDArray[Any]] = {}
        for task in TASKS:
            if task in self.experiment.head.tasks:
                values = answers[task]
                columns[f"{task}_pred"] = values.argmax(axis=1)
                columns |= dict(zip(probability_columns(task), values.T, strict=True))
        return pd.DataFrame(columns)


def _check(pictures: npt.NDArray[Any]) -> None:
    fits = pictures.ndim == 4 and pictures.shape[3] == 3 and pictures.dtype == np.uint8
    if not fits or not len(pictures):
        raise DataError(
            f"pictures as an array of {pictures.dtype} with the shape {pictures.shape}",
            allowed="uint8 (n, px, px, 3), RGB, of one face or more",
        )


def load_trained(path: Path | str) -> Trained:
    """Load `model.safetensors` of a run; raise WeightsError where it is no such file or damaged."""
    path = Path(path)
    header = header_of(path)
    try:
        experiment = definition_of(Experiment, read_json(header["experiment"]))
        description = read_json(header["network"])
        if not isinstance(experiment, Experiment) or not isinstance(description, dict):
            raise TypeError("it is no definition")
    except (LookupError, TypeError, ValueError, BenchmarkError) as error:
        raise _undescribed(path, error) from None
    tensors = read_tensors(path)
    try:
        return Trained(rebuild_network(experiment, description, tensors).eval(), experiment)
    except (LookupError, TypeError, ValueError, AttributeError, ExperimentError) as error:
        raise WeightsError(
            f"{path.name} describes a network that cannot be built ({type(error).__name__}: "
            f"{error})",
            allowed="model.safetensors as a run of facebench wrote it",
            source=str(path),
        ) from None


def _undescribed(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path.name} does not say which network it is ({type(error).__name__}: {error})",
        allowed="model.safetensors as a run of facebench wrote it",
        source=str(path),
    )


def definition_of(kind: Any, value: Any) -> Any:
    """Build a frozen definition again from what its `as_dict` gave and JSON kept."""
    if get_origin(kind) in (Union, types.UnionType) and value is not None:
        kind = next((one for one in get_args(kind) if dataclasses.is_dataclass(one)), kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        return kind(**{name: definition_of(hints[name], inner) for name, inner in value.items()})  # type: ignore[operator]
    return tuple(value) if isinstance(value, list) else value


def _load_pyfunc(path: str) -> Trained:
    """Load a model for `mlflow.pyfunc.load_model`, which names this function by its rules."""
    return load_trained(path)
