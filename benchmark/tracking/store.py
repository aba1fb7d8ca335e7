"""The MLflow store: opened under a lock, repaired after a move, its errors as sentences.

And what MLflow's own pages need: an experiment per data set with ranked views of its runs, the page
to land on, the command that serves it, and where each run is, for links from elsewhere.
"""

import contextlib
import logging
import os
import re
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlencode, urlparse
from urllib.request import url2pathname

from benchmark.errors import TrackingError
from benchmark.files import canonical_json, file_lock, replacing, write_text
from benchmark.tasks import TASKS
from benchmark.tracking.notes import IDENTITY_TAG, OF_SEARCHES, data_note

QUIET_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Else the end of a run on a server prints two addresses, in the middle of --json.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Must be in the environment before mlflow is imported for the first time."""
CHATTY: Final = ("alembic", "mlflow.store.db.utils", "mlflow.tracking")
"""Loggers that report what went well."""
ABSOLUTE_PATHS: Final = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
}
"""Where MLflow's database holds the address of artifacts, which a moved folder makes untrue."""
NOTE_TAG: Final = "mlflow.note.content"
VIEW: Final = "facebench"
VIEW_TAG: Final = "mlflow.sharedViewState."
"""Before the name of a view that a link can name; by itself MLflow's UI shows no metric."""
COLUMNS: Final = ("architecture", "weights", "trainable", "tasks", "state")
"""Tags that a view shows beside the metrics."""
MOST_RUNS: Final = 50_000
"""So many runs MLflow gives at once."""


def mlflow_module() -> ModuleType:
    """Import mlflow without telemetry and chatter; raise TrackingError if it is not installed."""
    for name, value in QUIET_SETTINGS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings(action="ignore"):  # Its own dependencies deprecate each other.
        try:
            import mlflow
        except ImportError as error:
            fix = "Install it, or use --tracking files and `facebench runs import` later"
            raise TrackingError(f"mlflow cannot be imported: {error}", fix=fix) from error
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def store_uri(runs_dir: Path) -> str:
    """Give the tracking store: MLFLOW_TRACKING_URI, or SQLite under the runs' folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_dir.resolve() / 'mlflow.db'}"


def database_of(runs_dir: Path) -> Path | None:
    """Give the file of a SQLite store; None for a server, which says itself where artifacts go."""
    address = urlparse(store_uri(runs_dir))
    is_file = address.scheme.partition("+")[0] == "sqlite" and len(address.path) > 1
    return Path(address.path[1:]).resolve() if is_file else None


def store_folder(runs_dir: Path) -> Path:
    """Where a local store is: database, lock and artifacts, which are moved together."""
    return (database_of(runs_dir) or runs_dir.resolve() / "mlflow.db").parent


def _store_lock(runs_dir: Path) -> contextlib.AbstractContextManager[bool]:
    return file_lock(store_folder(runs_dir) / ".mlflow.lock", wait=True)


def open_store(runs_dir: Path) -> Any:
    """Open the store and give MLflow's client, creating and repairing SQLite under a lock.

    Several processes that create one SQLite store at once break each other's migrations. MLflow
    makes its tables in some fifty of them, and refuses a database where it was killed between two:
    so it is made beside its place and put there whole.
    """
    mlflow, database = mlflow_module(), database_of(runs_dir)
    with warnings.catch_warnings(action="ignore"), _store_lock(runs_dir):
        if database is not None:
            _follow_moved_artifacts(database)
            if not database.exists():
                with replacing(database) as temporary:
                    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{temporary.resolve()}")
                    client.search_experiments(max_results=1)
                    # Under its old name nothing may write to it any more.
                    client._tracking_client.store.engine.dispose()
        client = mlflow.MlflowClient(tracking_uri=store_uri(runs_dir))
        client.search_experiments(max_results=1)
    return client


def _follow_moved_artifacts(database: Path) -> None:
    """Rewrite absolute paths after the folder was moved: else no artifact is listed, silently."""
    note, root = database.parent / ".artifact_root", (database.parent / "artifacts").as_uri()
    before = note.read_text(encoding="utf-8").strip() if note.is_file() else root
    if before != root and database.is_file():
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            for table, column in ABSOLUTE_PATHS.items():
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                    f"WHERE substr({column}, 1, ?) = ?",
                    (root, len(before) + 1, len(before), before),
                )
    if before != root or not note.is_file():
        write_text(note, root + "\n")


def without_password(text: str) -> str:
    """Leave names and passwords out of the addresses in a text."""
    return re.sub(r"//[^/@\s]*@", "//", text)


@contextlib.contextmanager
def store_errors(runs_dir: Path) -> Iterator[None]:
    """Turn whatever a broken store raises into TrackingError, and keep its warnings quiet.

    Names and passwords of addresses are left out: MLflow's own errors quote them.
    """
    mlflow = mlflow_module()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (mlflow.exceptions.MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        uri, text = map(without_password, (store_uri(runs_dir), str(error).strip()))
        line = text.splitlines()[0] if text else repr(error)
        is_damaged = any(w in text for w in ("not a database", "malformed", "out-of-date"))
        fix = "Move that file away" if is_damaged else "Fix or move the store"
        fix += ": `facebench runs import` makes it anew from the runs' folders"
        if uri.startswith("http"):
            fix = "Start the server, or leave MLFLOW_TRACKING_URI out, or use --tracking files"
        elif isinstance(error, OSError) and error.filename:
            line = f"{error.strerror} ({error.filename})"
            fix = "Bring that folder back, or name another store by MLFLOW_TRACKING_URI; "
            fix += "`facebench runs import` then logs what is missing"
        elif "locked" in text:
            fix = "Another program is writing to it: try again once it is done"
        found = f"the MLflow store cannot be used: {line[max(0, line.rfind('(sqlite3.')) :]}"
        raise TrackingError(found, source=uri, fix=fix) from error


def views() -> dict[str, dict[str, Any]]:
    """Give the views of an experiment by name: MTL runs by weighted accuracy, STL by their task.

    So that like is ranked with like: the weighted score is logged of runs of all tasks alone. The
    order is in the view and not in the link: a link that names an order is shown without the view.
    """
    made = {}
    for name, tasks in {VIEW: TASKS, **{f"{VIEW}-{task}": (task,) for task in TASKS}}.items():
        ranked_by = f"selected/val/{'combined' if len(tasks) > 1 else f'{tasks[0]}/accuracy'}"
        shown = [f"metrics.`{ranked_by}`", *(f"metrics.`test/{task}/accuracy`" for task in tasks)]
        tags = (f"tags.`{tag}`" for tag in COLUMNS)
        made[name] = {
            "selectedColumns": ("attributes.`Created`", *shown, *tags),
            "searchFilter": f"tags.tasks = '{tasks[0]}'" if len(tasks) == 1 else "",
            "orderByKey": shown[0],
            "orderByAsc": False,
            "runsExpanded": {},
        }
    return made


def view_path(experiment_id: str, view: str) -> str:
    """Give the address of a view within the UI."""
    query = {"workflowType": "machine_learning", "viewStateShareKey": view}
    return f"#/experiments/{experiment_id}/runs?{urlencode(query)}"


def experiment_of(
    client: Any, runs_dir: Path, dataset: Mapping[str, Any], *, of_searches: bool
) -> str:
    """Find or make the MLflow experiment of a data set, with its description and views as of now.

    dataset: as in `experiment.json`. Trials of searches have an experiment of their own: they must
    not swamp the list of its runs.
    """
    name, note = dataset["name"], data_note(dataset)
    if of_searches:
        name, note = f"{name}-searches", f"{OF_SEARCHES}\n\n{note}"
    tags = {f"{VIEW_TAG}{view}": canonical_json(state) for view, state in views().items()}
    with _store_lock(runs_dir):
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            uri, what = without_password(store_uri(runs_dir)), f"the MLflow experiment {name!r}"
            restore = f"mlflow experiments restore -x {found.experiment_id}"
            fix = f"`MLFLOW_TRACKING_URI={uri} {restore}` brings it back"
            raise TrackingError(f"{what} was deleted", source=uri, fix=fix)
        if found is None:
            root = (store_folder(runs_dir) / "artifacts" / name).as_uri()
            location = None if database_of(runs_dir) is None else root
            kind = {"mlflow.experimentKind": "custom_model_development", NOTE_TAG: note}
            number = client.create_experiment(name, artifact_location=location, tags=kind)
            found = client.get_experiment(number)
    if not of_searches and found.tags.get(NOTE_TAG) == note:  # One changed by hand is left alone.
        links = (f"[{view}]({view_path(found.experiment_id, view)})" for view in views())
        tags[NOTE_TAG] = f"Ranked views, single tasks apart: {', '.join(links)}.\n\n{note}"
    for key, value in tags.items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def local_folder(artifact_uri: str) -> Path | None:
    """Give the folder that artifacts are in, where it is on this machine."""
    address = urlparse(artifact_uri)
    return Path(url2pathname(address.path)) if address.scheme in ("", "file") else None


def send_file(client: Any, run: Any, source: Path, folder: str) -> None:
    """Give a run a file as an artifact: as a second name in a local store, else by sending it."""
    root = local_folder(run.info.artifact_uri)
    if root is None:
        client.log_artifact(run.info.run_id, str(source), folder)
    else:
        link_or_copy(source, root / folder / source.name)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def run_places(runs_dir: Path) -> dict[str, tuple[str, str]]:
    """Give MLflow's ids of the experiment and the run of every run; of several attempts, the last.

    Empty where there is no store, and none is made. Raises TrackingError where it cannot be read.
    """
    database = database_of(runs_dir)
    if database is not None and not database.is_file():
        return {}
    with store_errors(runs_dir):
        client = open_store(runs_dir)
        experiments = [item.experiment_id for item in client.search_experiments()]
        order = ["attributes.start_time ASC"]
        runs = client.search_runs(experiments, order_by=order, max_results=MOST_RUNS)
    places = ((run.data.tags.get(IDENTITY_TAG), run.info) for run in runs)
    return {key: (info.experiment_id, info.run_id) for key, info in places if key is not None}


def landing_path(runs_dir: Path) -> str:
    """Give the page of the UI to open first: the runs of the newest data set, ranked.

    MLflow 3 opens on a page about traces.
    """
    with store_errors(runs_dir):
        known = open_store(runs_dir).search_experiments()
    found = [item for item in known if item.name != "Default"]
    if not found:
        return "/"
    newest = max(found, key=lambda item: item.last_update_time or 0)
    return f"/{view_path(newest.experiment_id, VIEW)}"


def server_command(runs_dir: Path, port: int) -> list[str]:
    """Give the command that serves the MLflow UI of these runs on 127.0.0.1."""
    mlflow_module()
    return [
        *(sys.executable, "-W", "ignore", "-m", "mlflow", "server"),
        *("--backend-store-uri", store_uri(runs_dir)),
        *("--default-artifact-root", (store_folder(runs_dir) / "artifacts").as_uri()),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
