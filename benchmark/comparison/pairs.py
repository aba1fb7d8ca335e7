"""Which run groups are compared on which tasks, the results, and their notes.

Comparisons: which arms meet on which tasks, what came of it, and what could not be compared.

Built from the runs' folders alone, as leaderboards are. What was named is compared, exactly that;
a suite, or an experiment named alone, asks two questions: its MTL networks against their
single-task counterparts, and each experiment against the one that its definition names.

Who is to meet whom in a comparison, before any answer is read.

What was asked for: each against the first, all pairs, or each experiment against the one that its
definition names. Or every MTL experiment against its single-task counterparts.

What stands beneath a comparison's tables: what is missing from them, and how to read them.
"""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from benchmark.comparison.library import (
    Library,
    NotRun,
    Request,
    RunGroup,
    choose_dataset,
    contestants,
    why_not_comparable,
)
from benchmark.comparison.rows import TaskScore
from benchmark.comparison.statistics import Family, Pair, paired_difference
from benchmark.comparison.verdicts import (
    Compared,
    Line,
    family_text,
    joined,
    judge_lines,
    mtl_sentences,
    pair_sentences,
)
from benchmark.errors import RunError
from benchmark.evaluation.answers import Answers, difference_in_faces, read_answers
from benchmark.evaluation.intervals import cluster_bootstrap, wilson
from benchmark.evaluation.predictions import LIMITS, LIMITS_DRAWN
from benchmark.evaluation.subgroups import macro_f1
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

Kind = Literal["first", "defined", "all", "twins"]
Couple = frozenset[str]
NOT_REGISTERED: Final = "not registered"
NO_TASK: Final = "no task in common"


@dataclass(frozen=True)
class Gap:
    """A comparison that was not made, and why."""

    group: str
    reference: str
    why: str
    task: TaskName | None = None
    """The task of a counterpart that is missing."""


@dataclass(frozen=True)
class Meeting:
    """Two arms to be compared, before anything is read."""

    reference: RunGroup
    group: RunGroup
    tasks: tuple[TaskName, ...]

    @property
    def couple(self) -> Couple:
        """The labels of both, whichever is the reference."""
        return frozenset((self.group.label, self.reference.label))


@dataclass
class PairPlan:
    """Who is to meet, and who cannot."""

    meetings: list[Meeting] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    @property
    def pairs(self) -> set[Couple]:
        """Who is in it, whether they can meet or not."""
        missing = {frozenset((gap.group, gap.reference)) for gap in self.gaps}
        return {item.couple for item in self.meetings} | missing

    def drop(self, others: "PairPlan") -> None:
        """Leave out the pairs that stand in another plan, either way round."""
        theirs = others.pairs
        self.meetings = [item for item in self.meetings if item.couple not in theirs]
        self.gaps = [
            gap for gap in self.gaps if frozenset((gap.group, gap.reference)) not in theirs
        ]


def named_groups(
    library: Library, requests: Sequence[Request], dataset: str
) -> list[RunGroup | NotRun]:
    """Find the arms that were named, each once, in their order."""
    found: dict[str, RunGroup | NotRun] = {}
    for item in requests:
        if item.run is not None:
            group = library.group_of_run(item.run)
            found.setdefault(group.label, group)
        else:
            for name in item.names:
                if name not in found:
                    found[name] = library.run_group(name, dataset)
    return list(found.values())


def asked_plan(
    library: Library,
    named: Sequence[RunGroup | NotRun],
    kind: Kind,
    tasks: Sequence[TaskName],
    dataset: str,
) -> PairPlan:
    """Plan the meetings that were asked for."""
    plan = PairPlan()
    if kind == "first":
        pairs = [(named[0], other) for other in named[1:]]
    elif kind == "all":
        pairs = list(itertools.combinations(named, 2))
    else:
        pairs = list(_as_defined(library, named, dataset))
    for reference, group in pairs:
        plan_pair(plan, reference, group, tasks)
    return plan


def _as_defined(
    library: Library, named: Sequence[RunGroup | NotRun], dataset: str
) -> Iterator[tuple[RunGroup | NotRun, RunGroup | NotRun]]:
    """Pair each experiment with the one its definition names, in the suite or not."""
    by_label = {group.label: group for group in named}
    for group in named:
        definition = library.experiments.get(group.label)
        if definition is not None and definition.compare_with is not None:
            other = definition.compare_with
            yield by_label.get(other) or library.run_group(other, dataset), group


def plan_pair(
    plan: PairPlan,
    reference: RunGroup | NotRun,
    group: RunGroup | NotRun,
    tasks: Sequence[TaskName],
) -> None:
    """Plan one comparison on the tasks that both predict, or say why there is none."""
    missing = [side for side in (reference, group) if isinstance(side, NotRun)]
    if isinstance(reference, NotRun) or isinstance(group, NotRun):
        why = "; ".join(f"{side.label}: {side.why}" for side in missing)
        plan.gaps.append(Gap(group.label, reference.label, why))
        return
    shared = tuple(task for task in tasks if task in group.tasks and task in reference.tasks)
    if shared:
        plan.meetings.append(Meeting(reference, group, shared))
    else:
        plan.gaps.append(Gap(group.label, reference.label, NO_TASK))


def counterparts_plan(
    library: Library, named: Sequence[RunGroup | NotRun], dataset: str, tasks: Sequence[TaskName]
) -> PairPlan:
    """Plan the comparisons of every MTL experiment with its single-task counterparts."""
    plan = PairPlan()
    for group in named:
        mtl = library.experiments.get(group.label)
        if mtl is None or len(mtl.head.tasks) == 1 or isinstance(group, NotRun):
            continue
        for task in (task for task in mtl.head.tasks if task in tasks):
            name = mtl.counterpart_name(task)
            twin = _twin(library, mtl, name, dataset)
            if isinstance(twin, NotRun):
                plan.gaps.append(Gap(group.label, name, twin.why, task))
            else:
                plan.meetings.append(Meeting(twin, group, (task,)))
    return plan


def _twin(library: Library, mtl: Experiment, name: str, dataset: str) -> RunGroup | NotRun:
    """Find a single-task counterpart, or say why it is not one or not there."""
    why = why_no_counterpart(mtl, library.experiments.get(name))
    return NotRun(name, why) if why else library.run_group(name, dataset)


def why_no_counterpart(one: Experiment, other: Experiment | None) -> str:
    """Say why two experiments are not trained alike but for the tasks; empty where they are."""
    if other is None:
        return NOT_REGISTERED
    parts = ("backbone", "recipe", "protocol", "subset")
    differing = [part for part in parts if getattr(one, part) != getattr(other, part)]
    return f"no counterpart, its {' and '.join(differing)} differ" if differing else ""


def gap_sentences(gaps: Sequence[Gap]) -> Iterator[str]:
    """Say what was not compared and why; networks that lack the same counterparts together."""
    lacking: dict[str, dict[str, list[Gap]]] = {}
    for gap in gaps:
        if gap.task is None:
            yield f"{gap.group} against {gap.reference}: not compared, {gap.why}."
            continue
        named = "" if gap.why == NOT_REGISTERED else f"{gap.reference}: "
        lacking.setdefault(gap.group, {}).setdefault(f"{named}{gap.why}", []).append(gap)
    networks: dict[str, list[str]] = {}
    for network, reasons in lacking.items():
        parts = [
            f"{joined(TASK_TITLES[gap.task] for gap in ours if gap.task)} ({why})"
            for why, ours in reasons.items()
        ]
        networks.setdefault(", ".join(parts), []).append(network)
    for missing, names in networks.items():
        yield f"Single-task counterparts missing of {joined(names)}: {missing}."


def reading_notes(lines: Sequence[Line], groups: Sequence[RunGroup]) -> Iterator[str]:
    """Say how the numbers of these very tables are to be read."""
    yield (
        "A difference is the arm minus its reference on the same test faces, in percentage points "
        "(pp), with its 95 % interval. Intervals are not widened for the number of comparisons; "
        "p-values are. Macro-F1 has an interval of the same kind and no test."
    )
    if any(not line.significant for line in lines):
        yield (
            "No significant difference does not mean equal. The minimum detectable difference is "
            "the smallest true one that such a comparison finds in 80 % of cases, at the level "
            "that Holm leaves."
        )
    if any(not line.of_trainings_alone for line in lines):
        yield (
            "Run groups are compared as samples of trainings and of test faces: test and interval "
            "hold the variance of both (docs/METHODS.md)."
        )
    yield from _single_run_notes([line for line in lines if line.of_trainings_alone])
    yield from _group_notes(groups)


def _single_run_notes(lines: Sequence[Line]) -> Iterator[str]:
    if not lines:
        return
    yield (
        "One seed permits no claim about an experiment: where an arm has one, a single run of each "
        "side is compared, of the same seed where both have it, never the best."
    )
    sharing = max(line.difference.n_faces - line.difference.n_clusters for line in lines)
    if sharing:
        these = f"{sharing} test face{' is a' if sharing == 1 else 's are'} near-duplicate"
        yield (
            f"{these}{' of another' if sharing == 1 else 's of others'} there; McNemar's test "
            "counts every face as independent, and its p is a little too small."
        )


def _group_notes(groups: Sequence[RunGroup]) -> Iterator[str]:
    """Say what is particular about the arms themselves."""
    for group in groups:
        leak = ("LEAKY: test faces were seen in training",) if group.leaky else ()
        for remark in (*leak, *group.remarks):
            yield f"{group.label}: {remark}."
    versions = {str(group.runs[0].about.get("trainer_version")) for group in groups}
    if len(versions) > 1:
        yield f"The arms were trained by trainer versions {joined(sorted(versions))}."


TITLES: Final = {
    "first": "Each against the first",
    "defined": "Each against the one that its definition names",
    "all": "All pairs",
    "twins": "MTL networks against their single-task counterparts",
}
FAMILY_OF: Final[dict[Kind, Family]] = {
    "first": "named",
    "defined": "compare_with",
    "all": "named",
    "twins": "mtl_stl",
}


@dataclass(frozen=True)
class ComparisonTable:
    """The differences of one question."""

    kind: Kind
    lines: tuple[Line, ...]
    """The tasks of a pair stand together; in the table of counterparts, those of an MTL network."""
    gaps: tuple[Gap, ...]

    @property
    def title(self) -> str:
        """What stands above it."""
        return TITLES[self.kind]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it says, in words."""
        said = mtl_sentences if self.kind == "twins" else pair_sentences
        return tuple(said(self.lines))

    @property
    def gap_sentences(self) -> tuple[str, ...]:
        """What is missing from it, in words."""
        return tuple(gap_sentences(self.gaps))

    @property
    def family(self) -> str:
        """Over which p-values its own were corrected."""
        return family_text(self.lines)


@dataclass(frozen=True)
class GroupScores:
    """An arm by itself: its scores on the test faces."""

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


@dataclass
class Book:
    """The answers of arms on their test faces, each file read once."""

    tasks: tuple[TaskName, ...] = TASKS
    _read: dict[tuple[str, ...], Answers | RunError] = field(default_factory=dict)

    def answers(self, group: RunGroup) -> Answers:
        """Read an arm's answers to the tasks in question; raise RunError where they cannot be."""
        if group.identities not in self._read:
            tasks = [task for task in group.tasks if task in self.tasks]
            try:
                self._read[group.identities] = read_answers(
                    [run.record for run in group.runs], tasks
                )
            except RunError as error:
                self._read[group.identities] = error
        found = self._read[group.identities]
        if isinstance(found, RunError):
            raise found
        return found


def compare(
    library: Library,
    arguments: Sequence[str],
    *,
    dataset: str | None = None,
    tasks: Sequence[TaskName] = TASKS,
    all_pairs: bool = False,
) -> Comparison:
    """Compare what `arguments` name: ids of runs, experiments, suites.

    Each arm meets the first; with `all_pairs` everyone meets everyone. Where only suites are
    named, or one experiment alone, each experiment meets the one that its definition names, and
    every MTL experiment its single-task counterparts. Arms that were named one by one and are not
    comparable are refused with RunError; what is wrong within a suite becomes a gap of the table,
    and so do experiments without runs. RunError where nothing at all can be compared.
    """
    requests = [library.request(argument) for argument in arguments]
    where = choose_dataset(library, requests, dataset)
    book = Book(tuple(task for task in TASKS if task in tasks))
    named = named_groups(library, requests, where)
    of_suites = all(item.kind == "suite" for item in requests)
    plans: dict[Kind, PairPlan] = {}
    if not all_pairs and (of_suites or len(named) == 1):
        plans["twins"] = counterparts_plan(library, named, where, book.tasks)
        plans["defined"] = asked_plan(library, named, "defined", book.tasks, where)
        plans["defined"].drop(plans["twins"])
    else:
        kind: Kind = "all" if all_pairs else "first"
        plans[kind] = asked_plan(library, named, kind, book.tasks, where)
    strict = all(item.kind != "suite" for item in requests) and len(named) > 1
    judged = judge_plans({FAMILY_OF[kind]: plan for kind, plan in plans.items()}, book, strict)
    tables = tuple(
        ComparisonTable(kind, found.lines, found.gaps)
        for kind in plans
        if (found := judged[FAMILY_OF[kind]]).lines or found.gaps
    )
    if not any(table.lines for table in tables):
        raise _nothing(named, tables)
    meetings = [meeting for plan in plans.values() for meeting in plan.meetings]
    return _told(where, named, meetings, tables, book)


@dataclass(frozen=True)
class Found:
    """What came of a plan: judged differences, and what could not be compared."""

    lines: tuple[Line, ...] = ()
    gaps: tuple[Gap, ...] = ()


def judge_plans(
    plans: Mapping[Family, PairPlan], book: Book, strict: bool = False
) -> dict[Family, Found]:
    """Compare all that a page asks for, and judge it together: one verdict for each comparison.

    What cannot be compared becomes a gap; with `strict` a RunError.
    """
    compared: list[tuple[Family, Compared]] = []
    gaps: dict[Family, list[Gap]] = {family: list(plan.gaps) for family, plan in plans.items()}
    known: dict[tuple[str, ...], list[Compared]] = {}
    sizes: dict[Family, int] = {}
    for family, plan in plans.items():
        before = len(compared)
        for meeting in plan.meetings:
            try:
                why = _obstacle(meeting, book)
            except RunError as error:
                if strict:
                    raise
                why = error.found
            if why is None:
                key = (*meeting.group.identities, "", *meeting.reference.identities, *meeting.tasks)
                known[key] = known.get(key) or _differences(meeting, book)
                compared += [(family, item) for item in known[key]]
            elif strict:
                raise RunError(
                    f"{meeting.group.label} and {meeting.reference.label} cannot be compared: "
                    f"{why}",
                    allowed="two arms trained apart, with the same test faces, split and protocol",
                )
            else:
                gaps[family].append(Gap(meeting.group.label, meeting.reference.label, why))
        sizes[family] = len(compared) - before
    lines = iter(judge_lines(compared))
    return {
        family: Found(tuple(itertools.islice(lines, sizes[family])), tuple(gaps[family]))
        for family in plans
    }


def _obstacle(meeting: Meeting, book: Book) -> str | None:
    """Say why a meeting would not be fair; raise RunError where answers cannot be read."""
    why = why_not_comparable(meeting.group, meeting.reference)
    if why is not None:
        return why
    ours, theirs = (book.answers(side) for side in (meeting.group, meeting.reference))
    differing = difference_in_faces(ours.faces, theirs.faces)
    return f"they were tested on different faces, {differing}" if differing else None


def _differences(meeting: Meeting, book: Book) -> list[Compared]:
    """Compare two arms on their tasks."""
    reference, group = contestants(meeting.reference, meeting.group)
    theirs = _answers_of(reference, meeting.reference, book)
    ours = _answers_of(group, meeting.group, book)
    clusters = ours.faces["cluster"].to_numpy(dtype=np.int64)
    compared: list[Compared] = []
    for task in meeting.tasks:
        truth = ours.faces[task].to_numpy(dtype=np.int64)
        pair = Pair(truth, clusters, theirs.predicted[task], ours.predicted[task])
        compared.append((reference, group, task, paired_difference(pair)))
    return compared


def _answers_of(contestant: RunGroup, whole: RunGroup, book: Book) -> Answers:
    """Give the answers of all runs of an arm, or of the one that was chosen."""
    answers = book.answers(whole)
    if contestant.identities == whole.identities:
        return answers
    return answers.of_run(whole.identities.index(contestant.identities[0]))


def _nothing(named: Sequence[RunGroup | NotRun], tables: Sequence[ComparisonTable]) -> RunError:
    gaps = [gap for table in tables for gap in table.gaps]
    said = [f"{gap.group} against {gap.reference}: {gap.why}" for gap in gaps]
    alone = ", ".join(group.label for group in named)
    return RunError(
        f"nothing can be compared. {'. '.join(said) or f'{alone} has nothing to stand against'}",
        allowed="two arms or more with finished runs on the same test faces",
        fix="`facebench run NAME --seeds 0,1,2` makes the runs that are missing",
    )


def _told(
    dataset: str,
    named: Sequence[RunGroup | NotRun],
    meetings: Sequence[Meeting],
    tables: tuple[ComparisonTable, ...],
    book: Book,
) -> Comparison:
    """Put the tables together with the arms by themselves and how to read both."""
    lines = [line for table in tables for line in table.lines]
    met = {label for line in lines for label in (line.group.label, line.reference.label)}
    sides = [side for item in meetings for side in (item.reference, item.group)]
    groups = {group.label: group for group in (*named, *sides) if isinstance(group, RunGroup)}
    whole = [group for label, group in groups.items() if label in met]
    drawn = whole[0].setting.drawn
    return Comparison(
        dataset=dataset,
        drawn=drawn,
        tasks=tuple(task for task in TASKS if any(line.task == task for line in lines)),
        groups=tuple(GroupScores(group, group_scores(book.answers(group))) for group in whole),
        absent=tuple(group for group in named if isinstance(group, NotRun)),
        tables=tables,
        notes=tuple(reading_notes(lines, whole)),
        limits=LIMITS_DRAWN + LIMITS if drawn else LIMITS,
    )


def group_scores(answers: Answers) -> dict[TaskName, TaskScore]:
    """Score an arm by itself: mean over seeds, their sd, and the interval that leaderboards have.

    Wilson's for one run, a cluster bootstrap of the seed-averaged correctness for several.
    """
    clusters = answers.faces["cluster"].to_numpy()
    scores: dict[TaskName, TaskScore] = {}
    for task, predicted in answers.predicted.items():
        right = answers.right(task)
        if len(right) == 1:
            low, high = wilson(right.sum(axis=1), np.array([right.shape[1]]))
        else:
            low, high = cluster_bootstrap(right.mean(axis=0)[:, None], clusters)
        truth = answers.faces[task].to_numpy(dtype=np.int64)
        f1 = [macro_f1(truth, one) for one in predicted]
        accuracy, accuracy_sd = _mean_sd(right.mean(axis=1).tolist())
        mean_f1, f1_sd = (None, None) if np.isnan(f1).any() else _mean_sd(f1)
        scores[task] = TaskScore(
            accuracy, float(low[0]), float(high[0]), mean_f1, accuracy_sd, f1_sd
        )
    return scores


def _mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
