"""What a stranger meets in MLflow: the page to land on, its columns, and links into a run."""

import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from benchmark.files import canonical_json
from benchmark.run_notes import Links, data_note
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
