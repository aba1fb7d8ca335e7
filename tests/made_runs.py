"""Small real run folders: made-up faces and probabilities, written by our own functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.comparison.leaderboard import Leaderboard, LeaderboardQuery, arrange
from benchmark.comparison.library import read_runs
from benchmark.evaluation.metrics import score
from benchmark.evaluation.predictions import predictions_table, read_predictions, write_predictions
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe, Suite
from benchmark.files import sha256_of, write_json, write_text
from benchmark.identity import Ingredients, group_identity, identity_of
from benchmark.record import RunRecord
from benchmark.tasks import TASKS, TaskName, n_classes

YEARS = np.array([7, 20, 33, 50, 70])
"""An age in each age group."""


def made_up_faces(n: int, *, seed: int = 0) -> pd.DataFrame:
    """Draw n faces with every label about as frequent as in UTKFace; each its own cluster."""
    random = np.random.default_rng(seed)
    age_group = random.choice(5, n, p=[0.154, 0.168, 0.395, 0.182, 0.101])
    names = [f"{index:05d}.jpg" for index in range(n)]
    ages = {"cluster": np.arange(n), "age": YEARS[age_group], "age_group": age_group}
    gender = random.choice(2, n, p=[0.523, 0.477])
    race = random.choice(5, n, p=[0.425, 0.19, 0.145, 0.168, 0.072])
    return pd.DataFrame({"file": names} | ages | {"gender": gender, "race": race})


def certain(labels: Any, task: TaskName) -> npt.NDArray[np.float64]:
    """Give probabilities that are sure of these classes; (n, n_classes)."""
    return np.eye(n_classes(task))[np.asarray(labels)]


def made_up_probabilities(
    faces: pd.DataFrame, task: TaskName, skill: float, *, seed: int
) -> npt.NDArray[np.float64]:
    """Give softmax values that favour the true class by `skill`; (n, n_classes)."""
    random = np.random.default_rng([seed, TASKS.index(task)])
    logits = random.normal(size=(len(faces), n_classes(task)))
    logits[np.arange(len(faces)), faces[task]] += skill - 0.5 * (faces["race"] == 4)
    weights = np.exp(1.5 * logits)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def made_up_predictions(
    skills: Mapping[TaskName, float], *, n: int = 400, seed: int = 0
) -> pd.DataFrame:
    """Predict n faces, the first half for validation and the rest for test."""
    faces, tables = made_up_faces(n), []
    for part, half in (("val", faces[: n // 2]), ("test", faces[n // 2 :])):
        answers = {it: made_up_probabilities(half, it, skills[it], seed=seed) for it in skills}
        tables.append(predictions_table(half, part, answers))
    return pd.concat(tables, ignore_index=True)


def exact_predictions(
    n_right_val: int, n_right_test: int, *, n: int = 100, tasks: Sequence[TaskName] = TASKS
) -> pd.DataFrame:
    """Predict n validation and n other test faces; of each part the first so many rightly."""
    tables = []
    for part, n_right, seed in (("val", n_right_val, 1), ("test", n_right_test, 2)):
        right = np.arange(n) < n_right
        tables.append(answered(made_up_faces(n, seed=seed), right, tasks, part=part))
    return pd.concat(tables, ignore_index=True)


def answered(
    faces: pd.DataFrame, right: Any, tasks: Sequence[TaskName] = TASKS, *, part: str = "test"
) -> pd.DataFrame:
    """Predict the faces of a part: rightly where `right`, else the next class."""
    wrong = ~np.asarray(right)
    answers = {task: certain((faces[task] + wrong) % n_classes(task), task) for task in tasks}
    return predictions_table(faces, part, answers)


def an_experiment(
    variant: str = "short", *, tasks: Sequence[TaskName] = TASKS, **changes: Any
) -> Experiment:
    """Define a small experiment named by its tasks and `variant`; changes by dotted path."""
    name = f"{'mtl' if len(tasks) > 1 else tasks[0]}-cnn-none-full-{variant}"
    parts = Backbone("cnn"), Head(tasks=tuple(tasks)), Recipe(learning_rate=1e-3)
    return Experiment(name, "Is this a test?", *parts).varied(name=name, **changes)


@dataclass
class RunBuilder:
    """Writes run folders as `facebench run` leaves them."""

    runs_dir: Path
    dataset: dict[str, Any] = field(default_factory=lambda: {
        "name": "utkface-100", "drawn": False, "pixel_digest": "ab" * 32,
        "split_version": "leak-free-2", "split_digest": "cd" * 32,
        "counts": {"train": 3_200, "val": 200, "test": 200},
    })  # fmt: skip

    def __post_init__(self) -> None:
        """Make the folder of data sets beside it: one that is named has to be there."""
        (self.runs_dir.parent / "data").mkdir(parents=True, exist_ok=True)

    def begun(self, experiment: Experiment, *, seed: int = 0, **about: Any) -> RunRecord:
        """Write a run that has begun and not ended."""
        file = about.pop("weights_sha256", None)
        ingredients = Ingredients(
            weights_sha256=file or (None if experiment.backbone.weights == "none" else "ef" * 32),
            pixel_digest=self.dataset["pixel_digest"],
            split_digest=self.dataset["split_digest"],
            trainer_version=about.get("trainer_version", 1),
        )
        identity = identity_of(experiment, ingredients, seed)
        folder = self.runs_dir / "work" / identity
        content = {
            "schema": 1, "identity": identity, "family": group_identity(experiment, ingredients),
            "experiment": experiment.as_dict(), "seed": seed, "dataset": self.dataset,
            "weights": {"source": experiment.backbone.weights, "sha256": file, "origin": None},
            "trainer_version": 1, "protocol_name": experiment.protocol.name,
            "ad_hoc": experiment.ad_hoc, "leaky": False, "device": "CPU, 2 threads",
            "precision": "fp32", "commit": "0123456789ab", "multiply_adds": 50_000_000,
            "parameters": {"total": 722_496, "trainable": 12_345},
        }  # fmt: skip
        write_json(folder / "experiment.json", content | about)
        return RunRecord(folder)

    def failed(self, experiment: Experiment, why: str, *, seed: int = 0) -> RunRecord:
        """Write a run that failed."""
        record = self.begun(experiment, seed=seed)
        write_json(record.folder / "failed.json", {"schema": 1, "why": why, "traceback": ""})
        return record

    def done(
        self, experiment: Experiment, predictions: pd.DataFrame, *,
        seed: int = 0, seconds: float = 200.0, **about: Any,
    ) -> RunRecord:  # fmt: skip
        """Write a finished run with these predictions, scored as before there were intervals."""
        found = predictions["part"].value_counts()
        counts = {"train": 3_200, **{part: int(found.get(part, 0)) for part in ("val", "test")}}
        about = {"dataset": self.dataset | {"counts": counts}} | about
        record = self.begun(experiment, seed=seed, **about)
        path = record.predictions_path
        write_predictions(path, predictions)
        scores = score(read_predictions(path))
        write_text(record.folder / "subgroups.csv", scores.subgroups.to_csv(index=False))
        kept = {"predictions_sha256": sha256_of(path), "metrics": scores.metrics}
        write_json(record.folder / "metrics.json", {"schema": 1, **kept})
        history = pd.DataFrame({"epoch": [1, 2], "train/loss": [1.0, 0.9], "val/combined": 0.5})
        write_text(record.folder / "history.csv", history.to_csv(index=False))
        end = {"schema": 1, "identity": record.identity, "seconds": seconds, "epochs": 8}
        end |= {"finished": "2026-11-24T03:00:00+00:00", "selected_epoch": 7}
        end |= {"images_per_second": 500.0, "peak_memory_mib": 800.0}
        write_json(record.folder / "done.json", end)
        return RunRecord(record.folder)

    def records(self) -> list[RunRecord]:
        """Read all folders, as the leaderboard does."""
        return [RunRecord(folder) for folder in sorted((self.runs_dir / "work").iterdir())]


def build(
    records: Iterable[RunRecord], experiments: Sequence[Experiment], dataset: str, **query: Any
) -> Leaderboard:
    """Arrange the runs of `experiments` on `dataset` in tables, as of a suite if one is named."""
    names = tuple(experiment.name for experiment in experiments)
    suite = query.pop("suite", None)
    suites = (Suite(suite, "Shown?", names),) if suite else ()
    runs, notes = read_runs(list(records))
    return arrange(runs, LeaderboardQuery(experiments, dataset, suites, notes=notes, **query))
