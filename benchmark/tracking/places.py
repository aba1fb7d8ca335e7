"""Where MLflow has each run, by its identity: what links into its pages are made of."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Final

from benchmark.errors import TrackingError
from benchmark.run_notes import IDENTITY_TAG
from benchmark.tracking.store import is_local, open_store, store_errors, store_uri

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
