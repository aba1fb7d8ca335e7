"""Everything that follows from a run's predictions, written beside them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from benchmark.files import write_json, write_text
from benchmark.results.figures import (
    Caption,
    confusion_figure,
    curves_figure,
    subgroups_figure,
    write_png,
)
from benchmark.results.metrics import Scores, score
from benchmark.results.mistakes import mistakes
from benchmark.results.predictions import predictions_digest, read_predictions
from benchmark.results.record import SCHEMA, RunRecord
from benchmark.tasks import CLASS_NAMES


def write_artifacts(
    record: RunRecord, costs: Mapping[str, float], *, selected_epoch: int
) -> Scores:
    """Score a run's stored predictions and write numbers, tables and pictures into its folder.

    costs: further metrics by MLflow name, which no predictions can tell (seconds, parameters).
    selected_epoch: counted from 1, as in history.csv.
    """
    predictions = read_predictions(record.predictions_path)
    scores = score(predictions)
    about, folder = record.about, record.folder
    caption = Caption(
        f"{record.experiment_name}, seed {record.seed}",
        about["dataset"]["name"],
        about["dataset"]["drawn"],
    )
    curves = curves_figure(record.history(), caption, selected_epoch=selected_epoch)
    write_png(folder / "curves.png", curves)
    if len(scores.subgroups):
        _write_test_tables(folder, scores, predictions)
        _write_test_pictures(folder, scores, caption)
    write_json(
        folder / "metrics.json",
        {
            "schema": SCHEMA,
            "predictions_sha256": predictions_digest(record.predictions_path),
            "metrics": {**scores.metrics, **costs},
        },
    )
    return scores


def _write_test_tables(folder: Path, scores: Scores, predictions: pd.DataFrame) -> None:
    write_text(folder / "subgroups.csv", scores.subgroups.to_csv(index=False))
    write_text(folder / "mistakes.csv", mistakes(predictions).to_csv(index=False))
    for task, report in scores.reports.items():
        write_text(folder / f"report_{task}.csv", report.to_csv(index=False))
    for task, matrix in scores.confusion.items():
        write_json(
            folder / f"confusion_{task}.json",
            {
                "schema": SCHEMA,
                "task": task,
                "classes": CLASS_NAMES[task],
                "rows": "true class",
                "columns": "predicted class",
                "counts": matrix,
            },
        )


def _write_test_pictures(folder: Path, scores: Scores, caption: Caption) -> None:
    for task, matrix in scores.confusion.items():
        write_png(folder / f"confusion_{task}.png", confusion_figure(matrix, task, caption))
        picture = subgroups_figure(scores.subgroups, caption, task=task)
        write_png(folder / f"subgroups_{task}.png", picture)
