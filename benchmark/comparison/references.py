"""The rows that every leaderboard begins with: what is possible without a deep network.

The majority class, the ceiling that the labels' own noise sets, and a logistic regression. That is
fitted once for a data set and split, on small pictures or on the features of a frozen backbone, and
its predictions are kept under `mlruns/references/` in the form that runs keep theirs: a leaderboard
reads them, and scores them by the same rules. The test faces are evaluated once.
"""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.comparison.library import Run, Setting
from benchmark.comparison.pairs import group_scores
from benchmark.comparison.rows import CombinedScore, Row, TaskScore, all_tasks, worst_group
from benchmark.data.dataset import FaceSet, prepared_datasets
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.data.splits import PartName, Rows
from benchmark.errors import BenchmarkError, DataError
from benchmark.evaluation import predictions as stored
from benchmark.evaluation.artifacts import rows_by_part
from benchmark.evaluation.intervals import Floats, cluster_bootstrap
from benchmark.evaluation.subgroups import SMALL_GROUP, subgroup_table
from benchmark.files import digest_of, write_json
from benchmark.identity import MASKED
from benchmark.tasks import MISSING, TASK_TITLES, TASKS, TaskName, combined, n_classes

MAJORITY: Final = "majority class"
LOGISTIC: Final = "logistic regression"
CEILING: Final = "label-noise ceiling"
SCHEMA: Final = 1
FITTING_VERSION: Final = 1
"""Raised whenever the same faces would give other predictions."""
CELLS: Final = 12
"""Side of the small pictures that a regression on pixels is fitted on."""
STRENGTHS: Final = (0.001, 0.01, 0.1)
"""scikit-learn's C on standardised features; the best on validation is taken, per task."""
BATCH: Final = 256
ON_PIXELS: Final = f"{CELLS} × {CELLS} pixels"
ABOUT_FILE: Final = "reference.json"
PREDICTIONS_FILE: Final = "predictions.csv"

Parts = Mapping[PartName, Rows]
Features = npt.NDArray[np.float32]
Reader = Callable[[npt.NDArray[np.uint8]], Features]
"""From pictures (n, px, px, 3) to features (n, k)."""


def majority_row(train: pd.DataFrame, test: pd.DataFrame, tasks: Sequence[TaskName] = TASKS) -> Row:
    """Score always predicting the training faces' most frequent class, on the test faces.

    Both tables hold the true labels age_group, gender and race; a tie goes to the lower class.
    """
    known = {task: train[task][train[task] != MISSING] for task in tasks}
    most = {f"{it}_pred": np.bincount(known[it], minlength=1).argmax() for it in tasks}
    # One class on gender or race is wrong for whole subgroups by construction: no finding.
    return _row(MAJORITY, test.assign(**most), tasks, with_worst="age_group" in tasks)


def logistic_row(on: str, predictions: pd.DataFrame, tasks: Sequence[TaskName]) -> Row:
    """Score a fitted regression's predictions, as runs store them; on: what it was fitted on."""
    val = predictions[predictions["part"] == "val"]
    right = {it: (val[f"{it}_pred"] == val[it])[val[it] != MISSING].mean() for it in tasks}
    row = _row(f"{LOGISTIC} on {on}", predictions[predictions["part"] == "test"], tasks)
    return replace(row, val_combined=float(combined(right)))


def _row(
    name: str, test: pd.DataFrame, tasks: Sequence[TaskName], *, with_worst: bool = True
) -> Row:
    test, together = test.reset_index(drop=True), None
    predicted = {task: test[f"{task}_pred"].to_numpy(dtype=np.int64)[None] for task in tasks}
    read = stored.RunPredictions(test, predicted)
    if len(tasks) > 1:
        right = stored.Correctness(test, {task: read.right(task) for task in tasks})
        rates = all_tasks(right, tasks)[0]
        ends = cluster_bootstrap(rates[:, None], test["cluster"].to_numpy())
        together = CombinedScore(float(rates.mean()), *(float(end[0]) for end in ends))
    worst = worst_group(subgroup_table(test), tasks) if with_worst else None
    scores = group_scores(read)
    return Row("reference", name, scores=scores, combined=together, worst=worst)


BOUNDS: Final = (
    *("disagree", "low", "high", "ceiling", "ceiling_low", "ceiling_high"),
    *("error_rate", "independent_ceiling", "independent_low", "independent_high"),
)
EQUAL: Final = "equal bytes"
NEAR: Final = "near"


def label_noise(table: pd.DataFrame) -> pd.DataFrame:
    """Measure per task how often the labels of one photograph disagree.

    Some photographs are there in several files, each labelled by itself. Where two labels of one
    photograph differ, at least one is wrong. table: faces with file, sha256, cluster and the three
    labels, those without a place in the split included. A row per task and files, pairs of EQUAL
    bytes or of NEAR-duplicates, with n_pairs, n_photographs and BOUNDS, shares in [0, 1]; of fewer
    than 30 photographs only the counts are given. docs/METHODS.md says what both ceilings assume.
    """
    repeated = table[table["cluster"].duplicated(keep=False)]
    columns = repeated[["cluster", "sha256", *TASKS]].assign(place=np.arange(len(repeated)))
    pairs = columns.merge(columns, on="cluster").query("place_x < place_y")
    equal = pairs["sha256_x"] == pairs["sha256_y"]
    rows = []
    for task in TASKS:
        known = (pairs[f"{task}_x"] != MISSING) & (pairs[f"{task}_y"] != MISSING)
        differs = (pairs[f"{task}_x"] != pairs[f"{task}_y"]).astype(float)
        for files, chosen in ((EQUAL, known & equal), (NEAR, known & ~equal)):
            means = differs[chosen].groupby(pairs["cluster"][chosen]).mean()
            shares = np.array(means, dtype=np.float64)
            bounds = np.full(len(BOUNDS), np.nan)
            if len(shares) >= SMALL_GROUP:
                ends = cluster_bootstrap(shares[:, None], np.arange(len(shares)))
                disagree = np.array([shares.mean(), *(end[0] for end in ends)])
                rate = error_rate(disagree, n_classes(task))
                # The higher a share, the lower its ceiling: its interval's ends change places.
                ceilings = [1 - found[[0, 2, 1]] for found in (disagree / 2, rate)]
                bounds = np.concatenate([disagree, ceilings[0], rate[:1], ceilings[1]])
            rows.append((task, files, int(chosen.sum()), len(shares), *bounds))
    return pd.DataFrame(rows, columns=["task", "files", "n_pairs", "n_photographs", *BOUNDS])


def error_rate(disagree: float | Floats, n_labels: int) -> Floats:
    """Solve d = 2e − e²K/(K−1) for the rate e at which each label errs.

    Two labels differ if one alone is wrong, or both are and not alike: 2e(1−e) + e²(K−2)/(K−1).
    Labels drawn by lot differ in (K−1)/K of pairs; more than that gives their rate.
    """
    scale = n_labels / (n_labels - 1)
    return np.asarray((1 - np.sqrt(np.maximum(1 - disagree * scale, 0.0))) / scale)


def ceiling_row(table: pd.DataFrame, tasks: Sequence[TaskName]) -> Row | None:
    """Give the ceiling 1 − d/2 as a reference row; None where too few photographs are repeated.

    A bound by the labels, not a result: no network that gives a photograph one answer is right on
    two labels that differ. Of near-duplicates alone, the higher one: of files with equal bytes
    those with equal labels may have been removed when the faces were collected.
    """
    noise = label_noise(table)
    found = noise[(noise["files"] == NEAR) & noise["task"].isin(tasks)].set_index("task")
    if found["ceiling"].isna().any():
        return None
    bounds = found[["ceiling", "ceiling_low", "ceiling_high"]].loc[list(tasks)]
    ends = zip(tasks, bounds.to_numpy().tolist(), strict=True)
    scores = {task: TaskScore(value, low, high, None) for task, (value, low, high) in ends}
    independent = ", ".join(
        f"{TASK_TITLES[task]} {100 * float(found['independent_ceiling'][task]):.1f}"
        for task in tasks
    )
    remark = (
        "not a result: upper bound on accuracy, given how often labels of the same photograph "
        f"disagree, from {found['n_photographs'].max():,} near-duplicated photographs of all "
        f"parts; {independent} % if labels err independently; errors that they share raise it"
    )
    value = combined({task: score.accuracy for task, score in scores.items()})
    together = CombinedScore(value, None, None) if len(tasks) > 1 else None
    return Row("reference", CEILING, scores=scores, combined=together, remarks=(remark,))


@dataclass
class References:
    """The reference rows of all settings, from prepared data sets and what was fitted before."""

    runs_dir: Path
    data_dir: Path
    fitting: bool = False
    """Whether to fit what was not fitted yet, on pixels and on every available frozen backbone."""
    runs: Sequence[Run] = ()
    """Where frozen backbones may be found."""
    watch: OnProgress = keep_quiet

    @cached_property
    def _prepared(self) -> Mapping[tuple[str, str], FaceSet]:
        with contextlib.suppress(DataError):
            found = prepared_datasets(self.data_dir)
            return {(faces.name, faces.split_digest): faces for faces in found}
        return {}

    def rows(self, setting: Setting, tasks: tuple[TaskName, ...]) -> Sequence[Row]:
        """Give the reference rows of a table, those that can be known here."""
        rows = [row for row in self._computed(setting, tasks) if row is not None]
        kept: list[Row] = []
        for path in sorted((self.runs_dir / "references").glob(f"*/{ABOUT_FILE}")):
            # What cannot be read is passed over.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, BenchmarkError):
                about = json.loads(path.read_text(encoding="utf-8"))
                fits = about["schema"] == SCHEMA and about["setting"] == _as_content(setting)
                if fits and about.get("tasks", list(tasks)) == list(tasks):
                    predictions = stored.read_predictions(path.parent / PREDICTIONS_FILE)
                    kept.append(logistic_row(str(about["on"]), predictions, tasks))
        kept.sort(key=lambda row: (not row.name.endswith(ON_PIXELS), row.name))
        return rows + kept

    def _computed(self, setting: Setting, tasks: tuple[TaskName, ...]) -> Iterator[Row | None]:
        """Give the rows that follow from prepared faces; fit and keep what was not fitted yet."""
        faces = self._prepared.get((setting.dataset, setting.split_digest))
        if faces is None:
            return
        try:
            parts = rows_by_part(faces, setting.protocol, tasks, setting.subset, seed=0)[1]
        except DataError:  # A part without a face that is labelled for them.
            return
        train, test = (faces.table.iloc[parts[part]] for part in ("train", "test"))
        yield majority_row(train, test, tasks)
        if not (faces.drawn or setting.subset or setting.protocol.leaky):
            yield ceiling_row(faces.table, tasks)
        # On all tasks at once; where some labels are missing, on those of the table alone.
        partly = (faces.table[list(TASKS)] == MISSING).to_numpy().any()
        of_table = {"tasks": list(tasks), "missing_labels": MASKED} if partly else {}
        start = {"schema": SCHEMA, "fitting": FITTING_VERSION, "setting": _as_content(setting)}
        for on, more, network in self._bases(setting) if self.fitting else ():
            content = {**start, "on": on, **more, **of_table}
            key = digest_of(content)
            folder = self.runs_dir / "references" / key
            if not (folder / ABOUT_FILE).is_file():
                reader = _backbone(network) if network else small_pictures
                fitted = self._fit(faces, parts, tasks if partly else TASKS, on, reader)
                stored.write_predictions(folder / PREDICTIONS_FILE, fitted)
                write_json(folder / ABOUT_FILE, content)

    def _bases(self, setting: Setting) -> Iterator[tuple[str, dict[str, Any], Path | None]]:
        """Name what a regression can be fitted on here, pixels and pretrained frozen backbones:
        with what makes it another one, and the network's file."""
        yield ON_PIXELS, {"cells": CELLS}, None
        seen = set()
        for run in self.runs:
            backbone, path = run.definition["backbone"], run.record.folder / "model.safetensors"
            frozen = backbone["trainable_stages"] == 0 and backbone["weights"] != "none"
            px = backbone["input_px"]
            on = f"frozen {backbone['architecture']} ({backbone['weights']}) at {px} px"
            usable = run.setting == setting and run.done and not run.leaky and path.is_file()
            if frozen and usable and on not in seen:
                seen.add(on)
                scaling = run.setting.protocol.input_scaling
                content = {"weights": run.weights_sha256, "scaling": scaling, "input_px": px}
                yield on, content, path

    def _fit(
        self, faces: FaceSet, parts: Parts, tasks: Sequence[TaskName], on: str, reader: Reader
    ) -> pd.DataFrame:
        """Fit each task on the training faces; predict validation and test faces."""
        pixels, features = faces.pixels(), {}
        n_faces, n_read = sum(map(len, parts.values())), 0
        for part, rows in parts.items():
            pieces = []
            for some in np.split(rows, range(BATCH, len(rows), BATCH)):
                pieces.append(reader(np.ascontiguousarray(pixels[some])))
                n_read += len(some)
                self.watch(f"Reading faces by {on}", n_read, n_faces)
            features[part] = np.concatenate(pieces)
        answers: dict[PartName, dict[TaskName, Floats]] = {"val": {}, "test": {}}
        for n_fitted, task in enumerate(tasks, start=1):
            train, val = (
                (features[part][labels != MISSING], labels[labels != MISSING])
                for part in ("train", "val")
                for labels in [faces.table[task].to_numpy()[parts[part]]]
            )
            models = (_regression(*train, strength) for strength in STRENGTHS)
            best = max(models, key=lambda model: model.score(*val))
            for part, found in answers.items():
                found[task] = np.zeros((len(features[part]), n_classes(task)))
                found[task][:, best.classes_] = best.predict_proba(features[part])
            self.watch(f"Fitting on {on}", n_fitted, len(tasks))
        tables = [
            stored.predictions_table(faces.table.iloc[parts[part]], part, found)
            for part, found in answers.items()
        ]
        return pd.concat(tables, ignore_index=True)


def _as_content(setting: Setting) -> dict[str, Any]:
    """Say of a setting what a regression depends on, as JSON gives it back."""
    named = {of: getattr(setting, of) for of in ("dataset", "pixel_digest", "split_digest")}
    named |= {of: getattr(setting.protocol, of) for of in ("split", "fold")}
    return named | {"people": setting.subset.label if setting.subset else None}


def _backbone(path: Path) -> Reader:
    """Load a run's network; its features."""
    import torch

    from benchmark.inference.load import load_trained

    network = load_trained(path).network

    def read(pictures: npt.NDArray[np.uint8]) -> Features:
        with torch.inference_mode():
            batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
            return np.asarray(network.features(batch).flatten(1).numpy(), dtype=np.float32)

    return read


def small_pictures(pictures: npt.NDArray[np.uint8]) -> Features:
    """Average pictures (n, px, px, 3) over CELLS × CELLS cells; (n, k) in [0, 1]."""
    edges = np.linspace(0, pictures.shape[1], CELLS + 1).astype(int)
    size = np.diff(edges).astype(np.float32)
    sums = np.add.reduceat(pictures.astype(np.float32), edges[:-1], axis=1)
    sums = np.add.reduceat(sums, edges[:-1], axis=2)
    means = sums / (size[:, None, None] * size[:, None]) / 255
    return np.asarray(means.reshape(len(pictures), -1), dtype=np.float32)


def _regression(features: Features, truth: npt.NDArray[Any], strength: float) -> Any:
    """Fit one task with scikit-learn; where training has a single class, that is predicted."""
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    logistic = LogisticRegression(C=strength, max_iter=500, tol=1e-3)
    single = len(np.unique(truth)) == 1
    model = DummyClassifier() if single else make_pipeline(StandardScaler(), logistic)
    with warnings.catch_warnings():
        # Near the optimum is near enough for a reference: the last steps move no prediction.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, truth)
