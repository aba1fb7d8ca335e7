"""Correct and wrong test predictions of runs, as comparisons over runs need them.

Right or wrong, face by face, kept within metrics.json: what a row over several seeds needs.

A table over hundreds of runs then reads one small file of each and no predictions.

What runs answered about their test faces, read back for whatever is computed over several runs.

Leaderboard rows average seeds with it; comparisons put two arms side by side.
"""

import base64
import functools
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.errors import RunError
from benchmark.evaluation.predictions import predictions_digest
from benchmark.record import RunRecord
from benchmark.tasks import TASKS, TaskName

Labels = npt.NDArray[np.integer[Any]]

FACE_COLUMNS: Final = ("file", "cluster", *TASKS)
_RERUN: Final = "Remove the run's folder and run the experiment again"


@dataclass(frozen=True)
class Answers:
    """The answers of one or several runs about the same test faces."""

    faces: pd.DataFrame
    """Columns file, cluster, age_group, gender, race (the truths), ordered by file name."""
    predicted: Mapping[TaskName, Labels]
    """Per task (n_runs, n_faces) predicted classes."""

    def right(self, task: TaskName) -> npt.NDArray[np.bool_]:
        """Tell which answers are right; (n_runs, n_faces)."""
        return np.asarray(self.predicted[task] == self.faces[task].to_numpy())

    def of_run(self, index: int) -> "Answers":
        """Keep the answers of one run, by its place among them."""
        one = {task: values[[index]] for task, values in self.predicted.items()}
        return Answers(self.faces, one)


def read_answers(records: Sequence[RunRecord], tasks: Sequence[TaskName]) -> Answers:
    """Read the answers of one or more runs; raise RunError where they are not about the same faces.

    A file that is missing, damaged, changed after it was scored, or without test faces is refused
    too: see tested_faces.
    """
    tables = [tested_faces(record, tasks) for record in records]
    faces = tables[0][list(FACE_COLUMNS)]
    for record, table in zip(records[1:], tables[1:], strict=True):
        why = difference_in_faces(faces, table)
        if why is not None:
            raise RunError(
                f"runs {records[0].identity[:12]} and {record.identity[:12]} were tested on "
                f"different faces: {why}",
                allowed="the same test faces",
                fix="Remove the folders of these runs and run the experiment again",
            )
    predicted = {
        task: np.stack([table[f"{task}_pred"].to_numpy(dtype=np.int64) for table in tables])
        for task in tasks
    }
    return Answers(faces, predicted)


def difference_in_faces(one: pd.DataFrame, other: pd.DataFrame) -> str | None:
    """Say how two tables of faces differ in files, clusters or truths; None where they agree.

    Both ordered by file name, as tested_faces gives them.
    """
    if not one["file"].equals(other["file"]):
        missing = sorted(set(one["file"]) ^ set(other["file"]))
        return (
            f"{len(one)} and {len(other)} of them, {len(missing)} only on one side, "
            f"such as {missing[0]!r}"
        )
    for column in FACE_COLUMNS[1:]:
        unequal = one[column].to_numpy() != other[column].to_numpy()
        if unequal.any():
            file = one["file"].iloc[int(unequal.argmax())]
            return f"{column} of face {file!r} is not the same ({int(unequal.sum())} such faces)"
    return None


def tested_faces(record: RunRecord, tasks: Sequence[TaskName]) -> pd.DataFrame:
    """Read a run's test faces with truths and predicted classes of `tasks`, ordered by file name.

    Without all the checks of read_predictions: the digest in metrics.json says that this very file
    was checked when it was scored.
    """
    path, name = record.predictions_path, record.identity[:12]
    columns = [*FACE_COLUMNS, "part", *(f"{task}_pred" for task in tasks)]
    try:
        scored, stored = record.predictions_sha256, predictions_digest(path)
        table = pd.read_csv(path, usecols=columns, dtype={"file": str, "part": str})
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"the predictions of run {name} cannot be read: {error}", source=str(path)
        ) from error
    if scored != stored:
        raise RunError(
            f"the predictions of run {name} changed after they were scored",
            allowed=f"sha256 {scored[:12]}…",
            source=str(path),
            fix=_RERUN,
        )
    test = table[table["part"] == "test"].drop(columns="part")
    _check_test_faces(test, name, path)
    return test.sort_values("file", ignore_index=True)


def _check_test_faces(test: pd.DataFrame, name: str, path: Path) -> None:
    """Refuse a run whose test was not read, or that answered twice about a face."""
    if test.empty:
        raise RunError(
            f"run {name} has no answers on test faces: its test was not read",
            source=str(path),
            fix="Ad-hoc runs read it with --read-test",
        )
    twice = test["file"].duplicated()
    if twice.any():
        raise RunError(
            f"the predictions of run {name} hold face {test['file'][twice].iloc[0]!r} twice",
            allowed="each face once per part",
            source=str(path),
            fix=_RERUN,
        )


FACES: Final = ("files_sha256", "cluster", *TASKS)
"""What two runs share when they were tested on the same faces."""
NUMBERS: Final = "<i4"
"""Little-endian, so that folders travel between machines."""


@dataclass(frozen=True)
class RightAnswers:
    """Which answers of one or several runs about the same test faces are right."""

    faces: pd.DataFrame
    """Columns cluster, age_group, gender, race, ordered by file name."""
    right: Mapping[TaskName, npt.NDArray[np.bool_]]
    """Per task (n_runs, n_faces)."""
    faces_key: str = ""
    """Equal for runs that were tested on the same faces, with the same clusters and truths."""


def kept(test: pd.DataFrame, right: Mapping[TaskName, npt.NDArray[np.bool_]]) -> dict[str, Any]:
    """Pack the answers about n test faces, as plain values for JSON; about 9 KB for 2,315 faces.

    test: file, cluster and true labels. right: (n,) per task, in the same order.
    """
    order = np.argsort(test["file"].to_numpy(dtype=object), kind="stable")
    faces = test.iloc[order]
    return {
        "files_sha256": hashlib.sha256("\n".join(faces["file"]).encode()).hexdigest(),
        **{name: _text(faces[name].to_numpy()) for name in FACES[1:]},
        "right": {
            task: base64.b64encode(np.packbits(values[order]).tobytes()).decode()
            for task, values in right.items()
        },
    }


def right_answers(records: Sequence[RunRecord], tasks: Sequence[TaskName]) -> RightAnswers:
    """Tell which answers of one or more runs about the same test faces are right.

    Runs that were scored before answers were kept are read from their predictions. Raises RunError
    for runs that were tested on other faces, and for predictions that cannot be read.
    """
    stored = [record.kept_answers for record in records]
    if not all(stored):
        answers = read_answers(records, tasks)
        right = {task: answers.right(task) for task in tasks}
        return RightAnswers(answers.faces, right, _faces_key(kept(answers.faces, {})))
    first = stored[0]
    for record, one in zip(records, stored, strict=True):
        if any(one[name] != first[name] for name in FACES):
            raise RunError(
                f"runs {records[0].identity[:12]} and {record.identity[:12]} were tested on "
                "different faces",
                allowed="the same test faces",
                fix="Remove the folders of these runs and run the experiment again",
            )
    faces = _faces(tuple(str(first[name]) for name in FACES[1:]))
    right = {
        task: np.array([_bits(one["right"][task], len(faces)) for one in stored]) for task in tasks
    }
    return RightAnswers(faces, right, _faces_key(first))


def _faces_key(stored: Mapping[str, Any]) -> str:
    return hashlib.sha256("\n".join(str(stored[name]) for name in FACES).encode()).hexdigest()


@functools.lru_cache(maxsize=16)
def _faces(texts: tuple[str, ...]) -> pd.DataFrame:
    """Unpack faces, once for all runs that were tested on them; nobody writes into the table."""
    columns = zip(FACES[1:], texts, strict=True)
    return pd.DataFrame({name: _numbers(text) for name, text in columns})


def _text(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(values.astype(NUMBERS).tobytes(), 9)).decode()


def _numbers(text: str) -> npt.NDArray[np.int64]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=NUMBERS).astype(np.int64)


def _bits(text: str, n_faces: int) -> npt.NDArray[np.bool_]:
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(packed, count=n_faces).astype(np.bool_)
