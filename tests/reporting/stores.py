"""Stores of finished runs with made-up answers: enough to fill each part of a page."""

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark import registry
from benchmark.comparison.library import Library, read_run
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import parts_of
from benchmark.evaluation.predictions import predictions_table, write_predictions
from benchmark.evaluation.subgroups import subgroup_table
from benchmark.experiment.definition import Experiment
from benchmark.files import sha256_of, write_json, write_text
from benchmark.record import RunRecord
from benchmark.reporting.evidence import Evidence, RunLinks
from benchmark.reporting.report import answers_of, write_page
from benchmark.tasks import TaskName, combined
from tests.made_runs import RunBuilder, build, made_up_predictions, made_up_probabilities

DRAWN = "drawn-v1"
QUICK = registry.suites()["quick"].experiments
LEAK = [f"-until99-{condition}" for condition in ("published", "split", "honest", "only_batches")]
EVERY_QUESTION = (
    *QUICK,
    "mtl-squeezenet1_1-imagenet-fire4_5-short",
    "mtl-squeezenet1_1-none-frozen-short",
    *(f"mtl-cnn-none-full{end}" for end in ("", "-gate", "-embedding", *LEAK)),
)
"""Of each question that a page answers, at least one pair of experiments; no specialists."""


def builder(runs_dir: Path, *, dataset: str = DRAWN, drawn: bool = True) -> RunBuilder:
    runs = RunBuilder(runs_dir)
    runs.dataset |= {"name": dataset, "drawn": drawn}
    return runs


def fill(
    runs: RunBuilder, names: Iterable[str], *, seeds: Iterable[int] = (0,), n: int = 400
) -> None:
    for name in names:
        for seed in seeds:
            finish(runs, registry.experiment(name), seed=seed, n=n)


def finish(
    runs: RunBuilder, experiment: Experiment, *, seed: int = 0, n: int = 400,
    predictions: pd.DataFrame | None = None,
) -> None:  # fmt: skip
    """Finish a run that is the better the more its experiment looks as if it should be."""
    leaky = experiment.protocol.leaky
    size = {"total": 700_000 + 9_000 * len(experiment.name), "trainable": 12_345}
    n_adds = 40_000_000 + 700_000 * len(experiment.backbone.trained_stages)
    record = runs.begun(experiment, seed=seed, leaky=leaky, parameters=size, multiply_adds=n_adds)
    if predictions is None:
        skills = {task: skill(experiment, task) for task in experiment.head.tasks}
        predictions = made_up_predictions(skills, n=n, seed=seed)
    write_predictions(record.predictions_path, predictions)
    write_json(record.folder / "metrics.json", scored(record, predictions, experiment))
    learnt = 1 - np.exp(-np.arange(1, 13) / (3 + seed))
    columns = {"epoch": np.arange(1, 13), "train/loss": 2.5 - 1.8 * learnt}
    columns |= {f"val/{task}/accuracy": 0.3 + 0.4 * learnt for task in experiment.head.tasks}
    write_text(record.folder / "history.csv", pd.DataFrame(columns).to_csv(index=False))
    end = {"seconds": 30.0 + 5 * seed, "images_per_second": 500.0, "peak_memory_mib": 800.0}
    write_json(record.folder / "done.json", {"schema": 1, "selected_epoch": 9, **end})
    if leaky:
        files = predictions[predictions["part"] == "test"]["file"].to_numpy()
        met = np.array(["seen", "seen", "seen", "related", "clean"])[np.arange(len(files)) % 5]
        exposure = pd.DataFrame({"file": files, "exposure": met})
        write_text(record.exposure_path, exposure.to_csv(index=False))


def predictions_on(faces: FaceSet, experiment: Experiment) -> pd.DataFrame:
    """Make up predictions of the very faces of a prepared data set."""
    tables = []
    for part in ("val", "test"):
        ours = faces.table.iloc[parts_of(faces)[part]].reset_index(drop=True)
        answers = {
            task: made_up_probabilities(ours, task, skill(experiment, task), seed=0)
            for task in experiment.head.tasks
        }
        tables.append(predictions_table(ours, part, answers))
    return pd.concat(tables, ignore_index=True)


def scored(record: RunRecord, predictions: pd.DataFrame, experiment: Experiment) -> dict[str, Any]:
    """Score what leaderboards need, without the intervals and checks that take a second a run."""
    tasks, test = experiment.head.tasks, predictions[predictions["part"] == "test"]
    rates: dict[str, dict[TaskName, float]] = {
        str(part): {task: float((faces[task] == faces[f"{task}_pred"]).mean()) for task in tasks}
        for part, faces in predictions.groupby("part")
    }
    metrics = {f"test/{task}/accuracy": rate for task, rate in rates["test"].items()}
    metrics |= {f"test/{task}/macro_f1": rate - 0.02 for task, rate in rates["test"].items()}
    metrics["selected/val/combined"] = combined(rates["val"])
    table = subgroup_table(test)
    return {
        "schema": 1,
        "predictions_sha256": sha256_of(record.predictions_path),
        "metrics": metrics,
        "subgroups": table.astype(object).where(table.notna(), None).to_dict("list"),
    }


def skill(experiment: Experiment, task: TaskName) -> float:
    """Make up how much the true class is favoured."""
    base = {"age_group": 1.0, "gender": 1.3, "race": 1.2}[task] - 0.1 * len(experiment.head.tasks)
    base += 0.12 * len(experiment.backbone.trained_stages) + 0.9 * experiment.protocol.leaky
    return base + 0.4 * (experiment.backbone.weights != "none")


def evidence_of(runs: RunBuilder, *suites: str, library: Library | None = None) -> Evidence:
    """Read a store as `facebench report` does where every run is in MLflow."""
    if library is None:
        read = tuple(read_run(record) for record in runs.records())
        library = Library(read, registry.experiments(), registry.suites())
    dataset = str(runs.dataset["name"])
    wanted = [name for suite in suites for name in library.suites[suite].experiments]
    wanted = wanted or [run.name for run in library.runs]
    experiments = [item for name, item in library.experiments.items() if name in wanted]
    records = [run.record for run in library.runs]
    board = build(records, experiments, dataset, suite=" and ".join(suites) or None)
    known = {run.record.identity: ("1", run.record.identity[:32]) for run in library.runs}
    return Evidence(library, board, suites, RunLinks("http://127.0.0.1:5000", known))


def page_of(evidence: Evidence) -> str:
    return write_page(evidence, answers_of(evidence), datetime.date(2026, 11, 28))
