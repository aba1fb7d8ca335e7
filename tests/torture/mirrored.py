"""Does MLflow say what the runs' folders say?"""

import warnings
from pathlib import Path
from typing import Any

from benchmark.record import all_records
from benchmark.runs.notes import ATTEMPT_TAG, IDENTITY_TAG, run_params


def missing_in_mlflow(runs_dir: Path) -> list[str]:
    """Name what MLflow lacks or has twice of the finished runs in a folder."""
    from benchmark.tracking import open_store

    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = open_store(runs_dir)
        ids = [item.experiment_id for item in client.search_experiments()]
        found = list(client.search_runs(ids, max_results=1000))
        for record in all_records(runs_dir):
            mine = [run for run in found if run.data.tags.get(IDENTITY_TAG) == record.identity]
            wrong += [f"{record.identity[:8]}: {text}" for text in _missing(client, record, mine)]
    return wrong


def _missing(client: Any, record: Any, mine: list[Any]) -> list[str]:
    # An attempt that failed, on a full disk for one, stays as a run of its own.
    attempt = str(record.about["attempt"])
    earlier = [run for run in mine if run.data.tags.get(ATTEMPT_TAG) != attempt]
    wrong = [f"an earlier attempt is {run.info.status}" for run in earlier
             if run.info.status != "FAILED"]  # fmt: skip
    if len(mine) - len(earlier) != 1:
        return [*wrong, f"{len(mine) - len(earlier)} runs of MLflow"]
    (run,) = (run for run in mine if run not in earlier)
    if run.info.status != "FINISHED":
        wrong.append(f"it is {run.info.status}")
    params = {name: str(value) for name, value in run_params(record.about).items()}
    if params.items() - run.data.params.items():
        wrong.append(f"{len(params.items() - run.data.params.items())} parameters are missing")
    if not run.inputs.dataset_inputs:
        wrong.append("its data sets are missing")
    history = record.history()
    epochs = sorted(history["epoch"].tolist())
    for name in history.columns.drop("epoch"):
        steps = sorted(item.step for item in client.get_metric_history(run.info.run_id, name))
        if steps != epochs:
            wrong.append(f"{name} has the steps {steps} and not {epochs}")
    lacking = [name for name in record.metrics if name not in run.data.metrics]
    if lacking:
        wrong.append(f"{len(lacking)} metrics are missing, {lacking[0]} one of them")
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    if not {"record", "tables", "pictures"} <= artifacts:
        wrong.append(f"its artifacts are {sorted(artifacts)}")
    return wrong
