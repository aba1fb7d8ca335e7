"""What the rows of a leaderboard are set against, and what came of it.

Each row meets its single-task counterparts (or, trained for one task, its multi-task one), the
experiment that its definition names, and the first row of its table. All on the same test faces, in
the same setting; p-values are corrected by question over all tables.
Which rows stand in a table is for benchmark.comparison.leaderboard.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmark.comparison.pairs import NO_TASK, NOT_REGISTERED, why_no_counterpart
from benchmark.comparison.rows import Draft, RowComparison, RowQuestion
from benchmark.comparison.statistics import Difference, Family, difference_of, judge
from benchmark.errors import RunError
from benchmark.evaluation.answers import RightAnswers
from benchmark.evaluation.intervals import Floats
from benchmark.experiment.definition import Experiment
from benchmark.tasks import COMBINED_WEIGHTS, TaskName

FAMILY_OF: Final[dict[RowQuestion, Family]] = {
    "twin": "mtl_stl",
    "defined": "compare_with",
    "first": "first",
}
SHARED: Final = "the same runs"


@dataclass(frozen=True)
class Meeting:
    """A row and who it is to be set against, on one task or (None) on all together."""

    kind: RowQuestion
    ours: Draft
    other: str
    task: TaskName | None
    theirs: Draft | None = None
    why: str = ""
    """Why there is nobody to meet."""


@dataclass(frozen=True)
class Opponents:
    """Where the rows of one setting are found that others are set against."""

    drafts: Mapping[str, Sequence[Draft]]
    """By experiment; several where one was run by several trainers or from several files."""
    known: Mapping[str, Experiment]
    """Every definition, whether it was run or not."""

    def named(self, ours: Draft, name: str) -> Draft | str:
        """Give the row of an experiment that is most like ours, or say why there is none."""
        found = [draft for draft in self.drafts.get(name, ()) if draft.row.scores]
        if not found:
            return "not run here" if name in self.known else NOT_REGISTERED
        return max(found, key=lambda draft: self._likeness(ours, draft))

    def _likeness(self, ours: Draft, theirs: Draft) -> tuple[bool, bool, int, str]:
        (one, other), (file, its_file) = (
            [read(draft) for draft in (ours, theirs)] for read in (_trainer, _weight_file)
        )
        return one == other, file == its_file, len(theirs.runs), theirs.runs[0].record.family

    def twin(self, ours: Draft, mine: Experiment, name: str) -> Draft | str:
        """Give the row of a counterpart: alike but for the tasks; or why there is none."""
        why = why_no_counterpart(mine, self.known.get(name))
        if why:
            return why
        found = self.named(ours, name)
        if isinstance(found, Draft) and _weight_file(found) != _weight_file(ours):
            return "no counterpart, it began from another weight file"
        return found


def _trainer(draft: Draft) -> Any:
    return draft.runs[0].about.get("trainer_version")


def _weight_file(draft: Draft) -> Any:
    return (draft.runs[0].about.get("weights") or {}).get("sha256")


def meetings_of(draft: Draft, opponents: Opponents, first: Draft | None) -> Iterator[Meeting]:
    """Say whom a row of a table is to meet; `first` is the first row of the table."""
    mine = opponents.known.get(draft.row.name)
    if mine is not None and draft.row.scores and not draft.runs[0].ad_hoc:
        twins = list(_twins(draft, mine, opponents))
        yield from twins
        yield from _as_defined(draft, mine, opponents, {meeting.other for meeting in twins})
    if first is not None and first is not draft and draft.row.scores:
        yield Meeting("first", draft, first.row.name, None, first)


def _twins(draft: Draft, mine: Experiment, opponents: Opponents) -> Iterator[Meeting]:
    if len(mine.head.tasks) > 1:
        names = {task: mine.counterpart_name(task) for task in draft.tasks}
    else:
        (task,) = mine.head.tasks
        names = {task: f"mtl-{mine.name.removeprefix(f'{task}-')}"}
    for task, name in names.items():
        found = opponents.twin(draft, mine, name)
        if isinstance(found, Draft):
            yield Meeting("twin", draft, name, task, found)
        elif len(mine.head.tasks) > 1 or found != NOT_REGISTERED:
            yield Meeting("twin", draft, name, task, why=found)


def _as_defined(
    draft: Draft, mine: Experiment, opponents: Opponents, met: set[str]
) -> Iterator[Meeting]:
    """Set a row against the experiment that its definition names, unless that is its twin."""
    other = mine.compare_with
    if other is None or other in met:
        return
    found = opponents.named(draft, other)
    if isinstance(found, str):
        yield Meeting("defined", draft, other, None, why=found)
        return
    shared = [task for task in draft.tasks if task in found.tasks]
    for task in shared:
        yield Meeting("defined", draft, other, task, found)
    if not shared:
        yield Meeting("defined", draft, other, None, why=NO_TASK)


def set_against(meetings: Sequence[Meeting]) -> dict[int, tuple[RowComparison, ...]]:
    """Compare all that a leaderboard's rows meet; by `id` of the row's draft."""
    told: list[tuple[Meeting, _Contest | str]] = []
    differences: dict[Hashable, Difference] = {}
    for meeting in meetings:
        try:
            contest = _contest(meeting)
        except RunError as error:
            contest = error.found
        if isinstance(contest, _Contest) and contest.sides not in differences:
            differences[contest.sides] = contest.difference()
        told.append((meeting, contest))
    judged = judge(
        (FAMILY_OF[meeting.kind], contest.key, differences[contest.sides])
        for meeting, contest in told
        if isinstance(contest, _Contest)
    )
    found: dict[int, list[RowComparison]] = defaultdict(list)
    for meeting, contest in told:
        about = (meeting.kind, meeting.other, meeting.task)
        if isinstance(contest, str):
            outcome = RowComparison(*about, why=contest)
        else:
            ours = judged[contest.key].of(differences[contest.sides])
            outcome = RowComparison(*about, ours, of_trainings_alone=len(contest.ours) == 1)
        found[id(meeting.ours)].append(outcome)
    return {who: tuple(outcomes) for who, outcomes in found.items()}


@dataclass(frozen=True)
class _Contest:
    """Two sides' values of each face, before anything is computed of them."""

    identities: tuple[tuple[str, ...], tuple[str, ...]]
    task: TaskName | None
    clusters: Any
    ours: Floats
    """(n_seeds, n_faces)."""
    theirs: Floats

    @property
    def sides(self) -> Hashable:
        """Who is compared with which reference, on what."""
        return self.identities, self.task

    @property
    def key(self) -> Hashable:
        """What is compared, whichever is the reference."""
        return frozenset(self.identities), self.task

    def difference(self) -> Difference:
        """Compare the two."""
        return difference_of(self.ours, self.theirs, self.clusters)


def _contest(meeting: Meeting) -> _Contest | str:
    """Lay out a meeting; say why it would not be fair; raise RunError for unreadable answers."""
    ours, theirs = meeting.ours, meeting.theirs
    if theirs is None:
        return meeting.why
    if ours.row.leaky != theirs.row.leaky:
        return "one of the two is LEAKY"
    chosen = _sides(ours, theirs)
    mine, other = (
        tuple(draft.row.identities[index] for index in which)
        for draft, which in zip((ours, theirs), chosen, strict=True)
    )
    if set(mine) & set(other):
        return SHARED
    if ours.answers.faces_key != theirs.answers.faces_key:
        return "tested on different faces"
    task = meeting.task if meeting.task or len(ours.tasks) > 1 else ours.tasks[0]
    tasks = ours.tasks if task is None else (task,)
    if not set(tasks) <= set(theirs.tasks):
        return NO_TASK
    values = [
        _values(draft.answers, tasks, which)
        for draft, which in zip((ours, theirs), chosen, strict=True)
    ]
    clusters = ours.answers.faces["cluster"].to_numpy()
    return _Contest((mine, other), task, clusters, values[0], values[1])


def _sides(ours: Draft, theirs: Draft) -> tuple[list[int], list[int]]:
    """Choose the runs that meet: all, or one of each where a side has a single one.

    As `contestants` of the library: the lowest seed that both have, else each side's lowest;
    never the best.
    """
    if len(ours.runs) > 1 and len(theirs.runs) > 1:
        return list(range(len(ours.runs))), list(range(len(theirs.runs)))
    shared = sorted(set(ours.row.seeds) & set(theirs.row.seeds))
    if not shared:
        return [0], [0]
    return [ours.row.seeds.index(shared[0])], [theirs.row.seeds.index(shared[0])]


def _values(answers: RightAnswers, tasks: Sequence[TaskName], which: Sequence[int]) -> Floats:
    """Weigh the tasks that are read right as `combined` does; (n_seeds, n_faces) in [0, 1]."""
    right = np.stack([answers.right[task][list(which)] for task in tasks]).astype(np.float64)
    return np.average(right, axis=0, weights=[COMBINED_WEIGHTS[task] for task in tasks])
