"""Everything that is computed from a run's predictions and written beside them, and checksums.

Written when a run ends, and again by `facebench runs rescore`, from the predictions alone: no
network is needed. done.json lists the checksums of what training left, and metrics.json carries one
of its own; both keep it under the key `seal`. What is computed from the predictions may be computed
again, and is in no list: benchmark.inference.verify computes it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.data.replays import replayed_parts
from benchmark.data.splits import PartName, Rows, labelled_parts, parts_of, subset_parts
from benchmark.errors import RunError
from benchmark.evaluation.correctness import packed_correctness
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
    check_unchanged,
    predicted_tasks,
    predictions_digest,
    read_predictions,
)
from benchmark.evaluation.red_flags import CHECKS_FILE, leak_checks, write_leak_checks
from benchmark.evaluation.suspects import label_suspects, mistakes
from benchmark.experiment.definition import Protocol, Subset
from benchmark.files import canonical_json, file_lock, lock_owner, sha256_of, write_json, write_text
from benchmark.identity import MASKED
from benchmark.record import SCHEMA, RunRecord
from benchmark.tasks import CLASS_NAMES

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

LEFT_BY_TRAINING: Final = (
    *("experiment.json", "environment.txt", "history.csv", "predictions.csv"),
    *("predictions_outside.csv", "exposure.csv", "model.safetensors"),
)
"""Files of which nothing can be computed again without training again."""
DIGESTS: Final = "sha256"
DIGEST: Final = "seal"
SCORED: Final = {
    "schema", "scoring_version", "predictions_sha256", "metrics", "subgroups", "answers"
}  # fmt: skip
"""What metrics.json may hold without a checksum: runs scored before there was one hold no more."""
COST: Final = "cost/"
"""Prefix of the metrics that do not follow from predictions."""
SUSPECTS_SHEET: Final = "label_suspects.png"
"""Shows people: it stays in the run's folder and in MLflow, and is on no page of ours."""


def with_checksums(folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
    """Give what done.json says, with the digests of the run's files and one of it all."""
    files = [name for name in LEFT_BY_TRAINING if (folder / name).is_file()]
    return with_digest(dict(done) | {DIGESTS: {name: sha256_of(folder / name) for name in files}})


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the digest of JSON values to them."""
    return dict(content) | {DIGEST: hashlib.sha256(canonical_json(content).encode()).hexdigest()}


def scores_unchanged(record: RunRecord) -> bool | None:
    """Tell whether metrics.json is as it was written, to the last digit; None: it has no checksum.

    Its costs, and digits beyond what another library computes alike, are covered by this alone.
    """
    stored = json.loads((record.folder / "metrics.json").read_text(encoding="utf-8"))
    content = {key: value for key, value in stored.items() if key != DIGEST}
    if DIGEST not in stored:
        # Of a checksum whose key is damaged its value is left.
        return None if content.keys() <= SCORED else False
    return bool(stored == with_digest(content))


def changed_files(record: RunRecord) -> list[str] | None:
    """Name the files that are not as they were when the run ended; None without checksums.

    Weights that were removed on purpose (`facebench clean`) are no change.
    """
    done = {key: value for key, value in record.done.items() if key != DIGEST}
    if DIGEST not in record.done:
        # Digests have always been written with one of it all: the one without the other is damage.
        return ["done.json"] if DIGESTS in done else None
    changed = [] if record.done == with_digest(done) else ["done.json"]
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
    """Give the content of metrics.json; path: where the predictions are."""
    test = predictions[predictions["part"] == "test"]
    tasks = predicted_tasks(predictions)
    right = {task: (test[f"{task}_pred"] == test[task]).to_numpy() for task in tasks}
    # JSON has no NaN: what does not exist is null.
    subgroups = scores.subgroups.astype(object).where(scores.subgroups.notna(), None)
    return with_digest(
        {
            "schema": SCHEMA,
            "scoring_version": SCORING_VERSION,
            "predictions_sha256": predictions_digest(path),
            "metrics": {**scores.metrics, **costs},
            "subgroups": subgroups.to_dict("list"),
            "answers": packed_correctness(test, right) if len(test) else {},
        }
    )


@dataclass(frozen=True)
class RebuiltRecord(RunRecord):
    """A run whose numbers are computed from its predictions, whatever it keeps; writes nothing."""

    @cached_property
    def _scored(self) -> dict[str, Any]:
        path = self.predictions_path
        predictions = read_predictions(path)
        check_faces(predictions, self.about["dataset"]["counts"], source=str(path))
        _check_scored(self)
        return kept_scores(path, predictions, score(predictions), {})


def _check_scored(record: RunRecord) -> None:
    """Refuse predictions that changed since; without metrics.json there is nothing to compare."""
    if (record.folder / "metrics.json").is_file() and record.predictions_path.is_file():
        scored = RunRecord(record.folder).predictions_sha256
        check_unchanged(record.predictions_path, scored, record.identity[:12])


@dataclass(frozen=True)
class RunFaces:
    """The prepared faces of a run, for what its predictions alone cannot tell."""

    faces: "FaceSet"
    parts: Mapping[PartName, Rows]
    """The rows that the run trained, selected and tested on."""

    def pictures(self, files: Sequence[str]) -> npt.NDArray[np.uint8]:
        """Give the packed pixels of files, (n, px, px, 3) RGB."""
        row_of = {file: row for row, file in enumerate(self.faces.table["file"])}
        pixels = self.faces.pixels()
        return np.stack([pixels[row_of[file]] for file in files])


def faces_of(record: RunRecord, prepared: Iterable["FaceSet"]) -> RunFaces | None:
    """Find the faces of a run among the available data sets: same pixels, split and labels.

    Runs made before digests of labels were kept are recognised by pixels and split alone.
    """
    dataset = record.about["dataset"]
    for faces in prepared:
        own = {
            "pixel_digest": faces.pixel_digest,
            "split_digest": faces.split_digest,
            "labels_digest": faces.labels_digest,
        }
        if all(dataset.get(name, digest) == digest for name, digest in own.items()):
            return RunFaces(faces, parts_of_run(record.about, faces))
    return None


def parts_of_run(about: Mapping[str, Any], faces: "FaceSet") -> dict[PartName, Rows]:
    """Give the rows that a run trained, selected and tested on; about: `experiment.json`."""
    definition = about["experiment"]
    protocol = Protocol(**definition["protocol"])
    if protocol.leaky:
        whole = replayed_parts(faces.table, protocol.split)
    else:
        whole = parts_of(faces, protocol.fold)
    masked = about.get("dataset", {}).get("missing_labels") == MASKED
    whole = labelled_parts(faces.table, whole, definition["head"]["tasks"], complete=not masked)
    subset = Subset(**definition["subset"]) if definition.get("subset") else None
    return subset_parts(faces.table, whole, subset, int(about["seed"]))


def write_artifacts(
    record: RunRecord,
    costs: Mapping[str, float],
    *,
    selected_epoch: int,
    run_faces: RunFaces | None = None,
) -> Scores:
    """Score a run's stored predictions and write numbers, tables and figures into its folder.

    costs: further metrics by MLflow name, which no predictions can tell (seconds, parameters).
    selected_epoch: counted from 1, as in history.csv. Without run_faces the sheet of possible label
    errors, errors in years and the checks for leaks are left as they are. metrics.json is written
    last: it says that all the rest is there. Raises RunError for predictions that are damaged, not
    about all the faces they should be, or about others.
    """
    path, folder, about = record.predictions_path, record.folder, record.about
    predictions = read_predictions(path)
    check_faces(predictions, about["dataset"]["counts"], source=str(path))
    mean_ages = None
    if run_faces is not None:
        table, parts = run_faces.faces.table, run_faces.parts
        check_same_faces(predictions, table, parts, source=str(path))
        write_leak_checks(record, leak_checks(table, parts))
        mean_ages = mean_ages_of(table.iloc[parts["train"]])
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
        if run_faces is not None:
            sheet = contact_sheet(suspects, run_faces.pictures, caption)
            write_png(folder / SUSPECTS_SHEET, sheet)
    write_json(folder / "metrics.json", kept_scores(path, predictions, scores, costs))
    return scores


def _calibration(scores: Scores) -> dict[str, Any]:
    """Give the quality of each task's probabilities, and the temperature fitted on validation."""
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
    """Write the tables that follow from predictions of test faces.

    A confusion matrix is written as counts and as shares of each true class.
    """
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
        matrix = scores.confusion[task]
        content = {
            "schema": SCHEMA,
            "task": task,
            "classes": CLASS_NAMES[task],
            "rows": "true class",
            "columns": "predicted class",
            "counts": matrix,
            "shares": [(row / n).tolist() if (n := row.sum()) else [None] * len(row)
                       for row in matrix],
        }  # fmt: skip
        write_json(folder / f"confusion_{task}.json", content)
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))


def rescore(
    record: RunRecord, prepared: Iterable["FaceSet"] = (), *, again: bool = False
) -> Literal["rescored", "current"]:
    """Bring a finished run's numbers, tables and figures to this version's rules.

    prepared: available data sets; where the run's own is among them, what needs the faces is made
    too. A run that has all of it already is left alone unless `again`. Raises RunError for a run
    that is not done, is being worked on, or whose predictions are missing, damaged, or not those it
    was scored by.
    """
    name, folder = record.identity[:12], record.folder
    if record.state != "done":
        raise RunError(
            f"run {name} of {record.experiment_name} is not done",
            allowed="a finished run",
            source=str(folder),
            fix=f"`facebench run {record.experiment_name} --seeds {record.seed}` resumes it",
        )
    run_faces = faces_of(record, prepared)
    if not again and is_scored(record) and (run_faces is None or _has_what_faces_tell(record)):
        return "current"
    with file_lock(folder / "claim") as mine:
        if not mine:
            pid = lock_owner(folder / "claim").get("pid")
            raise RunError(f"process {pid} is at run {name}", fix="Try again when it is done")
        _check_scored(record)
        epoch = int(record.done["selected_epoch"])
        write_artifacts(record, costs_of(record), selected_epoch=epoch, run_faces=run_faces)
    return "rescored"


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


def _has_what_faces_tell(record: RunRecord) -> bool:
    names = [CHECKS_FILE]
    if any(name.startswith("test/") for name in record.metrics):
        names.append(SUSPECTS_SHEET)
    if (record.folder / "age_edges.csv").is_file():
        names.append("age_years.csv")
    return all((record.folder / name).is_file() for name in names)


def costs_of(record: RunRecord) -> dict[str, float]:
    """Give a finished run's cost metrics, from its files other than the predictions."""
    about, done = record.about, record.done
    costs = {
        "cost/seconds": done["seconds"],
        "cost/images_per_second": done["images_per_second"],
        "cost/peak_memory_mib": done["peak_memory_mib"],
        "cost/parameters": about["parameters"]["total"],
        "cost/trainable_parameters": about["parameters"]["trainable"],
        "cost/gmacs": about["multiply_adds"] / 1e9,
    }
    if (record.folder / "metrics.json").is_file() and scores_unchanged(record) is not False:
        costs |= {name: value for name, value in record.metrics.items() if name.startswith(COST)}
    return {name: float(value) for name, value in costs.items()}
