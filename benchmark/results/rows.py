"""A leaderboard's row: one experiment over its seeds, from the stored files of its runs.

Also the majority-class row that every table begins with. Which rows stand in which table, and in
what order, is for benchmark.results.leaderboard.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.errors import ExperimentError, RunError
from benchmark.experiment import Protocol, Subset
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.results.intervals import cluster_bootstrap
from benchmark.results.kept_answers import right_answers
from benchmark.results.record import RunRecord
from benchmark.results.red_flags import flag_state, warning
from benchmark.results.subgroups import By, group_codes, group_names, ranked, subgroup_table
from benchmark.tasks import MISSING, TASKS, TaskName, n_classes

MAJORITY: Final = "majority class"
GROUP_COLUMNS: Final = ("task", "by", "group")


@dataclass(frozen=True)
class Setting:
    """What two runs must share to stand in one table: the faces, their split, the protocol."""

    dataset: str
    drawn: bool
    split_version: str
    split_digest: str
    """Empty where nothing has been run yet; so is the next."""
    pixel_digest: str
    protocol: Protocol
    subset: Subset | None = None
    """The people that all are selected on and tested on; None for everyone."""


@dataclass(frozen=True)
class TaskScore:
    """One task on the test faces, rates in [0, 1]; over several seeds, means and their sd."""

    accuracy: float
    low: float
    """Ends of the accuracy's 95 % interval: Wilson's for one seed, cluster bootstrap for more."""
    high: float
    macro_f1: float | None
    accuracy_sd: float | None = None
    """Sample standard deviation over seeds; None for one seed."""
    macro_f1_sd: float | None = None


@dataclass(frozen=True)
class WorstGroup:
    """The subgroup of people that a task is read worst for, among those of 30 faces or more."""

    task: TaskName
    by: By
    group: str
    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One line of a table. What does not exist is None or absent, never 0."""

    status: Literal["reference", "done", "missing"]
    name: str
    rank: int | None = None
    val_combined: float | None = None
    """Mean over seeds of the selected epoch's combined validation accuracy: what ranks."""
    val_combined_sd: float | None = None
    scores: Mapping[TaskName, TaskScore] = field(default_factory=dict)
    worst: WorstGroup | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    seconds: float | None = None
    """Mean training time of a run."""
    seeds: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    leaky: bool = False
    stopped: bool = False
    """Too good to be true and not acknowledged: shown, and not ranked."""
    red_flag: str = ""
    """What is too good to be true and which checks were run; empty for most rows."""
    remarks: tuple[str, ...] = ()


def definition_key(definition: Mapping[str, Any]) -> str:
    """Give the part of a definition that steers its training, as comparable text.

    A name or a question may change without making a run another one's.
    """
    return canonical_json(steering_content(definition))


@dataclass(frozen=True)
class Run:
    """A run's folder, read and understood as far as tables need it."""

    record: RunRecord
    setting: Setting
    definition: dict[str, Any]
    ad_hoc: bool
    leaky: bool

    @cached_property
    def definition_key(self) -> str:
        """Equal for runs of one definition, whatever its name and question."""
        return definition_key(self.definition)

    @property
    def about(self) -> dict[str, Any]:
        """`experiment.json`."""
        return self.record.about

    @property
    def short_identity(self) -> str:
        """The first twelve digits, enough to name a run."""
        return self.record.identity[:12]


def read_run(record: RunRecord) -> Run:
    """Read what `experiment.json` says; raise RunError where it says too little."""
    about = record.about
    try:
        dataset, definition = about["dataset"], about["experiment"]
        setting = Setting(
            dataset=str(dataset["name"]),
            drawn=bool(dataset["drawn"]),
            split_version=str(dataset["split_version"]),
            split_digest=str(dataset["split_digest"]),
            pixel_digest=str(dataset["pixel_digest"]),
            protocol=Protocol(**definition["protocol"]),
            subset=Subset(**definition["subset"]).people if definition.get("subset") else None,
        )
        ad_hoc, leaky = bool(about["ad_hoc"]), bool(about["leaky"])
        run = Run(record, setting, definition, ad_hoc=ad_hoc, leaky=leaky)
        _ = (run.definition_key, definition["name"], record.family, record.seed)
    except (KeyError, TypeError, ValueError, ExperimentError) as error:
        raise RunError(
            f"experiment.json of run {record.identity[:12]} is not understood "
            f"({type(error).__name__}: {error})",
            allowed="what this version of facebench writes",
            fix="Run the experiment again, or use the facebench that wrote it",
        ) from error
    return run


def experiment_row(name: str, runs: Sequence[Run], remarks: Sequence[str] = ()) -> Row:
    """Summarise the finished runs of one experiment, one per seed, none empty.

    Raises RunError where a file of a run is missing, damaged, or about other faces.
    """
    runs = sorted(runs, key=lambda run: run.record.seed)
    try:
        tasks = [task for task in TASKS if task in runs[0].definition["head"]["tasks"]]
        metrics = [run.record.metrics for run in runs]
        tested = [t for t in tasks if all(f"test/{t}/accuracy" in values for values in metrics)]
        scores, worst = _test_scores(runs, tested) if tested else ({}, None)
        val_mean, val_sd = _mean_sd([values["selected/val/combined"] for values in metrics])
        states = {run.short_identity: flag_state(run.record) for run in runs}
        return Row(
            status="done",
            name=name,
            val_combined=val_mean,
            val_combined_sd=val_sd,
            scores=scores,
            worst=worst,
            parameters=int(runs[0].about["parameters"]["total"]),
            trainable_parameters=int(runs[0].about["parameters"]["trainable"]),
            seconds=statistics.fmean(float(run.record.done["seconds"]) for run in runs),
            seeds=tuple(run.record.seed for run in runs),
            devices=_distinct(run.about["device"] for run in runs),
            commits=_distinct(run.about["commit"] for run in runs),
            identities=tuple(run.short_identity for run in runs),
            leaky=any(run.leaky for run in runs),
            stopped=any(state.stopped for state in states.values()),
            red_flag=warning(states, runs[0].short_identity if len(runs) == 1 else name),
            remarks=tuple(remarks),
        )
    except (KeyError, TypeError, ValueError) as error:
        which = ", ".join(run.short_identity for run in runs)
        raise RunError(
            f"the files of run {which} hold too little ({type(error).__name__}: {error})",
            allowed="what facebench writes",
            fix="Remove the run's folder and run the experiment again",
        ) from error


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for value in values))


def _mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Average over seeds; the sd of a single seed does not exist."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _test_scores(
    runs: Sequence[Run], tasks: Sequence[TaskName]
) -> tuple[dict[TaskName, TaskScore], WorstGroup | None]:
    """Score the tasks on test; the interval is over faces, the sd over seeds."""
    groups = _mean_groups([run.record.subgroups() for run in runs])
    worst = worst_group(groups, tasks)
    everyone = groups[groups["by"] == "all"].set_index("task")
    spans = {task: (everyone["low"][task], everyone["high"][task]) for task in tasks}
    if len(runs) > 1:
        spans, worst = _bootstrapped(runs, tasks, worst)
    metrics = [run.record.metrics for run in runs]
    scores = {}
    for task in tasks:
        accuracy, accuracy_sd = _mean_sd([values[f"test/{task}/accuracy"] for values in metrics])
        name = f"test/{task}/macro_f1"
        f1 = [values[name] for values in metrics if name in values]
        macro_f1, macro_f1_sd = _mean_sd(f1) if len(f1) == len(runs) else (None, None)
        low, high = (float(end) for end in spans[task])
        scores[task] = TaskScore(accuracy, low, high, macro_f1, accuracy_sd, macro_f1_sd)
    return scores, worst


def _mean_groups(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average each subgroup's accuracy over seeds; the ends are those of the first seed."""
    first = tables[0]
    for table in tables[1:]:
        if not table[[*GROUP_COLUMNS, "n"]].equals(first[[*GROUP_COLUMNS, "n"]]):
            raise RunError(
                "two seeds of one experiment were tested on different faces",
                allowed="the same test faces for all seeds of an experiment",
                fix="Remove the folders of its runs and run the experiment again",
            )
    accuracy = np.mean([table["accuracy"].to_numpy() for table in tables], axis=0)
    return first.assign(accuracy=accuracy)


def worst_group(subgroups: pd.DataFrame, tasks: Sequence[TaskName]) -> WorstGroup | None:
    """Find the worst-read subgroup of 30 faces or more; of the first such in the table on a tie.

    For age group where it is predicted, else for the only task. The task's own classes are no
    candidates, alone or crossed with another division: how well a class is read is its recall, not
    a matter of who is looked at.
    """
    task = tasks[0]
    own = {"all", task} if task == "age_group" else {"all", task, "gender_race"}
    ours = ranked(subgroups[(subgroups["task"] == task) & ~subgroups["by"].isin(own)])
    if ours.empty:
        return None
    worst = ours.iloc[int(ours["accuracy"].to_numpy().argmin())]
    low, high = float(worst["low"]), float(worst["high"])
    return WorstGroup(
        task, worst["by"], worst["group"], int(worst["n"]), float(worst["accuracy"]), low, high
    )


def _bootstrapped(
    runs: Sequence[Run], tasks: Sequence[TaskName], worst: WorstGroup | None
) -> tuple[dict[TaskName, tuple[float, float]], WorstGroup | None]:
    """Give intervals of seed-averaged accuracies by resampling clusters of test faces."""
    answers = right_answers([run.record for run in runs], tasks)
    faces = answers.faces
    values = np.column_stack([answers.right[task].mean(axis=0) for task in tasks])
    if worst is not None:
        member = group_codes(faces, worst.by) == group_names(worst.by).index(worst.group)
        values = np.column_stack(
            [values, np.where(member, values[:, tasks.index(worst.task)], np.nan)]
        )
    low, high = cluster_bootstrap(values, faces["cluster"].to_numpy())
    spans = {task: (low[column], high[column]) for column, task in enumerate(tasks)}
    if worst is not None:
        worst = WorstGroup(**(vars(worst) | {"low": float(low[-1]), "high": float(high[-1])}))
    return spans, worst


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
    subgroups = subgroup_table(test_labels[list(TASKS)].reset_index(drop=True), predicted)
    scores: dict[TaskName, TaskScore] = {}
    for _, everyone in subgroups[subgroups["by"] == "all"].iterrows():
        accuracy, low, high, f1 = (
            float(everyone[column]) for column in ("accuracy", "low", "high", "macro_f1")
        )
        scores[everyone["task"]] = TaskScore(accuracy, low, high, None if math.isnan(f1) else f1)
    # One answer on gender or race is wrong for whole groups by construction: no finding.
    worst = worst_group(subgroups, tasks) if "age_group" in tasks else None
    return Row("reference", MAJORITY, scores=scores, worst=worst)
