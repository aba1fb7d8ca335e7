"""The report's comparisons: weights, unfreezing depth, conditioning, MTL against STL.

One network for all three tasks, or one for each? Slopes, differences, and the words for both.

What the page compares: experiments that differ in one respect, rivals of the first, MTL and STL.

All comparisons of the page are made and judged together, so that each has one verdict.

Accuracy by how much of the backbone is trained: a line for each backbone, a panel for each task.

Which weights, how deep, and does gender help? Experiments that differ in that alone.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from markupsafe import Markup

from benchmark.architectures import architecture_named
from benchmark.comparison.leaderboard import KINDS, Kind
from benchmark.comparison.library import RunGroup
from benchmark.comparison.pairs import (
    NO_TASK,
    Found,
    PairPlan,
    counterparts_plan,
    judge_plans,
    plan_pair,
)
from benchmark.comparison.statistics import NOT_SIGNIFICANT, Family
from benchmark.comparison.verdicts import (
    Line,
    by_group,
    by_pair,
    family_text,
    gap_sentences,
    joined,
    mtl_sentences,
    pair_sentence,
    points,
)
from benchmark.experiment.definition import CONDITIONINGS, Experiment
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.reporting import figures
from benchmark.reporting.answer import (
    HOLLOW,
    Answer,
    Sentence,
    comparison_notes,
    forest,
    run_command,
    runs_of,
    suite_command,
    unanswered,
)
from benchmark.reporting.evidence import Evidence, Network, lines_table
from benchmark.reporting.figures import Picture, Series, Slope
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

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
        # The study trained frozen backbones at another rate than deeper ones.
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


def differing_rates(reference: Experiment, compared: Experiment) -> str:
    """Say that two experiments learn at different rates, where they do."""
    one, other = reference.recipe.learning_rate, compared.recipe.learning_rate
    return "" if one == other else f"learning rates {one:g} and {other:g}"


def planned(evidence: Evidence, couples: Iterable[tuple[str, str]]) -> PairPlan:
    """Plan comparisons of experiments by name, reference first; who is absent becomes a gap."""
    plan = PairPlan()
    for reference, compared in couples:
        plan_pair(plan, evidence.run_group(reference), evidence.run_group(compared), TASKS)
    plan.gaps = [gap for gap in plan.gaps if gap.why != NO_TASK]
    return plan


def respect_couples(evidence: Evidence, respect: Respect) -> list[tuple[Siblings, str, str]]:
    """List who is compared in a respect: what the two share, and their names, reference first."""
    setting = evidence.setting
    fold = setting.protocol.fold if setting else None
    # Folds of the split are no networks of their own: `leaderboard --folds` has them.
    ours = [item for item in evidence.experiments if item.protocol.fold == fold]
    honest = [item for item in ours if not item.protocol.leaky]
    return [
        (group, reference.name, compared.name)
        for group in siblings(honest, respect)
        for reference, compared in group.couples()
    ]


def first_couples(evidence: Evidence, kind: Kind) -> list[tuple[str, str]]:
    """Pair the first network of a table with those that follow it by validation."""
    ranked = [network.row.name for network in evidence.ranked(kind)]
    return [(ranked[0], name) for name in ranked[1 : 1 + MOST_RIVALS]]


def judged(evidence: Evidence, family: Family) -> Found:
    """Give what came of one question; all of the page's are compared and judged together."""
    if not evidence.found:
        named = [evidence.run_group(item.name) for item in evidence.experiments]
        plans = {
            question: planned(evidence, [pair[1:] for pair in respect_couples(evidence, respect)])
            for question, respect in RESPECT_OF.items()
        }
        plans["mtl_stl"] = counterparts_plan(evidence.library, named, evidence.dataset, TASKS)
        # Shown by no table of this page, and asked all the same: the leaderboard of these runs
        # judges a pair by this family, and a pair has one corrected p on both.
        defined = [(item.compare_with, item.name) for item in evidence.experiments]
        plans["compare_with"] = planned(evidence, [(a, b) for a, b in defined if a is not None])
        firsts = [pair for kind in KINDS for pair in first_couples(evidence, kind)]
        plans["first"] = planned(evidence, firsts)
        evidence.found.update(judge_plans(plans, evidence.book))
    return evidence.found[family]


@dataclass(frozen=True)
class _Depths:
    """Backbones of which two depths or more are finished."""

    groups: tuple[Siblings, ...]
    networks: Mapping[str, Network]

    @property
    def longest(self) -> Siblings:
        """The group with most depths."""
        return max(self.groups, key=lambda group: len(group.members))

    @property
    def alike(self) -> bool:
        """Whether all backbones have the longest one's stages, so that one axis can name them."""
        return all(set(_names(group)) <= set(_names(self.longest)) for group in self.groups)

    @property
    def ticks(self) -> dict[float, str]:
        """What stands at the places of the axis."""
        if self.alike:
            return {float(place): name for place, name in enumerate(_names(self.longest))}
        return {0.0: "frozen", 0.5: "half", 1.0: "full"}

    def place(self, item: Experiment) -> float:
        """Place a depth: by its rank where stages are the same, else by the share trained."""
        if self.alike:
            return float(_names(self.longest).index(item.backbone.depth_name))
        n_stages = len(architecture_named(item.backbone.architecture).stages)
        return len(item.backbone.trained_stages) / n_stages


def _names(group: Siblings) -> list[str]:
    return [member.backbone.depth_name for member in group.members]


def depth_pictures(evidence: Evidence) -> Iterator[Picture]:
    """Draw accuracy by depth; nothing where no backbone has two depths finished."""
    networks = {network.row.name: network for network in evidence.networks if network.tested}
    honest = [item for item in evidence.experiments if not item.protocol.leaky]
    finished = (
        Siblings(group.respect, tuple(m for m in group.members if m.name in networks))
        for group in siblings(honest, "trainable_stages")
    )
    groups = tuple(group for group in finished if len(group.members) > 1)
    if not groups:
        return
    depths = _Depths(groups, networks)
    legend = tuple(
        (figures.swatch(figures.style_of(style), figures.shape_of(style)), group.label)
        for style, group in enumerate(groups)
    )
    yield Picture(
        "Accuracy by depth",
        "Test accuracy with its 95 % interval, from a frozen backbone to one trained whole.",
        tuple(_panel(depths, task) for task in TASKS if _series(depths, task)),
        legend,
    )


def _panel(depths: _Depths, task: TaskName) -> Markup:
    return figures.series_panel(
        TASK_TITLES[task].capitalize(),
        _series(depths, task),
        depths.ticks,
        x_title="shallowest trained stage" if depths.alike else "share of stages trained",
        css=task,
    )


def _series(depths: _Depths, task: TaskName) -> Sequence[Series]:
    found = []
    for style, group in enumerate(depths.groups):
        scored = [
            (depths.place(item), depths.networks[item.name].row.scores[task])
            for item in group.members
            if task in depths.networks[item.name].row.scores
        ]
        if scored:
            found.append(
                Series(
                    group.label,
                    tuple(place for place, _ in scored),
                    tuple(score.accuracy for _, score in scored),
                    tuple(score.low for _, score in scored),
                    tuple(score.high for _, score in scored),
                    style=style,
                )
            )
    return found


def which_weights(evidence: Evidence) -> Answer:
    """Which weights to start from?"""
    return _one_respect(
        evidence,
        "weights",
        "weights",
        "Which weights to start from?",
        "The same network from other weights",
    )


def how_deep(evidence: Evidence) -> Answer:
    """How deep to unfreeze?"""
    answer = _one_respect(
        evidence,
        "depth",
        "depth",
        "How deep to unfreeze the backbone?",
        "Each depth against the next shallower one",
    )
    if not answer.answered:
        return answer
    return replace(answer, pictures=(*depth_pictures(evidence), *answer.pictures))


def does_gender_help(evidence: Evidence) -> Answer:
    """Does it help to show gender to the age-group and race branches?"""
    return _one_respect(
        evidence,
        "conditioning",
        "gender",
        "Does showing the network its own reading of gender help?",
        "Each way of conditioning on gender against none",
    )


def _one_respect(
    evidence: Evidence, family: Family, slug: str, question: str, title: str
) -> Answer:
    respect = RESPECT_OF[family]
    couples = respect_couples(evidence, respect)
    known = evidence.library.experiments
    labels = {
        f"{compared}|{reference}": _label(group, known[reference], known[compared])
        for group, reference, compared in couples
    }
    found = judged(evidence, family)
    if not found.lines:
        commands = _wanted(evidence, respect, [pair[1:] for pair in couples])
        why = "no two networks that differ in this alone are finished on the same faces."
        return unanswered(slug, question, why, commands)
    caption = (
        "Difference in test accuracy, in points, with its 95 % interval; right of 0: the first "
        f"named reads more. {HOLLOW}"
    )
    sentences = [
        Sentence(
            pair_sentence(ours, reference=ours[0].reference.label), runs_of(ours, evidence.links)
        )
        for ours in by_pair(found.lines)
    ]
    table = lines_table(
        f"{slug}-lines", title, found.lines, evidence.links, family_text(found.lines)
    )
    return Answer(
        slug,
        question,
        _tally(found, labels),
        runs_of(found.lines, evidence.links),
        sentences=tuple(sentences),
        pictures=(forest(title, caption, found.lines, labels),),
        tables=(table,),
        missing=tuple(gap_sentences(found.gaps)),
        notes=(*_rate_notes(evidence, found.lines), *comparison_notes(found.lines)),
    )


def _honest(experiments: Iterable[Experiment]) -> list[Experiment]:
    return [item for item in experiments if not item.protocol.leaky]


def _label(group: Siblings, reference: Experiment, compared: Experiment) -> str:
    return f"{group.value_of(compared)} − {group.value_of(reference)} · {group.label}"


def _rate_notes(evidence: Evidence, lines: Sequence[Line]) -> Iterator[str]:
    known = evidence.library.experiments
    told: dict[str, None] = {}
    for line in lines:
        rates = differing_rates(known[line.reference.label], known[line.group.label])
        if rates:
            told[f"{line.group.label} against {line.reference.label}: {rates}"] = None
    if told:
        yield f"Not only in this: {'; '.join(told)}."


def _tally(found: Found, labels: Mapping[str, str]) -> str:
    """Sum up verdicts: of one pair by name, of several in how many, task by task."""
    pairs = by_pair(found.lines)
    alone = any(line.of_trainings_alone for line in found.lines)
    caveat = " One seed on a side speaks of these trainings alone." if alone else ""
    if len(pairs) == 1:
        return pair_sentence(pairs[0], reference=pairs[0][0].reference.label)
    parts = []
    for task in TASKS:
        ours = [line for line in found.lines if line.task == task]
        if not ours:
            continue
        counts = Counter(line.verdict for line in ours)
        said = [
            f"{verdict} in {counts[verdict]}"
            for verdict in ("better", "worse", NOT_SIGNIFICANT)
            if counts[verdict]
        ]
        part = f"{TASK_TITLES[task].capitalize()}: {joined(said)} of {len(ours)} comparisons"
        told = [line for line in ours if line.significant]
        if told:
            largest = max(told, key=lambda line: abs(line.difference.accuracy))
            label = labels[f"{largest.group.label}|{largest.reference.label}"]
            part += f", by {points(largest.difference.accuracy)} points at most ({label})"
        parts.append(f"{part}.")
    return " ".join(parts) + caveat


def _wanted(evidence: Evidence, respect: Respect, couples: Sequence[tuple[str, str]]) -> list[str]:
    """Say what to run: the first couple of these experiments, else the smallest suite with one."""
    if couples:
        return [run_command(couples[0], evidence.dataset)]
    known = evidence.library.experiments
    for suite in sorted(evidence.library.suites.values(), key=lambda item: len(item.experiments)):
        members = _honest(known[name] for name in suite.experiments)
        if siblings(members, respect):
            return [suite_command(suite.name, evidence.dataset)]
    return []


def mtl_or_stl(evidence: Evidence) -> Answer:
    """Does one network for three tasks read better than three networks?"""
    slug, question = "mtl-or-stl", "One network for all three tasks, or one for each?"
    found = judged(evidence, "mtl_stl")
    gaps = tuple(gap_sentences(found.gaps))
    if not found.lines:
        names = _twins_wanted(evidence)
        commands = (
            [run_command(names, evidence.dataset)]
            if names
            else [suite_command("quick", evidence.dataset)]
        )
        why = "no MTL network and its single-task counterpart are finished on the same faces."
        return unanswered(slug, question, why, commands)
    short, *others = mtl_sentences(found.lines)
    networks = by_group(found.lines)
    sentences = [
        Sentence(words, runs_of(ours, evidence.links))
        for words, ours in zip([short, *others], [found.lines, *networks], strict=False)
    ]
    pictures = (_slopes(evidence, found.lines), _differences(found.lines))
    table = lines_table(
        f"{slug}-lines",
        "Networks of three tasks against their single-task counterparts",
        found.lines,
        evidence.links,
        family_text(found.lines),
    )
    return Answer(
        slug,
        question,
        short.removeprefix("Does MTL beat STL? "),
        sentences[0].href,
        sentences=tuple(sentences),
        pictures=pictures,
        tables=(table,),
        missing=gaps,
        notes=comparison_notes(found.lines),
    )


def _twins_wanted(evidence: Evidence) -> list[str]:
    """Name the first network of three tasks whose twins are all registered, and these twins."""
    known = evidence.library.experiments
    for item in evidence.experiments:
        if len(item.head.tasks) > 1 and not item.protocol.leaky:
            twins = [item.counterpart_name(task) for task in item.head.tasks]
            if all(name in known for name in twins):
                return [item.name, *twins]
    return []


def _slopes(evidence: Evidence, lines: Sequence[Line]) -> Picture:
    panels = []
    for task in TASKS:
        ours = [line for line in lines if line.task == task]
        slopes = [
            Slope(
                _short_name(evidence, line.group.label),
                _accuracy(evidence, line.reference, task),
                _accuracy(evidence, line.group, task),
                line.verdict,
            )
            for line in ours
        ]
        if slopes:
            panels.append(figures.slopes_panel(task, slopes))
    caption = (
        "Test accuracy in percent of each network alone on a task and together with the others. "
        "Triangle: better together; square: worse; hollow circle: no significant difference."
    )
    return Picture("From one task to three, network by network", caption, tuple(panels))


def _short_name(evidence: Evidence, name: str) -> str:
    """Name a network by architecture, and by what else is needed to tell it from the others."""
    backbone = evidence.library.experiments[name].backbone
    same = [
        item
        for item in evidence.experiments
        if len(item.head.tasks) > 1 and item.backbone.architecture == backbone.architecture
    ]
    alone = len({(item.backbone.weights, item.backbone.depth_name) for item in same}) == 1
    return backbone.architecture if alone else f"{backbone.architecture} {backbone.depth_name}"


def _accuracy(evidence: Evidence, compared: RunGroup, task: TaskName) -> float:
    return float(evidence.book.answers(compared).right(task).mean())


def _differences(lines: Sequence[Line]) -> Picture:
    return forest(
        "Together minus alone",
        "Difference in test accuracy, in points, with its 95 % interval; right of 0: the network "
        f"of three tasks reads more. {HOLLOW}",
        lines,
    )
