"""What metrics.json keeps of a run, and the same computed again, from its predictions alone.

Writing it, with all tables and pictures beside it, is for benchmark.results.artifacts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.errors import RunError
from benchmark.results.kept_answers import kept
from benchmark.results.metrics import SCORING_VERSION, Scores, score
from benchmark.results.predictions import (
    check_faces,
    predicted_tasks,
    predictions_digest,
    read_predictions,
)
from benchmark.results.record import SCHEMA, RunRecord
from benchmark.results.seals import with_seal


def kept_scores(
    path: Path, predictions: pd.DataFrame, scores: Scores, costs: Mapping[str, float]
) -> dict[str, Any]:
    """Give the content of metrics.json; path: where the predictions lie."""
    content = {
        "schema": SCHEMA,
        "scoring_version": SCORING_VERSION,
        "predictions_sha256": predictions_digest(path),
        "metrics": {**scores.metrics, **costs},
        "subgroups": _as_columns(scores.subgroups),
        "answers": _answers(predictions),
    }
    return with_seal(content)


def _answers(predictions: pd.DataFrame) -> dict[str, Any]:
    test = predictions[predictions["part"] == "test"]
    right = {
        task: (test[f"{task}_pred"] == test[task]).to_numpy()
        for task in predicted_tasks(predictions)
    }
    return kept(test, right) if len(test) else {}


def _as_columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Give a table as lists by column name, with null for what does not exist: JSON has no NaN."""
    plain = table.astype(object).where(table.notna(), None)
    return {str(name): plain[name].tolist() for name in plain.columns}


@dataclass(frozen=True)
class RebuiltRecord(RunRecord):
    """A run whose numbers are computed from its predictions, whatever it keeps; writes nothing."""

    @cached_property
    def _scored(self) -> dict[str, Any]:
        path = self.predictions_path
        predictions = read_predictions(path)
        check_faces(predictions, self.about["dataset"]["counts"], source=str(path))
        content = kept_scores(path, predictions, score(predictions), {})
        if (self.folder / "metrics.json").is_file():
            self._check_unchanged(str(content["predictions_sha256"]))
        return content

    def _check_unchanged(self, found: str) -> None:
        """Refuse predictions that were changed after they were scored, as rescoring does."""
        scored = RunRecord(self.folder).predictions_sha256
        if scored != found:
            raise RunError(
                f"the predictions of run {self.identity[:12]} changed after they were scored",
                allowed=f"sha256 {scored[:12]}…",
                source=str(self.predictions_path),
                fix="Remove the run's folder and run the experiment again",
            )
