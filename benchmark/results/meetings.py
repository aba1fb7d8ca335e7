"""Who is to meet whom in a comparison, before any answer is read.

What was asked for: each against the first, all pairs, or each experiment against the one that its
definition names. Or every MTL experiment against its single-task counterparts.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmark.experiment import Experiment
from benchmark.results.arms import Absent, Arm
from benchmark.results.library import Library, Request
from benchmark.tasks import TaskName

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
