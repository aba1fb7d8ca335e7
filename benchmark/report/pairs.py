"""Experiments that differ in one respect, and what came of setting them side by side."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from benchmark.architectures import architecture_named
from benchmark.errors import RunError
from benchmark.experiment import CONDITIONINGS, Experiment
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.report.evidence import Evidence
from benchmark.results.answers import Answers, difference_in_faces
from benchmark.results.arms import Absent, Arm, contestants, why_not_comparable
from benchmark.results.meetings import Gap, Meeting, Plan
from benchmark.results.paired import Pair, paired_difference
from benchmark.results.verdicts import Compared, Line, judge
from benchmark.tasks import TaskName

Respect = Literal["weights", "trainable_stages", "conditioning"]
PART_OF: Final[dict[Respect, str]] = {
    "weights": "backbone",
    "trainable_stages": "backbone",
    "conditioning": "head",
}


@dataclass(frozen=True)
class Siblings:
    """Experiments that differ in one respect alone; their learning rates may differ with it."""

    respect: Respect
    members: tuple[Experiment, ...]
    """In their natural order: shallow to deep, the reference first."""

    @property
    def label(self) -> str:
        """What they share, in a few words: `mtl vgg16 imagenet`."""
        first = self.members[0]
        backbone = first.backbone
        words = [first.task_label, backbone.architecture]
        words += [backbone.weights] if self.respect != "weights" else []
        words += [backbone.depth_name] if self.respect != "trainable_stages" else []
        if self.respect != "conditioning" and first.head.conditioning != "none":
            words.append(first.head.conditioning)
        variant = first.name.removeprefix(first.stem).strip("-")
        return " ".join([*words, *([variant] if variant else [])])

    def value_of(self, member: Experiment) -> str:
        """What sets a member apart: a weight source, a depth, a conditioning."""
        if self.respect == "trainable_stages":
            return member.backbone.depth_name
        return str(getattr(getattr(member, PART_OF[self.respect]), self.respect))

    def couples(self) -> list[tuple[Experiment, Experiment]]:
        """Who is to meet, reference first: neighbours by depth, all weights, all with `none`."""
        if self.respect == "trainable_stages":
            return list(itertools.pairwise(self.members))
        if self.respect == "weights":
            return list(itertools.combinations(self.members, 2))
        return [(self.members[0], other) for other in self.members[1:]]


def siblings(experiments: Iterable[Experiment], respect: Respect) -> list[Siblings]:
    """Group experiments that differ in `respect` alone; groups of one are none."""
    groups: dict[str, dict[str, Experiment]] = {}
    for item in experiments:
        content = steering_content(item.as_dict())
        value = content[PART_OF[respect]].pop(respect)
        # The study trained frozen trunks at another rate than deeper ones.
        content["recipe"].pop("learning_rate")
        groups.setdefault(canonical_json(content), {}).setdefault(str(value), item)
    found = []
    for members in groups.values():
        ordered = sorted(members.values(), key=lambda item: _place(item, respect))
        with_reference = respect != "conditioning" or ordered[0].head.conditioning == "none"
        if len(ordered) > 1 and with_reference:
            found.append(Siblings(respect, tuple(ordered)))
    return found


def _place(item: Experiment, respect: Respect) -> tuple[int, str]:
    architecture = architecture_named(item.backbone.architecture)
    if respect == "trainable_stages":
        depth = item.backbone.trainable_stages
        return (len(architecture.stages) if depth == "all" else depth), ""
    if respect == "conditioning":
        return CONDITIONINGS.index(item.head.conditioning), ""
    weights = item.backbone.weights
    sources = ("none", *(name for name in architecture.weight_sources if name != "none"))
    return (sources.index(weights) if weights in sources else len(sources)), weights


def differing_rates(reference: Experiment, arm: Experiment) -> str:
    """Say that two experiments learn at different rates, where they do."""
    one, other = reference.recipe.learning_rate, arm.recipe.learning_rate
    return "" if one == other else f"learning rates {one:g} and {other:g}"


@dataclass(frozen=True)
class Judged:
    """Differences whose p-values were corrected together, and what could not be compared."""

    lines: tuple[Line, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def family(self) -> str:
        """How many p-values were corrected together."""
        return (
            f"Holm: corrected over all {len(self.lines)} p-values of this table; 0.05 or less "
            "tells networks apart."
        )


def plan_couples(
    evidence: Evidence, couples: Iterable[tuple[str, str]], tasks: Sequence[TaskName]
) -> Plan:
    """Plan meetings of experiments by name, reference first; who is absent becomes a gap."""
    plan = Plan()
    for reference, arm in couples:
        sides = [evidence.arm(name) for name in (reference, arm)]
        absent = [side for side in sides if isinstance(side, Absent)]
        present = [side for side in sides if isinstance(side, Arm)]
        if absent:
            why = "; ".join(f"{side.label}: {side.why}" for side in absent)
            plan.gaps.append(Gap(arm, reference, why))
            continue
        shared = tuple(task for task in tasks if all(task in side.tasks for side in present))
        if shared:
            plan.meetings.append(Meeting(present[0], present[1], shared))
    return plan


def judged(evidence: Evidence, plan: Plan) -> Judged:
    """Compare all that can be, and correct their p-values together; the rest becomes gaps."""
    compared: list[Compared] = []
    gaps = list(plan.gaps)
    for meeting in plan.meetings:
        try:
            why = _obstacle(evidence, meeting)
        except RunError as error:
            why = error.found
        if why is None:
            compared += _differences(evidence, meeting)
        else:
            gaps.append(Gap(meeting.arm.label, meeting.reference.label, why))
    return Judged(judge(compared) if compared else (), tuple(gaps))


def _obstacle(evidence: Evidence, meeting: Meeting) -> str | None:
    why = why_not_comparable(meeting.arm, meeting.reference)
    if why is not None:
        return why
    ours, theirs = (evidence.book.answers(side) for side in (meeting.arm, meeting.reference))
    differing = difference_in_faces(ours.faces, theirs.faces)
    return f"they were tested on different faces, {differing}" if differing else None


def _differences(evidence: Evidence, meeting: Meeting) -> list[Compared]:
    reference, arm = contestants(meeting.reference, meeting.arm)
    theirs = _answers(evidence, reference, meeting.reference)
    ours = _answers(evidence, arm, meeting.arm)
    clusters = ours.faces["cluster"].to_numpy(dtype=np.int64)
    compared: list[Compared] = []
    for task in meeting.tasks:
        truth = ours.faces[task].to_numpy(dtype=np.int64)
        pair = Pair(truth, clusters, theirs.predicted[task], ours.predicted[task])
        compared.append((reference, arm, task, paired_difference(pair)))
    return compared


def _answers(evidence: Evidence, contestant: Arm, whole: Arm) -> Answers:
    """Give the answers of all runs of an arm, or of the one that was chosen."""
    answers = evidence.book.answers(whole)
    if contestant.identities == whole.identities:
        return answers
    return answers.of_run(whole.identities.index(contestant.identities[0]))
