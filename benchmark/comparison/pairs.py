"""Which run groups are compared on which tasks, and the results.

The command line, the report and leaderboards plan their pairs here. The p-values of a page are
corrected together, so that each comparison has one. Built from the runs' folders alone.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from benchmark.comparison import wording as words
from benchmark.comparison.library import Library, RunGroup, choose_dataset
from benchmark.comparison.rows import SHARED, Outcome, Row, TaskScore, all_tasks, mean_sd
from benchmark.comparison.statistics import (
    Difference,
    Family,
    difference_of,
    paired_difference,
    results_of,
)
from benchmark.errors import RunError
from benchmark.evaluation.intervals import cluster_bootstrap, wilson
from benchmark.evaluation.predictions import RunPredictions, difference_in_faces, limits_of
from benchmark.evaluation.subgroups import macro_f1
from benchmark.experiment.definition import Experiment
from benchmark.registry import NOT_REGISTERED, why_no_counterpart
from benchmark.tasks import TASKS, TaskName

NO_TASK: Final = "no task in common"
QUESTIONS: Final[dict[Family, tuple[str, str]]] = {
    "named": ("first", "Each against the first"),
    "compare_with": ("defined", "Each against the one that its definition names"),
    "mtl_stl": ("twins", "MTL networks against their single-task counterparts"),
}
"""What the tables of `compare` answer: their name in --json, and their title."""

Pair = tuple[RunGroup, RunGroup, Sequence[TaskName]]
"""A reference, a group, and the tasks on which to compare them, as far as both predict them."""


def counterpart_names(experiment: Experiment) -> dict[TaskName, str]:
    """Name an MTL experiment's single-task counterparts, or an STL experiment's multi-task one."""
    tasks = experiment.head.tasks
    if len(tasks) > 1:
        return {task: experiment.counterpart_name(task) for task in tasks}
    return {tasks[0]: f"mtl-{experiment.name.removeprefix(f'{tasks[0]}-')}"}


def counterpart_pairs(library: Library, named: Iterable[RunGroup], dataset: str) -> Iterator[Pair]:
    """Pair every MTL experiment that was run with its single-task counterparts, task by task."""
    for group in named:
        mtl = library.experiments.get(group.label)
        if mtl is None or len(mtl.head.tasks) == 1 or not group.runs:
            continue
        for task, name in counterpart_names(mtl).items():
            why = why_no_counterpart(mtl, library.experiments.get(name))
            stl = RunGroup(name, why=why) if why else library.run_group(name, dataset)
            yield stl, group, (task,)


def group_difference(
    whole: tuple[RunGroup, RunGroup], reference: RunGroup, group: RunGroup, *, task: TaskName
) -> Difference:
    """Compare runs of two groups; RunError where that would not be fair, or a run of either whole
    group cannot be read."""
    if why := why_not_comparable(group, reference):
        raise RunError(why)
    sides = []
    for of, part in zip(whole, (reference, group), strict=True):
        predicted = of.predictions.predicted[task][[run in part.runs for run in of.runs]]
        sides.append(RunPredictions(of.predictions.faces, {task: predicted}))
    return difference_between(sides[0], sides[1], task)


def difference_between(
    reference: RunPredictions, group: RunPredictions, task: TaskName
) -> Difference:
    """Compare predictions on the faces that have the task's label; RunError for unequal faces."""
    theirs, ours = reference.labelled(task), group.labelled(task)
    if differing := difference_in_faces(ours.faces, theirs.faces):
        raise RunError(f"they were tested on different faces, {differing}")
    truth, clusters = (ours.faces[c].to_numpy(dtype=np.int64) for c in (task, "cluster"))
    return paired_difference(ours.predicted[task], theirs.predicted[task], truth, clusters)


def why_not_comparable(one: RunGroup, other: RunGroup) -> str:
    """Say why two groups must not be compared: settings, leaks, shared runs; not faces."""
    if shared := sorted(set(one.identities) & set(other.identities)):
        return f"they share the run {shared[0][:12]}"

    def facts(group: RunGroup) -> dict[str, object]:
        setting, subset = group.setting, group.setting.subset
        facts = {f"protocol.{name}": value for name, value in vars(setting.protocol).items()}
        facts |= {"pixels": setting.pixel_digest[:8], "the split": setting.split_digest[:8]}
        facts["leaks"] = "LEAKY" if group.leaky else "honest"
        return facts | {"the test subset": subset.label if subset else "all"}

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
    """The results of one question, and what could not be compared."""

    lines: list[words.TaskComparison]
    """The tasks of a pair stand together; among counterparts, those of an MTL network."""
    gaps: list[words.Gap]


Asked = tuple[Family, RunGroup, RunGroup, Any, Callable[[RunGroup, RunGroup], Difference]]
"""The question, reference and group, the task (of rows None: all together), and what compares the
runs of both that are compared, or raises RunError."""


def compare_lines(asked: Iterable[Asked]) -> list[words.TaskComparison | RunError]:
    """Compare all of a page, corrected together, whichever side is the reference; in their order.

    What cannot be compared is the error that says why.
    """
    outcomes: list[tuple[Family, Hashable, Difference | RunError, dict[str, Any]]] = []
    for family, reference, group, task, compared in asked:
        one, other = compared_runs(reference, group)
        pair = frozenset((one.identities, other.identities)), task
        sides = {"reference": one, "group": other, "task": task}
        try:
            outcomes.append((family, pair, compared(one, other), sides))
        except RunError as error:
            outcomes.append((family, pair, error, sides))
    results = results_of(
        (family, pair, it) for family, pair, it, _ in outcomes if isinstance(it, Difference)
    )
    # The same pair the other way round shares all but the sign of its difference.
    return [
        it
        if isinstance(it, RunError)
        else words.TaskComparison(**(vars(results[pair]) | sides | {"difference": it}))
        for _, pair, it, sides in outcomes
    ]


def compare_pairs(
    pairs: Mapping[Family, Iterable[Pair]], *, strict: bool = False
) -> dict[Family, Found]:
    """Compare all that a page asks for, corrected together: one verdict for each comparison.

    What cannot be compared becomes a gap; with `strict` a RunError, unless there are no runs.
    """
    asked: list[Asked] = []
    found: dict[Family, Found] = {family: Found([], []) for family in pairs}
    for family, reference, group, tasks in ((key, *pair) for key in pairs for pair in pairs[key]):
        both = [task for task in tasks if task in group.tasks and task in reference.tasks]
        compared = partial(group_difference, (reference, group))
        asked += [(family, reference, group, it, partial(compared, task=it)) for it in both]
        missing = [f"{side.label}: {side.why}" for side in (reference, group) if not side.runs]
        why, task = "; ".join(missing) or NO_TASK, None
        if family == "mtl_stl":
            why, task = reference.why, tasks[0]
        if not both:
            found[family].gaps.append(words.Gap(group.label, reference.label, why, task))
    for (family, reference, group, *_), line in zip(asked, compare_lines(asked), strict=True):
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


def compare(
    library: Library,
    arguments: Sequence[str],
    *,
    dataset: str | None = None,
    tasks: Sequence[TaskName] = TASKS,
) -> dict[str, Any]:
    """Compare what `arguments` name, ids of runs, experiments, suites, on these tasks.

    Each group is compared with the first. Where only suites are named, or one experiment alone,
    each experiment is compared with the one that its definition names, and every MTL experiment
    with its single-task counterparts. What was named one by one and is not comparable is refused
    with RunError; what is wrong within a suite becomes a gap of the table, and so do experiments
    without runs. RunError where nothing at all can be compared.

    Gives plain values under the names that `--json` has: dataset, drawn, arms (the groups, each
    with its own scores on the test faces), missing (named, and without runs), notes, limits; and
    tables, what came of each question.
    """
    where = choose_dataset(library, arguments, dataset)
    meant = (group for it in arguments for group in library.groups_of(it, where))
    groups = list({group.label: group for group in meant}.values())
    are_suites = [it in library.suites and it not in library.experiments for it in arguments]
    pairs: dict[Family, list[Pair]] = {}
    if all(are_suites) or len(groups) == 1:
        counterparts = counterpart_pairs(library, groups, where)
        pairs["mtl_stl"] = [pair for pair in counterparts if pair[2][0] in tasks]
        of_counterparts = [{side.label for side in pair[:2]} for pair in pairs["mtl_stl"]]
        known = ((library.experiments.get(group.label), group) for group in groups)
        pairs["compare_with"] = [
            (library.run_group(definition.compare_with, where), group, tasks)
            for definition, group in known
            if definition and definition.compare_with
            if {definition.compare_with, group.label} not in of_counterparts
        ]
    else:
        pairs["named"] = [(groups[0], group, tasks) for group in groups[1:]]
    results = compare_pairs(pairs, strict=not any(are_suites) and len(groups) > 1)
    tables = {family: found for family, found in results.items() if any(found)}
    lines = [line for found in tables.values() for line in found.lines]
    if not lines:
        gaps = [gap for found in tables.values() for gap in found.gaps]
        said = [f"{gap.group} against {gap.reference}: {gap.why}" for gap in gaps]
        alone = f"{', '.join(group.label for group in groups)} has nothing to be compared with"
        raise RunError(
            f"nothing can be compared. {'. '.join(said) or alone}",
            allowed="two models or more with finished runs on the same test faces",
            fix="`facebench run NAME --seeds 0,1,2` runs what was not run",
        )
    labels = {label for line in lines for label in (line.group.label, line.reference.label)}
    sides = [side for ours in pairs.values() for pair in ours for side in pair[:2]]
    by_label = {side.label: side for side in (*groups, *sides)}
    whole = [group for label, group in by_label.items() if label in labels]
    return {
        "dataset": where,
        "drawn": whole[0].setting.drawn,
        "arms": [
            {
                "arm": group.label,
                "experiment": group.runs[0].name,
                "seeds": list(group.seeds),
                "runs": list(group.identities),
                "ad_hoc": group.runs[0].ad_hoc,
                "leaky": group.leaky,
                "remarks": list(group.remarks),
                "scores": {
                    task: vars(score)
                    for task, score in group_scores(group.predictions).items()
                    if task in tasks
                },
            }
            for group in whole
        ],
        "missing": [{"arm": group.label, "why": group.why} for group in groups if not group.runs],
        "tables": tables,
        "notes": list(words.reading_notes(lines, whole)),
        "limits": list(limits_of(whole[0].runs[0].record.about["dataset"])),
    }


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


RowPair = tuple[Row, Family, TaskName | None, Row | words.Gap]
"""A row of a leaderboard, as what and on which task it is to be compared, and with which row, or
why with none."""


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
        if other and other.runs[0].weights_sha256 != row.runs[0].weights_sha256:
            other, why = None, "no counterpart, it began from another weight file"
        if task in row.tasks and (name.startswith(task) or why != NOT_REGISTERED):
            missing = words.Gap(row.title, name, why or "not run here", task)
            yield row, "mtl_stl", task, other or missing
    name = (mine and mine.compare_with) or ""
    if name and name not in counterparts.values():
        other = _most_alike(row, others.get(name, ()))
        if other and (tasks := [task for task in row.tasks if task in other.tasks]):
            yield from ((row, "compare_with", task, other) for task in tasks)
        else:
            why = NO_TASK if other else "not run here" if name in known else NOT_REGISTERED
            yield row, "compare_with", None, words.Gap(row.title, name, why)
    if first is not None and first is not row:
        yield row, "first", row.tasks[0] if len(row.tasks) == 1 else None, first


def _most_alike(row: Row, candidates: Sequence[Row]) -> Row | None:
    """Give the row of an experiment with our trainer and weight file, and then with most seeds."""

    def likeness(other: Row) -> tuple[bool, bool, int, str]:
        ours, run = row.runs[0], other.runs[0]
        same_weights = run.weights_sha256 == ours.weights_sha256
        same_trainer = run.trainer_version == ours.trainer_version
        return same_trainer, same_weights, len(other.runs), run.record.group_identity

    return max((other for other in candidates if other.scores), key=likeness, default=None)


def compare_rows(pairs: Sequence[RowPair]) -> dict[int, list[Outcome]]:
    """Compare all that a leaderboard asks for, by `id` of the row; see compare_pairs."""
    lines = iter(
        compare_lines(
            (family, other.group, row.group, task, partial(_row_difference, row, other, task))
            for row, family, task, other in pairs
            if isinstance(other, Row)
        )
    )
    found: dict[int, list[Outcome]] = defaultdict(list)
    for row, family, task, other in pairs:
        outcome: words.TaskComparison | words.Gap
        if isinstance(other, words.Gap):
            outcome = other
        elif isinstance(line := next(lines), RunError):
            outcome = words.Gap(row.title, other.name, line.found, task)
        else:
            outcome = line
        found[id(row)].append((family, outcome))
    return found


def _row_difference(
    ours: Row, theirs: Row, task: TaskName | None, reference: RunGroup, group: RunGroup
) -> Difference:
    """Compare runs of two rows; RunError where they cannot be. Without a task, all tasks as
    `combined` weighs them, on all faces; else the faces that are labelled for it."""
    if ours.leaky != theirs.leaky:
        raise RunError("one of the two is LEAKY")
    if set(group.identities) & set(reference.identities):
        raise RunError(SHARED)
    one, other = ours.correctness, theirs.correctness
    if one.key(task) != other.key(task):
        raise RunError("tested on different faces")
    values = []
    for row, side in ((ours, group), (theirs, reference)):
        known = row.correctness
        right = known.right[task][:, known.known(task)] if task else all_tasks(known, ours.tasks)
        values.append(right[[run in side.runs for run in row.runs]])
    clusters = one.faces["cluster"].to_numpy()[one.known(task) if task else slice(None)]
    return difference_of(values[0], values[1], clusters)
