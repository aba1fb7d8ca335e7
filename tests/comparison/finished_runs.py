"""Finished runs as far as comparisons read them, without the time that scoring takes."""

from typing import Any

import pandas as pd

from benchmark.evaluation.predictions import write_predictions
from benchmark.experiment.definition import Experiment
from benchmark.files import sha256_of, write_json
from benchmark.record import RunRecord
from tests.made_runs import RunBuilder


def finished(
    runs: RunBuilder,
    experiment: Experiment,
    predictions: pd.DataFrame,
    *,
    seed: int = 0,
    **about: Any,
) -> RunRecord:
    """Write a finished run with these predictions, and no metric."""
    record = runs.begun(experiment, seed=seed, **about)
    write_predictions(record.predictions_path, predictions)
    mark_scored(record)
    write_json(record.folder / "done.json", {"schema": 1})
    return RunRecord(record.folder)


def mark_scored(record: RunRecord) -> None:
    """Say that the predictions as they are now were scored."""
    digest = sha256_of(record.predictions_path)
    kept = {"schema": 1, "predictions_sha256": digest, "metrics": {}}
    write_json(record.folder / "metrics.json", kept)
