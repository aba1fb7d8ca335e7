"""predictions.csv: written, read and checked; most confident errors; limitations.

The test faces a network is most sure of and wrong about: mistakes, or wrong labels.

What the numbers are not: said under every table, in every run's note and on every page.

The predictions table: what a run says of every validation and test face, with all the truths.

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
from typing import Any, Final, NoReturn, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.data.splits import PartName, Rows
from benchmark.data.table import with_empty_cells
from benchmark.errors import RunError
from benchmark.files import replacing, sha256_of
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, CLASS_NAMES, MISSING, TASKS, TaskName, n_classes

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

LIMITS_DRAWN: Final = (
    "DRAWN FACES: these are emblems drawn by a program. The numbers show that the benchmark "
    "works and say nothing about faces of people.",
)


SCHEMA: Final = 1
PARTS: Final[tuple[PartName, ...]] = ("val", "test")
FACE_COLUMNS: Final = ("schema", "file", "cluster", "part", "age", *TASKS)
SUM_TOLERANCE: Final = 1e-4
"""How far a face's probabilities may be from 1: five fp32 softmax values are within 1e-6."""
PRED_TOLERANCE: Final = 1e-6
"""How far the predicted class may be below the most probable one: a tie, rounded."""

_REMAKE: Final = "Remove the run's folder and run the experiment again"


def probability_columns(task: TaskName) -> list[str]:
    """Name the columns of the class probabilities of `task`, in the order of the classes."""
    return [f"{task}_p{label}" for label in range(n_classes(task))]


def predicted_tasks(table: pd.DataFrame) -> tuple[TaskName, ...]:
    """Name the tasks that a predictions table holds predictions of."""
    return tuple(task for task in TASKS if f"{task}_pred" in table.columns)


def predictions_table(
    faces: pd.DataFrame, part: str, probabilities: Mapping[TaskName, npt.NDArray[np.floating[Any]]]
) -> pd.DataFrame:
    """Put truths and predictions of one part side by side, checked.

    faces: the part's rows of the face table, with file, cluster, age, age_group, gender, race.
    probabilities: per predicted task (n_faces, n_classes), each row summing to 1.
    """
    table = faces[["file", "cluster", "age", *TASKS]].reset_index(drop=True)
    table.insert(0, "schema", SCHEMA)
    table.insert(3, "part", part)
    for task in TASKS:
        if task not in probabilities:
            continue
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
        raise RunError("there are no predictions", source=str(path), fix=_REMAKE) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"the predictions cannot be read: {reason}", source=str(path), fix=_REMAKE
        ) from error
    return _checked(table, source=str(path))


def predictions_digest(path: Path) -> str:
    """Give the sha256 that metrics.json is keyed by."""
    return sha256_of(path)


def _refuse(found: str, allowed: str, source: str) -> NoReturn:
    raise RunError(found, allowed=allowed, source=source, fix=_REMAKE)


def _checked(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Check everything; give the table with whole numbers as int64 and probabilities as float64."""
    _check_columns(table, source)
    untold = ["age", *(task for task in TASKS if task not in predicted_tasks(table))]
    table = table.assign(
        **{name: table[name].where(table[name].notna(), MISSING) for name in untold}
    )
    _check_complete(table, source)
    labels = {"age": (1, AGE_GROUP_UPPER_YEARS[-1]), "cluster": (0, None)}
    labels |= {task: (0, n_classes(task) - 1) for task in TASKS}
    labels |= {f"{task}_pred": (0, n_classes(task) - 1) for task in predicted_tasks(table)}
    whole = {
        name: _whole(table, name, *span, source, may_be_missing=name in untold)
        for name, span in labels.items()
    }
    table = table.assign(**whole)
    _check_rows(table, source)
    for task in predicted_tasks(table):
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
    missing = [name for name in expected if name not in table.columns]
    unknown = [str(name) for name in table.columns if name not in expected]
    if missing or unknown:
        wrong = [f"miss the column {name!r}" for name in missing]
        wrong += [f"have the unknown column {name!r}" for name in unknown]
        _refuse(f"the predictions {' and '.join(wrong)}", ", ".join(expected), source)
    if not tasks:
        _refuse(
            "the predictions hold no predicted task",
            "at least one of " + ", ".join(f"{task}_pred" for task in TASKS),
            source,
        )
    if table.empty:
        _refuse("the predictions hold no face", "one row or more", source)


def _check_complete(table: pd.DataFrame, source: str) -> None:
    holes = table.isna()
    if not holes.to_numpy().any():
        return
    column = str(holes.any().idxmax())
    file = table["file"][holes[column]].iloc[0]
    count = int(holes[column].sum())
    where = f"of face {file!r}" if isinstance(file, str) else "of a face"
    _refuse(f"{column} {where} is missing or NaN ({count} such rows)", "a value per face", source)


def _whole(
    table: pd.DataFrame,
    name: str,
    low: int,
    high: int | None,
    source: str,
    *,
    may_be_missing: bool,
) -> npt.NDArray[np.int64]:
    """Give a column as whole numbers within [low, high], or name the first face that has none."""
    allowed = f"whole numbers from {low}" + ("" if high is None else f" to {high}")
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(values) | (values != np.floor(values)) | (values < low)
    if high is not None:
        wrong |= values > high
    if may_be_missing:
        wrong &= values != MISSING
    if wrong.any():
        row = int(wrong.argmax())
        found, file = table[name].iloc[row], table["file"].iloc[row]
        _refuse(f"{name} of face {file!r} is {found}", allowed, source)
    return values.astype(np.int64)


def _check_rows(table: pd.DataFrame, source: str) -> None:
    unknown = sorted({str(part) for part in table["part"]} - set(PARTS))
    if unknown:
        _refuse(f"the predictions hold the part {unknown[0]!r}", " or ".join(PARTS), source)
    twice = table.duplicated(["part", "file"])
    if twice.any():
        face = table[twice].iloc[0]
        _refuse(
            f"face {face['file']!r} is there twice in part {face['part']!r} "
            f"({int(twice.sum())} such rows)",
            "each face once per part",
            source,
        )


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
    chosen = cast("npt.NDArray[np.float64]", np.take_along_axis(values, predicted[:, None], axis=1))
    wrong = chosen[:, 0] < values.max(axis=1) - PRED_TOLERANCE
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
                f"the {counts[part]:,} that the run was to be judged on",
                source,
            )


def check_same_faces(
    table: pd.DataFrame, faces: pd.DataFrame, parts: Mapping[PartName, Rows], source: str
) -> None:
    """Raise RunError unless the predictions are about these very faces, parts and labels.

    faces: the data set's table. parts: rows of it by `val` and `test`. Tells predictions of
    another split or another version of the data set.
    """
    columns = ["file", "cluster", "age", *TASKS]
    for part in PARTS:
        predicted = table[table["part"] == part][columns].sort_values("file", ignore_index=True)
        if predicted.empty:
            continue
        known = faces.iloc[parts[part]][columns].sort_values("file", ignore_index=True)
        strangers = sorted(set(predicted["file"]) ^ set(known["file"]))
        if strangers:
            _refuse(
                f"the predictions are not about the {part} faces of this data set: "
                f"{len(strangers)} stand on one side only, such as {strangers[0]!r}",
                "the same split of the same faces",
                source,
            )
        for column in columns[1:]:
            unequal = predicted[column].to_numpy() != known[column].to_numpy()
            if unequal.any():
                row = int(unequal.argmax())
                _refuse(
                    f"{column} of face {predicted['file'].iloc[row]!r} is "
                    f"{predicted[column].iloc[row]} ({int(unequal.sum())} such faces)",
                    f"{known[column].iloc[row]}, as the data set has it",
                    source,
                )


MISTAKES_PER_TASK: Final = 50


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """List the most confident mistakes per task, surest first.

    Returns task, file, truth, predicted (class names), probability of the predicted class and of
    the label, in [0, 1]. Only test faces; at most MISTAKES_PER_TASK per task.
    """
    test = predictions[predictions["part"] == "test"]
    tables = []
    for task in predicted_tasks(predictions):
        wrong = test[test[f"{task}_pred"] != test[task]]
        names = np.array(CLASS_NAMES[task])
        probabilities = wrong[probability_columns(task)].to_numpy()
        rows = np.arange(len(wrong))
        truth, predicted = wrong[task].to_numpy(), wrong[f"{task}_pred"].to_numpy()
        table = pd.DataFrame(
            {
                "task": task,
                "file": wrong["file"].to_numpy(),
                "truth": names[truth],
                "predicted": names[predicted],
                "probability": probabilities[rows, predicted],
                "probability_of_label": probabilities[rows, truth],
            }
        )
        surest = table.sort_values(["probability", "file"], ascending=[False, True])
        tables.append(surest.head(MISTAKES_PER_TASK))
    return pd.concat(tables, ignore_index=True)
