"""Which test faces runs predicted right and wrong, as comparisons of several runs need it.

metrics.json keeps it, face by face, so that a table of hundreds of runs reads one small file of
each and no predictions; runs that were scored before that are read from their predictions.
"""

import base64
import functools
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.errors import RunError
from benchmark.evaluation.intervals import Floats, Labels
from benchmark.evaluation.predictions import check_unchanged, read_predictions
from benchmark.record import RunRecord
from benchmark.tasks import MISSING, TASKS, TaskName

FACE_COLUMNS: Final = ("file", "cluster", *TASKS)
KEPT_COLUMNS: Final = ("files_sha256", "cluster", *TASKS)
"""What two runs share when they were tested on the same faces."""
LABELLED: Final = "labelled_keys"
NUMBERS: Final = "<i4"
"""Little-endian, so that folders travel between machines."""


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of one or several runs for the same test faces."""

    faces: pd.DataFrame
    """Columns file, cluster, age_group, gender, race (the true labels), ordered by file name."""
    predicted: Mapping[TaskName, Labels]
    """Per task (n_runs, n_faces) predicted classes."""

    def labelled(self, task: TaskName) -> "RunPredictions":
        """Keep a task, and the faces that have its label."""
        known = (self.faces[task] != MISSING).to_numpy()
        if known.all():
            return self
        faces = self.faces[known].reset_index(drop=True)
        return RunPredictions(faces, {task: self.predicted[task][:, known]})

    def right(self, task: TaskName) -> npt.NDArray[np.bool_]:
        """Tell which predictions are right; (n_runs, n_faces)."""
        return np.asarray(self.predicted[task] == self.faces[task].to_numpy())

    def of_run(self, index: int) -> "RunPredictions":
        """Keep the predictions of one run, by its place among them."""
        one = {task: values[[index]] for task, values in self.predicted.items()}
        return RunPredictions(self.faces, one)


@dataclass(frozen=True)
class Correctness:
    """Which test faces one or several runs predicted right."""

    faces: pd.DataFrame
    """Columns cluster, age_group, gender, race, ordered by file name."""
    right: Mapping[TaskName, npt.NDArray[np.bool_]]
    """Per task (n_runs, n_faces)."""
    faces_key: str = ""
    """Equal for runs that were tested on the same faces, with the same clusters and labels."""
    labelled_keys: Mapping[TaskName, str] = field(default_factory=dict)
    """The same of the faces that have a task's label, where not all have it."""

    def key(self, task: TaskName) -> str:
        """Give what two runs share whose faces with a label of the task are the same."""
        return self.labelled_keys.get(task, self.faces_key)

    def known(self, task: TaskName) -> npt.NDArray[np.bool_]:
        """Tell which faces have the task's label, (n_faces,)."""
        return np.asarray(self.faces[task] != MISSING)

    def values(self, task: TaskName) -> Floats:
        """Give values of single faces whose mean is a run's accuracy; (n_runs, n_faces).

        1 where right, 0 where wrong. Where some faces have no label, the accuracy plus the face's
        influence on it (see comparison.statistics.macro_f1_values), which of those is none.
        """
        right, known = self.right[task].astype(np.float64), self.known(task)
        if known.all():
            return right
        rates = right[:, known].mean(axis=1, keepdims=True)
        return np.asarray(rates + known * (right - rates) * (len(known) / known.sum()))


def read_run_predictions(records: Sequence[RunRecord], tasks: Sequence[TaskName]) -> RunPredictions:
    """Read the predictions of one or more runs; raise RunError where their test faces differ.

    A file that is missing, damaged, changed after it was scored, or without test faces is refused
    too.
    """
    tables = [_tested_faces(record) for record in records]
    faces = tables[0][list(FACE_COLUMNS)]
    for record, table in zip(records[1:], tables[1:], strict=True):
        why = difference_in_faces(faces, table)
        if why is not None:
            raise _other_faces(records[0], record, f": {why}")
    predicted = {
        task: np.stack([table[f"{task}_pred"].to_numpy(dtype=np.int64) for table in tables])
        for task in tasks
    }
    return RunPredictions(faces, predicted)


def _other_faces(one: RunRecord, other: RunRecord, why: str = "") -> RunError:
    return RunError(
        f"runs {one.identity[:12]} and {other.identity[:12]} were tested on different faces{why}",
        allowed="the same test faces",
        fix="Remove the folders of these runs and run the experiment again",
    )


def difference_in_faces(one: pd.DataFrame, other: pd.DataFrame) -> str | None:
    """Say how two tables of faces differ in files, clusters or labels; None where they agree.

    Both ordered by file name, as in RunPredictions.
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


def _tested_faces(record: RunRecord) -> pd.DataFrame:
    """Read a run's predictions of test faces, ordered by file name."""
    path, name = record.predictions_path, record.identity[:12]
    check_unchanged(path, record.predictions_sha256, name)
    test = read_predictions(path).query("part == 'test'")
    if test.empty:
        raise RunError(
            f"run {name} has no predictions of test faces",
            source=str(path),
            fix="Ad-hoc runs are evaluated on the test set with --read-test",
        )
    return test.sort_values("file", ignore_index=True)


def packed_correctness(
    test: pd.DataFrame, right: Mapping[TaskName, npt.NDArray[np.bool_]]
) -> dict[str, Any]:
    """Pack which of n test faces are right, as values for JSON; about 9 KB for 2,315 faces.

    test: file, cluster and true labels. right: (n,) per task, in the same order.
    """
    order = np.argsort(test["file"].to_numpy(dtype=object), kind="stable")
    faces = test.iloc[order]

    def text(values: npt.NDArray[Any]) -> str:
        return base64.b64encode(zlib.compress(values.astype(NUMBERS).tobytes(), 9)).decode()

    def described(chosen: pd.DataFrame) -> dict[str, Any]:
        digest = hashlib.sha256("\n".join(chosen["file"]).encode()).hexdigest()
        columns = {name: text(chosen[name].to_numpy()) for name in KEPT_COLUMNS[1:]}
        return {"files_sha256": digest, **columns}

    partly = [task for task in TASKS if task in right and (faces[task] == MISSING).any()]
    keys = {task: _faces_key(described(faces[faces[task] != MISSING])) for task in partly}
    return {
        **described(faces),
        "right": {
            task: base64.b64encode(np.packbits(values[order]).tobytes()).decode()
            for task, values in right.items()
        },
        **({LABELLED: keys} if keys else {}),
    }


def correctness_of(records: Sequence[RunRecord], tasks: Sequence[TaskName]) -> Correctness:
    """Tell which of the same test faces one or more runs predicted right.

    Raises RunError for runs that were tested on other faces, and for predictions that cannot be
    read.
    """
    stored = [record.kept_correctness for record in records]
    if not all(stored):
        read = read_run_predictions(records, tasks)
        right = {task: read.right(task) for task in tasks}
        firsts = {task: values[0] for task, values in right.items()}
        packed = packed_correctness(read.faces, firsts)
        return Correctness(read.faces, right, _faces_key(packed), packed.get(LABELLED, {}))
    first = stored[0]
    for record, one in zip(records, stored, strict=True):
        if any(one[name] != first[name] for name in KEPT_COLUMNS):
            raise _other_faces(records[0], record)
    faces = _faces(tuple(str(first[name]) for name in KEPT_COLUMNS[1:]))

    def bits(text: str) -> npt.NDArray[np.uint8]:
        packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
        return np.unpackbits(packed, count=len(faces))

    right = {task: np.array([bits(one["right"][task]) for one in stored], bool) for task in tasks}
    return Correctness(faces, right, _faces_key(first), first.get(LABELLED, {}))


def _faces_key(stored: Mapping[str, Any]) -> str:
    return hashlib.sha256(
        "\n".join(str(stored[name]) for name in KEPT_COLUMNS).encode()
    ).hexdigest()


@functools.lru_cache(maxsize=16)
def _faces(texts: tuple[str, ...]) -> pd.DataFrame:
    """Unpack faces, once for all runs that were tested on them; nobody writes into the table."""
    unpacked = [zlib.decompress(base64.b64decode(text)) for text in texts]
    columns = zip(KEPT_COLUMNS[1:], unpacked, strict=True)
    return pd.DataFrame(
        {name: np.frombuffer(raw, NUMBERS).astype(np.int64) for name, raw in columns}
    )
