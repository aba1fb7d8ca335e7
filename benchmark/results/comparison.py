"""Comparisons: which arms meet on which tasks, what came of it, and what could not be compared.

Built from the runs' folders alone, as leaderboards are. What was named is compared, exactly that;
a suite, or an experiment named alone, asks two questions: its MTL networks against their
single-task counterparts, and each experiment against the one that its definition names.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from benchmark.errors import RunError
from benchmark.results.answers import Answers, difference_in_faces, read_answers
from benchmark.results.arms import Absent, Arm, contestants, why_not_comparable
from benchmark.results.comparison_notes import gap_sentences, reading_notes
from benchmark.results.intervals import cluster_bootstrap, wilson
from benchmark.results.library import Library, choose_dataset
from benchmark.results.limits import LIMITS, LIMITS_DRAWN
from benchmark.results.meetings import (
    Gap,
    Kind,
    Meeting,
    Plan,
    asked_plan,
    counterparts_plan,
    named_arms,
)
from benchmark.results.paired import Family, Pair, paired_difference
from benchmark.results.rows import TaskScore
from benchmark.results.subgroups import macro_f1
from benchmark.results.verdicts import (
    Compared,
    Line,
    family_text,
    judge_lines,
    mtl_sentences,
    pair_sentences,
)
from benchmark.tasks import TASKS, TaskName

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
