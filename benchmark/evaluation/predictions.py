"""The predictions table: what a run predicts of every validation and test face, and all labels.

Every number on a leaderboard is computed from this file alone, by benchmark.evaluation.metrics.

    schema      1, in each row
    file        name of the face in its source; once per part
    cluster     connected component of faces that are the same picture; 0 or more
    part        val or test
    age         years, 1 to 116
    age_group, gender, race     the true labels, also of the tasks that were not predicted;
                                empty (in memory MISSING) where the data set does not tell an age
                                or a task that was not predicted
    <task>_pred                 the predicted class, the most probable one
    <task>_p0, <task>_p1, …     fp32 softmax, uncalibrated; 9 significant digits give fp32 back
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.data.dataset import with_empty_cells
from benchmark.data.splits import PartName, Rows
from benchmark.errors import RunError
from benchmark.files import replacing, sha256_of
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, MISSING, TASKS, TaskName, n_classes

LIMITS: Final = (
    "Labels are perceived age, gender and race, estimated by a model and checked by one "
    "annotator: they are noisy, and they are not how people describe themselves.",
    "UTKFace names no persons, so the same person may stand in training and test; no check of "
    "pictures catches that. Weights trained for face recognition may have seen these people.",
    "Ranked by validation, never by test. Test was read once per run, after selection. A score's "
    "interval says how far another draw of test faces could move it, and not another training; "
    "that of a difference between run groups of several seeds says both. Overlapping intervals "
    "alone do not say that two rows are equal.",
)
"""What the numbers are not: under every table, in every run's note and on every page."""
LIMITS_DRAWN: Final = (
    "DRAWN FACES: these are emblems drawn by a program. The numbers show that the benchmark "
    "works and say nothing about faces of people.",
)
LIMITS_LABELLED: Final = (
    "Labels are those of the data set's own table: perceived age, gender and race where people "
    "annotated pictures, and noisy; they are not how people describe themselves.",
    "No person is identified, so the same person may stand in training and test; no check of "
    "pictures catches that. Weights trained for face recognition may have seen these people.",
)
"""Instead of the first two of LIMITS, where a table labels the faces and not UTKFace's names."""


def limits_of(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Give what the numbers of a run are not; dataset: the part of experiment.json of that name."""
    if dataset.get("labels_digest") is None:
        return LIMITS
    return LIMITS_LABELLED + LIMITS[len(LIMITS_LABELLED) :]


SCHEMA: Final = 1
PARTS: Final[tuple[PartName, ...]] = ("val", "test")
FACE_COLUMNS: Final = ("schema", "file", "cluster", "part", "age", *TASKS)
SUM_TOLERANCE: Final = 1e-4
"""How far a face's probabilities may be from 1: five fp32 softmax values are within 1e-6."""
PRED_TOLERANCE: Final = 1e-6
"""How far the predicted class may be below the most probable one: a tie, rounded."""

_RERUN: Final = "Remove the run's folder and run the experiment again"


def probability_columns(task: TaskName) -> list[str]:
    """Name the columns of the class probabilities of `task`, in the order of the classes."""
    return [f"{task}_p{label}" for label in range(n_classes(task))]


def predicted_tasks(table: pd.DataFrame) -> tuple[TaskName, ...]:
    """Name the tasks that a predictions table holds predictions of."""
    return tuple(task for task in TASKS if f"{task}_pred" in table.columns)


def predictions_table(
    faces: pd.DataFrame, part: str, probabilities: Mapping[TaskName, npt.NDArray[np.floating[Any]]]
) -> pd.DataFrame:
    """Put labels and predictions of one part side by side, checked.

    faces: the part's rows of the face table, with file, cluster, age, age_group, gender, race.
    probabilities: per predicted task (n_faces, n_classes), each row summing to 1.
    """
    table = faces[["file", "cluster", "age", *TASKS]].reset_index(drop=True)
    table.insert(0, "schema", SCHEMA)
    table.insert(3, "part", part)
    for task in (task for task in TASKS if task in probabilities):
        values = np.asarray(probabilities[task], dtype=np.float64)
        if values.shape != (len(table), n_classes(task)):
            raise RunError(
                f"probabilities of {task} have the shape {values.shape}",
                allowed=f"({len(table)}, {n_classes(task)}): a row per face, a column per class",
            )
        table[f"{task}_pred"] = values.argmax(axis=1)
        table[probability_columns(task)] = values
    return _checked(table, source=f"predictions of part {part!r}")


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write a checked predictions table atomically; an invalid one raises and leaves no file."""
    _checked(table, source=str(path))
    with replacing(path) as temporary:
        cells = with_empty_cells(table)
        cells.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read and check a predictions table; raise RunError that names the first thing wrong."""
    try:
        table = pd.read_csv(path, dtype={"file": str, "part": str})
    except FileNotFoundError as error:
        raise RunError("there are no predictions", source=str(path), fix=_RERUN) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        found = f"the predictions cannot be read: {reason}"
        raise RunError(found, source=str(path), fix=_RERUN) from error
    return _checked(table, source=str(path))


def predictions_digest(path: Path) -> str:
    """Give the sha256 that metrics.json is keyed by."""
    return sha256_of(path)


def check_unchanged(path: Path, scored_sha256: str, run: str) -> None:
    """Raise RunError where the predictions changed after they were scored.

    New numbers would make them look sound.
    """
    try:
        unchanged = predictions_digest(path) == scored_sha256
    except OSError as error:
        reason = f"the predictions of run {run} cannot be read: {error.strerror}"
        raise RunError(reason, source=str(path), fix=_RERUN) from error
    if not unchanged:
        found = f"the predictions of run {run} changed after they were scored"
        _refuse(found, f"sha256 {scored_sha256[:12]}…", str(path))


def _refuse(found: str, allowed: str, source: str) -> NoReturn:
    raise RunError(found, allowed=allowed, source=source, fix=_RERUN)


def _checked(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Check everything; give the table with whole numbers as int64 and probabilities as float64."""
    _check_columns(table, source)
    tasks = predicted_tasks(table)
    optional = ["age", *TASKS]
    table = table.assign(**{name: table[name].fillna(MISSING) for name in optional})
    unlabelled = (table[list(tasks)] == MISSING).all(axis=1)
    if unlabelled.any():
        _refuse(
            f"face {table['file'][unlabelled].iloc[0]!r} has no label of "
            f"{', '.join(tasks)} ({int(unlabelled.sum())} such rows)",
            "a label of at least one predicted task",
            source,
        )
    holes = table.isna()
    if holes.to_numpy().any():
        column = str(holes.any().idxmax())
        file = table["file"][holes[column]].iloc[0]
        whose = f"of face {file!r}" if isinstance(file, str) else "of a face"
        count = int(holes[column].sum())
        found = f"{column} {whose} is missing or NaN ({count} such rows)"
        _refuse(found, "a value per face", source)
    spans: dict[str, tuple[int, int | None]] = {
        "age": (1, AGE_GROUP_UPPER_YEARS[-1]),
        "cluster": (0, None),
    }
    spans |= {task: (0, n_classes(task) - 1) for task in TASKS}
    spans |= {f"{task}_pred": (0, n_classes(task) - 1) for task in tasks}
    for name, (low, high) in spans.items():
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
        wrong = ~np.isfinite(values) | (values != np.floor(values)) | (values < low)
        wrong |= values > (np.inf if high is None else high)
        if name in optional:
            wrong &= values != MISSING
        if wrong.any():
            face = table.iloc[int(wrong.argmax())]
            allowed = f"whole numbers from {low}" + ("" if high is None else f" to {high}")
            _refuse(f"{name} of face {face['file']!r} is {face[name]}", allowed, source)
        table[name] = values.astype(np.int64)
    unknown = sorted({str(part) for part in table["part"]} - set(PARTS))
    if unknown:
        _refuse(f"the predictions hold the part {unknown[0]!r}", " or ".join(PARTS), source)
    twice = table.duplicated(["part", "file"])
    if twice.any():
        face = table[twice].iloc[0]
        found = f"face {face['file']!r} is there twice in part {face['part']!r}"
        _refuse(f"{found} ({int(twice.sum())} such rows)", "each face once per part", source)
    for task in tasks:
        table = table.astype(dict.fromkeys(probability_columns(task), np.float64))
        _check_probabilities(table, task, source)
    return table


def _check_columns(table: pd.DataFrame, source: str) -> None:
    if "schema" not in table.columns:
        _refuse("the predictions have no column 'schema'", ", ".join(FACE_COLUMNS) + ", …", source)
    schemas = sorted({str(value) for value in table["schema"].unique()})
    if schemas and schemas != [str(SCHEMA)]:
        _refuse(f"the predictions have schema {', '.join(schemas)}", f"schema {SCHEMA}", source)
    tasks = predicted_tasks(table)
    expected = list(FACE_COLUMNS)
    for task in tasks:
        expected += [f"{task}_pred", *probability_columns(task)]
    wrong = [f"miss the column {name!r}" for name in expected if name not in table.columns]
    wrong += [f"have the unknown column {name!r}" for name in table if name not in expected]
    if wrong:
        _refuse(f"the predictions {' and '.join(wrong)}", ", ".join(expected), source)
    if not tasks:
        allowed = "at least one of " + ", ".join(f"{task}_pred" for task in TASKS)
        _refuse("the predictions hold no predicted task", allowed, source)
    if table.empty:
        _refuse("the predictions hold no face", "one row or more", source)


def _check_probabilities(table: pd.DataFrame, task: TaskName, source: str) -> None:
    values = table[probability_columns(task)].to_numpy()
    sums = values.sum(axis=1)
    wrong = (values < 0).any(axis=1) | ~(np.abs(sums - 1) <= SUM_TOLERANCE)
    if wrong.any():
        row = int(wrong.argmax())
        _refuse(
            f"probabilities of {task} for face {table['file'].iloc[row]!r} sum to {sums[row]:.6g} "
            f"with the smallest at {values[row].min():.6g} ({int(wrong.sum())} such rows)",
            f"0 or more, summing to 1 within {SUM_TOLERANCE:g}",
            source,
        )
    predicted = table[f"{task}_pred"].to_numpy()
    wrong = values[np.arange(len(table)), predicted] < values.max(axis=1) - PRED_TOLERANCE
    if wrong.any():
        row = int(wrong.argmax())
        _refuse(
            f"{task}_pred of face {table['file'].iloc[row]!r} is {predicted[row]}, but class "
            f"{int(values[row].argmax())} is more probable ({int(wrong.sum())} such rows)",
            "the most probable class",
            source,
        )


def check_faces(table: pd.DataFrame, counts: Mapping[str, int], source: str) -> None:
    """Raise RunError unless every face of the run's parts was predicted.

    counts: faces per part, as `experiment.json` has them. The test part as a whole may be absent:
    ad-hoc runs do not read it.
    """
    for part in PARTS:
        found = int((table["part"] == part).sum())
        if found != counts[part] and not (part == "test" and found == 0):
            _refuse(
                f"the predictions hold {found:,} faces of part {part!r}",
                f"the {counts[part]:,} that the run was to be evaluated on",
                source,
            )


def check_same_faces(
    table: pd.DataFrame, faces: pd.DataFrame, parts: Mapping[PartName, Rows], source: str
) -> None:
    """Raise RunError unless the predictions are about these very faces, parts and labels.

    faces: the data set's table. parts: rows of it by `val` and `test`. Finds predictions of
    another split or another version of the data set.
    """
    for part in PARTS:
        predicted = table[table["part"] == part]
        if predicted.empty:
            continue
        both = predicted.merge(
            faces.iloc[parts[part]], on="file", how="outer", indicator=True, suffixes=("", "_known")
        )
        strangers = both["file"][both["_merge"] != "both"]
        if len(strangers):
            _refuse(
                f"the predictions are not about the {part} faces of this data set: "
                f"{len(strangers)} stand on one side only, such as {strangers.iloc[0]!r}",
                "the same split of the same faces",
                source,
            )
        for column in ("cluster", "age", *TASKS):
            unequal = both[both[column] != both[f"{column}_known"]]
            if len(unequal):
                face = unequal.iloc[0]
                _refuse(
                    f"{column} of face {face['file']!r} is {face[column]} "
                    f"({len(unequal)} such faces)",
                    f"{face[f'{column}_known']}, as the data set has it",
                    source,
                )
