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
    Absent,
    Arm,
    Library,
    Request,
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

    arm: str
    reference: str
    why: str
    task: TaskName | None = None
    """The task of a counterpart that is missing."""


@dataclass(frozen=True)
class Meeting:
    """Two arms to be compared, before anything is read."""

    reference: Arm
    arm: Arm
    tasks: tuple[TaskName, ...]

    @property
    def couple(self) -> Couple:
        """The labels of both, whichever is the reference."""
        return frozenset((self.arm.label, self.reference.label))


@dataclass
class Plan:
    """Who is to meet, and who cannot."""

    meetings: list[Meeting] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    @property
    def pairs(self) -> set[Couple]:
        """Who is in it, whether they can meet or not."""
        missing = {frozenset((gap.arm, gap.reference)) for gap in self.gaps}
        return {item.couple for item in self.meetings} | missing

    def drop(self, others: "Plan") -> None:
        """Leave out the pairs that stand in another plan, either way round."""
        theirs = others.pairs
        self.meetings = [item for item in self.meetings if item.couple not in theirs]
        self.gaps = [gap for gap in self.gaps if frozenset((gap.arm, gap.reference)) not in theirs]


def named_arms(library: Library, requests: Sequence[Request], dataset: str) -> list[Arm | Absent]:
    """Find the arms that were named, each once, in their order."""
    found: dict[str, Arm | Absent] = {}
    for item in requests:
        if item.run is not None:
            arm = library.run_arm(item.run)
            found.setdefault(arm.label, arm)
        else:
            for name in item.names:
                if name not in found:
                    found[name] = library.experiment_arm(name, dataset)
    return list(found.values())


def asked_plan(
    library: Library,
    named: Sequence[Arm | Absent],
    kind: Kind,
    tasks: Sequence[TaskName],
    dataset: str,
) -> Plan:
    """Plan the meetings that were asked for."""
    plan = Plan()
    if kind == "first":
        pairs = [(named[0], other) for other in named[1:]]
    elif kind == "all":
        pairs = list(itertools.combinations(named, 2))
    else:
        pairs = list(_as_defined(library, named, dataset))
    for reference, arm in pairs:
        plan_meeting(plan, reference, arm, tasks)
    return plan


def _as_defined(
    library: Library, named: Sequence[Arm | Absent], dataset: str
) -> Iterator[tuple[Arm | Absent, Arm | Absent]]:
    """Pair each experiment with the one its definition names, in the suite or not."""
    by_label = {arm.label: arm for arm in named}
    for arm in named:
        definition = library.experiments.get(arm.label)
        if definition is not None and definition.compare_with is not None:
            other = definition.compare_with
            yield by_label.get(other) or library.experiment_arm(other, dataset), arm


def plan_meeting(
    plan: Plan, reference: Arm | Absent, arm: Arm | Absent, tasks: Sequence[TaskName]
) -> None:
    """Plan one comparison on the tasks that both predict, or say why there is none."""
    missing = [side for side in (reference, arm) if isinstance(side, Absent)]
    if isinstance(reference, Absent) or isinstance(arm, Absent):
        why = "; ".join(f"{side.label}: {side.why}" for side in missing)
        plan.gaps.append(Gap(arm.label, reference.label, why))
        return
    shared = tuple(task for task in tasks if task in arm.tasks and task in reference.tasks)
    if shared:
        plan.meetings.append(Meeting(reference, arm, shared))
    else:
        plan.gaps.append(Gap(arm.label, reference.label, NO_TASK))


def counterparts_plan(
    library: Library, named: Sequence[Arm | Absent], dataset: str, tasks: Sequence[TaskName]
) -> Plan:
    """Plan the comparisons of every MTL experiment with its single-task counterparts."""
    plan = Plan()
    for arm in named:
        mtl = library.experiments.get(arm.label)
        if mtl is None or len(mtl.head.tasks) == 1 or isinstance(arm, Absent):
            continue
        for task in (task for task in mtl.head.tasks if task in tasks):
            name = mtl.twin_name(task)
            twin = _twin(library, mtl, name, dataset)
            if isinstance(twin, Absent):
                plan.gaps.append(Gap(arm.label, name, twin.why, task))
            else:
                plan.meetings.append(Meeting(twin, arm, (task,)))
    return plan


def _twin(library: Library, mtl: Experiment, name: str, dataset: str) -> Arm | Absent:
    """Find a single-task counterpart, or say why it is not one or not there."""
    why = why_no_counterpart(mtl, library.experiments.get(name))
    return Absent(name, why) if why else library.experiment_arm(name, dataset)


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
            yield f"{gap.arm} against {gap.reference}: not compared, {gap.why}."
            continue
        named = "" if gap.why == NOT_REGISTERED else f"{gap.reference}: "
        lacking.setdefault(gap.arm, {}).setdefault(f"{named}{gap.why}", []).append(gap)
    networks: dict[str, list[str]] = {}
    for network, reasons in lacking.items():
        parts = [
            f"{joined(TASK_TITLES[gap.task] for gap in ours if gap.task)} ({why})"
            for why, ours in reasons.items()
        ]
        networks.setdefault(", ".join(parts), []).append(network)
    for missing, names in networks.items():
        yield f"Single-task counterparts missing of {joined(names)}: {missing}."


def reading_notes(lines: Sequence[Line], arms: Sequence[Arm]) -> Iterator[str]:
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
    yield from _arm_notes(arms)


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


def _arm_notes(arms: Sequence[Arm]) -> Iterator[str]:
    """Say what is particular about the arms themselves."""
    for arm in arms:
        leak = ("LEAKY: test faces were seen in training",) if arm.leaky else ()
        for remark in (*leak, *arm.remarks):
            yield f"{arm.label}: {remark}."
    versions = {str(arm.runs[0].about.get("trainer_version")) for arm in arms}
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
class Table:
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
class Standing:
    """An arm by itself: its scores on the test faces."""

    arm: Arm
    scores: dict[TaskName, TaskScore]


@dataclass(frozen=True)
class Comparison:
    """All that a comparison found."""

    dataset: str
    drawn: bool
    tasks: tuple[TaskName, ...]
    standings: tuple[Standing, ...]
    absent: tuple[Absent, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """How these very tables are to be read."""
    limits: tuple[str, ...]


@dataclass
class Book:
    """The answers of arms on their test faces, each file read once."""

    tasks: tuple[TaskName, ...] = TASKS
    _read: dict[tuple[str, ...], Answers | RunError] = field(default_factory=dict)

    def answers(self, arm: Arm) -> Answers:
        """Read an arm's answers to the tasks in question; raise RunError where they cannot be."""
        if arm.identities not in self._read:
            tasks = [task for task in arm.tasks if task in self.tasks]
            try:
                self._read[arm.identities] = read_answers([run.record for run in arm.runs], tasks)
            except RunError as error:
                self._read[arm.identities] = error
        found = self._read[arm.identities]
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
    named = named_arms(library, requests, where)
    of_suites = all(item.kind == "suite" for item in requests)
    plans: dict[Kind, Plan] = {}
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
        Table(kind, found.lines, found.gaps)
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
    plans: Mapping[Family, Plan], book: Book, strict: bool = False
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
                key = (*meeting.arm.identities, "", *meeting.reference.identities, *meeting.tasks)
                known[key] = known.get(key) or _differences(meeting, book)
                compared += [(family, item) for item in known[key]]
            elif strict:
                raise RunError(
                    f"{meeting.arm.label} and {meeting.reference.label} cannot be compared: {why}",
                    allowed="two arms trained apart, with the same test faces, split and protocol",
                )
            else:
                gaps[family].append(Gap(meeting.arm.label, meeting.reference.label, why))
        sizes[family] = len(compared) - before
    lines = iter(judge_lines(compared))
    return {
        family: Found(tuple(itertools.islice(lines, sizes[family])), tuple(gaps[family]))
        for family in plans
    }


def _obstacle(meeting: Meeting, book: Book) -> str | None:
    """Say why a meeting would not be fair; raise RunError where answers cannot be read."""
    why = why_not_comparable(meeting.arm, meeting.reference)
    if why is not None:
        return why
    ours, theirs = (book.answers(side) for side in (meeting.arm, meeting.reference))
    differing = difference_in_faces(ours.faces, theirs.faces)
    return f"they were tested on different faces, {differing}" if differing else None


def _differences(meeting: Meeting, book: Book) -> list[Compared]:
    """Compare two arms on their tasks."""
    reference, arm = contestants(meeting.reference, meeting.arm)
    theirs = _answers_of(reference, meeting.reference, book)
    ours = _answers_of(arm, meeting.arm, book)
    clusters = ours.faces["cluster"].to_numpy(dtype=np.int64)
    compared: list[Compared] = []
    for task in meeting.tasks:
        truth = ours.faces[task].to_numpy(dtype=np.int64)
        pair = Pair(truth, clusters, theirs.predicted[task], ours.predicted[task])
        compared.append((reference, arm, task, paired_difference(pair)))
    return compared


def _answers_of(contestant: Arm, whole: Arm, book: Book) -> Answers:
    """Give the answers of all runs of an arm, or of the one that was chosen."""
    answers = book.answers(whole)
    if contestant.identities == whole.identities:
        return answers
    return answers.of_run(whole.identities.index(contestant.identities[0]))


def _nothing(named: Sequence[Arm | Absent], tables: Sequence[Table]) -> RunError:
    gaps = [gap for table in tables for gap in table.gaps]
    said = [f"{gap.arm} against {gap.reference}: {gap.why}" for gap in gaps]
    alone = ", ".join(arm.label for arm in named)
    return RunError(
        f"nothing can be compared. {'. '.join(said) or f'{alone} has nothing to stand against'}",
        allowed="two arms or more with finished runs on the same test faces",
        fix="`facebench run NAME --seeds 0,1,2` makes the runs that are missing",
    )


def _told(
    dataset: str,
    named: Sequence[Arm | Absent],
    meetings: Sequence[Meeting],
    tables: tuple[Table, ...],
    book: Book,
) -> Comparison:
    """Put the tables together with the arms by themselves and how to read both."""
    lines = [line for table in tables for line in table.lines]
    met = {label for line in lines for label in (line.arm.label, line.reference.label)}
    sides = [side for item in meetings for side in (item.reference, item.arm)]
    arms = {arm.label: arm for arm in (*named, *sides) if isinstance(arm, Arm)}
    whole = [arm for label, arm in arms.items() if label in met]
    drawn = whole[0].setting.drawn
    return Comparison(
        dataset=dataset,
        drawn=drawn,
        tasks=tuple(task for task in TASKS if any(line.task == task for line in lines)),
        standings=tuple(Standing(arm, standing_scores(book.answers(arm))) for arm in whole),
        absent=tuple(arm for arm in named if isinstance(arm, Absent)),
        tables=tables,
        notes=tuple(reading_notes(lines, whole)),
        limits=LIMITS_DRAWN + LIMITS if drawn else LIMITS,
    )


def standing_scores(answers: Answers) -> dict[TaskName, TaskScore]:
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
