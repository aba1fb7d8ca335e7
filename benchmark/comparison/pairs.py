"""Which run groups are compared on which tasks, and the results.

The command line, the report and leaderboards plan their pairs here. All pairs of a page are judged
together, so that each comparison has one corrected p. Built from the runs' folders alone.
"""

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np

from benchmark.comparison import wording as words
from benchmark.comparison.library import (
    Library,
    NotRun,
    RunGroup,
    choose_dataset,
    compared_runs,
    why_not_comparable,
)
from benchmark.comparison.rows import (
    Row,
    RowComparison,
    RowQuestion,
    TaskScore,
    all_tasks,
    mean_sd,
)
from benchmark.comparison.statistics import (
    Difference,
    Family,
    difference_of,
    judge,
    paired_difference,
)
from benchmark.errors import RunError
from benchmark.evaluation.intervals import cluster_bootstrap, wilson
from benchmark.evaluation.predictions import (
    RunPredictions,
    difference_in_faces,
    read_run_predictions,
)
from benchmark.evaluation.subgroups import macro_f1
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TASKS, TaskName

Kind = Literal["first", "defined", "all", "twins"]
NO_TASK: Final = "no task in common"
NOT_REGISTERED: Final = "not registered"
SHARED: Final = "the same runs"
QUESTIONS: Final[dict[Kind, tuple[Family, str]]] = {
    "first": ("named", "Each against the first"),
    "defined": ("compare_with", "Each against the one that its definition names"),
    "all": ("named", "All pairs"),
    "twins": ("mtl_stl", "MTL networks against their single-task counterparts"),
}
"""What a table answers: the family of its p-values, and its title."""
ROW_FAMILY_OF: Final[dict[RowQuestion, Family]] = {
    "twin": "mtl_stl",
    "defined": "compare_with",
    "first": "first",
}


@dataclass
class PairPlan:
    """Which groups are to be compared on which tasks, reference first, and which cannot be."""

    pairs: list[tuple[RunGroup, RunGroup, tuple[TaskName, ...]]] = field(default_factory=list)
    gaps: list[words.Gap] = field(default_factory=list)

    def without(self, other: "PairPlan") -> "PairPlan":
        """Leave out what stands in another plan, either way round."""
        theirs = [{a.label, b.label} for a, b, _ in other.pairs]
        theirs += [{gap.group, gap.reference} for gap in other.gaps]
        return PairPlan(
            [item for item in self.pairs if {item[0].label, item[1].label} not in theirs],
            [gap for gap in self.gaps if {gap.group, gap.reference} not in theirs],
        )


def plan_pair(
    plan: PairPlan,
    reference: RunGroup | NotRun,
    group: RunGroup | NotRun,
    tasks: Sequence[TaskName],
) -> None:
    """Plan one comparison on the tasks that both predict, or say why there is none."""
    if isinstance(reference, NotRun) or isinstance(group, NotRun):
        missing = [side for side in (reference, group) if isinstance(side, NotRun)]
        why = "; ".join(f"{side.label}: {side.why}" for side in missing)
        plan.gaps.append(words.Gap(group.label, reference.label, why))
    elif shared := tuple(task for task in tasks if task in group.tasks and task in reference.tasks):
        plan.pairs.append((reference, group, shared))
    else:
        plan.gaps.append(words.Gap(group.label, reference.label, NO_TASK))


def counterpart_names(experiment: Experiment) -> dict[TaskName, str]:
    """Name an MTL experiment's single-task counterparts, or an STL experiment's multi-task one."""
    tasks = experiment.head.tasks
    if len(tasks) > 1:
        return {task: experiment.counterpart_name(task) for task in tasks}
    return {tasks[0]: f"mtl-{experiment.name.removeprefix(f'{tasks[0]}-')}"}


def why_no_counterpart(one: Experiment, other: Experiment | None) -> str:
    """Say why two experiments are not trained alike but for the tasks; empty where they are."""
    if other is None:
        return NOT_REGISTERED
    parts = ("backbone", "recipe", "protocol", "subset")
    differing = [part for part in parts if getattr(one, part) != getattr(other, part)]
    return f"no counterpart, its {' and '.join(differing)} differ" if differing else ""


def counterparts_plan(
    library: Library, named: Sequence[RunGroup | NotRun], dataset: str, tasks: Sequence[TaskName]
) -> PairPlan:
    """Plan the comparisons of every MTL experiment with its single-task counterparts."""
    plan = PairPlan()
    for group in named:
        mtl = library.experiments.get(group.label)
        if mtl is None or len(mtl.head.tasks) == 1 or isinstance(group, NotRun):
            continue
        for task, name in counterpart_names(mtl).items():
            if task in tasks:
                why = why_no_counterpart(mtl, library.experiments.get(name))
                stl = NotRun(name, why) if why else library.run_group(name, dataset)
                if isinstance(stl, NotRun):
                    plan.gaps.append(words.Gap(group.label, name, stl.why, task))
                else:
                    plan.pairs.append((stl, group, (task,)))
    return plan


@dataclass
class Book:
    """The predictions of run groups on their test faces, each file read once."""

    tasks: tuple[TaskName, ...] = TASKS
    _read: dict[tuple[str, ...], RunPredictions | RunError] = field(default_factory=dict)

    def predictions(self, group: RunGroup) -> RunPredictions:
        """Read a group's predictions of the tasks in question; RunError where they cannot be."""
        found = self._read.get(group.identities)
        if found is None:
            tasks = [task for task in group.tasks if task in self.tasks]
            try:
                found = read_run_predictions([run.record for run in group.runs], tasks)
            except RunError as error:
                found = error
            self._read[group.identities] = found
        if isinstance(found, RunError):
            raise found
        return found

    def difference(self, reference: RunGroup, group: RunGroup, task: TaskName) -> Difference:
        """Compare two groups; RunError where that would not be fair, or cannot be done."""
        if why := why_not_comparable(group, reference):
            raise RunError(why)
        sides = (group, reference), compared_runs(reference, group)[::-1]
        ours, theirs = (self.predictions(whole).labelled(task) for whole in sides[0])
        if why := difference_in_faces(ours.faces, theirs.faces):
            raise RunError(f"they were tested on different faces, {why}")
        one, other = (
            read.predicted[task][[whole.identities.index(it) for it in part.identities]]
            for read, whole, part in zip((ours, theirs), *sides, strict=True)
        )
        truth, clusters = (ours.faces[c].to_numpy(dtype=np.int64) for c in (task, "cluster"))
        return paired_difference(one, other, truth, clusters)


@dataclass(frozen=True)
class Found:
    """What came of a plan: judged differences, and what could not be compared."""

    lines: tuple[words.TaskComparison, ...] = ()
    gaps: tuple[words.Gap, ...] = ()


Compared = tuple[Family, RunGroup, RunGroup, Any, Difference]
"""The question, reference and group, the task (of rows None: all together), and the group minus its
reference."""


def judge_plans(
    plans: Mapping[Family, PairPlan], book: Book, strict: bool = False
) -> dict[Family, Found]:
    """Compare all that a page asks for, and judge it together: one verdict for each comparison.

    What cannot be compared becomes a gap; with `strict` a RunError.
    """
    asked: list[Compared] = []
    gaps = {family: dict.fromkeys(plan.gaps) for family, plan in plans.items()}
    known: dict[Hashable, Difference] = {}
    pairs = [(family, *pair) for family, plan in plans.items() for pair in plan.pairs]
    for family, reference, group, tasks in pairs:
        sides = compared_runs(reference, group)
        for task in tasks:
            key = (reference.identities, group.identities, task)
            try:
                if key not in known:
                    known[key] = book.difference(reference, group, task)
                asked.append((family, *sides, task, known[key]))
            except RunError as error:
                # A file that cannot be read says so itself, and what to do.
                if strict and (error.source or error.fix):
                    raise
                if strict:
                    raise RunError(
                        f"{group.label} and {reference.label} cannot be compared: {error.found}",
                        allowed="two models trained apart, with the same test faces and protocol",
                    ) from error
                gaps[family][words.Gap(group.label, reference.label, error.found)] = None
    found: dict[Family, list[words.TaskComparison]] = {family: [] for family in plans}
    for item, line in zip(asked, judge_lines(asked), strict=True):
        found[item[0]].append(line)
    return {family: Found(tuple(found[family]), tuple(gaps[family])) for family in plans}


def judge_lines(asked: Sequence[Compared]) -> list[words.TaskComparison]:
    """Judge all differences of a page together, whichever side is the reference; in their order."""
    keys = [(frozenset((item[1].identities, item[2].identities)), item[3]) for item in asked]
    judged = judge((item[0], key, item[4]) for item, key in zip(asked, keys, strict=True))
    return [
        words.TaskComparison(**{**vars(judged[key]), "difference": found}, reference=one,
                             group=other, task=task)
        for (_, one, other, task, found), key in zip(asked, keys, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True)
class ComparisonTable:
    """The differences of one question."""

    kind: Kind
    lines: tuple[words.TaskComparison, ...]
    """The tasks of a pair stand together; in the table of counterparts, those of an MTL network."""
    gaps: tuple[words.Gap, ...]

    @property
    def title(self) -> str:
        """What stands above it."""
        return QUESTIONS[self.kind][1]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it says, in words."""
        return tuple(
            (words.mtl_sentences if self.kind == "twins" else words.pair_sentences)(self.lines)
        )

    @property
    def gap_sentences(self) -> tuple[str, ...]:
        """What is missing from it, in words."""
        return tuple(words.gap_sentences(self.gaps))

    @property
    def family(self) -> str:
        """Over which p-values its own were corrected."""
        return words.family_text(self.lines)


@dataclass(frozen=True)
class GroupScores:
    """A run group by itself: its scores on the test faces."""

    group: RunGroup
    scores: dict[TaskName, TaskScore]


@dataclass(frozen=True)
class Comparison:
    """All that a comparison found."""

    dataset: str
    drawn: bool
    tasks: tuple[TaskName, ...]
    groups: tuple[GroupScores, ...]
    absent: tuple[NotRun, ...]
    tables: tuple[ComparisonTable, ...]
    notes: tuple[str, ...]
    """How these very tables are to be read."""
    limits: tuple[str, ...]


def compare(
    library: Library,
    arguments: Sequence[str],
    *,
    dataset: str | None = None,
    tasks: Sequence[TaskName] = TASKS,
    all_pairs: bool = False,
) -> Comparison:
    """Compare what `arguments` name: ids of runs, experiments, suites.

    Each group is compared with the first; with `all_pairs` each with each. Where only suites are
    named, or one experiment alone, each experiment is compared with the one that its definition
    names, and every MTL experiment with its single-task counterparts. What was named one by one and
    is not comparable is refused with RunError; what is wrong within a suite becomes a gap of the
    table, and so do experiments without runs. RunError where nothing at all can be compared.
    """
    requests = [library.request(argument) for argument in arguments]
    where = choose_dataset(library, requests, dataset)
    book = Book(tuple(task for task in TASKS if task in tasks))
    by_label: dict[str, RunGroup | NotRun] = {}
    for item in requests:
        if item.run is not None:
            group = library.group_of_run(item.run)
            by_label.setdefault(group.label, group)
        else:
            for name in item.names:
                by_label[name] = by_label.get(name) or library.run_group(name, where)
    named = list(by_label.values())
    plans: dict[Kind, PairPlan] = {}
    if not all_pairs and (all(item.kind == "suite" for item in requests) or len(named) == 1):
        plans["twins"] = counterparts_plan(library, named, where, book.tasks)
        plan = PairPlan()
        for one in named:
            definition = library.experiments.get(one.label)
            if definition is not None and (other := definition.compare_with) is not None:
                reference = by_label.get(other) or library.run_group(other, where)
                plan_pair(plan, reference, one, book.tasks)
        plans["defined"] = plan.without(plans["twins"])
    else:
        pairs: Iterable[tuple[RunGroup | NotRun, ...]] = itertools.combinations(named, 2)
        if not all_pairs:
            pairs = ((named[0], other) for other in named[1:])
        plan = plans["all" if all_pairs else "first"] = PairPlan()
        for first, second in pairs:
            plan_pair(plan, first, second, book.tasks)
    strict = all(item.kind != "suite" for item in requests) and len(named) > 1
    judged = judge_plans({QUESTIONS[kind][0]: plan for kind, plan in plans.items()}, book, strict)
    tables = tuple(
        ComparisonTable(kind, found.lines, found.gaps)
        for kind, found in zip(plans, judged.values(), strict=True)
        if found.lines or found.gaps
    )
    lines = [line for table in tables for line in table.lines]
    if not lines:
        said = [f"{g.group} against {g.reference}: {g.why}" for table in tables for g in table.gaps]
        alone = f"{', '.join(group.label for group in named)} has nothing to stand against"
        raise RunError(
            f"nothing can be compared. {'. '.join(said) or alone}",
            allowed="two models or more with finished runs on the same test faces",
            fix="`facebench run NAME --seeds 0,1,2` makes the runs that are missing",
        )
    labels = {label for line in lines for label in (line.group.label, line.reference.label)}
    sides = [side for plan in plans.values() for pair in plan.pairs for side in pair[:2]]
    groups = {side.label: side for side in (*named, *sides) if isinstance(side, RunGroup)}
    whole = [group for label, group in groups.items() if label in labels]
    return Comparison(
        dataset=where,
        drawn=whole[0].setting.drawn,
        tasks=tuple(task for task in TASKS if any(line.task == task for line in lines)),
        groups=tuple(GroupScores(group, group_scores(book.predictions(group))) for group in whole),
        absent=tuple(group for group in named if isinstance(group, NotRun)),
        tables=tables,
        notes=tuple(words.reading_notes(lines, whole)),
        limits=words.limitations(whole[0].runs),
    )


def group_scores(predictions: RunPredictions) -> dict[TaskName, TaskScore]:
    """Score a group by itself: mean over seeds, their sd, and the interval that leaderboards have.

    Wilson's for one run, a cluster bootstrap of the seed-averaged correctness for several.
    """
    scores: dict[TaskName, TaskScore] = {}
    for task in predictions.predicted:
        ours = predictions.labelled(task)
        right, predicted = ours.right(task), ours.predicted[task]
        if len(right) == 1:
            low, high = wilson(right.sum(axis=1), np.array([right.shape[1]]))
        else:
            clusters = ours.faces["cluster"].to_numpy()
            low, high = cluster_bootstrap(right.mean(axis=0)[:, None], clusters)
        truth = ours.faces[task].to_numpy(dtype=np.int64)
        f1 = [macro_f1(truth, one) for one in predicted]
        accuracy, accuracy_sd = mean_sd(right.mean(axis=1).tolist())
        mean_f1, f1_sd = (None, None) if np.isnan(f1).any() else mean_sd(f1)
        scores[task] = TaskScore(
            accuracy, float(low[0]), float(high[0]), mean_f1, accuracy_sd, f1_sd
        )
    return scores


RowPair = tuple[Row, RowComparison, Row | None]
"""A row of a leaderboard, what it is to be compared with, and that row; None: it says why not."""


def row_pairs(
    row: Row,
    first: Row | None,
    others: Mapping[str, Sequence[Row]],
    known: Mapping[str, Experiment],
) -> Iterator[RowPair]:
    """Pair a row with its counterparts, the row its definition names and the first of its table.

    others: finished rows of the setting by experiment; several where one was run by several
    trainers or from several weight files. known: every definition, whether it was run or not.
    """
    if not row.scores:
        return
    mine = None if row.group.ad_hoc else known.get(row.name)
    counterparts = set()
    for task, name in (counterpart_names(mine) if mine else {}).items():
        why = why_no_counterpart(known[row.name], known.get(name))
        other = None if why else _most_alike(row, others.get(name, ()))
        if other is None:
            why = why or "not run here"
        elif other.runs[0].weights_sha256 != row.runs[0].weights_sha256:
            other, why = None, "no counterpart, it began from another weight file"
        if task in row.tasks and (name.startswith(task) or why != NOT_REGISTERED):
            counterparts.add(name)
            yield row, RowComparison("twin", name, task, why=why), other
    name = (mine and mine.compare_with) or ""
    if name and name not in counterparts:
        other = _most_alike(row, others.get(name, ()))
        tasks = [task for task in row.tasks if other is not None and task in other.tasks]
        yield from ((row, RowComparison("defined", name, task), other) for task in tasks)
        if not tasks:
            missing = "not run here" if name in known else NOT_REGISTERED
            why = missing if other is None else NO_TASK
            yield row, RowComparison("defined", name, None, why=why), None
    if first is not None and first is not row:
        yield row, RowComparison("first", first.name, None), first


def _most_alike(row: Row, candidates: Sequence[Row]) -> Row | None:
    """Give the row of an experiment with our trainer and weight file, and then with most seeds."""
    mine = row.runs[0]

    def likeness(other: Row) -> tuple[bool, bool, int, str]:
        run = other.runs[0]
        same_trainer = run.trainer_version == mine.trainer_version
        same_weights = run.weights_sha256 == mine.weights_sha256
        return same_trainer, same_weights, len(other.runs), run.record.family

    return max((other for other in candidates if other.scores), key=likeness, default=None)


def compare_rows(pairs: Sequence[RowPair]) -> dict[int, tuple[RowComparison, ...]]:
    """Compare all that a leaderboard asks for, by `id` of the row; see judge_plans."""
    known: dict[Hashable, Difference] = {}
    asked: list[Compared] = []
    whys = []
    for row, question, other in pairs:
        try:
            if other is None:
                raise RunError(question.why)
            sides = compared_runs(other.group, row.group)
            task = question.task or (None if len(row.tasks) > 1 else row.tasks[0])
            key = (sides[0].identities, sides[1].identities, task)
            if key not in known:
                known[key] = _row_difference(row, other, sides, task)
            asked.append((ROW_FAMILY_OF[question.kind], *sides, task, known[key]))
            whys.append("")
        except RunError as error:
            whys.append(error.found)
    lines, found = iter(judge_lines(asked)), defaultdict(list)
    for (row, question, _), why in zip(pairs, whys, strict=True):
        line = None if why else next(lines)
        alone = line is not None and line.of_trainings_alone
        found[id(row)].append(replace(question, why=why, judged=line, of_trainings_alone=alone))
    return {row_id: tuple(outcomes) for row_id, outcomes in found.items()}


def _row_difference(
    ours: Row, theirs: Row, sides: tuple[RunGroup, RunGroup], task: TaskName | None
) -> Difference:
    """Compare runs of two rows; RunError where they cannot be. Without a task, all tasks as
    `combined` weighs them, on all faces; else the faces that are labelled for it."""
    if ours.leaky != theirs.leaky:
        raise RunError("one of the two is LEAKY")
    if set(sides[0].identities) & set(sides[1].identities):
        raise RunError(SHARED)
    if not set(ours.tasks if task is None else (task,)) <= set(theirs.tasks):
        raise RunError(NO_TASK)
    one, other = ours.correctness, theirs.correctness
    if (one.key(task) if task else one.faces_key) != (other.key(task) if task else other.faces_key):
        raise RunError("tested on different faces")
    values = []
    for row, side in ((ours, sides[1]), (theirs, sides[0])):
        runs = [row.group.identities.index(name) for name in side.identities]
        known = row.correctness
        right = known.right[task][:, known.known(task)] if task else all_tasks(known, ours.tasks)
        values.append(right[runs])
    clusters = one.faces["cluster"].to_numpy()[one.known(task) if task else slice(None)]
    return difference_of(values[0], values[1], clusters)
