"""A runs folder with one finished run and a fresh MLflow store, made once and copied."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.data.dataset import FaceSet
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.record import RunRecord, all_records
from benchmark.runs.plan import Settings
from benchmark.runs.run import run_all
from benchmark.tracking import open_store
from benchmark.training.device import Device

EXPERIMENT = Experiment(
    "mtl-cnn-none-full-tiny", "Is it mirrored?", Backbone("cnn", input_px=32),
    Head(hidden_units=16), Recipe(1e-3, max_epochs=2),
)  # fmt: skip

MakeStore = Callable[[Path], Path]


@pytest.fixture(scope="session")
def make_runs_dir(tmp_path_factory: pytest.TempPathFactory, drawn_faces: FaceSet) -> MakeStore:
    """Copy the template to a folder: a store that was never moved."""
    template = tmp_path_factory.mktemp("template") / "mlruns"
    where = Settings(template, template / "weights", Device(torch.device("cpu"), "fp32"))
    list(run_all([EXPERIMENT], [0], drawn_faces, where))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow's own dependencies deprecate each other
        open_store(template)
    (template / ".artifact_root").unlink()
    return lambda target: Path(shutil.copytree(template, target))


@pytest.fixture
def runs_dir(make_runs_dir: MakeStore, tmp_path: Path) -> Path:
    return make_runs_dir(tmp_path / "mlruns")


def the_record(runs_dir: Path) -> RunRecord:
    return next(all_records(runs_dir))


def mlflow_runs(runs_dir: Path) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = open_store(runs_dir)
        experiments = [item.experiment_id for item in client.search_experiments()]
        return list(client.search_runs(experiments))
