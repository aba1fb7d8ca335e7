"""Views and links of the MLflow UI.

What a stranger meets in MLflow: the page to land on, its columns, and links into a run.

Where MLflow has each run, by its identity: what links into its pages are made of.
"""

import contextlib
import sqlite3
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from benchmark.errors import TrackingError
from benchmark.files import canonical_json
from benchmark.runs.notes import IDENTITY_TAG, Links, data_note
from benchmark.tasks import TASKS
from benchmark.tracking.store import (
    artifact_root,
    is_local,
    mlflow_module,
    open_store,
    store_errors,
    store_lock,
    store_uri,
)

Place = tuple[str, str]
"""MLflow's ids of the experiment and of the run."""

LOCAL_QUERY: Final = """
SELECT tags.value, runs.experiment_id, runs.run_uuid FROM tags
JOIN runs ON runs.run_uuid = tags.run_uuid
WHERE tags.key = ? AND runs.lifecycle_stage = 'active' ORDER BY runs.start_time
"""
"""Of a local store the ids alone: MLflow's own search reads every metric of ten thousand runs."""
RUNS_PER_CALL: Final = 1000
PATIENCE_SECONDS: Final = 20.0
"""How long a writer is waited for."""


def run_places(runs_dir: Path) -> dict[str, Place]:
    """Give the place of every run that MLflow has; of several attempts at one, the last.

    Empty where there is no store, and none is made. Raises TrackingError where it cannot be read.
    """
    if is_local(runs_dir):
        return _local_places(runs_dir / "mlflow.db")
    with store_errors(store_uri(runs_dir)):
        return _places_on_server(open_store(runs_dir))


def _local_places(database: Path) -> dict[str, Place]:
    if not database.is_file():
        return {}
    address = f"{database.resolve().as_uri()}?mode=ro"
    try:
        with contextlib.closing(
            sqlite3.connect(address, uri=True, timeout=PATIENCE_SECONDS)
        ) as connection:
            found = connection.execute(LOCAL_QUERY, (IDENTITY_TAG,)).fetchall()
    except sqlite3.Error as error:
        raise TrackingError(
            f"the MLflow store cannot be read: {error}",
            source=str(database),
            fix="`facebench ui` says more; `facebench runs import` makes a store anew",
        ) from error
    return {str(identity): (str(experiment), str(run)) for identity, experiment, run in found}


def _places_on_server(client: Any) -> dict[str, Place]:
    experiments = [item.experiment_id for item in client.search_experiments()]
    found: dict[str, Place] = {}
    token = None
    while True:
        page = client.search_runs(
            experiments,
            max_results=RUNS_PER_CALL,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        for run in page:
            identity = run.data.tags.get(IDENTITY_TAG)
            if identity:
                found[str(identity)] = (str(run.info.experiment_id), str(run.info.run_id))
        token = page.token
        if not token:
            return found


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
NOTE_TAG: Final = "mlflow.note.content"


def experiment_of(client: Any, runs_dir: Path, dataset: dict[str, Any]) -> str:
    """Find or make the MLflow experiment of a data set, with its description and view as of now."""
    name = str(dataset["name"])
    tags = {
        NOTE_TAG: data_note(dataset),
        "mlflow.experimentKind": "custom_model_development",
        VIEW_TAG: canonical_json(VIEW_STATE),
    }
    with store_lock(runs_dir):
        found = client.get_experiment_by_name(name)
        if found is None:
            root = (artifact_root(runs_dir) / name).as_uri()
            location = root if is_local(runs_dir) else None
            return str(client.create_experiment(name, artifact_location=location, tags=tags))
    if found.tags.get(VIEW_TAG) != tags[VIEW_TAG]:
        # Made by an older facebench; a description that somebody changed by hand is left alone.
        client.set_experiment_tag(found.experiment_id, VIEW_TAG, tags[VIEW_TAG])
    return str(found.experiment_id)


def note_links(run: Any) -> Links:
    """Give the addresses, within MLflow's own pages, of what a run's note points to."""
    info = run.info
    logged = run.outputs.model_outputs if run.outputs else ()
    return Links(
        page=lambda name: (
            f"#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/"
            f"{quote(f'pictures/{name}')}"
        ),
        model=f"models:/{logged[-1].model_id}" if logged else "",
    )


def landing_path(runs_dir: Path) -> str:
    """Give the page of the UI a stranger should land on: the runs of the newest data set.

    MLflow 3 opens on a page about traces; this link shows training runs at once, ranked by
    validation, with the columns that matter.
    """
    with store_errors(store_uri(runs_dir)):
        known = open_store(runs_dir).search_experiments()
    found = [item for item in known if item.name != "Default"]
    if not found:
        return "/"
    newest = max(found, key=lambda item: item.last_update_time or 0)
    query = {"workflowType": "machine_learning", "viewStateShareKey": VIEW}
    return f"/#/experiments/{newest.experiment_id}/runs?{urlencode(query)}"


def server_command(runs_dir: Path, port: int) -> list[str]:
    """Give the command that serves the MLflow UI of these runs on 127.0.0.1."""
    mlflow_module()
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", store_uri(runs_dir)),
        *("--default-artifact-root", artifact_root(runs_dir).as_uri()),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
