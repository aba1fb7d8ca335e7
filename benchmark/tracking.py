"""MLflow as a mirror of the runs' folders: the only file that knows it, imported only when used.

Mirroring is idempotent. A run is found by its identity, an epoch is logged unless its step is
there, and artifacts are sent once the run is done; so a lost server, a killed process or a
machine without MLflow loses nothing, and `facebench runs import` catches up.
"""

import contextlib
import datetime
import hashlib
import logging
import os
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlencode

from benchmark.claims import claimed
from benchmark.errors import TrackingError
from benchmark.files import canonical_json, sha256_of, write_text
from benchmark.results.record import RunRecord
from benchmark.run_notes import (
    ATTEMPT_TAG,
    IDENTITY_TAG,
    RED_FLAG_TAG,
    data_note,
    flag_tag,
    run_name,
    run_note,
    run_params,
    run_tags,
)
from benchmark.tasks import TASKS

# The settings must be in the environment before mlflow is imported for the first time.
QUIET_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
STATUS_OF_STATE: Final = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
ARTIFACT_FOLDERS: Final = {".png": "pictures", ".csv": "tables", ".safetensors": "model"}
MIRRORED_TAG: Final = "facebench.mirrored"
VIEW: Final = "facebench"
VIEW_TAG: Final = f"mlflow.sharedViewState.{VIEW}"
"""Where MLflow's UI keeps a view that a link can name; by itself it shows no metric."""
RANKED_BY: Final = "metrics.`selected/val/combined`"
VIEW_STATE: Final = {
    "selectedColumns": (
        *("attributes.`Created`", RANKED_BY),
        *(f"metrics.`test/{task}/accuracy`" for task in TASKS),
        *(f"tags.`{tag}`" for tag in ("architecture", "weights", "trainable", "tasks", "state")),
    ),
    # In the view and not in the link: a link that names an order is shown without the view.
    "orderByKey": RANKED_BY,
    "orderByAsc": False,
    "runsExpanded": {},
}
METRICS_PER_CALL: Final = 1000
"""MLflow's own limit for one log_batch call."""


def _mlflow() -> ModuleType:
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
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def store_uri(runs_dir: Path) -> str:
    """Give the tracking store: MLFLOW_TRACKING_URI, or SQLite under the runs' folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_dir.resolve() / 'mlflow.db'}"


def open_store(runs_dir: Path) -> Any:
    """Open the store and give MLflow's client, creating and repairing SQLite under a lock.

    Several processes that create one SQLite store at once break each other's migrations.
    """
    mlflow = _mlflow()
    uri = store_uri(runs_dir)
    with _quiet_warnings(), claimed(runs_dir / ".mlflow.lock", wait=True):
        if uri.startswith("sqlite"):
            _follow_moved_artifacts(runs_dir)
        client = mlflow.MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


class MlflowMirror:
    """Bring MLflow to what the runs' folders say.

    `on_trouble` hears a sentence when the store cannot be reached; the run itself goes on.
    """

    def __init__(self, runs_dir: Path, on_trouble: Callable[[str], None]) -> None:
        self._runs_dir = runs_dir
        self._on_trouble = on_trouble
        self._client: Any = None
        self._run_ids: dict[tuple[str, str], str] = {}
        self._steps: dict[str, set[int]] = {}

    def __call__(self, record: RunRecord) -> None:
        """Mirror one run as it stands now; trouble with the store is reported, never raised."""
        try:
            self.mirror(record)
        except TrackingError as error:
            self._on_trouble(f"{error} The run goes on; `facebench runs import` catches up.")

    def mirror(self, record: RunRecord) -> str:
        """Mirror one run and give its MLflow id; raises TrackingError when the store fails."""
        with _store_errors(store_uri(self._runs_dir)):
            client = self._open()
            run_id = self._run_id(client, record)
            self._log_epochs(client, run_id, record)
            if record.state == "done":
                self._log_outcome(client, run_id, record)
            self._log_state(client, run_id, record)
        return run_id

    def _open(self) -> Any:
        if self._client is None:
            self._client = open_store(self._runs_dir)
        return self._client

    def _experiment_id(self, client: Any, record: RunRecord) -> str:
        """Find or make the MLflow experiment of the run's data set."""
        dataset = record.about["dataset"]
        name = str(dataset["name"])
        with claimed(self._runs_dir / ".mlflow.lock", wait=True):
            found = client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            # On a server the server decides where artifacts go.
            local = store_uri(self._runs_dir).startswith("sqlite")
            root = _artifact_root(self._runs_dir) / name
            return str(
                client.create_experiment(
                    name,
                    artifact_location=root.as_uri() if local else None,
                    tags={
                        "mlflow.note.content": data_note(dataset),
                        "mlflow.experimentKind": "custom_model_development",
                        VIEW_TAG: canonical_json(VIEW_STATE),
                    },
                )
            )

    def _run_id(self, client: Any, record: RunRecord) -> str:
        """Find the MLflow run of this identity and attempt, or create it with its parameters."""
        attempt = str(record.about.get("attempt", 1))
        key = (record.identity, attempt)
        if key in self._run_ids:
            return self._run_ids[key]
        experiment_id = self._experiment_id(client, record)
        of_identity = client.search_runs(
            [experiment_id], filter_string=f"tags.`{IDENTITY_TAG}` = '{record.identity}'"
        )
        by_attempt = {
            str(run.data.tags.get(ATTEMPT_TAG)): str(run.info.run_id) for run in of_identity
        }
        if attempt not in by_attempt:
            by_attempt[attempt] = self._create_run(
                client, experiment_id, record, by_attempt.get(str(int(attempt) - 1))
            )
        self._run_ids[key] = by_attempt[attempt]
        return by_attempt[attempt]

    def _create_run(
        self, client: Any, experiment_id: str, record: RunRecord, previous: str | None
    ) -> str:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        about = record.about
        tags = run_tags(record)
        if previous is not None:
            tags["previous_attempt"] = previous
        run = client.create_run(
            experiment_id,
            run_name=run_name(record),
            tags=tags,
            start_time=_milliseconds(about["started"]),
        )
        run_id = str(run.info.run_id)
        params = [Param(name, str(value)) for name, value in run_params(about).items()]
        client.log_batch(run_id, params=params)
        dataset = about["dataset"]
        source = "drawn by facebench" if dataset["drawn"] else "prepared from local files"
        data = Dataset(dataset["name"], dataset["pixel_digest"][:12], "local", source)
        context = InputTag("mlflow.data.context", "training")
        client.log_inputs(run_id, [DatasetInput(data, [context])])
        return run_id

    def _log_epochs(self, client: Any, run_id: str, record: RunRecord) -> None:
        """Log each epoch once: one batch is one transaction, so one metric speaks for all."""
        from mlflow.entities import Metric

        if not (record.folder / "history.csv").is_file():
            return
        if run_id not in self._steps:
            logged = client.get_metric_history(run_id, "val/combined")
            self._steps[run_id] = {metric.step for metric in logged}
        for row in record.history().to_dict("records"):
            epoch = int(row.pop("epoch"))
            if epoch in self._steps[run_id]:
                continue
            when = int(time.time() * 1000)
            metrics = [Metric(str(name), float(value), when, epoch) for name, value in row.items()]
            client.log_batch(run_id, metrics=metrics)
            self._steps[run_id].add(epoch)

    def _log_outcome(self, client: Any, run_id: str, record: RunRecord) -> None:
        """Log final metrics and artifacts, unless this very outcome is there already.

        A run that was scored again has further numbers and the old training: only what is new or
        changed is logged, and the weights stay.
        """
        from mlflow.entities import Metric

        before, outcome = client.get_run(run_id).data, _outcome_mark(record)
        mark = before.tags.get(MIRRORED_TAG, "")
        if mark == outcome:
            return
        same_training = mark.split(" ")[0] == record.done["finished"]
        when, step = int(time.time() * 1000), int(record.done["selected_epoch"])
        metrics = [
            Metric(name, float(value), when, step)
            for name, value in record.metrics.items()
            if before.metrics.get(name) != value
        ]
        for begin in range(0, len(metrics), METRICS_PER_CALL):
            client.log_batch(run_id, metrics=metrics[begin : begin + METRICS_PER_CALL])
        for path in sorted(record.folder.iterdir()):
            if path.is_file() and path.suffix and not path.name.startswith("."):
                folder = ARTIFACT_FOLDERS.get(path.suffix, "record")
                if not (same_training and folder == "model"):
                    client.log_artifact(run_id, str(path), folder)
        if (flags := flag_tag(record)) or RED_FLAG_TAG in before.tags:
            client.set_tag(run_id, RED_FLAG_TAG, flags)
        client.set_tag(run_id, MIRRORED_TAG, outcome)

    def _log_state(self, client: Any, run_id: str, record: RunRecord) -> None:
        state = _shown_state(record)
        info = client.get_run(run_id)
        if info.data.tags.get("state") != state:
            client.set_tag(run_id, "state", state)
        client.set_tag(run_id, "mlflow.note.content", run_note(record))
        status = STATUS_OF_STATE.get(state, "RUNNING")
        if info.info.status == status:
            return
        if status == "RUNNING":
            client.update_run(run_id, status="RUNNING")
        else:
            ended = record.done["finished"] if state == "done" else None
            client.set_terminated(run_id, status, _milliseconds(ended) if ended else None)


def _outcome_mark(record: RunRecord) -> str:
    """Give the time a training ended and a digest of the numbers made of it.

    Pictures follow from tables, and the weights from the training: neither is read for it.
    """
    digest = hashlib.sha256()
    for path in sorted(record.folder.iterdir()):
        if path.suffix in (".json", ".csv") and not path.name.startswith("."):
            digest.update(path.name.encode() + sha256_of(path).encode())
    return f"{record.done['finished']} {digest.hexdigest()[:16]}"


def _milliseconds(moment: str) -> int:
    """Read an ISO 8601 time as MLflow counts it: milliseconds since 1970."""
    return int(datetime.datetime.fromisoformat(moment).timestamp() * 1000)


def _shown_state(record: RunRecord) -> str:
    """A run without an end is `running` until its folder says that it was interrupted."""
    if record.state != "interrupted":
        return record.state
    return "interrupted" if (record.folder / "interrupted.json").is_file() else "running"


def import_records(records: Iterator[RunRecord], runs_dir: Path) -> Iterator[tuple[RunRecord, str]]:
    """Mirror many runs, yielding each with its MLflow id; a fault raises TrackingError."""
    mirror = MlflowMirror(runs_dir, on_trouble=lambda _: None)
    for record in records:
        yield record, mirror.mirror(record)


def server_command(runs_dir: Path, port: int) -> list[str]:
    """Give the command that serves the MLflow UI of these runs on 127.0.0.1."""
    _mlflow()
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", store_uri(runs_dir)),
        *("--default-artifact-root", _artifact_root(runs_dir).as_uri()),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def landing_path(runs_dir: Path) -> str:
    """Give the page of the UI a stranger should land on: the runs of the newest data set.

    MLflow 3 opens on a page about traces; this link shows training runs at once, ranked by
    validation, with the columns that matter.
    """
    with _store_errors(store_uri(runs_dir)):
        known = open_store(runs_dir).search_experiments()
    found = [item for item in known if item.name != "Default"]
    if not found:
        return "/"
    newest = max(found, key=lambda item: item.last_update_time or 0)
    query = {"workflowType": "machine_learning", "viewStateShareKey": VIEW}
    return f"/#/experiments/{newest.experiment_id}/runs?{urlencode(query)}"


def _artifact_root(runs_dir: Path) -> Path:
    return runs_dir.resolve() / "artifacts"


def _follow_moved_artifacts(runs_dir: Path) -> None:
    """Rewrite the absolute artifact paths that MLflow stores after the folder was moved.

    Without this a moved store shows metrics but silently lists no artifacts.
    """
    note = runs_dir / ".artifact_root"
    root = _artifact_root(runs_dir).as_uri()
    database = runs_dir / "mlflow.db"
    before = note.read_text(encoding="utf-8").strip() if note.is_file() else root
    if before != root and database.is_file():
        columns = (("experiments", "artifact_location"), ("runs", "artifact_uri"))
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            for table, column in columns:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                    f"WHERE {column} LIKE ? || '%'",
                    (root, len(before) + 1, before),
                )
    if before != root or not note.is_file():
        write_text(note, root + "\n")


@contextlib.contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Turn whatever a broken store raises into TrackingError, and keep its warnings quiet."""
    mlflow = _mlflow()
    from sqlalchemy.exc import SQLAlchemyError

    shown = uri.split("@")[-1]  # never show a password
    try:
        with _quiet_warnings():
            yield
    except (mlflow.exceptions.MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise TrackingError(
            f"the MLflow store cannot be used: {first_line}",
            source=shown,
            fix="Start the server, mend or move the store, or use --tracking files",
        ) from error


@contextlib.contextmanager
def _quiet_warnings() -> Iterator[None]:
    """Hide the deprecation warnings that MLflow's own dependencies raise at each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield
