"""Everything that is written beside a run's predictions, with checksums.

Everything that follows from a run's predictions, written beside them.

Written when a run ends, and again by `facebench runs rescore`, from the predictions alone.

The seal of a finished run: done.json lists the digests of its files, and carries its own.

What is computed from the predictions (metrics, tables, pictures) may be computed anew, and is not
in that list; benchmark.runs.verify computes it again. metrics.json carries a seal of its own.

What metrics.json keeps of a run, and the same computed again, from its predictions alone.

Writing it, with all tables and pictures beside it, is for benchmark.evaluation.artifacts.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.data.splits import PartName, Rows
from benchmark.errors import RunError
from benchmark.evaluation.answers import kept
from benchmark.evaluation.figures import (
    Caption,
    contact_sheet,
    curves_figure,
    write_png,
    write_test_figures,
)
from benchmark.evaluation.metrics import SCORING_VERSION, Scores, mean_ages_of, score
from benchmark.evaluation.predictions import (
    check_faces,
    check_same_faces,
    mistakes,
    predicted_tasks,
    predictions_digest,
    read_predictions,
)
from benchmark.evaluation.red_flags import leak_checks, write_leak_checks
from benchmark.evaluation.suspects import label_suspects
from benchmark.files import canonical_json, sha256_of, write_json, write_text
from benchmark.record import SCHEMA, RunRecord
from benchmark.tasks import CLASS_NAMES, TaskName

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

SEALED: Final = (
    "experiment.json",
    "environment.txt",
    "history.csv",
    "predictions.csv",
    "predictions_outside.csv",
    "exposure.csv",
    "model.safetensors",
)
"""What training left, of which nothing can be computed again without training again."""
DIGESTS: Final = "sha256"
SEAL: Final = "seal"
SCORED: Final = {
    "schema", "scoring_version", "predictions_sha256", "metrics", "subgroups", "answers"
}  # fmt: skip
"""What metrics.json may hold without a seal: runs scored before there was one hold no more."""


def sealed(folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
    """Give what done.json says, with the digests of the run's files and one of it all."""
    digests = {name: sha256_of(folder / name) for name in SEALED if (folder / name).is_file()}
    return with_seal(dict(done) | {DIGESTS: digests})


def with_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the digest of plain values to them."""
    return dict(content) | {SEAL: _digest(content)}


def scores_are_sealed(record: RunRecord) -> bool | None:
    """Tell whether metrics.json is as it was written, to the last digit; None: nothing tells.

    Its costs, and digits beyond what another library computes alike, are covered by this alone.
    """
    content = json.loads((record.folder / "metrics.json").read_text(encoding="utf-8"))
    seal = content.pop(SEAL, None)
    if seal is None:
        # Of a seal whose name is damaged its value is left.
        return None if content.keys() <= SCORED else False
    return bool(seal == _digest(content))


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def broken_seals(record: RunRecord) -> list[str] | None:
    """Name the files that are not as they were when the run ended; None where nothing tells.

    Weights that were removed on purpose (`facebench clean`) are no change.
    """
    done = dict(record.done)
    seal = done.pop(SEAL, None)
    if seal is None:
        # Digests have always been written with a seal: the one without the other is damage.
        return ["done.json"] if DIGESTS in done else None
    changed = [] if seal == _digest(done) else ["done.json"]
    for name, digest in dict(done.get(DIGESTS, {})).items():
        path = record.folder / Path(str(name)).name
        if not path.is_file():
            changed += [] if path.suffix == ".safetensors" else [f"{name} (gone)"]
        elif sha256_of(path) != digest:
            changed.append(str(name))
    return changed


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
        write_test_figures(folder, scores, caption)
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
