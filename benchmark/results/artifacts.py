"""Everything that follows from a run's predictions, written beside them.

Written when a run ends, and again by `facebench runs rescore`, from the predictions alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.faces.splits import PartName, Rows
from benchmark.files import write_json, write_text
from benchmark.results.calibration_figures import reliability_figure
from benchmark.results.figures import Caption, confusion_figure, curves_figure, write_png
from benchmark.results.kept_scores import kept_scores
from benchmark.results.metrics import SCORING_VERSION, Scores, mean_ages_of, score
from benchmark.results.mistakes import mistakes
from benchmark.results.predictions import (
    check_faces,
    check_same_faces,
    predictions_digest,
    read_predictions,
)
from benchmark.results.record import SCHEMA, RunRecord
from benchmark.results.red_flags import leak_checks, write_leak_checks
from benchmark.results.subgroup_figures import heat_map_figure, subgroups_figure
from benchmark.results.suspect_figures import contact_sheet
from benchmark.results.suspects import label_suspects
from benchmark.tasks import CLASS_NAMES, TaskName

if TYPE_CHECKING:
    from benchmark.faces.store import FaceSet

SUSPECTS_SHEET: Final = "label_suspects.png"
"""Shows people: it stays in the run's folder and in MLflow, and goes on no page of ours."""


@dataclass(frozen=True)
class AtHand:
    """The prepared faces that a run is about, for what its predictions alone cannot tell."""

    faces: "FaceSet"
    parts: Mapping[PartName, Rows]
    """The rows that the run trained, selected and tested on."""

    def pictures(self) -> Callable[[Sequence[str]], npt.NDArray[np.uint8]]:
        """Give a function from file names to packed pixels, (n, px, px, 3) RGB."""
        row_of = {file: row for row, file in enumerate(self.faces.table["file"])}
        pixels = self.faces.pixels()
        return lambda files: np.stack([pixels[row_of[file]] for file in files])


def write_artifacts(
    record: RunRecord,
    costs: Mapping[str, float],
    *,
    selected_epoch: int,
    at_hand: AtHand | None = None,
) -> Scores:
    """Score a run's stored predictions and write numbers, tables and pictures into its folder.

    costs: further metrics by MLflow name, which no predictions can tell (seconds, parameters).
    selected_epoch: counted from 1, as in history.csv. at_hand: without the faces, the sheet of
    label suspects, errors in years and the checks for leaks are left as they are. metrics.json is
    written last: it says that all the rest is there. Raises RunError for predictions that are
    damaged, not about all the faces they should be, or about others.
    """
    path, folder, about = record.predictions_path, record.folder, record.about
    predictions = read_predictions(path)
    check_faces(predictions, about["dataset"]["counts"], source=str(path))
    if at_hand is not None:
        check_same_faces(predictions, at_hand.faces.table, at_hand.parts, source=str(path))
        write_leak_checks(record, leak_checks(at_hand.faces.table, at_hand.parts))
    mean_ages = None
    if at_hand is not None:
        mean_ages = mean_ages_of(at_hand.faces.table.iloc[at_hand.parts["train"]])
    scores = score(predictions, mean_ages)
    caption = Caption(
        f"{record.experiment_name}, seed {record.seed}",
        about["dataset"]["name"],
        about["dataset"]["drawn"],
        leaky=bool(about["leaky"]),
    )
    curves = curves_figure(record.history(), caption, selected_epoch=selected_epoch)
    write_png(folder / "curves.png", curves)
    write_json(folder / "calibration.json", _calibration(scores))
    if len(scores.subgroups):
        suspects = label_suspects(predictions)
        write_test_tables(folder, scores, predictions, suspects)
        write_test_pictures(folder, scores, caption)
        if at_hand is not None:
            sheet = contact_sheet(suspects, at_hand.pictures(), caption)
            write_png(folder / SUSPECTS_SHEET, sheet)
    write_json(folder / "metrics.json", kept_scores(path, predictions, scores, costs))
    return scores


def _calibration(scores: Scores) -> dict[str, Any]:
    """Say what probabilities are worth, and the temperature fitted on validation, per task."""
    return {
        "schema": SCHEMA,
        "fitted_on": "val",
        "applied": "nowhere: stored for whoever asks for it",
        "tasks": {
            task: {
                "temperature": found.temperature,
                "temperature_is_at_an_end": found.at_end,
                "ece": found.error,
                "ece_tempered": found.error_tempered,
                "ece_by_chance": found.by_chance,
                "nll": found.nll,
                "brier": found.brier,
            }
            for task, found in scores.calibration.items()
        },
    }


def write_test_tables(
    folder: Path, scores: Scores, predictions: pd.DataFrame, suspects: pd.DataFrame
) -> None:
    """Write the tables that follow from predictions of test faces."""
    tables = {
        "subgroups": scores.subgroups,
        "gaps": scores.gaps,
        "intervals": scores.intervals,
        "mistakes": mistakes(predictions),
        "label_suspects": suspects,
        **scores.tables,
    }
    for task, report in scores.reports.items():
        tables[f"report_{task}"] = report
        tables[f"reliability_{task}"] = scores.calibration[task].reliability
        write_json(folder / f"confusion_{task}.json", _confusion(task, scores.confusion[task]))
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))


def _confusion(task: TaskName, matrix: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Give a confusion matrix as counts and as shares of each true class."""
    totals = matrix.sum(axis=1)
    shares = [
        (row / total).tolist() if total else [None] * len(row)
        for row, total in zip(matrix, totals, strict=True)
    ]
    return {
        "schema": SCHEMA,
        "task": task,
        "classes": CLASS_NAMES[task],
        "rows": "true class",
        "columns": "predicted class",
        "counts": matrix,
        "shares": shares,
    }


def write_test_pictures(folder: Path, scores: Scores, caption: Caption) -> None:
    """Draw what follows from predictions of test faces; no picture of a face."""
    for task, matrix in scores.confusion.items():
        figures = {
            "confusion": confusion_figure(matrix, task, caption),
            "subgroups": subgroups_figure(scores.subgroups, scores.gaps, caption, task=task),
            "heat_map": heat_map_figure(scores.subgroups, scores.gaps, caption, task=task),
            "reliability": reliability_figure(scores.calibration[task], caption, task=task),
        }
        for name, figure in figures.items():
            write_png(folder / f"{name}_{task}.png", figure)


def is_scored(record: RunRecord) -> bool:
    """Tell whether a run's numbers are of its very predictions and of this version's rules."""
    try:
        content = json.loads((record.folder / "metrics.json").read_text(encoding="utf-8"))
        current = content["scoring_version"] == SCORING_VERSION
        return bool(
            current and content["predictions_sha256"] == predictions_digest(record.predictions_path)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
