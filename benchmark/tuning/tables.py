"""A study's trials as a table: one row each, whatever became of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from benchmark.files import write_text
from benchmark.tuning.ledger import Told

TRIALS_FILE: Final = "trials.csv"


def trials_table(trials: Sequence[Told], paths: Sequence[str]) -> pd.DataFrame:
    """Give trial, state, value, epochs, seconds, each searched path, run, retry_of and reason."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "value": trial.value,
            "best_score": max(trial.scores.values(), default=None),
            "epochs": len(trial.scores),
            "seconds": trial.seconds,
            **{path: trial.point.get(path) for path in paths},
            "run": trial.run,
            "retry_of": trial.retry_of,
            "reason": trial.reason,
        }
        for trial in trials
    ]
    table = pd.DataFrame(rows)
    return table.astype({"retry_of": "Int64"}) if len(table) else table


def write_trials(path: Path, trials: Sequence[Told], paths: Sequence[str]) -> None:
    """Write the table as CSV."""
    write_text(path, trials_table(trials, paths).to_csv(index=False))
