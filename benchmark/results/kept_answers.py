"""Right or wrong, face by face, kept within metrics.json: what a row over several seeds needs.

A table over hundreds of runs then reads one small file of each and no predictions.
"""

import base64
import functools
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.errors import RunError
from benchmark.results.answers import read_answers
from benchmark.results.record import RunRecord
from benchmark.tasks import TASKS, TaskName

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
