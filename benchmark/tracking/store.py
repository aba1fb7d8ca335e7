"""The MLflow store: opened under a lock, repaired; system metrics of long runs.

How busy the machine is while a run trains, sampled by MLflow; runs under a minute have none.

Where MLflow keeps what it mirrors: opened under a lock, repaired, and its errors explained.
"""

import contextlib
import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from benchmark.errors import TrackingError
from benchmark.files import claimed, replacing, write_text

QUIET_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Must be in the environment before mlflow is imported for the first time."""

CHATTY: Final = ("alembic", "mlflow.store.db.utils", "mlflow.tracking")
"""Loggers that speak of what went well."""

ABSOLUTE_PATHS: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
)
"""Where MLflow's database holds the address of artifacts, which a moved folder makes untrue."""


def mlflow_module() -> ModuleType:
    """Import mlflow without telemetry and chatter; raise TrackingError if it is not installed."""
    for name, value in QUIET_SETTINGS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import mlflow
        except ImportError as error:
            raise TrackingError(
                f"mlflow cannot be imported: {error}",
                fix="Install it, or use --tracking files and `facebench runs import` later",
            ) from error
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def store_uri(runs_dir: Path) -> str:
    """Give the tracking store: MLFLOW_TRACKING_URI, or SQLite under the runs' folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_dir.resolve() / 'mlflow.db'}"


def is_local(runs_dir: Path) -> bool:
    """Tell whether the store is SQLite of ours; on a server, the server says where artifacts go."""
    return store_uri(runs_dir).startswith("sqlite")


def artifact_root(runs_dir: Path) -> Path:
    """Where the artifacts of a local store are."""
    return runs_dir.resolve() / "artifacts"


def store_lock(runs_dir: Path) -> contextlib.AbstractContextManager[bool]:
    """Wait for the claim under which stores are made and experiments are named."""
    return claimed(runs_dir / ".mlflow.lock", wait=True)


def open_store(runs_dir: Path) -> Any:
    """Open the store and give MLflow's client, creating and repairing SQLite under a lock.

    Several processes that create one SQLite store at once break each other's migrations.
    """
    mlflow = mlflow_module()
    with quiet_warnings(), store_lock(runs_dir):
        if is_local(runs_dir):
            _follow_moved_artifacts(runs_dir)
            _create_whole(mlflow, runs_dir)
        client = mlflow.MlflowClient(tracking_uri=store_uri(runs_dir))
        client.search_experiments(max_results=1)
    return client


def _create_whole(mlflow: ModuleType, runs_dir: Path) -> None:
    """Make a database that is not there yet beside its place, and put it there whole.

    MLflow makes its tables in some fifty migrations: killed between two of them, it would leave a
    database that it refuses ever after.
    """
    database = runs_dir / "mlflow.db"
    if os.environ.get("MLFLOW_TRACKING_URI") or database.exists():
        return
    with replacing(database) as temporary:
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{temporary.resolve()}")
        client.search_experiments(max_results=1)
        # Under its old name nothing may write to it any more.
        client._tracking_client.store.engine.dispose()


def _follow_moved_artifacts(runs_dir: Path) -> None:
    """Rewrite the absolute artifact paths that MLflow stores after the folder was moved.

    Without this a moved store shows metrics but silently lists no artifacts.
    """
    note = runs_dir / ".artifact_root"
    root = artifact_root(runs_dir).as_uri()
    database = runs_dir / "mlflow.db"
    before = note.read_text(encoding="utf-8").strip() if note.is_file() else root
    if before != root and database.is_file():
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            for table, column in ABSOLUTE_PATHS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                    f"WHERE substr({column}, 1, ?) = ?",
                    (root, len(before) + 1, len(before), before),
                )
    if before != root or not note.is_file():
        write_text(note, root + "\n")


CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
"""In an address: MLflow's own errors quote it with the password in it."""


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn whatever a broken store raises into TrackingError, and keep its warnings quiet."""
    mlflow = mlflow_module()
    from sqlalchemy.exc import SQLAlchemyError

    shown = without_password(uri)
    try:
        with quiet_warnings():
            yield
    except (mlflow.exceptions.MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise TrackingError(
            f"the MLflow store cannot be used: {without_password(_reason(error))}",
            source=shown,
            fix=_remedy(str(error), shown),
        ) from error


def without_password(text: str) -> str:
    """Leave the name and password of an address out of what is shown."""
    return re.sub(r"://[^/\s@]*@", "://", text)


def _reason(error: Exception) -> str:
    """Give an error's first line, without the class names and statements that come with it."""
    text = CREDENTIALS.sub("//", str(error).strip())
    line = text.splitlines()[0] if text else repr(error)
    return line[line.rfind("(sqlite3.") :] if "(sqlite3." in line else line


def _remedy(text: str, shown: str) -> str:
    """Say what to do, by what the error says."""
    if "locked" in text:
        return "Another program is writing to it: try again once it is done"
    if shown.startswith("http"):
        return "Start the server, or leave MLFLOW_TRACKING_URI out, or use --tracking files"
    if "not a database" in text or "malformed" in text:
        return "Move that file away: `facebench runs import` makes it anew from the runs' folders"
    if "out-of-date database schema" in text:
        return (
            "It is of another MLflow, or was left half made: move that file away, and `facebench "
            "runs import` makes it anew from the runs' folders"
        )
    return "Mend or move the store, or use --tracking files"


@contextlib.contextmanager
def quiet_warnings() -> Iterator[None]:
    """Hide the deprecation warnings that MLflow's own dependencies raise at each other."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield


SAMPLE_SECONDS: Final = 10
SAMPLES_A_POINT: Final = 6
"""One point a minute: a night's run stays a few thousand rows in the store."""


class MachineWatch:
    """Watch the machine for one run at a time: of several at once, for the one that began first."""

    def __init__(self) -> None:
        self._monitor: Any = None
        self._run_id = ""

    def begin(self, run_id: str, uri: str) -> None:
        """Start watching, unless a run is watched already or psutil is not installed."""
        if self._monitor is not None:
            return
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
        except ImportError:
            return
        # It would tell of its own start, end and trouble; the run's own tracking does that.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
        self._monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
            run_id, SAMPLE_SECONDS, SAMPLES_A_POINT, resume_logging=True, tracking_uri=uri
        )
        self._run_id = run_id
        self._monitor.start()

    def end(self, run_id: str) -> None:
        """Stop watching, if it is this run that is watched."""
        if self._monitor is not None and self._run_id == run_id:
            self._monitor.finish()
            self._monitor = None
