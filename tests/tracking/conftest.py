"""A runs folder with one finished run and a fresh MLflow store, made once and copied."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.data.dataset import FaceSet
from benchmark.record import RunRecord, all_records
from benchmark.tracking.mirror import MlflowMirror
from benchmark.tracking.store import open_store
from tests.runs.small import Place

MakeStore = Callable[[Path], Path]


@pytest.fixture(scope="session")
def make_runs_dir(tmp_path_factory: pytest.TempPathFactory, drawn_faces: FaceSet) -> MakeStore:
    """Copy the template to a folder: a store that was never moved."""
    template = tmp_path_factory.mktemp("template") / "mlruns"
    Place(drawn_faces, template).done()
    open_store(template)
    (template / ".artifact_root").unlink()
    return lambda target: Path(shutil.copytree(template, target))


@pytest.fixture
def runs_dir(make_runs_dir: MakeStore, tmp_path: Path) -> Path:
    return make_runs_dir(tmp_path / "mlruns")


def the_record(runs_dir: Path) -> RunRecord:
    return next(all_records(runs_dir))


def mirrored(runs_dir: Path) -> Any:
    """Mirror the run as it is now, by a mirror of its own, and give what MLflow has."""
    run_id = MlflowMirror(runs_dir, pytest.fail).mirror(the_record(runs_dir))
    return open_store(runs_dir).get_run(run_id)


def logged(runs_dir: Path, run_id: str, metric: str) -> list[tuple[int, float]]:
    """Give what MLflow has of a metric: steps and values, in the order of the log."""
    history = open_store(runs_dir).get_metric_history(run_id, metric)
    return [(item.step, item.value) for item in history]


def mlflow_runs(runs_dir: Path) -> list[Any]:
    client = open_store(runs_dir)
    experiments = [item.experiment_id for item in client.search_experiments()]
    return list(client.search_runs(experiments))
