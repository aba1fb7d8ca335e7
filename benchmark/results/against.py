"""What the rows of one table are set against, and what came of it.

Each row meets its single-task twins (or, trained for one task, its multi-task twin), the experiment
that its definition names, and the first row of its table. All on the same test faces, in the same
setting; p-values are corrected over all of the table. Which rows stand in a table is for
benchmark.results.leaderboard.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmark.errors import RunError
from benchmark.experiment import Experiment
from benchmark.results.kept_answers import RightAnswers
from benchmark.results.meetings import NOT_REGISTERED
from benchmark.results.paired import (
    ALPHA,
    Difference,
    holm,
    mcnemar_p,
    paired_interval,
    sign_flip_p,
    smallest_seen,
    welch_interval,
)
from benchmark.results.row import Against, Opponent
from benchmark.results.rows import Draft
from benchmark.tasks import COMBINED_WEIGHTS, TaskName

Steps = npt.NDArray[np.int64]

WHOLE_WEIGHTS: Final = {task: round(5 * weight) for task, weight in COMBINED_WEIGHTS.items()}
"""The weights of `combined` in fifths: whole, so that equal sums are equal exactly."""
TOGETHER: Final = 256
"""Differences that are resampled at once."""
SHARED: Final = "the same runs"


@dataclass(frozen=True)
class Meeting:
    """A row and who it is to be set against, on one task or (None) on all together."""

    kind: Opponent
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
        """Give the row of a twin: trained alike but for the tasks; or say why there is none."""
        definition = self.known.get(name)
        if definition is None:
            return NOT_REGISTERED
        parts = ("backbone", "recipe", "protocol", "subset")
        other = [part for part in parts if getattr(mine, part) != getattr(definition, part)]
        if other:
            return f"no twin, its {' and '.join(other)} differ"
        found = self.named(ours, name)
        if isinstance(found, Draft) and _weight_file(found) != _weight_file(ours):
            return "no twin, it began from another weight file"
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
        names = {task: mine.twin_name(task) for task in draft.tasks}
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
        yield Meeting("defined", draft, other, None, why="no task in common")


Key = tuple[tuple[str, ...], tuple[str, ...], TaskName | None]
"""Who met whom on what: one comparison, however often it is shown."""


def set_against(meetings: Sequence[Meeting]) -> tuple[dict[int, tuple[Against, ...]], int]:
    """Compare all that a table's rows meet; by `id` of the row's draft, and how many p-values.

    Holm's correction is over all of these, each comparison counted once.
    """
    prepared: dict[Key, _Contest] = {}
    told: list[tuple[Meeting, Key | str]] = []
    for meeting in meetings:
        try:
            contest = _contest(meeting)
        except RunError as error:
            contest = error.found
        if isinstance(contest, _Contest):
            prepared.setdefault(contest.key, contest)
            told.append((meeting, contest.key))
        else:
            told.append((meeting, contest))
    differences = dict(zip(prepared, _differences(list(prepared.values())), strict=True))
    corrected, level = holm([difference.p for difference in differences.values()])
    p_holm = dict(zip(differences, corrected, strict=True))
    found: dict[int, list[Against]] = defaultdict(list)
    for meeting, key in told:
        plain = Against(meeting.kind, meeting.other, meeting.task)
        if isinstance(key, str):
            outcome = dataclasses.replace(plain, why=key)
        else:
            outcome = _judged(plain, differences[key], p_holm[key], level)
            single = len(prepared[key].ours) == 1
            outcome = dataclasses.replace(outcome, of_trainings_alone=single)
        found[id(meeting.ours)].append(outcome)
    return {who: tuple(outcomes) for who, outcomes in found.items()}, len(p_holm)


def _judged(plain: Against, difference: Difference, p_holm: float, level: float) -> Against:
    seen = smallest_seen(difference, level) if p_holm > ALPHA else None
    return dataclasses.replace(plain, difference=difference, p_holm=p_holm, smallest_seen=seen)


@dataclass(frozen=True)
class _Contest:
    """Two sides' points, face by face, before anything is computed of them."""

    key: Key
    clusters: npt.NDArray[np.integer[Any]]
    ours: Steps
    """(n_seeds, n_faces) points of each face; `full` where all that counts is right."""
    theirs: Steps
    full: int
    faces_key: str

    @property
    def per_face(self) -> int:
        """Steps from all seeds wrong to all seeds right."""
        return int(np.lcm(len(self.ours), len(self.theirs))) * self.full

    @property
    def steps(self) -> Steps:
        """The difference of each face in steps of 1 / `per_face`; (n_faces,)."""
        one, other = (
            points.sum(axis=0) * (self.per_face // self.full // len(points))
            for points in (self.ours, self.theirs)
        )
        return np.asarray(one - other, dtype=np.int64)


def _contest(meeting: Meeting) -> _Contest | str:
    """Lay out a meeting; say why it would not be fair; raise RunError for unreadable answers."""
    ours, theirs = meeting.ours, meeting.theirs
    if theirs is None:
        return meeting.why
    if ours.row.leaky != theirs.row.leaky:
        return "one of the two is LEAKY"
    chosen = _sides(ours, theirs)
    identities = [
        tuple(draft.row.identities[index] for index in which)
        for draft, which in zip((ours, theirs), chosen, strict=True)
    ]
    if set(identities[0]) & set(identities[1]):
        return SHARED
    if ours.answers.faces_key != theirs.answers.faces_key:
        return "tested on different faces"
    task = meeting.task if meeting.task or len(ours.tasks) > 1 else ours.tasks[0]
    tasks = ours.tasks if task is None else (task,)
    if not set(tasks) <= set(theirs.tasks):
        return "no task in common"
    points = [
        _points(draft.answers, tasks, which)
        for draft, which in zip((ours, theirs), chosen, strict=True)
    ]
    return _Contest(
        key=(identities[0], identities[1], task),
        clusters=ours.answers.faces["cluster"].to_numpy(),
        ours=points[0],
        theirs=points[1],
        full=1 if task else sum(WHOLE_WEIGHTS[one] for one in tasks),
        faces_key=ours.answers.faces_key,
    )


def _sides(ours: Draft, theirs: Draft) -> tuple[list[int], list[int]]:
    """Choose the runs that meet: all, or one of each where a side has a single one.

    As benchmark.results.arms.contestants: the lowest seed that both have, else each side's lowest;
    never the best.
    """
    if len(ours.runs) > 1 and len(theirs.runs) > 1:
        return list(range(len(ours.runs))), list(range(len(theirs.runs)))
    shared = sorted(set(ours.row.seeds) & set(theirs.row.seeds))
    if not shared:
        return [0], [0]
    return [ours.row.seeds.index(shared[0])], [theirs.row.seeds.index(shared[0])]


def _points(answers: RightAnswers, tasks: Sequence[TaskName], which: Sequence[int]) -> Steps:
    weights = {task: WHOLE_WEIGHTS[task] if len(tasks) > 1 else 1 for task in tasks}
    parts = [weights[task] * answers.right[task][list(which)].astype(np.int64) for task in tasks]
    return np.asarray(np.sum(parts, axis=0), dtype=np.int64)


def _differences(contests: Sequence[_Contest]) -> list[Difference]:
    """Compute all contests; those on the same faces are resampled together."""
    found: dict[int, Difference] = {}
    by_faces: dict[str, list[int]] = defaultdict(list)
    for index, contest in enumerate(contests):
        by_faces[contest.faces_key].append(index)
    for indices in by_faces.values():
        for begin in range(0, len(indices), TOGETHER):
            some = indices[begin : begin + TOGETHER]
            steps = [contests[index].steps for index in some]
            rates = [
                values / contests[index].per_face for index, values in zip(some, steps, strict=True)
            ]
            clusters = contests[some[0]].clusters
            lows, highs = paired_interval(np.column_stack(rates), clusters)
            _, codes = np.unique(clusters, return_inverse=True)
            for index, values, low, high in zip(some, steps, lows, highs, strict=True):
                found[index] = _difference(contests[index], values, codes, (low, high))
    return [found[index] for index in range(len(contests))]


def _difference(
    contest: _Contest, steps: Steps, codes: npt.NDArray[np.intp], ends: tuple[float, float]
) -> Difference:
    """Say how far apart two sides are, as benchmark.results.paired does; without macro-F1."""
    per_face, n_faces = contest.per_face, len(steps)
    cluster_steps = np.bincount(codes, weights=steps).astype(np.int64)
    sums = cluster_steps / per_face
    differing = np.abs(sums[sums != 0])
    mcnemar = len(contest.ours) == 1 and contest.full == 1
    only_theirs, only_ours = (int((steps == sign).sum()) for sign in (-1, 1))
    of_ours, of_theirs = (
        points.mean(axis=1) / contest.full for points in (contest.ours, contest.theirs)
    )
    seed_low, seed_high = welch_interval(of_ours, of_theirs)
    return Difference(
        accuracy=float(steps.sum() / per_face / n_faces),
        low=float(ends[0]),
        high=float(ends[1]),
        macro_f1=None,
        macro_f1_low=None,
        macro_f1_high=None,
        seed_low=seed_low,
        seed_high=seed_high,
        test="mcnemar" if mcnemar else "sign_flip",
        p=mcnemar_p(only_theirs, only_ours) if mcnemar else sign_flip_p(cluster_steps),
        only_reference=only_theirs if mcnemar else None,
        only_arm=only_ours if mcnemar else None,
        n_faces=n_faces,
        n_clusters=len(cluster_steps),
        chance_sd=float(np.sqrt(np.square(sums).sum()) / n_faces),
        unit=float(differing.mean() / n_faces) if len(differing) else 1 / n_faces,
    )
