"""A leaderboard's row: one experiment over its seeds, from the stored files of its runs."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from benchmark.comparison.library import LEAKY_REMARK, Run, RunGroup
from benchmark.comparison.statistics import Family
from benchmark.comparison.wording import Gap, TaskComparison
from benchmark.errors import RunError
from benchmark.evaluation.intervals import Floats, cluster_bootstrap
from benchmark.evaluation.predictions import Correctness, correctness_of
from benchmark.evaluation.red_flags import flag_state, warning
from benchmark.evaluation.subgroups import GAP_BY, SMALL_GROUP, By, group_codes, group_names
from benchmark.experiment.definition import StudyRow
from benchmark.tasks import COMBINED_WEIGHTS, TASK_TITLES, TaskName

SHARED: Final = "the same runs"
"""Why a row is not compared with another one that has its runs."""


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
class CombinedScore:
    """All tasks on the test faces together, 0.4 age group + 0.2 gender + 0.4 race; in [0, 1]."""

    value: float
    low: float | None
    """Ends of a cluster bootstrap; None for a run that was scored before there was one."""
    high: float | None
    sd: float | None = None


@dataclass(frozen=True)
class WorstGroup:
    """The subgroup with the lowest accuracy, among those of 30 faces or more."""

    task: TaskName
    by: By
    group: str
    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupGap:
    """Highest minus lowest accuracy of a division's subgroups; means over seeds."""

    task: TaskName
    by: By
    gap: float
    low: float
    """Ends of each run's 95 % interval, averaged over seeds: the seeds share the test faces, so
    that the average is no narrower than it must be."""
    high: float
    chance: float
    """The gap expected under permutation of the subgroups' names."""


Outcome = tuple[Family, TaskComparison | Gap]
"""What a row is compared with (mtl_stl, compare_with or first) on a task, None being all of them as
`combined` weighs them, and what came of it. PairResult, its p may be of an earlier family."""


Unmeasured = Literal["not run", "not run (weights not available)", "not finished"]


@dataclass(frozen=True)
class Row:
    """One line of a table. What does not exist is None or absent, never 0."""

    status: Literal["reference", "done", "missing"]
    name: str
    rank: int | None = None
    val_combined: float | None = None
    """Mean over seeds of the selected epoch's weighted validation accuracy: what ranks."""
    val_combined_sd: float | None = None
    scores: Mapping[TaskName, TaskScore] = field(default_factory=dict)
    combined: CombinedScore | None = None
    """On test; None where a single task is predicted."""
    worst: WorstGroup | None = None
    gap: GroupGap | None = None
    comparisons: Sequence[Outcome] = ()
    study: StudyRow | None = None
    """What the original study printed for this very row, its leak included."""
    parameters: int | None = None
    trainable_parameters: int | None = None
    gmacs: float | None = None
    """Billions of multiply-adds for one face."""
    seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_mib: float | None = None
    seeds: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    leaky: bool = False
    is_one_class: bool = False
    """Whether its only task has one class among the test faces: always right, and not ranked."""
    stopped: bool = False
    """Too good to be true and not acknowledged: shown, and not ranked."""
    red_flag: str = ""
    """What is too good to be true and which checks were run; empty for most rows."""
    remarks: tuple[str, ...] = ()
    definition: Mapping[str, Any] = field(default_factory=dict)
    """As it was run, or as it would be; empty for reference rows."""
    unmeasured: Unmeasured = "not run"
    """Why there is no result, where the status is missing."""
    runs: tuple[Run, ...] = field(default=(), compare=False, repr=False)

    @property
    def all_remarks(self) -> tuple[str, ...]:
        """A leak first, then a red flag."""
        return (*filter(None, (LEAKY_REMARK * self.leaky, self.red_flag)), *self.remarks)

    @property
    def title(self) -> str:
        """The name, with what must never be read without it."""
        return f"{'LEAKY ' * self.leaky}{self.name}{' (not run)' * (self.status == 'missing')}"

    @property
    def tied(self) -> bool:
        """Whether it is ranked and not significantly below the first row of its table, on test."""
        firsts = (outcome for family, outcome in self.comparisons if family == "first")
        return self.rank is not None and any(
            it.why == SHARED if isinstance(it, Gap) else not it.significant for it in firsts
        )

    @property
    def group(self) -> RunGroup:
        return RunGroup(self.name, self.runs)

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks whose test faces were evaluated."""
        return tuple(self.scores)

    @cached_property
    def correctness(self) -> Correctness:
        """Which predictions of its runs are right; raise RunError where they cannot be read."""
        return correctness_of([run.record for run in self.runs], self.tasks)


def done_row(
    name: str, runs: Sequence[Run], remarks: Sequence[str] = (), study: StudyRow | None = None
) -> Row:
    """Summarise the finished runs of one experiment, one per seed.

    Raises RunError where a file of a run is missing, damaged, or about other faces.
    """
    group = RunGroup(name, tuple(sorted(runs, key=lambda run: run.record.seed)))
    try:
        row = _summary(group, remarks, study)
        return _with_intervals(row) if len(runs) > 1 and row.scores else row
    except (KeyError, TypeError, ValueError) as error:
        which = ", ".join(run.short_identity for run in group.runs)
        found = f"the files of run {which} hold too little ({type(error).__name__}: {error})"
        fix = "Remove the run's folder and run the experiment again"
        raise RunError(found, allowed="what facebench writes", fix=fix) from error


def _summary(group: RunGroup, remarks: Sequence[str], study: StudyRow | None) -> Row:
    runs, first = group.runs, group.runs[0]
    metrics, done = [run.record.metrics for run in runs], [run.record.done for run in runs]

    def over_seeds(key: str) -> tuple[Any, float | None]:
        """Give mean and sd of a metric; None where a run has none of the name."""
        values = [found.get(key) for found in metrics]
        return (None, None) if None in values else mean_sd(values)  # type: ignore[arg-type]

    tested = [task for task in group.tasks if over_seeds(f"test/{task}/accuracy")[0] is not None]
    table = pd.DataFrame(columns=["task", "by", "n", "low", "high"])
    if tested:
        # Of the same faces, or their correctness is refused; the ends are those of the first.
        tables = [run.record.subgroups() for run in runs]
        accuracies = [other["accuracy"].to_numpy(dtype=np.float64) for other in tables]
        table = tables[0].assign(accuracy=np.mean(accuracies, axis=0))
    own = table[(table["by"] == table["task"]) & (table["n"] > 0)]["task"].value_counts()
    alone = tuple(task for task in tested if own.get(task) == 1)
    one_class = (
        f"all test faces have one {TASK_TITLES[task]}: its accuracy says nothing" for task in alone
    )
    scores, combined, gap = {}, None, None
    ends: Any = table[table["by"] == "all"].set_index("task")[["low", "high"]]
    for task in tested:
        accuracy, accuracy_sd = over_seeds(f"test/{task}/accuracy")
        f1, f1_sd = over_seeds(f"test/{task}/macro_f1")
        low, high = ends.loc[task].tolist()
        scores[task] = TaskScore(accuracy, low, high, f1, accuracy_sd, f1_sd)
    both, both_sd = over_seeds("test/combined")
    if len(tested) > 1 and both is not None:
        low, high = (metrics[0].get(f"test/combined/{end}") for end in ("low", "high"))
        combined = CombinedScore(both, low, high, both_sd)
    if tested:
        task, by = tested[0], GAP_BY[tested[0]]
        names = (f"test/{task}/gap_{by}{end}" for end in ("", "/low", "/high", "/chance"))
        means = [over_seeds(name)[0] for name in names]
        gap = None if None in means else GroupGap(task, by, *means)
    val_mean, val_sd = mean_sd([found["selected/val/combined"] for found in metrics])
    states = {run.short_identity: flag_state(run.record) for run in runs}
    # 0 is how a device says that it cannot tell.
    speeds, memory = (
        [float(end[key]) for end in done if end.get(key)]
        for key in ("images_per_second", "peak_memory_mib")
    )
    return Row(
        status="done",
        name=group.label,
        val_combined=val_mean,
        val_combined_sd=val_sd,
        scores=scores,
        combined=combined,
        worst=worst_group(table, tested) if tested else None,
        gap=gap,
        study=study,
        parameters=int(first.record.about["parameters"]["total"]),
        trainable_parameters=int(first.record.about["parameters"]["trainable"]),
        gmacs=n / 1e9 if (n := first.record.about.get("multiply_adds")) is not None else None,
        seconds=statistics.fmean(float(end["seconds"]) for end in done),
        images_per_second=statistics.fmean(speeds) if speeds else None,
        peak_memory_mib=max(memory, default=None),
        seeds=group.seeds,
        devices=_distinct(run.record.about["device"] for run in runs),
        precisions=_distinct(run.record.about.get("precision") for run in runs),
        commits=_distinct(run.record.about["commit"] for run in runs),
        identities=tuple(run.short_identity for run in runs),
        leaky=group.leaky,
        is_one_class=alone == group.tasks,
        stopped=any(state.stopped for state in states.values()),
        red_flag=warning(states, first.short_identity if len(runs) == 1 else group.label),
        remarks=(*([] if tested else ["not evaluated on the test set"]), *remarks, *one_class),
        definition=first.definition,
        runs=runs,
    )


def _distinct(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for value in values if value is not None))


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Average over seeds; the sample sd of a single seed does not exist."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def worst_group(subgroups: pd.DataFrame, tasks: Sequence[TaskName]) -> WorstGroup | None:
    """Find the subgroup of 30 faces or more with the lowest accuracy; the first such on a tie.

    For age group where it is predicted, else for the only task. The task's own classes are no
    candidates, alone or crossed with another division: the accuracy of a class is its recall, and
    says nothing of a subgroup. subgroups: as benchmark.evaluation.subgroups makes it.
    """
    task = tasks[0]
    own = ["all", task] if task == "age_group" else ["all", task, "gender_race"]
    ours = (subgroups["task"] == task) & (subgroups["n"] >= SMALL_GROUP)
    found = subgroups[ours & ~subgroups["by"].isin(own)].to_dict("records")
    if not found:
        return None
    worst = min(found, key=lambda group: float(group["accuracy"]))
    columns = ("by", "group", "n", "accuracy", "low", "high")
    return WorstGroup(task, *(worst[name] for name in columns))


def _with_intervals(row: Row) -> Row:
    """Give a row over several seeds its intervals, by resampling clusters of test faces.

    What is resampled is seed-averaged correctness: of each task, of all together, and of the worst
    subgroup.
    """
    known = row.correctness
    means = {
        task: np.where(known.known(task), known.right[task].mean(axis=0), np.nan)
        for task in row.tasks
    }
    columns: dict[Any, Floats] = {**means}
    if row.combined is not None:
        columns["combined"] = all_tasks(known, row.tasks).mean(axis=0)
    if row.worst is not None:
        place = group_names(row.worst.by).index(row.worst.group)
        member = group_codes(known.faces, row.worst.by) == place
        columns["worst"] = np.where(member, means[row.worst.task], np.nan)
    clusters = known.faces["cluster"].to_numpy()
    ends = cluster_bootstrap(np.column_stack([*columns.values()]), clusters)
    scores: dict[Any, Any] = {**row.scores, "combined": row.combined, "worst": row.worst}
    for name, low, high in zip(columns, *(of.tolist() for of in ends), strict=True):
        scores[name] = replace(scores[name], low=low, high=high)
    combined, worst = scores.pop("combined"), scores.pop("worst")
    return replace(row, scores=scores, combined=combined, worst=worst)


def all_tasks(known: Correctness, tasks: Sequence[TaskName]) -> Floats:
    """Give values of single faces whose mean is the combined accuracy; (n_runs, n_faces)."""
    weights = [COMBINED_WEIGHTS[task] for task in tasks]
    return np.average([known.values(task) for task in tasks], axis=0, weights=weights)
