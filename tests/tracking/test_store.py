"""A store that is moved, locked, no database or lost is a sentence; what a new user sees in it."""

import contextlib
import json
import socket
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from benchmark.errors import TrackingError
from benchmark.tracking import store as stores
from benchmark.tracking.mirror import MlflowMirror
from benchmark.tracking.store import landing_path, open_store, run_places, server_command
from tests.tracking.conftest import mirrored, the_record

mlflow = pytest.importorskip("mlflow")
event = pytest.importorskip("sqlalchemy").event

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other


def test_a_store_that_is_no_database_is_a_sentence_and_the_run_goes_on(runs_dir: Path) -> None:
    record, database = the_record(runs_dir), runs_dir / "mlflow.db"
    (record.folder / "done.json").unlink()
    whole, said = database.read_bytes(), list[str]()
    database.write_bytes(b"this is no database" * 100)
    with pytest.raises(TrackingError, match=r"the MLflow store cannot be used.* Move that file"):
        mirrored(runs_dir)
    mirror = MlflowMirror(runs_dir, said.append)
    mirror(record)
    database.write_bytes(whole)
    mirror(record)
    assert len(said) == 1
    assert "facebench runs import" in said[0]
    assert open_store(runs_dir).get_experiment_by_name("drawn-v1") is None


def test_a_process_that_dies_while_it_makes_the_store_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "runs" / "mlflow.db"

    def dies(tracking_uri: str) -> object:
        sqlite3.connect(urlparse(tracking_uri).path).execute("CREATE TABLE half (made)")
        assert not database.exists(), "what is half made must not have the name of the whole"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow, "MlflowClient", dies)
        with pytest.raises(KeyboardInterrupt):
            open_store(database.parent)
    assert not database.exists()
    assert open_store(database.parent).search_experiments()


def impatient(_conn: object, _cursor: object, said: str, values: object, *_: object) -> Any:
    """MLflow has SQLite wait for twenty seconds, and says so again in every session."""
    return said.replace("busy_timeout = 20000", "busy_timeout = 100"), values


def test_a_locked_store_is_a_sentence(runs_dir: Path) -> None:
    mirror = MlflowMirror(runs_dir, pytest.fail)
    engine = mirror.client._tracking_client.store.engine
    event.listen(engine, "before_cursor_execute", impatient, retval=True)
    with contextlib.closing(sqlite3.connect(runs_dir / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="locked") as raised:
            mirror.mirror(the_record(runs_dir))
    assert "once it is done" in raised.value.fix


def test_a_lost_server_is_a_sentence_and_no_password_is_shown(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    MlflowMirror(runs_dir, said.append)(the_record(runs_dir))
    (sentence,) = said
    assert "Start the server" in sentence
    assert f"127.0.0.1:{port}" in sentence
    assert "secret" not in sentence
    with pytest.raises(TrackingError, match="the MLflow store cannot be used"):
        landing_path(runs_dir)


def test_a_new_user_lands_on_the_runs_with_the_columns_that_matter(runs_dir: Path) -> None:
    mirrored(runs_dir)
    command = server_command(runs_dir, 5055)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    landing = "/runs?workflowType=machine_learning&viewStateShareKey=facebench"
    assert landing in landing_path(runs_dir)
    client, tag = open_store(runs_dir), "mlflow.sharedViewState.facebench"
    experiment = client.get_experiment_by_name("drawn-v1")
    # Runs of a single task have a view of their own, which the description links.
    whole, alone = (json.loads(experiment.tags[f"{tag}{end}"]) for end in ("", "-gender"))
    assert "metrics.`test/race/accuracy`" in whole["selectedColumns"]
    assert whole["orderByKey"] == "metrics.`selected/val/combined`"
    assert alone["orderByKey"] == "metrics.`selected/val/gender/accuracy`"
    assert alone["searchFilter"] == "tags.tasks = 'gender'"
    assert f"{landing}-gender)" in experiment.tags["mlflow.note.content"]
    # A view of an older version is brought up to date; a description changed by hand is not.
    client.set_experiment_tag(experiment.experiment_id, tag, "{}")
    client.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", "My own words")
    mirrored(runs_dir)
    after = client.get_experiment_by_name("drawn-v1").tags
    assert "selectedColumns" in after[tag]
    assert after["mlflow.note.content"] == "My own words"


def test_a_mirrored_run_has_its_place_and_a_deleted_experiment_is_named_with_the_way_back(
    runs_dir: Path, tmp_path: Path
) -> None:
    assert run_places(tmp_path / "empty") == run_places(runs_dir) == {}
    assert not (tmp_path / "empty").exists(), "no store is made to look into"
    run = mirrored(runs_dir).info
    assert run_places(runs_dir) == {the_record(runs_dir).identity: (run.experiment_id, run.run_id)}
    client = open_store(runs_dir)
    client.delete_experiment(run.experiment_id)
    with pytest.raises(TrackingError, match="the MLflow experiment 'drawn-v1' was deleted") as said:
        mirrored(runs_dir)
    assert f"mlflow experiments restore -x {run.experiment_id}`" in said.value.fix
    client.restore_experiment(run.experiment_id)
    assert mirrored(runs_dir).info.run_id == run.run_id


def test_links_moves_and_artifacts_follow_the_store_in_use(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'store.db'}")
    run_id = mirrored(runs_dir).info.run_id
    assert run_places(runs_dir)[the_record(runs_dir).identity][1] == run_id
    assert not (runs_dir / "artifacts").exists()
    here.rename(there)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{there / 'store.db'}")
    client = open_store(runs_dir)
    assert client.list_artifacts(run_id, "pictures")
    (output,) = client.get_run(run_id).outputs.model_outputs
    # Not by the client's list: within one process it keeps the address of a model it once wrote to.
    model = stores.local_folder(client.get_logged_model(output.model_id).artifact_location)
    assert model is not None
    assert (model / "model.safetensors").is_file()
    mirrored(runs_dir)
    assert not here.exists()
