"""A store that is moved, locked, no database or lost: a sentence; the runs stay what they are."""

import contextlib
import shutil
import socket
import sqlite3
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from benchmark.errors import TrackingError
from benchmark.tracking import MlflowMirror, landing_path, open_store
from tests.tracking.conftest import the_record

mlflow = pytest.importorskip("mlflow")
event = pytest.importorskip("sqlalchemy").event

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other


def test_pictures_are_still_there_after_the_folder_moved(runs_dir: Path, tmp_path: Path) -> None:
    run_id = MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    moved = runs_dir.rename(tmp_path / "elsewhere")
    client = open_store(moved)
    assert client.list_artifacts(run_id, "pictures")
    assert str(moved) in client.get_run(run_id).info.artifact_uri


def test_a_store_that_is_no_database_is_a_sentence_and_the_run_goes_on(runs_dir: Path) -> None:
    (runs_dir / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(TrackingError, match="the MLflow store cannot be used"):
        MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    heard: list[str] = []
    MlflowMirror(runs_dir, heard.append)(the_record(runs_dir))
    assert "facebench runs import" in heard[0]


def test_a_network_is_still_there_after_the_folder_moved(runs_dir: Path, tmp_path: Path) -> None:
    run_id = MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    client = open_store(runs_dir.rename(tmp_path / "elsewhere"))
    (output,) = client.get_run(run_id).outputs.model_outputs
    # Not by the client's list: within one process it keeps the address of a model it once wrote to.
    location = client.get_logged_model(output.model_id).artifact_location
    names = {path.name for path in Path(url2pathname(urlparse(location).path)).iterdir()}
    assert names == {"MLmodel", "model.safetensors", "requirements.txt"}


def test_a_process_that_dies_while_it_makes_the_store_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_dir = tmp_path / "runs"
    database, real = runs_dir / "mlflow.db", mlflow.MlflowClient

    def dies(tracking_uri: str) -> object:
        sqlite3.connect(urlparse(tracking_uri).path).execute("CREATE TABLE half (made)")
        assert not database.exists(), "what is half made must not have the name of the whole"
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow, "MlflowClient", dies)
    with pytest.raises(KeyboardInterrupt):
        open_store(runs_dir)
    assert not database.exists()
    monkeypatch.setattr(mlflow, "MlflowClient", real)
    assert open_store(runs_dir).search_experiments()


def test_a_store_that_was_left_half_made_is_a_sentence(runs_dir: Path, tmp_path: Path) -> None:
    # Of another folder, since MLflow looks at a database once in a process.
    open_store(tmp_path / "made")
    runs_dir.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "made" / "mlflow.db", runs_dir / "mlflow.db")
    with contextlib.closing(sqlite3.connect(runs_dir / "mlflow.db")) as other, other:
        other.execute("UPDATE alembic_version SET version_num = '75868b020152'")
    with pytest.raises(TrackingError, match="out-of-date database schema") as raised:
        MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    assert "facebench runs import" in raised.value.fix


def impatient(
    _connection: object, _cursor: object, statement: str, parameters: object, *_others: object
) -> tuple[str, object]:
    """MLflow has SQLite wait for twenty seconds, and says so again in every session."""
    return statement.replace("busy_timeout = 20000", "busy_timeout = 100"), parameters


def test_a_locked_store_is_a_sentence(runs_dir: Path) -> None:
    mirror = MlflowMirror(runs_dir, print)
    engine = mirror.client()._tracking_client.store.engine
    event.listen(engine, "before_cursor_execute", impatient, retval=True)
    with sqlite3.connect(runs_dir / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="locked") as raised:
            mirror.mirror(the_record(runs_dir))
    assert "once it is done" in raised.value.fix


def test_a_lost_server_is_told_once_and_the_end_is_still_tried(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    heard: list[str] = []
    record = the_record(runs_dir)
    mirror = MlflowMirror(runs_dir, heard.append)
    for _ in range(3):
        mirror(record)
    assert len(heard) == 1
    assert f"127.0.0.1:{port}" in heard[0]
    assert "secret" not in heard[0]
    assert "Start the server" in heard[0]
    with pytest.raises(TrackingError, match="the MLflow store cannot be used"):
        landing_path(runs_dir)


def test_a_store_that_does_not_answer_is_left_alone_while_a_run_trains(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = the_record(runs_dir)
    (record.folder / "done.json").unlink()
    database = runs_dir / "mlflow.db"
    whole = database.read_bytes()
    database.write_bytes(b"this is no database" * 100)
    heard: list[str] = []
    mirror = MlflowMirror(runs_dir, heard.append)
    mirror(record)
    database.write_bytes(whole)
    mirror(record)  # within the minute: not tried
    assert len(heard) == 1
    assert open_store(runs_dir).get_experiment_by_name("drawn-v1") is None


def test_a_password_in_the_address_is_never_shown() -> None:
    from benchmark.tracking.store import mlflow_module, store_errors

    mlflow = mlflow_module()
    uri = "http://me:swordfish@127.0.0.1:9"
    with pytest.raises(TrackingError) as told, store_errors(uri):
        raise mlflow.exceptions.MlflowException(f"API request to {uri}/api/2.0 failed")
    assert "swordfish" not in str(told.value)
    assert "127.0.0.1:9" in str(told.value)
