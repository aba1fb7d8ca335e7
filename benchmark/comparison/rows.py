"""Rows of a leaderboard: one experiment over its seeds.

A leaderboard's row: one experiment over its seeds, from the stored files of its runs.

Which rows stand in which table, and in what order: benchmark.comparison.leaderboard; the rows
that every table begins with are in benchmark.comparison.references.

A leaderboard's row, as plain values: what was measured of one experiment over its seeds.

How rows are computed from runs is for benchmark.comparison.rows; what they are set against, for
benchmark.comparison.against.
"""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.comparison.statistics import Difference, Judged
from benchmark.errors import ExperimentError, RunError
from benchmark.evaluation.answers import RightAnswers, right_answers
from benchmark.evaluation.intervals import Floats, cluster_bootstrap
from benchmark.evaluation.red_flags import flag_state, warning
from benchmark.evaluation.subgroups import GAP_BY, SMALL_GROUP, By, group_codes, group_names
from benchmark.experiment.definition import Protocol, StudyRow, Subset
from benchmark.experiment.parts import LEAK_FREE_SPLITS
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.record import RunRecord
from benchmark.tasks import COMBINED_WEIGHTS, TASKS, TaskName

RowQuestion = Literal["twin", "defined", "first"]
"""Its single-task (or multi-task) counterpart, the one its definition names, the table's first."""


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
class CombinedScore:
    """All tasks on the test faces together, 0.4 age group + 0.2 gender + 0.4 race; in [0, 1]."""

    value: float
    low: float | None
    """Ends of a cluster bootstrap; None for a run that was scored before there was one."""
    high: float | None
    sd: float | None = None


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
class GroupGap:
    """How far the best-read group of a division is from the worst-read one; means over seeds."""

    task: TaskName
    by: By
    gap: float
    low: float
    """Ends of each run's 95 % interval, averaged over seeds: the seeds share the test faces, so
    that the average is no narrower than it must be."""
    high: float
    chance: float
    """The gap of a run whose group names are drawn by lot."""


@dataclass(frozen=True)
class RowComparison:
    """A row set against another on the same test faces; where it cannot be, `why` says so."""

    kind: RowQuestion
    other: str
    """The other row's experiment."""
    task: TaskName | None
    """None: all tasks together, weighted as in `combined`."""
    judged: Judged | None = None
    """The row minus the other."""
    of_trainings_alone: bool = False
    """Whether single runs met, which permit no claim about an experiment."""
    why: str = ""

    @property
    def difference(self) -> Difference | None:
        """The row minus the other."""
        return self.judged.difference if self.judged else None

    @property
    def significant(self) -> bool:
        """Whether the corrected p is 0.05 or less."""
        return self.judged is not None and self.judged.significant


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
    combined: CombinedScore | None = None
    """On test; None where a single task is predicted."""
    worst: WorstGroup | None = None
    gap: GroupGap | None = None
    comparisons: tuple[RowComparison, ...] = ()
    tied: bool = False
    """Whether there is no significant difference from the first row of its table, on test."""
    study: StudyRow | None = None
    """What the original study printed for this very row, its leak included."""
    parameters: int | None = None
    trainable_parameters: int | None = None
    gmacs: float | None = None
    """Billions of multiply-adds to read one face."""
    seconds: float | None = None
    """Mean training time of a run."""
    images_per_second: float | None = None
    peak_memory_mib: float | None = None
    """The largest of its runs."""
    seeds: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    leaky: bool = False
    stopped: bool = False
    """Too good to be true and not acknowledged: shown, and not ranked."""
    red_flag: str = ""
    """What is too good to be true and which checks were run; empty for most rows."""
    remarks: tuple[str, ...] = ()
    definition: Mapping[str, Any] = field(default_factory=dict)
    """As it was run, or as it would be; empty for reference rows."""


GROUP_COLUMNS: Final = ("task", "by", "group")


def definition_key(definition: Mapping[str, Any]) -> str:
    """Give the part of a definition that steers its training, as comparable text.

    A name or a question may change without making a run another one's.
    """
    return canonical_json(steering_content(definition))


def on_current_split(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Give a definition that was run on an older leak-free split as it would be run today."""
    protocol = dict(definition["protocol"])
    if protocol.get("split") in LEAK_FREE_SPLITS:
        protocol["split"] = LEAK_FREE_SPLITS[0]
    return {**definition, "protocol": protocol}


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


@dataclass
class Draft:
    """A row whose intervals over several seeds are still to be found, with the runs behind it."""

    row: Row
    runs: tuple[Run, ...]
    """Finished ones of one family, by ascending seed."""
    _answers: RightAnswers | None = field(default=None, repr=False)

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks whose test faces were read."""
        return tuple(self.row.scores)

    @property
    def answers(self) -> RightAnswers:
        """Which answers of its runs are right; raise RunError where they cannot be read."""
        if self._answers is None:
            self._answers = right_answers([run.record for run in self.runs], self.tasks)
        return self._answers


def experiment_row(name: str, runs: Sequence[Run], remarks: Sequence[str] = ()) -> Row:
    """Summarise the finished runs of one experiment, one per seed, none empty.

    Raises RunError where a file of a run is missing, damaged, or about other faces.
    """
    draft = draft_row(name, runs, remarks)
    give_intervals([draft])
    return draft.row


def draft_row(
    name: str, runs: Sequence[Run], remarks: Sequence[str] = (), study: StudyRow | None = None
) -> Draft:
    """Summarise runs as experiment_row does, and leave intervals over seeds to give_intervals."""
    runs = sorted(runs, key=lambda run: run.record.seed)
    try:
        draft = Draft(_summary(name, runs, remarks, study), tuple(runs))
        if len(runs) > 1 and draft.row.scores:
            _ = draft.answers
    except (KeyError, TypeError, ValueError) as error:
        which = ", ".join(run.short_identity for run in runs)
        raise RunError(
            f"the files of run {which} hold too little ({type(error).__name__}: {error})",
            allowed="what facebench writes",
            fix="Remove the run's folder and run the experiment again",
        ) from error
    return draft


def _summary(name: str, runs: Sequence[Run], remarks: Sequence[str], study: StudyRow | None) -> Row:
    first, metrics = runs[0], [run.record.metrics for run in runs]
    tasks = [task for task in TASKS if task in first.definition["head"]["tasks"]]
    tested = [t for t in tasks if all(f"test/{t}/accuracy" in values for values in metrics)]
    scores, worst = _test_scores(runs, tested) if tested else ({}, None)
    val_mean, val_sd = _mean_sd([values["selected/val/combined"] for values in metrics])
    states = {run.short_identity: flag_state(run.record) for run in runs}
    parameters, done = first.about["parameters"], [run.record.done for run in runs]
    return Row(
        status="done",
        name=name,
        val_combined=val_mean,
        val_combined_sd=val_sd,
        scores=scores,
        combined=_combined(metrics) if len(tested) > 1 else None,
        worst=worst,
        gap=_gap(metrics, tested[0]) if tested else None,
        study=study,
        parameters=int(parameters["total"]),
        trainable_parameters=int(parameters["trainable"]),
        gmacs=_gmacs(first.about.get("multiply_adds")),
        seconds=statistics.fmean(float(end["seconds"]) for end in done),
        images_per_second=_mean_of(done, "images_per_second"),
        peak_memory_mib=max(_known(done, "peak_memory_mib"), default=None),
        seeds=tuple(run.record.seed for run in runs),
        devices=_distinct(run.about["device"] for run in runs),
        precisions=_distinct(run.about.get("precision") for run in runs),
        commits=_distinct(run.about["commit"] for run in runs),
        identities=tuple(run.short_identity for run in runs),
        leaky=any(run.leaky for run in runs),
        stopped=any(state.stopped for state in states.values()),
        red_flag=warning(states, first.short_identity if len(runs) == 1 else name),
        remarks=tuple(remarks),
        definition=first.definition,
    )


def _distinct(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for value in values if value is not None))


def _mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Average over seeds; the sd of a single seed does not exist."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _known(done: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Give what each run's end says of a cost, 0 being how a device says that it cannot tell."""
    return [float(end[name]) for end in done if end.get(name)]


def _mean_of(done: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = _known(done, name)
    return statistics.fmean(values) if values else None


def _gmacs(multiply_adds: float | None) -> float | None:
    return None if multiply_adds is None else float(multiply_adds) / 1e9


def _combined(metrics: Sequence[Mapping[str, float]]) -> CombinedScore | None:
    """Average the combined test accuracy; the ends for several seeds come later."""
    name = "test/combined"
    if not all(name in values for values in metrics):
        return None
    mean, sd = _mean_sd([values[name] for values in metrics])
    low, high = (metrics[0].get(f"{name}/{end}") for end in ("low", "high"))
    return CombinedScore(mean, low, high, sd)


def _gap(metrics: Sequence[Mapping[str, float]], task: TaskName) -> GroupGap | None:
    by = GAP_BY[task]
    name = f"test/{task}/gap_{by}"
    ends = ("", "/low", "/high", "/chance")
    if not all(f"{name}{end}" in values for values in metrics for end in ends):
        return None
    means = [statistics.fmean(values[f"{name}{end}"] for values in metrics) for end in ends]
    return GroupGap(task, by, *means)


def _test_scores(
    runs: Sequence[Run], tasks: Sequence[TaskName]
) -> tuple[dict[TaskName, TaskScore], WorstGroup | None]:
    """Score the tasks on test; the ends are those of the first seed until give_intervals."""
    groups = _mean_groups([run.record.subgroup_columns() for run in runs])
    everyone = {
        groups["task"][place]: place for place in np.flatnonzero(groups["by"] == "all").tolist()
    }
    metrics = [run.record.metrics for run in runs]
    scores = {}
    for task in tasks:
        accuracy, accuracy_sd = _mean_sd([values[f"test/{task}/accuracy"] for values in metrics])
        name = f"test/{task}/macro_f1"
        f1 = [values[name] for values in metrics if name in values]
        macro_f1, macro_f1_sd = _mean_sd(f1) if len(f1) == len(runs) else (None, None)
        low, high = (float(groups[end][everyone[task]]) for end in ("low", "high"))
        scores[task] = TaskScore(accuracy, low, high, macro_f1, accuracy_sd, macro_f1_sd)
    return scores, _worst(groups, tasks)


Groups = Mapping[str, npt.NDArray[Any]]
"""The columns of a table of subgroups."""


def _mean_groups(tables: Sequence[Mapping[str, list[Any]]]) -> Groups:
    """Average each subgroup's accuracy over seeds; the ends are those of the first seed."""
    first = tables[0]
    for table in tables[1:]:
        if any(table[name] != first[name] for name in (*GROUP_COLUMNS, "n")):
            raise RunError(
                "two seeds of one experiment were tested on different faces",
                allowed="the same test faces for all seeds of an experiment",
                fix="Remove the folders of its runs and run the experiment again",
            )
    accuracies = [np.array(table["accuracy"], dtype=np.float64) for table in tables]
    return {
        **{name: np.array(first[name], dtype=object) for name in GROUP_COLUMNS},
        "n": np.array(first["n"], dtype=np.int64),
        "accuracy": np.mean(accuracies, axis=0),
        **{end: np.array(first[end], dtype=np.float64) for end in ("low", "high")},
    }


def worst_group(subgroups: pd.DataFrame, tasks: Sequence[TaskName]) -> WorstGroup | None:
    """Find the worst-read subgroup of 30 faces or more; of the first such in the table on a tie.

    For age group where it is predicted, else for the only task. The task's own classes are no
    candidates, alone or crossed with another division: how well a class is read is its recall, not
    a matter of who is looked at.
    """
    return _worst({str(name): subgroups[name].to_numpy() for name in subgroups.columns}, tasks)


def _worst(groups: Groups, tasks: Sequence[TaskName]) -> WorstGroup | None:
    task = tasks[0]
    own = ["all", task] if task == "age_group" else ["all", task, "gender_race"]
    ours = (groups["task"] == task) & (groups["n"] >= SMALL_GROUP)
    ours &= ~np.isin(groups["by"].astype(str), own)
    places = np.flatnonzero(ours)
    if not len(places):
        return None
    place = int(places[np.asarray(groups["accuracy"][places], dtype=np.float64).argmin()])
    accuracy, low, high = (float(groups[name][place]) for name in ("accuracy", "low", "high"))
    by, group, n = groups["by"][place], groups["group"][place], int(groups["n"][place])
    return WorstGroup(task, by, str(group), n, accuracy, low, high)


def give_intervals(drafts: Sequence[Draft]) -> None:
    """Give the rows over several seeds their intervals, by resampling clusters of test faces.

    What is resampled is seed-averaged correctness. Drafts on the same faces are resampled
    together: the draws cost more than what is drawn.
    """
    by_faces: dict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        if len(draft.runs) > 1 and draft.row.scores:
            by_faces[draft.answers.faces_key].append(draft)
    for ours in by_faces.values():
        columns = [_columns(draft) for draft in ours]
        clusters = ours[0].answers.faces["cluster"].to_numpy()
        low, high = cluster_bootstrap(np.concatenate(columns, axis=1), clusters)
        begin = 0
        for draft, values in zip(ours, columns, strict=True):
            end = begin + values.shape[1]
            draft.row = _with_ends(draft.row, low[begin:end], high[begin:end])
            begin = end


def _columns(draft: Draft) -> Floats:
    """Lay out what of a row is resampled: each task, all together, and the worst group."""
    row, answers = draft.row, draft.answers
    means = {task: answers.right[task].mean(axis=0) for task in draft.tasks}
    columns = list(means.values())
    if row.combined is not None:
        weights = [COMBINED_WEIGHTS[task] for task in means]
        columns.append(np.average(columns, axis=0, weights=weights))
    if row.worst is not None:
        member = group_codes(answers.faces, row.worst.by) == group_names(row.worst.by).index(
            row.worst.group
        )
        columns.append(np.where(member, means[row.worst.task], np.nan))
    return np.column_stack(columns)


def _with_ends(row: Row, low: Floats, high: Floats) -> Row:
    """Put the ends of the columns that _columns laid out into a row."""
    ends = [{"low": float(one), "high": float(other)} for one, other in zip(low, high, strict=True)]
    n = len(row.scores)
    scores = {
        task: dataclasses.replace(score, **span)
        for (task, score), span in zip(row.scores.items(), ends[:n], strict=True)
    }
    changes: dict[str, Any] = {"scores": scores}
    if row.combined is not None:
        changes["combined"] = dataclasses.replace(row.combined, **ends[n])
    if row.worst is not None:
        worst = ends[-1]
        changes["worst"] = dataclasses.replace(row.worst, low=worst["low"], high=worst["high"])
    return dataclasses.replace(row, **changes)
