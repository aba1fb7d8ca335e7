"""The report's research questions about pairs: the best network, MTL or STL, weights, depth,
conditioning.

Pairs are experiments that differ in one respect alone, found by content and not by name. All
comparisons of a report are made and corrected together, so that each has one p-value on it.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmark.comparison.leaderboard import HEADINGS, KINDS
from benchmark.comparison.pairs import (
    NO_TASK,
    Found,
    PairPlan,
    counterparts_plan,
    judge_plans,
    plan_pair,
)
from benchmark.comparison.statistics import NOT_SIGNIFICANT, Family
from benchmark.comparison.wording import (
    Mark,
    StudyPanel,
    StudyPicture,
    TaskComparison,
    accuracy_text,
    by_pair,
    gap_sentences,
    joined,
    mtl_sentences,
    pair_sentences,
    points,
    reading_notes,
    with_sd,
)
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.definition import CONDITIONINGS, Experiment
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.reporting import figures
from benchmark.reporting.evidence import Evidence, RankedNetwork
from benchmark.reporting.figures import PageFigure, intervals_figure
from benchmark.reporting.questions import (
    NO_RUN,
    Answer,
    lines_table,
    run_command,
    runs_of,
    some_run,
    suite_command,
    unanswered,
)
from benchmark.reporting.tables import Table
from benchmark.tasks import TASK_TITLES, TASKS

FIELD_OF: Final[dict[Family, tuple[str, str]]] = {
    "weights": ("backbone", "weights"),
    "depth": ("backbone", "trainable_stages"),
    "conditioning": ("head", "conditioning"),
}
"""What the experiments of a question differ in: part and field of their definitions."""
SHOWN_IN_RANKING: Final = 12
MOST_RIVALS: Final = 60
"""So many networks are compared with the first of their table."""
CAPTION: Final = (
    "Difference in test accuracy in percentage points, with its 95 % interval; right of 0: "
    "{better} is better. Hollow: not significant after Holm's correction."
)


@dataclass(frozen=True)
class Siblings:
    """Experiments that differ in one respect alone; their learning rates may differ with it."""

    question: Family
    members: tuple[Experiment, ...]
    """In their natural order: shallow to deep, the reference first."""

    @property
    def label(self) -> str:
        """What they share, in a few words: `mtl vgg16 imagenet`."""
        first = self.members[0]
        backbone = first.backbone
        words = [first.task_label, backbone.architecture]
        words += [backbone.weights] if self.question != "weights" else []
        words += [backbone.depth_name] if self.question != "depth" else []
        if self.question != "conditioning" and first.head.conditioning != "none":
            words.append(first.head.conditioning)
        variant = first.name.removeprefix(first.stem).strip("-")
        return " ".join([*words, *([variant] if variant else [])])

    def value_of(self, member: Experiment) -> str:
        """What a member differs in: a weight source, a depth, a conditioning."""
        if self.question == "depth":
            return member.backbone.depth_name
        part, name = FIELD_OF[self.question]
        return str(getattr(getattr(member, part), name))

    def pairs(self) -> list[tuple[Experiment, Experiment]]:
        """Who is compared, reference first: neighbours by depth, all weights, all with `none`."""
        if self.question == "depth":
            return list(itertools.pairwise(self.members))
        if self.question == "weights":
            return list(itertools.combinations(self.members, 2))
        return [(self.members[0], other) for other in self.members[1:]]


def siblings(experiments: Iterable[Experiment], question: Family) -> list[Siblings]:
    """Group experiments that differ in one of FIELD_OF alone; groups of one are none."""
    part, name = FIELD_OF[question]
    groups: dict[str, dict[str, Experiment]] = {}
    for item in experiments:
        content = steering_content(item.as_dict())
        value = content[part].pop(name)
        # The study trained frozen backbones at another rate than deeper ones.
        content["recipe"].pop("learning_rate")
        groups.setdefault(canonical_json(content), {}).setdefault(str(value), item)
    found = []
    for members in groups.values():
        ordered = sorted(members.values(), key=lambda item: _place(item, question))
        with_reference = question != "conditioning" or ordered[0].head.conditioning == "none"
        if len(ordered) > 1 and with_reference:
            found.append(Siblings(question, tuple(ordered)))
    return found


def _place(item: Experiment, question: Family) -> tuple[int, str]:
    if question == "depth":
        return len(item.backbone.trained_stages), ""
    if question == "conditioning":
        return CONDITIONINGS.index(item.head.conditioning), ""
    sources = architecture_named(item.backbone.architecture).weight_sources
    ordered = ("none", *(name for name in sources if name != "none"))
    weights = item.backbone.weights
    return (ordered.index(weights) if weights in ordered else len(ordered)), weights


def sibling_pairs(evidence: Evidence, question: Family) -> list[tuple[Siblings, str, str]]:
    """List who is compared for a question: what the two share, and their names, reference first."""
    fold = evidence.setting.protocol.fold if evidence.setting else None
    # Folds of the split are no networks of their own: `leaderboard --folds` has them.
    ours = [item for item in evidence.experiments if item.protocol.fold == fold]
    return [
        (group, reference.name, other.name)
        for group in siblings((item for item in ours if not item.protocol.leaky), question)
        for reference, other in group.pairs()
    ]


def judged(evidence: Evidence, family: Family) -> Found:
    """Give what came of one question; all of the report's are compared and corrected together."""
    if not evidence.found:

        def plan(pairs: Iterable[tuple[str, str]]) -> PairPlan:
            made = PairPlan()
            for reference, other in pairs:
                plan_pair(made, evidence.group(reference), evidence.group(other), TASKS)
            made.gaps = [gap for gap in made.gaps if gap.why != NO_TASK]
            return made

        plans = {
            question: plan(pair[1:] for pair in sibling_pairs(evidence, question))
            for question in FIELD_OF
        }
        groups = [evidence.group(item.name) for item in evidence.experiments]
        plans["mtl_stl"] = counterparts_plan(evidence.library, groups, evidence.dataset, TASKS)
        # Shown by no table of the report, and compared all the same: the leaderboard of these runs
        # corrects a pair within this family, and a pair has one corrected p on both.
        defined = [(item.compare_with, item.name) for item in evidence.experiments]
        plans["compare_with"] = plan((one, other) for one, other in defined if one is not None)
        firsts = [evidence.ranked(kind)[: 1 + MOST_RIVALS] for kind in KINDS]
        plans["first"] = plan((r[0].name, other.name) for r in firsts for other in r[1:])
        evidence.found.update(judge_plans(plans, evidence.book))
    return evidence.found[family]


def differences_figure(
    name: str, title: str, better: str, lines: Sequence[TaskComparison], labels: Mapping[str, str]
) -> PageFigure:
    """Draw differences, a panel per task; labels: by `GROUP|REFERENCE`, else the group's own."""
    panels = []
    for task in TASKS:
        marks = tuple(
            Mark(
                labels.get(f"{line.group.label}|{line.reference.label}", line.group.label),
                line.difference.accuracy,
                line.difference.low,
                line.difference.high,
                filled=line.significant,
            )
            for line in lines
            if line.task == task
        )
        if marks:
            panels.append(StudyPanel(task, TASK_TITLES[task].capitalize(), marks))
    caption = CAPTION.format(better=better)
    picture = StudyPicture("", title, caption, tuple(panels), of_differences=True)
    return intervals_figure(name, picture)


def _notes(lines: Sequence[TaskComparison]) -> tuple[str, ...]:
    groups = {g.label: g for line in lines for g in (line.reference, line.group)}
    return tuple(reading_notes(lines, list(groups.values())))


def best_network(evidence: Evidence) -> Answer:
    """Which network is best on validation, and which do not differ from it on test?"""
    slug, name, question = "best", "Best network", "Which network predicts best?"
    if not evidence.first_ranked:
        return unanswered(slug, name, question, NO_RUN, some_run(evidence))
    sentences: list[str] = []
    tables: list[Table] = []
    missing: list[str] = []
    for kind in KINDS:
        ranked = evidence.ranked(kind)
        if not ranked:
            continue
        best = ranked[0]
        found = judged(evidence, "first")
        rivals = Found(
            tuple(line for line in found.lines if line.reference.label == best.name),
            tuple(gap for gap in found.gaps if gap.reference == best.name),
        )
        said = [_best_sentence(HEADINGS[kind], ranked), *_tie_sentences(rivals)]
        sentences += [" ".join(said[:2]), *said[2:]]
        missing += gap_sentences(rivals.gaps)
        if rivals.lines:
            title = f"{HEADINGS[kind]}: every other network against the first"
            tables.append(lines_table(title, rivals.lines))
    return Answer(
        slug,
        name,
        question,
        tuple(sentences),
        evidence.links.of(evidence.first_ranked[0].row.identities),
        figures=tuple(_rankings(evidence)),
        tables=tuple(tables),
        missing=tuple(missing),
        notes=(
            "Best means best on validation, which ranks; test was evaluated once and is shown. No "
            "significant difference does not mean equal.",
        ),
    )


def _best_sentence(heading: str, ranked: Sequence[RankedNetwork]) -> str:
    best = ranked[0].row
    scores = joined(f"{TASK_TITLES[task]} {accuracy_text(s)} %" for task, s in best.scores.items())
    among = f"of {len(ranked)} networks" if len(ranked) > 1 else "and the only one"
    seeds = f"{len(best.seeds)} seeds" if len(best.seeds) > 1 else "one seed"
    return (
        f"{heading}: {best.name} is best on validation {among}, with "
        f"{with_sd(best.val_combined, best.val_combined_sd)} % over {seeds}. Its test accuracy: "
        f"{scores}."
    )


def _tie_sentences(rivals: Found) -> Iterator[str]:
    if not rivals.lines:
        return
    pairs = by_pair(rivals.lines)
    tied = [ours[0].group.label for ours in pairs if not any(line.significant for line in ours)]
    ahead = [
        f"{ours[0].group.label} ({joined(TASK_TITLES[line.task] for line in better)})"
        for ours in pairs
        if (better := [line for line in ours if line.verdict == "better"])
    ]
    if tied:
        yield f"No significant difference from it on any task of the test: {joined(tied)}."
    else:
        yield "Each of the others differs from it significantly on some task of the test."
    if ahead:
        yield f"Better than it on test: {joined(ahead)}."
    if any(line.of_trainings_alone for line in rivals.lines):
        yield "Where a single run of each side is compared, this is about these trainings alone."


def _rankings(evidence: Evidence) -> Iterator[PageFigure]:
    """Draw the test accuracies of the best networks, in the order of their rank."""
    caption = (
        "Test accuracy with its 95 % interval, in the order of the rank on validation, the first "
        f"{SHOWN_IN_RANKING} at most. Overlapping intervals do not mean that two networks are "
        "equal: the table tests it."
    )
    for title, kinds in ((HEADINGS["mtl"], ["mtl"] * 3), ("One task, one network (STL)", TASKS)):
        panels = []
        for task, kind in zip(TASKS, kinds, strict=True):
            marks = tuple(
                Mark(f"{item.row.rank}  {item.name}", score.accuracy, score.low, score.high)
                for item in evidence.ranked(kind)[:SHOWN_IN_RANKING]  # type: ignore[arg-type]
                if (score := item.row.scores.get(task)) is not None
            )
            if marks:
                panels.append(StudyPanel(task, TASK_TITLES[task].capitalize(), marks))
        if panels:
            picture = StudyPicture("", title, caption, tuple(panels))
            yield intervals_figure(f"best-{kinds[0]}", picture)


def mtl_or_stl(evidence: Evidence) -> Answer:
    """Does one network for three tasks predict better than three networks?"""
    slug, name = "mtl-or-stl", "MTL or STL"
    question = "One network for all three tasks, or one for each?"
    found = judged(evidence, "mtl_stl")
    if not found.lines:
        known = evidence.library.experiments
        wanted = [suite_command("quick", evidence.dataset)]
        for item in evidence.experiments:
            names = [item.counterpart_name(task) for task in item.head.tasks]
            is_mtl = len(names) > 1 and not item.protocol.leaky
            if is_mtl and all(counterpart in known for counterpart in names):
                wanted = [run_command([item.name, *names], evidence.dataset)]
                break
        why = "no MTL network and its single-task counterpart are finished on the same faces."
        return unanswered(slug, name, question, why, wanted)
    short, *others = mtl_sentences(found.lines)
    title = "Networks of three tasks against their single-task counterparts"
    return Answer(
        slug,
        name,
        question,
        (short.removeprefix("Does MTL beat STL? "), *others),
        runs_of(found.lines, evidence),
        figures=(differences_figure(slug, "MTL minus STL", "MTL", found.lines, {}),),
        tables=(lines_table(title, found.lines),),
        missing=tuple(gap_sentences(found.gaps)),
        notes=_notes(found.lines),
    )


def which_weights(evidence: Evidence) -> Answer:
    """Which weights to start from?"""
    asked = ("weights", "Weights", "Which weights to start from?")
    return _one_respect(evidence, "weights", asked, "The same network from other weights")


def how_deep(evidence: Evidence) -> Answer:
    """How deep to unfreeze?"""
    asked = ("depth", "Depth", "How deep to unfreeze the backbone?")
    return _one_respect(evidence, "depth", asked, "Each depth against the next shallower one")


def does_conditioning_help(evidence: Evidence) -> Answer:
    """Do gender features help the age-group and race heads?"""
    asked = ("gender", "Conditioning", "Does conditioning on gender features help?")
    return _one_respect(evidence, "conditioning", asked, "Each conditioning against none")


def _one_respect(
    evidence: Evidence, family: Family, asked: tuple[str, str, str], title: str
) -> Answer:
    """Answer for pairs that differ in one respect; asked: slug, name, question."""
    known = evidence.library.experiments
    pairs = sibling_pairs(evidence, family)
    labels = {
        f"{other}|{reference}": f"{group.value_of(known[other])} − "
        f"{group.value_of(known[reference])} · {group.label}"
        for group, reference, other in pairs
    }
    found = judged(evidence, family)
    if not found.lines:
        why = "no two networks that differ in this alone are finished on the same faces."
        if pairs:
            return unanswered(*asked, why, [run_command(pairs[0][1:], evidence.dataset)])
        suites = sorted(evidence.library.suites.values(), key=lambda item: len(item.experiments))
        for suite in suites:
            members = [known[name] for name in suite.experiments]
            if siblings((item for item in members if not item.protocol.leaky), family):
                return unanswered(*asked, why, [suite_command(suite.name, evidence.dataset)])
        return unanswered(*asked, why, [])
    sentences = tuple(pair_sentences(found.lines))
    if len(sentences) > 1:
        sentences = (_tally(found, labels),)
    figure = differences_figure(asked[0], title, "the first named", found.lines, labels)
    return Answer(
        *asked,
        sentences=sentences,
        href=runs_of(found.lines, evidence),
        figures=(*(_depth_figures(evidence) if family == "depth" else ()), figure),
        tables=(lines_table(title, found.lines),),
        missing=tuple(gap_sentences(found.gaps)),
        notes=(*_rate_notes(evidence, found.lines), *_notes(found.lines)),
    )


def _tally(found: Found, labels: Mapping[str, str]) -> str:
    """Count verdicts task by task, and name the largest significant difference."""
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
        significant = [line for line in ours if line.significant]
        if significant:
            largest = max(significant, key=lambda line: abs(line.difference.accuracy))
            label = labels[f"{largest.group.label}|{largest.reference.label}"]
            part += f", by {points(largest.difference.accuracy)} pp at most ({label})"
        parts.append(f"{part}.")
    if any(line.of_trainings_alone for line in found.lines):
        parts.append("One seed on a side speaks of these trainings alone.")
    return " ".join(parts)


def _rate_notes(evidence: Evidence, lines: Sequence[TaskComparison]) -> list[str]:
    """Say which pairs differ in their learning rates too."""
    differing: dict[str, None] = {}
    for line in lines:
        one, other = (
            evidence.library.experiments[group.label].recipe.learning_rate
            for group in (line.reference, line.group)
        )
        if one != other:
            pair = f"{line.group.label} against {line.reference.label}"
            differing[f"{pair}: learning rates {one:g} and {other:g}"] = None
    return [f"Not only in this: {'; '.join(differing)}."] if differing else []


def _depth_figures(evidence: Evidence) -> Sequence[PageFigure]:
    """Draw test accuracy by unfreezing depth; nothing where no backbone has two depths."""
    scored = {name: item for name, item in evidence.networks.items() if item.tested}
    honest = (item for item in evidence.experiments if item.name in scored)
    groups = siblings(honest, "depth")
    if not groups:
        return ()
    members = [member for group in groups for member in group.members]
    place = {
        m.name: len(m.backbone.trained_stages)
        / len(architecture_named(m.backbone.architecture).stages)
        for m in members
    }
    # The stages of one architecture can be named on the axis.
    ticks = {0.0: "frozen", 0.5: "half", 1.0: "full"}
    if len({member.backbone.architecture for member in members}) == 1:
        ticks = {place[m.name]: m.backbone.depth_name for m in members}
    shown = {}
    for task in TASKS:
        lines = []
        for group in groups:
            rows = [(m, scored[m.name].row.scores.get(task)) for m in group.members]
            known = [(place[m.name], score) for m, score in rows if score is not None]
            if known:
                scores = [score for _, score in known]
                lines.append(
                    figures.Line(
                        group.label, [at for at, _ in known], [s.accuracy for s in scores],
                        [s.low for s in scores], [s.high for s in scores],
                    )
                )  # fmt: skip
        if lines:
            shown[task] = lines
    ends = [
        (min(v for line in lines for v in line.lows), max(v for line in lines for v in line.highs))
        for lines in shown.values()
    ]
    panels = [
        figures.lines_panel(
            f"depth-lines-{task}",
            TASK_TITLES[task].capitalize(),
            lines,
            x_title="share of stages trained",
            ticks=ticks,
            limits=limits,
        )
        for (task, lines), limits in zip(shown.items(), figures.same_width(ends), strict=True)
    ]
    caption = "Test accuracy with its 95 % interval, from a frozen backbone to a fully trained one."
    return (PageFigure("Accuracy by unfreezing depth", caption, tuple(panels)),)
