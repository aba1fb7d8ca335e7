"""Which run groups are compared on which tasks, and the results.

The command line, the report and leaderboards plan their pairs here. All pairs of a page are judged
together, so that each comparison has one corrected p. Built from the runs' folders alone.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from benchmark.comparison import statistics
from benchmark.comparison import wording as words
from benchmark.comparison.library import Library, RunGroup, choose_dataset
from benchmark.comparison.rows import SHARED, Row, RowComparison, TaskScore, all_tasks, mean_sd
from benchmark.comparison.statistics import Difference, Family
from benchmark.errors import RunError
from benchmark.evaluation import predictions as stored
from benchmark.evaluation.intervals import cluster_bootstrap, wilson
from benchmark.evaluation.predictions import RunPredictions
from benchmark.evaluation.subgroups import macro_f1
from benchmark.experiment.definition import Experiment
from benchmark.registry import NOT_REGISTERED, why_no_counterpart
from benchmark.tasks import TASKS, TaskName

Kind = Literal["first", "defined", "all", "twins"]
NO_TASK: Final = "no task in common"
QUESTIONS: Final[dict[Kind, tuple[Family, str]]] = {
    "first": ("named", "Each against the first"),
    "defined": ("compare_with", "Each against the one that its definition names"),
    "all": ("named", "All pairs"),
    "twins": ("mtl_stl", "MTL networks against their single-task counterparts"),
}
"""What a table answers: the family of its p-values, and its title."""
ROW_FAMILY_OF: Final[dict[str, Family]] = {
    "counterpart": "mtl_stl", "defined": "compare_with", "first": "first",
}  # fmt: skip


Pair = tuple[RunGroup, RunGroup, Sequence[TaskName]]
"""A reference, a group, and the tasks on which to compare them, as far as both predict them."""


def counterpart_names(experiment: Experiment) -> dict[TaskName, str]:
    """Name an MTL experiment's single-task counterparts, or an STL experiment's multi-task one."""
    tasks = experiment.head.tasks
    if len(tasks) > 1:
        return {task: experiment.counterpart_name(task) for task in tasks}
    return {tasks[0]: f"mtl-{experiment.name.removeprefix(f'{tasks[0]}-')}"}


def counterpart_pairs(
    library: Library, named: Iterable[RunGroup], dataset: str, tasks: Collection[TaskName]
) -> Iterator[Pair]:
    """Pair every MTL experiment that was run with its single-task counterparts, task by task."""
    for group in named:
        mtl = library.experiments.get(group.label)
        if mtl is None or len(mtl.head.tasks) == 1 or not group.runs:
            continue
        for task in (task for task in mtl.head.tasks if task in tasks):
            name = mtl.counterpart_name(task)
            why = why_no_counterpart(mtl, library.experiments.get(name))
            stl = RunGroup(name, why=why) if why else library.run_group(name, dataset)
            yield stl, group, (task,)


@dataclass
class Book:
    """The predictions of run groups on their test faces, each file read once."""

    tasks: tuple[TaskName, ...] = TASKS
    _read: dict[tuple[str, ...], RunPredictions] = field(default_factory=dict)

    def predictions(self, group: RunGroup) -> RunPredictions:
        """Read a group's predictions of the tasks in question; RunError where they cannot be."""
        if group.identities not in self._read:
            tasks = [task for task in group.tasks if task in self.tasks]
            records = [run.record for run in group.runs]
            self._read[group.identities] = stored.read_run_predictions(records, tasks)
        return self._read[group.identities]

    def difference(self, reference: RunGroup, group: RunGroup, task: TaskName) -> Difference:
        """Compare two groups; RunError where that would not be fair, or cannot be done."""
        if why := why_not_comparable(group, reference):
            raise RunError(why)
        sides = []
        for whole, part in zip((reference, group), compared_runs(reference, group), strict=True):
            read = self.predictions(whole)
            places = [whole.identities.index(it) for it in part.identities]
            sides.append(RunPredictions(read.faces, {task: read.predicted[task][places]}))
        return difference_between(sides[0], sides[1], task)


def difference_between(
    reference: RunPredictions, group: RunPredictions, task: TaskName
) -> Difference:
    """Compare predictions on the faces that have the task's label; RunError for unequal faces."""
    theirs, ours = reference.labelled(task), group.labelled(task)
    if differing := stored.difference_in_faces(ours.faces, theirs.faces):
        raise RunError(f"they were tested on different faces, {differing}")
    truth, clusters = (ours.faces[c].to_numpy(dtype=np.int64) for c in (task, "cluster"))
    return statistics.paired_difference(
        ours.predicted[task], theirs.predicted[task], truth, clusters
    )


def why_not_comparable(one: RunGroup, other: RunGroup) -> str:
    """Say why two groups must not be compared: settings, leaks, shared runs; not faces."""
    if shared := sorted(set(one.identities) & set(other.identities)):
        return f"they share the run {shared[0][:12]}"

    def facts(group: RunGroup) -> dict[str, object]:
        setting = group.setting
        return {
            "the data set": setting.dataset,
            "pixels": setting.pixel_digest[:8],
            **{f"protocol.{name}": value for name, value in asdict(setting.protocol).items()},
            "the split": setting.split_digest[:8],
            "the test subset": setting.subset.label if setting.subset else "all",
            "leaks": "LEAKY" if group.leaky else "honest",
        }

    ours, theirs = facts(one), facts(other)
    differing = [f"{it} ({ours[it]} and {theirs[it]})" for it in ours if ours[it] != theirs[it]]
    return f"they differ in {', '.join(differing)}" if differing else ""


def compared_runs(reference: RunGroup, group: RunGroup) -> tuple[RunGroup, RunGroup]:
    """Give what is really compared: both groups whole, or one run of each.

    Where one has a single run, no claim about its experiment is possible, and a single run of the
    other is compared with it: of the same seed if there is one, else of the lowest; never the best.
    """
    if min(len(reference.runs), len(group.runs)) > 1:
        return reference, group
    shared = sorted(set(reference.seeds) & set(group.seeds))[:1]
    one, other = (side.of_seeds(shared or side.seeds[:1]) for side in (reference, group))
    return one, other


class Found(NamedTuple):
    """The judged differences of one question, and what could not be compared."""

    lines: list[words.TaskComparison]
    """The tasks of a pair stand together; among counterparts, those of an MTL network."""
    gaps: list[words.Gap]


Asked = tuple[Family, RunGroup, RunGroup, Any, Callable[[], Difference]]
"""The question, reference and group, the task (of rows None: all together), and what gives the
group minus its reference, or raises RunError."""


def judge_lines(asked: Iterable[Asked]) -> list[words.TaskComparison | RunError]:
    """Compare and judge all of a page together, whichever side is the reference; in their order.

    What cannot be compared is the error that says why.
    """
    found: dict[Hashable, Difference | RunError] = {}
    outcomes = []
    for family, reference, group, task, compared in asked:
        one, other = compared_runs(reference, group)
        key = one.identities, other.identities, task
        if key not in found:
            try:
                found[key] = compared()
            except RunError as error:
                found[key] = error
        pair = frozenset(key[:2]), task
        outcomes.append(
            (family, pair, found[key], {"reference": one, "group": other, "task": task})
        )
    judged = statistics.judge(
        (family, pair, it) for family, pair, it, _ in outcomes if isinstance(it, Difference)
    )
    # The same pair the other way round shares all but the sign of its difference.
    return [
        it
        if isinstance(it, RunError)
        else words.TaskComparison(**(vars(judged[pair]) | sides | {"difference": it}))
        for _, pair, it, sides in outcomes
    ]


def judge_pairs(
    pairs: Mapping[Family, Iterable[Pair]], book: Book, *, strict: bool = False
) -> dict[Family, Found]:
    """Compare all that a page asks for, and judge it together: one verdict for each comparison.

    What cannot be compared becomes a gap; with `strict` a RunError, unless there are no runs.
    """
    asked: list[Asked] = []
    found: dict[Family, Found] = {family: Found([], []) for family in pairs}
    for family, reference, group, tasks in ((key, *pair) for key in pairs for pair in pairs[key]):
        difference = partial(book.difference, reference, group)
        both = [task for task in tasks if task in group.tasks and task in reference.tasks]
        asked += [(family, reference, group, it, partial(difference, it)) for it in both]
        missing = [f"{side.label}: {side.why}" for side in (reference, group) if not side.runs]
        gap = words.Gap(group.label, reference.label, "; ".join(missing) or NO_TASK)
        if family == "mtl_stl" and missing:
            gap = words.Gap(group.label, reference.label, reference.why, tasks[0])
        if not both:
            found[family].gaps.append(gap)
    for (family, reference, group, *_), line in zip(asked, judge_lines(asked), strict=True):
        if not isinstance(line, RunError):
            found[family].lines.append(line)
        elif not strict:
            found[family].gaps.append(words.Gap(group.label, reference.label, line.found))
        # A file that cannot be read says so itself, and what to do.
        elif line.source or line.fix:
            raise line
        else:
            why = f"{group.label} and {reference.label} cannot be compared: {line.found}"
            allowed = "two models trained apart, with the same test faces and protocol"
            raise RunError(why, allowed=allowed) from line
    return {family: Found(it.lines, list(dict.fromkeys(it.gaps))) for family, it in found.items()}


@dataclass(frozen=True)
class Comparison:
    dataset: str
    drawn: bool
    tasks: tuple[TaskName, ...]
    groups: Sequence[tuple[RunGroup, Mapping[TaskName, TaskScore]]]
    """Each with its own scores on the test faces."""
    absent: Sequence[RunGroup]
    """Named, and without runs."""
    tables: Mapping[Kind, Found]
    notes: Sequence[str]
    """How these very tables are to be read."""
    limits: Sequence[str]


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
    where = choose_dataset(library, arguments, dataset)
    book = Book(tuple(task for task in TASKS if task in tasks))
    meant = (group for it in arguments for group in library.groups_of(it, where))
    groups = list({group.label: group for group in meant}.values())
    are_suites = [it in library.suites and it not in library.experiments for it in arguments]
    pairs: dict[Kind, list[Pair]] = {}
    if not all_pairs and (all(are_suites) or len(groups) == 1):
        pairs["twins"] = list(counterpart_pairs(library, groups, where, book.tasks))
        of_counterparts = [{side.label for side in pair[:2]} for pair in pairs["twins"]]
        known = ((library.experiments.get(group.label), group) for group in groups)
        pairs["defined"] = [
            (library.run_group(definition.compare_with, where), group, book.tasks)
            for definition, group in known
            if definition and definition.compare_with
            if {definition.compare_with, group.label} not in of_counterparts
        ]
    else:
        every = itertools.combinations(groups, 2)
        pairs["all" if all_pairs else "first"] = [
            (first, second, book.tasks)
            for first, second in every
            if all_pairs or first is groups[0]
        ]
    strict = not any(are_suites) and len(groups) > 1
    judged = judge_pairs(
        {QUESTIONS[kind][0]: ours for kind, ours in pairs.items()}, book, strict=strict
    )
    tables = {kind: found for kind in pairs if any(found := judged[QUESTIONS[kind][0]])}
    lines = [line for found in tables.values() for line in found.lines]
    if not lines:
        gaps = [gap for found in tables.values() for gap in found.gaps]
        said = [f"{gap.group} against {gap.reference}: {gap.why}" for gap in gaps]
        alone = f"{', '.join(group.label for group in groups)} has nothing to stand against"
        raise RunError(
            f"nothing can be compared. {'. '.join(said) or alone}",
            allowed="two models or more with finished runs on the same test faces",
            fix="`facebench run NAME --seeds 0,1,2` makes the runs that are missing",
        )
    labels = {label for line in lines for label in (line.group.label, line.reference.label)}
    sides = [side for ours in pairs.values() for pair in ours for side in pair[:2]]
    by_label = {side.label: side for side in (*groups, *sides)}
    whole = [group for label, group in by_label.items() if label in labels]
    return Comparison(
        dataset=where,
        drawn=whole[0].setting.drawn,
        tasks=tuple(task for task in TASKS if any(line.task == task for line in lines)),
        groups=[(group, group_scores(book.predictions(group))) for group in whole],
        absent=[group for group in groups if not group.runs],
        tables=tables,
        notes=list(words.reading_notes(lines, whole)),
        limits=stored.limits_of(whole[0].runs[0].record.about["dataset"]),
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
        mean_f1, f1_sd = (None, None) if np.isnan(f1).any() else mean_sd(f1)
        mean, sd = mean_sd(right.mean(axis=1).tolist())
        scores[task] = TaskScore(mean, float(low[0]), float(high[0]), mean_f1, sd, f1_sd)
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
    mine = None if row.runs[0].ad_hoc else known.get(row.name)
    counterparts = counterpart_names(mine) if mine else {}
    for task, name in counterparts.items():
        why = why_no_counterpart(known[row.name], known.get(name))
        other = None if why else _most_alike(row, others.get(name, ()))
        if other is None:
            why = why or "not run here"
        elif other.runs[0].weights_sha256 != row.runs[0].weights_sha256:
            other, why = None, "no counterpart, it began from another weight file"
        if task in row.tasks and (name.startswith(task) or why != NOT_REGISTERED):
            yield row, RowComparison("counterpart", name, task, why=why), other
    name = (mine and mine.compare_with) or ""
    if name and name not in counterparts.values():
        other = _most_alike(row, others.get(name, ()))
        tasks = [task for task in row.tasks if other and task in other.tasks]
        for task in tasks:
            yield row, RowComparison("defined", name, task), other
        if not tasks:
            missing = "not run here" if name in known else NOT_REGISTERED
            yield row, RowComparison("defined", name, None, why=NO_TASK if other else missing), None
    if first is not None and first is not row:
        yield row, RowComparison("first", first.name, None), first


def _most_alike(row: Row, candidates: Sequence[Row]) -> Row | None:
    """Give the row of an experiment with our trainer and weight file, and then with most seeds."""

    def likeness(other: Row) -> tuple[bool, bool, int, str]:
        ours, run = row.runs[0], other.runs[0]
        same_weights = run.weights_sha256 == ours.weights_sha256
        same_trainer = run.trainer_version == ours.trainer_version
        return same_trainer, same_weights, len(other.runs), run.record.family

    return max((other for other in candidates if other.scores), key=likeness, default=None)


def compare_rows(pairs: Sequence[RowPair]) -> dict[int, list[RowComparison]]:
    """Compare all that a leaderboard asks for, by `id` of the row; see judge_pairs."""
    asked: list[Asked] = []
    for row, question, other in pairs:
        if other is not None:
            task = question.task or (None if len(row.tasks) > 1 else row.tasks[0])
            compared = partial(_row_difference, row, other, task)
            family = ROW_FAMILY_OF[question.kind]
            asked.append((family, other.group, row.group, task, compared))
    lines, found = iter(judge_lines(asked)), defaultdict(list)
    for row, question, other in pairs:
        line = next(lines) if other else None
        if isinstance(line, RunError):
            question = replace(question, why=line.found)
        elif line:
            question = replace(question, judged=line)
        found[id(row)].append(question)
    return found


def _row_difference(ours: Row, theirs: Row, task: TaskName | None) -> Difference:
    """Compare two rows; RunError where they cannot be. Without a task, all tasks as `combined`
    weighs them, on all faces; else the faces that are labelled for it."""
    if ours.leaky != theirs.leaky:
        raise RunError("one of the two is LEAKY")
    if set(ours.group.identities) & set(theirs.group.identities):
        raise RunError(SHARED)
    if not set(ours.tasks if task is None else (task,)) <= set(theirs.tasks):
        raise RunError(NO_TASK)
    one, other = ours.correctness, theirs.correctness
    if one.key(task) != other.key(task):
        raise RunError("tested on different faces")
    values = []
    sides = compared_runs(theirs.group, ours.group)
    for row, side in zip((theirs, ours), sides, strict=True):
        known = row.correctness
        right = known.right[task][:, known.known(task)] if task else all_tasks(known, ours.tasks)
        values.append(right[[row.group.identities.index(name) for name in side.identities]])
    clusters = one.faces["cluster"].to_numpy()[one.known(task) if task else slice(None)]
    return statistics.difference_of(values[1], values[0], clusters)
