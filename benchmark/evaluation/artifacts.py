"""Everything that is computed from a run's predictions and written beside them, and checksums.

Written when a run ends, and again by `facebench runs rescore`, from the predictions alone: no
network and no faces are needed. done.json lists the checksums of what training left, and
metrics.json carries one of its own; both keep it under the key `seal`. What follows from the
predictions is in no list: `facebench verify` computes it again.
"""

import hashlib
import json
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
from benchmark.evaluation.predictions import predicted_tasks, probability_columns
from benchmark.evaluation.subgroups import gender_gap_table, rate_table
from benchmark.experiment.definition import Experiment, Protocol, Subset
from benchmark.files import canonical_json, file_lock, lock_owner, sha256_of, write_json, write_text
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
SUSPECTS_SHEET: Final = "label_suspects.png"
"""Shows people: it stays in the run's folder and in MLflow, and is on no page of ours."""
MISTAKE_COLUMNS: Final = (
    "task", "file", "truth", "predicted", "probability", "probability_of_label",
)  # fmt: skip
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
    return dict(content) | {DIGEST: hashlib.sha256(canonical_json(content).encode()).hexdigest()}


def _is_unchanged(content: Mapping[str, Any]) -> bool:
    rest = {key: value for key, value in content.items() if key != DIGEST}
    return bool(content == with_digest(rest))


def scores_unchanged(record: RunRecord) -> bool:
    """Tell whether metrics.json is as it was written, costs and last digits included."""
    return _is_unchanged(json.loads((record.folder / "metrics.json").read_text(encoding="utf-8")))


def changed_files(record: RunRecord) -> list[str]:
    """Name the files that are not as they were when the run ended; weights may be removed."""
    changed = [] if _is_unchanged(record.done) else ["done.json"]
    for name, digest in dict(record.done.get(DIGESTS, {})).items():
        path = record.folder / Path(str(name)).name
        if not path.is_file():
            changed += [] if path.suffix == ".safetensors" else [f"{name} (gone)"]
        elif sha256_of(path) != digest:
            changed.append(str(name))
    return changed


def _kept_scores(
    record: RunRecord, predictions: pd.DataFrame, scores: Scores, costs: Mapping[str, float]
) -> dict[str, Any]:
    """Give the content of metrics.json."""
    test = predictions[predictions["part"] == "test"]
    tasks = predicted_tasks(predictions)
    right = {task: (test[f"{task}_pred"] == test[task]).to_numpy() for task in tasks}
    # JSON has no NaN: what does not exist is null.
    subgroups = scores.subgroups.astype(object).where(scores.subgroups.notna(), None)
    content = {
        "schema": SCHEMA, "scoring_version": SCORING_VERSION,
        "predictions_sha256": sha256_of(record.predictions_path),
        "metrics": {**scores.metrics, **costs}, "subgroups": subgroups.to_dict("list"),
        "answers": stored.packed_correctness(test, right) if len(test) else {},
    }  # fmt: skip
    return with_digest(content)


@dataclass(frozen=True)
class RebuiltRecord(RunRecord):
    """A run whose numbers are computed from its predictions, whatever it keeps; writes nothing."""

    @cached_property
    def _scored(self) -> dict[str, Any]:
        if _has_scores(self):
            stored.check_unchanged(RunRecord(self.folder))
        predictions = _read(self)
        return _kept_scores(self, predictions, score(predictions), {})


def _has_scores(record: RunRecord) -> bool:
    return (record.folder / "metrics.json").is_file()


def _read(record: RunRecord) -> pd.DataFrame:
    """Read a run's predictions; RunError unless they are about every face of its parts.

    The test part as a whole may be absent: ad-hoc runs do not read it.
    """
    path, counts = record.predictions_path, record.about["dataset"]["counts"]
    predictions = stored.read_predictions(path)
    for part in stored.PARTS:
        found = int((predictions["part"] == part).sum())
        if found != counts[part] and (found > 0 or part == "val"):
            held = f"the predictions hold {found} faces of part {part!r}"
            allowed = f"the {counts[part]} that the run was given"
            raise RunError(held, allowed=allowed, source=str(path), fix=stored.RERUN)
    return predictions


PartRows = dict[PartName, Rows]


def parts_of_run(experiment: Experiment, seed: int, faces: FaceSet) -> tuple[PartRows, PartRows]:
    """Give the rows of a run's faces by part, as rows_by_part does."""
    tasks, subset = experiment.head.tasks, experiment.subset
    return rows_by_part(faces, experiment.protocol, tasks, subset, seed)


def rows_by_part(
    faces: FaceSet, protocol: Protocol, tasks: Sequence[TaskName], subset: Subset | None, seed: int
) -> tuple[PartRows, PartRows]:
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
    faces: FaceSet | None = None, training: Rows | None = None,
) -> Scores:  # fmt: skip
    """Score a run's stored predictions and write numbers, tables and figures into its folder.

    done: as done.json has it or will. faces, training: the run's data set and the rows it was
    trained on; without them the errors in years and the sheet of possible label errors are left as
    they are. metrics.json is written last. Raises RunError for predictions that are damaged, or not
    about all the run's faces.
    """
    folder, about, predictions = record.folder, record.about, _read(record)
    scores = score(predictions)
    tasks = {
        task: {name: value for name, value in vars(found).items() if name != "reliability"}
        for task, found in scores.calibration.items()
    }
    write_json(folder / "calibration.json", {"schema": SCHEMA, "fitted_on": "val", "tasks": tasks})
    if len(scores.subgroups):
        means = None
        if faces is not None and training is not None:
            means = metrics.mean_ages_of(faces.table.iloc[training])
        write_test_tables(folder, scores, predictions, means)
    if draw:
        from benchmark.evaluation import figures

        dataset, named = about["dataset"], f"{record.experiment_name}, seed {record.seed}"
        caption = figures.caption_of(
            named, dataset["name"], drawn=dataset["drawn"], leaky=bool(about["leaky"])
        )
        epoch = int(done["selected_epoch"])
        curves = figures.curves_figure(record.history(), caption, selected_epoch=epoch)
        figures.write_png(folder / "curves.png", curves)
        if len(scores.subgroups):
            figures.write_test_figures(folder, scores, caption)
            if faces is not None:
                sheet = figures.contact_sheet(label_suspects(predictions), faces, caption)
                figures.write_png(folder / SUSPECTS_SHEET, sheet)
    kept = _kept_scores(record, predictions, scores, _costs(about, done))
    write_json(folder / "metrics.json", kept)
    return scores


def write_test_tables(
    folder: Path, scores: Scores, predictions: pd.DataFrame, mean_ages: pd.Series | None = None
) -> None:
    """Write the tables that follow from predictions of test faces.

    mean_ages: of the training faces of each age group; without any, errors in years are left out.
    """
    test = predictions[predictions["part"] == "test"].reset_index(drop=True)
    tasks = predicted_tasks(predictions)
    predicted = {task: test[f"{task}_pred"].to_numpy(dtype=np.int64) for task in tasks}
    right = {task: predicted[task] == test[task].to_numpy() for task in tasks}
    tables = {
        "subgroups": scores.subgroups, "gaps": scores.gaps, "intervals": scores.intervals,
        "subgroup_rates": rate_table(test, predicted), "gender_gaps": gender_gap_table(test, right),
        "subgroup_ece": pd.concat([subgroup_errors(test, task) for task in tasks]),
        "mistakes": mistakes(predictions), "label_suspects": label_suspects(predictions),
        **{f"report_{task}": report for task, report in scores.reports.items()},
    }  # fmt: skip
    aged = test[(test["age"] != MISSING) & (test["age_group"] != MISSING)]
    if "age_group" in tasks and len(aged):
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


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the most confident errors on test faces, at most MISTAKES_PER_TASK per task."""
    wrong = (_named(predictions, task).query("truth != predicted")
             for task in predicted_tasks(predictions))  # fmt: skip
    tables = [_first(faces, "probability", MISTAKES_PER_TASK) for faces in wrong]
    return pd.concat(tables, ignore_index=True)[list(MISTAKE_COLUMNS)]


def label_suspects(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the test faces whose label is contradicted most confidently, per task.

    The label may be right and the network wrong; nothing is ever relabelled. Of the five folds of
    an experiment (`facebench run NAME --folds 0-4`) the lists cover every face of the data set,
    each by a network that was not trained on it.

    Widest margin first, at most SUSPECTS_PER_TASK per task; margin is the probability of the
    contradicting class less that of the label, in [0, 1].

    A face is listed when another class than its label is predicted with at least the mean
    probability that faces labelled as that class have of it: sure by the network's own measure,
    whatever its calibration. Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning", JAIR
    70 (2021), section 3.1.
    """
    tables = []
    for task in predicted_tasks(predictions):
        faces = _named(predictions, task)
        # A class that nobody is labelled with has no usual probability, and contradicts nothing.
        usual = faces.groupby("truth")["probability_of_label"].mean()
        sure = faces["probability"] >= faces["predicted"].map(usual).astype(float)
        found = faces[sure & (faces["truth"] != faces["predicted"])]
        found = found.assign(margin=found["probability"] - found["probability_of_label"])
        found = _first(found, "margin", SUSPECTS_PER_TASK)
        tables.append(found.assign(rank=np.arange(1, len(found) + 1)))
    names = {"truth": "label", "predicted": "contradicted_by"}
    joined = with_empty_cells(pd.concat(tables, ignore_index=True)).rename(columns=names)
    return joined[list(SUSPECT_COLUMNS)]


def _named(predictions: pd.DataFrame, task: TaskName) -> pd.DataFrame:
    """Give each labelled test face's class names and probabilities of prediction and label."""
    test = stored.labelled(predictions[predictions["part"] == "test"], task)
    names, rows = np.array(CLASS_NAMES[task]), np.arange(len(test))
    probabilities = test[probability_columns(task)].to_numpy()
    truth, predicted = test[task].to_numpy(), test[f"{task}_pred"].to_numpy()
    return test.assign(
        task=task, truth=names[truth], predicted=names[predicted],
        probability=probabilities[rows, predicted],
        probability_of_label=probabilities[rows, truth],
    )  # fmt: skip


def _first(faces: pd.DataFrame, by: str, n_faces: int) -> pd.DataFrame:
    return faces.sort_values([by, "file"], ascending=[False, True]).head(n_faces)


def rescore(record: RunRecord, *, again: bool = False) -> Literal["rescored", "current"]:
    """Bring a finished run's numbers, tables and figures to this version's rules.

    A run that has them already is left alone unless `again`. Raises RunError for a run that is not
    done or is worked on, or whose predictions are missing, damaged, or not those it was scored by.
    """
    name, folder = record.identity[:12], record.folder
    if record.state != "done":
        found = f"run {name} of {record.experiment_name} is not done"
        fix, source = record.how_to_finish, str(folder)
        raise RunError(found, allowed="a finished run", source=source, fix=fix)
    if _has_scores(record):
        stored.check_unchanged(record)
        if not again and record.scoring_version == SCORING_VERSION:
            return "current"
    with file_lock(folder / "claim") as mine:
        if not mine:
            pid = lock_owner(folder / "claim").get("pid")
            raise RunError(f"process {pid} is at run {name}", fix="Try again when it is done")
        write_artifacts(record, record.done)
    return "rescored"
