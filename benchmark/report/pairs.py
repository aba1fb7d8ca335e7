"""What the page compares: experiments that differ in one respect, rivals of the first, MTL and STL.

All comparisons of the page are made and judged together, so that each has one verdict.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from benchmark.architectures import architecture_named
from benchmark.experiment import CONDITIONINGS, Experiment
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.report.evidence import Evidence
from benchmark.results.board import KINDS, Kind
from benchmark.results.comparison import Found, judge_plans
from benchmark.results.meetings import NO_TASK, Plan, counterparts_plan, plan_meeting
from benchmark.results.paired import Family
from benchmark.tasks import TASKS

Respect = Literal["weights", "trainable_stages", "conditioning"]
PART_OF: Final[dict[Respect, str]] = {
    "weights": "backbone",
    "trainable_stages": "backbone",
    "conditioning": "head",
}
RESPECT_OF: Final[dict[Family, Respect]] = {
    "weights": "weights",
    "depth": "trainable_stages",
    "conditioning": "conditioning",
}
MOST_RIVALS: Final = 60
"""So many networks are compared with the first of their table."""


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


def planned(evidence: Evidence, couples: Iterable[tuple[str, str]]) -> Plan:
    """Plan comparisons of experiments by name, reference first; who is absent becomes a gap."""
    plan = Plan()
    for reference, arm in couples:
        plan_meeting(plan, evidence.arm(reference), evidence.arm(arm), TASKS)
    plan.gaps = [gap for gap in plan.gaps if gap.why != NO_TASK]
    return plan


def respect_couples(evidence: Evidence, respect: Respect) -> list[tuple[Siblings, str, str]]:
    """List who is compared in a respect: what the two share, and their names, reference first."""
    honest = [item for item in evidence.experiments if not item.protocol.leaky]
    return [
        (group, reference.name, arm.name)
        for group in siblings(honest, respect)
        for reference, arm in group.couples()
    ]


def first_couples(evidence: Evidence, kind: Kind) -> list[tuple[str, str]]:
    """Pair the first network of a table with those that follow it by validation."""
    ranked = [network.row.name for network in evidence.ranked(kind)]
    return [(ranked[0], name) for name in ranked[1 : 1 + MOST_RIVALS]]


def judged(evidence: Evidence, family: Family) -> Found:
    """Give what came of one question; all of the page's are compared and judged together."""
    if not evidence.found:
        named = [evidence.arm(item.name) for item in evidence.experiments]
        plans = {
            question: planned(evidence, [pair[1:] for pair in respect_couples(evidence, respect)])
            for question, respect in RESPECT_OF.items()
        }
        plans["mtl_stl"] = counterparts_plan(evidence.library, named, evidence.dataset, TASKS)
        firsts = [pair for kind in KINDS for pair in first_couples(evidence, kind)]
        plans["first"] = planned(evidence, firsts)
        evidence.found.update(judge_plans(plans, evidence.book))
    return evidence.found[family]
