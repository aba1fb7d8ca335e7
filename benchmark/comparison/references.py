"""Reference rows: majority class and logistic regression.

Reference rows of a leaderboard: majority class, the labels' ceiling, a logistic regression.

A regression is fitted once for a data set and split, on small pictures or on what a frozen trunk
says of them, and its predictions are kept under `mlruns/references/` in the form that runs keep
theirs: a leaderboard reads them, and scores them by the same rules. Test faces are read once.

The rows that every table begins with: what is read without looking, and without deep learning.

The majority class answers by the training labels alone. A logistic regression is fitted by
benchmark.comparison.references, and is scored here from its stored predictions like any run.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.comparison.label_noise import ceiling_row
from benchmark.comparison.rows import CombinedScore, Row, Run, Setting, TaskScore, worst_group
from benchmark.comparison.run_groups import Watch, unwatched
from benchmark.data.dataset import FaceSet, prepared_datasets
from benchmark.data.replays import replayed_parts
from benchmark.data.splits import PartName, Rows, parts_of
from benchmark.data.subsets import labelled_parts, subset_parts
from benchmark.errors import BenchmarkError, DataError, RunError
from benchmark.evaluation.intervals import cluster_bootstrap
from benchmark.evaluation.predictions import (
    predicted_tasks,
    predictions_table,
    read_predictions,
    write_predictions,
)
from benchmark.evaluation.subgroups import subgroup_table
from benchmark.files import canonical_json, write_json
from benchmark.tasks import COMBINED_WEIGHTS, MISSING, TASKS, TaskName, combined, n_classes

if TYPE_CHECKING:
    from benchmark.inference.load import Trained

MAJORITY: Final = "majority class"
LOGISTIC: Final = "logistic regression"

Predicted = Mapping[TaskName, npt.NDArray[np.int64]]


def majority_row(
    train_labels: pd.DataFrame, test_labels: pd.DataFrame, tasks: Sequence[TaskName] = TASKS
) -> Row:
    """Score always answering the training faces' most frequent class, on the test faces.

    Both tables hold the true labels age_group, gender and race; a tie goes to the lower class.
    """
    train_labels, test_labels = (
        table[(table[list(tasks)] != MISSING).all(axis=1)] for table in (train_labels, test_labels)
    )
    predicted: dict[TaskName, npt.NDArray[np.int64]] = {}
    for task in tasks:
        counts = np.bincount(train_labels[task].to_numpy(), minlength=n_classes(task))
        predicted[task] = np.full(len(test_labels), int(counts.argmax()), dtype=np.int64)
    # One answer on gender or race is wrong for whole groups by construction: no finding.
    return _row(MAJORITY, test_labels, predicted, with_worst="age_group" in tasks)


def logistic_row(
    on: str, predictions: pd.DataFrame, tasks: Sequence[TaskName], remarks: Sequence[str] = ()
) -> Row | None:
    """Score a fitted regression's predictions, as runs store them; None where a task is missing.

    on: what it looks at, as `pixels`.
    """
    if not set(tasks) <= set(predicted_tasks(predictions)):
        return None
    parts = {
        part: predictions[predictions["part"] == part].reset_index(drop=True)
        for part in ("val", "test")
    }
    answers: dict[str, Predicted] = {
        part: {task: table[f"{task}_pred"].to_numpy(dtype=np.int64) for task in tasks}
        for part, table in parts.items()
    }
    val = combined(
        {task: float((answers["val"][task] == parts["val"][task]).mean()) for task in tasks}
    )
    name = f"{LOGISTIC} on {on}"
    return _row(name, parts["test"], answers["test"], val=val, remarks=remarks)


def _row(
    name: str,
    test: pd.DataFrame,
    predicted: Predicted,
    *,
    with_worst: bool = True,
    val: float | None = None,
    remarks: Sequence[str] = (),
) -> Row:
    truths = test[list(TASKS)].reset_index(drop=True)
    subgroups = subgroup_table(truths, predicted)
    scores: dict[TaskName, TaskScore] = {}
    for _, everyone in subgroups[subgroups["by"] == "all"].iterrows():
        accuracy, low, high, f1 = (
            float(everyone[column]) for column in ("accuracy", "low", "high", "macro_f1")
        )
        scores[everyone["task"]] = TaskScore(accuracy, low, high, None if math.isnan(f1) else f1)
    return Row(
        "reference",
        name,
        val_combined=val,
        scores=scores,
        combined=_combined(test, predicted) if len(predicted) > 1 else None,
        worst=worst_group(subgroups, tuple(predicted)) if with_worst else None,
        remarks=tuple(remarks),
    )


def _combined(test: pd.DataFrame, predicted: Predicted) -> CombinedScore:
    """Weigh the tasks, with the interval of a cluster bootstrap."""
    right: list[Any] = [predicted[task] == test[task].to_numpy() for task in predicted]
    together = np.average(right, axis=0, weights=[COMBINED_WEIGHTS[task] for task in predicted])
    clusters = test["cluster"].to_numpy() if "cluster" in test else np.arange(len(test))
    low, high = cluster_bootstrap(together[:, None], clusters)
    return CombinedScore(float(together.mean()), float(low[0]), float(high[0]))


SCHEMA: Final = 1
FITTING_VERSION: Final = 1
"""Raised whenever the same faces would give other predictions."""
CELLS: Final = 12
"""Side of the small pictures that a regression on pixels looks at."""
STRENGTHS: Final = (0.001, 0.01, 0.1)
"""scikit-learn's C on standardised features; the best on validation is taken, per task."""
BATCH: Final = 256
ON_PIXELS: Final = f"{CELLS} × {CELLS} pixels"
ABOUT_FILE: Final = "reference.json"
PREDICTIONS_FILE: Final = "predictions.csv"

Features = npt.NDArray[np.float32]
Reader = Callable[[npt.NDArray[np.uint8]], Features]
"""From pictures (n, px, px, 3) to features (n, k)."""


@dataclass(frozen=True)
class Subject:
    """What a regression looks at, and what makes it another one."""

    on: str
    content: Mapping[str, Any]
    read: Callable[[], Reader]
    """Gives the reader; loading a trunk waits until it is needed."""


@dataclass
class References:
    """The reference rows of all settings, from prepared data sets and what was fitted before."""

    runs_dir: Path
    data_dir: Path
    fitting: bool = False
    """Whether to fit what is missing, on pixels and on every frozen trunk at hand."""
    runs: Sequence[Run] = ()
    """Where frozen trunks may be found."""
    watch: Watch = unwatched

    @cached_property
    def _prepared(self) -> Mapping[tuple[str, str], FaceSet]:
        try:
            found = prepared_datasets(self.data_dir)
        except DataError:
            return {}
        return {(faces.name, faces.split_digest): faces for faces in found}

    def rows(self, setting: Setting, tasks: tuple[TaskName, ...]) -> Sequence[Row]:
        """Give the reference rows of a table, those that can be known here."""
        rows = []
        faces = self._prepared.get((setting.dataset, setting.split_digest))
        parts = _parts(faces, setting, tasks) if faces is not None else None
        if faces is not None and parts is not None:
            labels = [faces.table.iloc[parts[part]] for part in ("train", "test")]
            rows.append(majority_row(labels[0], labels[1], tasks))
            if not (faces.drawn or setting.subset or setting.protocol.leaky):
                ceiling = ceiling_row(faces.table, tasks)
                rows += [ceiling] if ceiling else []
            if self.fitting:
                for subject in self._subjects(setting):
                    self._fit(faces, parts, setting, tasks, subject)
        for on, predictions in self._kept(setting, tasks):
            row = logistic_row(on, predictions, tasks)
            rows += [row] if row else []
        return rows

    def _kept(
        self, setting: Setting, tasks: tuple[TaskName, ...]
    ) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield what was fitted for a setting, by name; what cannot be read is passed over."""
        found = []
        for path in sorted((self.runs_dir / "references").glob(f"*/{ABOUT_FILE}")):
            try:
                about = json.loads(path.read_text(encoding="utf-8"))
                fits = about["schema"] == SCHEMA and about["setting"] == _as_content(setting)
                fits = fits and about.get("tasks", list(tasks)) == list(tasks)
                if fits:
                    predictions = read_predictions(path.parent / PREDICTIONS_FILE)
                    found.append((str(about["on"]), predictions))
            except (OSError, ValueError, KeyError, TypeError, BenchmarkError):
                continue
        yield from sorted(found, key=lambda item: (item[0] != ON_PIXELS, item[0]))

    def _subjects(self, setting: Setting) -> Iterator[Subject]:
        """Name what a regression can look at here: pixels, and pretrained frozen trunks."""
        yield Subject(ON_PIXELS, {"cells": CELLS}, lambda: small_pictures)
        seen = set()
        for run in self.runs:
            subject = _frozen(run) if run.setting == setting else None
            if subject is not None and subject.on not in seen:
                seen.add(subject.on)
                yield subject

    def _fit(
        self,
        faces: FaceSet,
        parts: Mapping[PartName, Rows],
        setting: Setting,
        tasks: tuple[TaskName, ...],
        subject: Subject,
    ) -> None:
        """Fit all tasks at once; where some labels are missing, only those of the table."""
        some_are_missing = (faces.table[list(TASKS)] == MISSING).to_numpy().any()
        content = {
            "schema": SCHEMA,
            "fitting": FITTING_VERSION,
            "on": subject.on,
            "setting": _as_content(setting),
            **subject.content,
            **({"tasks": list(tasks)} if some_are_missing else {}),
        }
        key = hashlib.sha256(canonical_json(content).encode()).hexdigest()
        folder = self.runs_dir / "references" / key
        if (folder / ABOUT_FILE).is_file():
            return
        features = _read_all(faces, parts, subject, self.watch)
        fitted = tasks if some_are_missing else TASKS
        answers = _fitted(features, faces.table, parts, fitted, subject.on, self.watch)
        tables = [
            predictions_table(faces.table.iloc[parts[part]], part, answers[part])
            for part in ("val", "test")
        ]
        try:
            predictions = pd.concat(tables, ignore_index=True)
            write_predictions(folder / PREDICTIONS_FILE, predictions)
            write_json(folder / ABOUT_FILE, content)
        except OSError as error:
            raise RunError(
                f"{folder} cannot be written: {error.strerror or error}",
                fix="Choose another --runs-dir, or leave out --fit-references",
            ) from error


def _parts(
    faces: FaceSet, setting: Setting, tasks: tuple[TaskName, ...]
) -> Mapping[PartName, Rows] | None:
    """Give the rows of each part, as the setting's runs on these tasks have them.

    None where a part has no face that is labelled for them.
    """
    protocol = setting.protocol
    if protocol.leaky:
        whole = replayed_parts(faces.table, protocol.split)
    else:
        whole = parts_of(faces, protocol.fold)
    try:
        whole = labelled_parts(faces.table, whole, tasks)
    except DataError:
        return None
    return subset_parts(faces.table, whole, setting.subset, seed=0)


def _as_content(setting: Setting) -> dict[str, Any]:
    """Say of a setting what a regression depends on, as JSON gives it back."""
    people = setting.subset.label if setting.subset else None
    return {
        "dataset": setting.dataset,
        "pixel_digest": setting.pixel_digest,
        "split_digest": setting.split_digest,
        "split": setting.protocol.split,
        "fold": setting.protocol.fold,
        "people": people,
    }


def _frozen(run: Run) -> Subject | None:
    """Give what the frozen, pretrained trunk of a run says; None where it has no such one."""
    backbone, path = run.definition["backbone"], run.record.folder / "model.safetensors"
    ready = run.record.state == "done" and path.is_file() and not run.leaky
    if not ready or backbone["trainable_stages"] != 0 or backbone["weights"] == "none":
        return None

    def read() -> Reader:
        from benchmark.inference.load import load_trained

        return _reader_of(load_trained(path))

    weights = (run.about.get("weights") or {}).get("sha256")
    content = {"weights": weights, "scaling": run.setting.protocol.input_scaling}
    on = f"frozen {backbone['architecture']} ({backbone['weights']}) at {backbone['input_px']} px"
    return Subject(on, {**content, "input_px": backbone["input_px"]}, read)


def _reader_of(trained: "Trained") -> Reader:
    import torch

    def read(pictures: npt.NDArray[np.uint8]) -> Features:
        with torch.inference_mode():
            batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
            return np.asarray(trained.network.features(batch).flatten(1).numpy(), dtype=np.float32)

    return read


def small_pictures(pictures: npt.NDArray[np.uint8]) -> Features:
    """Average pictures (n, px, px, 3) over CELLS × CELLS cells; (n, k) in [0, 1]."""
    n, px = len(pictures), pictures.shape[1]
    edges = np.linspace(0, px, CELLS + 1).astype(int)
    values: npt.NDArray[Any] = pictures.astype(np.float32)
    for axis in (1, 2):
        sums = np.add.reduceat(values, edges[:-1], axis=axis)
        shape = [1, 1, 1, 1]
        shape[axis] = CELLS
        values = sums / np.diff(edges).astype(np.float32).reshape(shape)
    return np.asarray(values.reshape(n, -1) / 255, dtype=np.float32)


def _read_all(
    faces: FaceSet, parts: Mapping[PartName, Rows], subject: Subject, watch: Watch
) -> dict[PartName, Features]:
    """Read the features of every part, in the order of its rows."""
    reader, pixels = subject.read(), faces.pixels()
    n_faces = sum(len(rows) for rows in parts.values())
    n_read, found = 0, {}
    for part, rows in parts.items():
        pieces = []
        for begin in range(0, len(rows), BATCH):
            some = rows[begin : begin + BATCH]
            pieces.append(reader(np.ascontiguousarray(pixels[some])))
            n_read += len(some)
            watch(f"Reading faces by {subject.on}", n_read, n_faces)
        found[part] = np.concatenate(pieces)
    return found


def _fitted(
    features: Mapping[PartName, Features],
    table: pd.DataFrame,
    parts: Mapping[PartName, Rows],
    tasks: tuple[TaskName, ...],
    on: str,
    watch: Watch,
) -> dict[PartName, dict[TaskName, npt.NDArray[np.float64]]]:
    """Fit each task on the training faces; give probabilities of validation and test faces."""
    mean, sd = features["train"].mean(axis=0), features["train"].std(axis=0)
    scaled = {part: (values - mean) / np.where(sd > 0, sd, 1) for part, values in features.items()}
    answers: dict[PartName, dict[TaskName, npt.NDArray[np.float64]]] = {"val": {}, "test": {}}
    for n_fitted, task in enumerate(tasks):
        watch(f"Fitting on {on}", n_fitted, len(tasks))
        truth = {part: table[task].to_numpy()[rows] for part, rows in parts.items()}
        best = max(
            (
                _regression(scaled["train"], truth["train"], task, strength)
                for strength in STRENGTHS
            ),
            key=lambda answer: float((answer(scaled["val"]).argmax(axis=1) == truth["val"]).mean()),
        )
        for part in answers:
            answers[part][task] = best(scaled[part])
    watch(f"Fitting on {on}", len(tasks), len(tasks))
    return answers


def _regression(
    features: Features, truth: npt.NDArray[Any], task: TaskName, strength: float
) -> Callable[[Features], npt.NDArray[np.float64]]:
    """Fit one task; give a function from features to probabilities of all its classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes = np.unique(truth)
    if len(classes) == 1:
        return lambda asked: np.tile(np.eye(n_classes(task))[classes[0]], (len(asked), 1))
    model = LogisticRegression(C=strength, max_iter=500, tol=1e-3)
    with warnings.catch_warnings():
        # Near the optimum is near enough for a yardstick: the last steps move no answer.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, truth)

    def answer(asked: Features) -> npt.NDArray[np.float64]:
        whole = np.zeros((len(asked), n_classes(task)))
        whole[:, classes] = model.predict_proba(asked)
        return np.asarray(whole / whole.sum(axis=1, keepdims=True))

    return answer
