"""Everything that is computed from a run's predictions and written beside them, and checksums.

Written when a run ends, and again by `facebench runs rescore`, from the predictions alone: no
network and no faces are needed. done.json lists the checksums of what training left, and
metrics.json carries one of its own; both keep it under the key `seal`. What follows from the
predictions is in no list: `facebench verify` computes it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from benchmark.data.dataset import FaceSet, with_empty_cells
from benchmark.data.replays import replayed_parts
from benchmark.data.splits import PartName, Rows, labelled_parts, parts_of, subset_parts
from benchmark.errors import RunError
from benchmark.evaluation import metrics
from benchmark.evaluation import predictions as stored
from benchmark.evaluation.calibration import subgroup_errors
from benchmark.evaluation.metrics import SCORING_VERSION, Scores, score
from benchmark.evaluation.predictions import by_task, probability_columns
from benchmark.evaluation.subgroups import gender_gap_table, rate_table
from benchmark.experiment.definition import Protocol, Subset
from benchmark.files import digest_of, file_lock, lock_owner, sha256_of, write_json, write_text
from benchmark.record import SCHEMA, RunRecord
from benchmark.tasks import CLASS_NAMES, MISSING, TaskName

LEFT_BY_TRAINING: Final = (
    *("experiment.json", "environment.txt", "history.csv", "predictions.csv"),
    *("predictions_outside.csv", "exposure.csv", "model.safetensors"),
)
"""Files of which nothing can be computed again without training again."""
DIGESTS: Final = "sha256"
DIGEST: Final = "seal"
COST: Final = "cost/"
"""Prefix of the metrics that do not follow from predictions."""
LABEL_ERRORS_SHEET: Final = "label_suspects.png"
"""Shows people: it stays in the run's folder and in MLflow, and is on no page of ours."""
MISTAKE_COLUMNS: Final = (
    *("task", "file", "truth", "predicted", "probability", "probability_of_label"),
)
MISTAKES_PER_TASK: Final = 50
SUSPECT_COLUMNS: Final = (
    *("task", "rank", "file", "cluster", "age", "label", "contradicted_by"),
    *("probability_of_label", "probability", "margin"),
)
SUSPECTS_PER_TASK: Final = 100


def with_checksums(folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
    """Give what done.json says, with the digests of the run's files and one of it all."""
    paths = [folder / name for name in LEFT_BY_TRAINING]
    digests = {path.name: sha256_of(path) for path in paths if path.is_file()}
    return with_digest({**done, DIGESTS: digests})


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the digest of JSON values to them."""
    return dict(content) | {DIGEST: digest_of(content)}


def is_unchanged(content: Mapping[str, Any]) -> bool:
    """Tell whether done.json or metrics.json is as it was written, to the last digit."""
    rest = {key: value for key, value in content.items() if key != DIGEST}
    return bool(content == with_digest(rest))


def changed_files(record: RunRecord) -> list[str]:
    """Name the files that are not as they were when the run ended; weights may be removed."""
    changed = [] if is_unchanged(record.done) else ["done.json"]
    for name, digest in dict(record.done.get(DIGESTS, {})).items():
        path = record.folder / Path(str(name)).name
        if not path.is_file():
            changed += [] if path.suffix == ".safetensors" else [f"{name} (gone)"]
        elif sha256_of(path) != digest:
            changed.append(str(name))
    return changed


def _kept_scores(record: RunRecord, scores: Scores, costs: Mapping[str, float]) -> dict[str, Any]:
    """Give the content of metrics.json."""
    # JSON has no NaN: what does not exist is null.
    subgroups = scores.subgroups.astype(object).where(scores.subgroups.notna(), None)
    content = {
        "schema": SCHEMA,
        "scoring_version": SCORING_VERSION,
        "predictions_sha256": sha256_of(record.predictions_path),
        "metrics": {**scores.metrics, **costs},
        "subgroups": subgroups.to_dict("list"),
        "answers": stored.packed_correctness(scores.test) if len(scores.test) else {},
    }
    return with_digest(content)


@dataclass(frozen=True)
class RebuiltRecord(RunRecord):
    """A run whose numbers are computed from its predictions, whatever it keeps; writes nothing."""

    @cached_property
    def scored(self) -> dict[str, Any]:
        if (self.folder / "metrics.json").is_file():
            stored.check_unchanged(RunRecord(self.folder))
        return _kept_scores(self, score(_read(self)), {})


def _read(record: RunRecord) -> pd.DataFrame:
    """Read a run's predictions; RunError unless they are about every face of its parts. The test
    part as a whole may be absent: ad-hoc runs are not evaluated on it."""
    path, counts = record.predictions_path, record.about["dataset"]["counts"]
    predictions = stored.read_predictions(path)
    for part in stored.PARTS:
        found = int((predictions["part"] == part).sum())
        if found != counts[part] and (found > 0 or part == "val"):
            held = f"the predictions hold {found} faces of part {part!r}"
            allowed = f"the {counts[part]} that the run was given"
            raise RunError(held, allowed=allowed, source=str(path), fix=stored.RERUN)
    return predictions


def rows_by_part(
    faces: FaceSet, protocol: Protocol, tasks: Sequence[TaskName], subset: Subset | None, seed: int
) -> tuple[dict[PartName, Rows], dict[PartName, Rows]]:
    """Give the rows of faces by part: of the whole split, and those that a run trains, is selected
    and tested on, which a subset makes fewer; DataError where a part has no face of a task."""
    table, leaky = faces.table, protocol.leaky
    whole = replayed_parts(table, protocol.split) if leaky else parts_of(faces, protocol.fold)
    whole = labelled_parts(table, whole, tasks)
    return whole, subset_parts(table, whole, subset, seed)


def _costs(about: Mapping[str, Any], done: Mapping[str, Any]) -> dict[str, float]:
    costs = {name: done[name] for name in ("seconds", "images_per_second", "peak_memory_mib")}
    costs |= {"parameters": about["parameters"]["total"], "gmacs": about["multiply_adds"] / 1e9}
    costs["trainable_parameters"] = about["parameters"]["trainable"]
    return {f"{COST}{name}": float(value) for name, value in costs.items()}


def write_artifacts(
    record: RunRecord, done: Mapping[str, Any], *, draw: bool = True,
    faces: FaceSet | None = None, training: pd.DataFrame | None = None,
) -> None:  # fmt: skip
    """Score a run's stored predictions and write numbers, tables and figures into its folder.

    done: as done.json has it or will. faces, training: the run's data set and the faces it was
    trained on; without them the errors in years and the sheet of possible label errors are left as
    they are. metrics.json is written last. Raises RunError for predictions that are damaged, or not
    about all the run's faces.
    """
    folder, scores = record.folder, score(_read(record))
    tasks = {
        task: {name: value for name, value in vars(found).items() if name != "reliability"}
        for task, found in scores.calibration.items()
    }
    write_json(folder / "calibration.json", {"schema": SCHEMA, "fitted_on": "val", "tasks": tasks})
    if len(scores.subgroups):
        means = None if training is None else metrics.mean_ages_of(training)
        write_test_tables(folder, scores, means)
    if draw:
        from benchmark.evaluation import figures

        dataset, leaky = record.about["dataset"], bool(record.about["leaky"])
        named = f"{record.experiment_name}, seed {record.seed}", dataset["name"]
        caption = figures.caption_of(*named, drawn=dataset["drawn"], leaky=leaky)
        curves = figures.curves_figure(record.history(), caption, int(done["selected_epoch"]))
        figures.write_png(folder / "curves.png", curves)
        if len(scores.subgroups):
            figures.write_test_figures(folder, scores, caption)
            if faces is not None:
                sheet = figures.contact_sheet(possible_label_errors(scores.test), faces, caption)
                figures.write_png(folder / LABEL_ERRORS_SHEET, sheet)
    costs = _costs(record.about, done)
    write_json(folder / "metrics.json", _kept_scores(record, scores, costs))


def write_test_tables(folder: Path, scores: Scores, mean_ages: pd.Series | None = None) -> None:
    """Write the tables that follow from predictions of test faces; without mean_ages, of the
    training faces of each age group, no errors in years."""
    test = scores.test
    tables = {
        "subgroups": scores.subgroups, "gaps": scores.gaps, "intervals": scores.intervals,
        "subgroup_rates": rate_table(test), "gender_gaps": gender_gap_table(test),
        "subgroup_ece": subgroup_errors(test), "mistakes": mistakes(test),
        "label_suspects": possible_label_errors(test),
        **{f"report_{task}": report for task, report in scores.reports.items()},
    }  # fmt: skip
    aged = test[(test["age"] != MISSING) & (test["age_group"] != MISSING)]
    if "age_group" in scores.reports and len(aged):
        tables["age_edges"] = metrics.accuracy_by_edge(aged)
        if mean_ages is not None and mean_ages.notna().any():
            tables["age_years"] = metrics.errors_in_years(aged, mean_ages)
    for task, matrix in scores.confusion.items():
        shares = [(row / n).tolist() if (n := row.sum()) else [None] * len(row) for row in matrix]
        content = {
            "schema": SCHEMA, "task": task, "classes": CLASS_NAMES[task], "rows": "true class",
            "columns": "predicted class", "counts": matrix, "shares": shares,
        }  # fmt: skip
        write_json(folder / f"confusion_{task}.json", content)
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))


def mistakes(test: pd.DataFrame) -> pd.DataFrame:
    """List the most confident errors on test faces, at most MISTAKES_PER_TASK per task."""
    wrong = _named(test).query("truth != predicted")
    return _first(wrong, "probability", MISTAKES_PER_TASK)[list(MISTAKE_COLUMNS)]


def possible_label_errors(test: pd.DataFrame) -> pd.DataFrame:
    """List the test faces whose label is contradicted most confidently, per task.

    The label may be right and the network wrong; nothing is ever relabelled. Of the five folds of
    an experiment (`facebench run NAME --folds 0-4`) the lists cover every face of the data set,
    each by a network that was not trained on it. Widest margin first, at most SUSPECTS_PER_TASK per
    task; margin is the probability of the contradicting class less that of the label, in [0, 1].

    A face is listed when another class than its label is predicted with at least the mean
    probability that faces labelled as that class have of it: sure by the network's own measure,
    whatever its calibration. Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning", JAIR
    70 (2021), section 3.1.
    """
    faces = _named(test)
    # A class that nobody is labelled with has no usual probability, and contradicts nothing.
    usual = faces.groupby(["task", "truth"])["probability_of_label"].mean().rename("usual")
    faces = faces.join(usual, on=["task", "predicted"])
    found = faces.query("truth != predicted and probability >= usual")
    found = found.assign(margin=found["probability"] - found["probability_of_label"])
    found = _first(found, "margin", SUSPECTS_PER_TASK)
    found = found.assign(rank=found.groupby("task").cumcount() + 1)
    names = {"truth": "label", "predicted": "contradicted_by"}
    return with_empty_cells(found).rename(columns=names)[list(SUSPECT_COLUMNS)]


def _named(test: pd.DataFrame) -> pd.DataFrame:
    """Give each task's labelled faces with class names and probabilities of prediction and label,
    a row per task and face."""
    tables = []
    for task, faces, truth, predicted in by_task(test):
        names, rows = np.array(CLASS_NAMES[task]), np.arange(len(faces))
        probabilities = faces[probability_columns(task)].to_numpy()
        tables.append(faces.assign(
            task=task, truth=names[truth], predicted=names[predicted],
            probability=probabilities[rows, predicted],
            probability_of_label=probabilities[rows, truth],
        ))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def _first(faces: pd.DataFrame, by: str, n_faces: int) -> pd.DataFrame:
    """Sort by task, then largest first, and keep so many faces of each task."""
    ordered = faces.sort_values(["task", by, "file"], ascending=[True, False, True])
    return ordered.groupby("task").head(n_faces)


def rescore(record: RunRecord, *, again: bool = False) -> Literal["rescored", "current"]:
    """Bring a finished run's numbers, tables and figures to this version's rules.

    A run that has them already is left alone unless `again`. Raises RunError for a run that is
    worked on, or whose predictions are missing, damaged, or not those it was scored by.
    """
    folder = record.folder
    if (folder / "metrics.json").is_file():
        stored.check_unchanged(record)
        if not again and record.scoring_version == SCORING_VERSION:
            return "current"
    with file_lock(folder / "claim") as mine:
        if not mine:
            pid = lock_owner(folder / "claim").get("pid")
            found = f"process {pid} is at run {record.identity[:12]}"
            raise RunError(found, fix="Try again when it is done")
        write_artifacts(record, record.done)
    return "rescored"
