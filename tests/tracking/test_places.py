"""Where MLflow has each run: what the report's links are made of."""

import sqlite3
from pathlib import Path

import pytest

from benchmark.errors import TrackingError
from benchmark.tracking import MlflowMirror, run_places
from tests.tracking.conftest import mlflow_runs, the_record

pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other


def test_a_mirrored_run_has_its_place_in_a_store_and_on_a_server(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = the_record(runs_dir)
    assert run_places(runs_dir) == {}
    run_id = MlflowMirror(runs_dir, print).mirror(record)
    (run,) = mlflow_runs(runs_dir)
    expected = {record.identity: (run.info.experiment_id, run_id)}
    assert run_places(runs_dir) == expected
    # Any other store is asked through MLflow's client, as a server is.
    monkeypatch.setattr("benchmark.tracking.page.is_local", lambda _: False)
    assert run_places(runs_dir) == expected


def test_no_store_is_made_to_look_into(tmp_path: Path) -> None:
    assert run_places(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_locked_store_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.tracking.page.PATIENCE_SECONDS", 0.1)
    with sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None) as writer:
        writer.execute("CREATE TABLE tags (run_uuid, key, value)")
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="locked"):
            run_places(tmp_path)
    writer.close()
