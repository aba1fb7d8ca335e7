"""The report's research questions: a table of them, and what the runs answer to each.

Pairs are experiments that differ in one respect alone, found by content and not by name. All
comparisons of a report are made and corrected together, so that each has one p-value on it.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
from markupsafe import Markup

from benchmark.comparison import wording as words
from benchmark.comparison.leaderboard import HEADINGS, KINDS
from benchmark.comparison.leak_study import LEAK_SUITES, leak_page, leak_study
from benchmark.comparison.library import RunGroup
from benchmark.comparison.pairs import (
    NO_TASK,
    Found,
    PairPlan,
    counterparts_plan,
    judge_plans,
)
from benchmark.comparison.statistics import ALPHA, Family
from benchmark.comparison.subset_study import subset_page, subset_study
from benchmark.comparison.wording import Mark, StudyPanel, StudyPicture, TaskComparison, joined
from benchmark.errors import RunError
from benchmark.evaluation.figures import BY_TITLES
from benchmark.evaluation.predictions import RunPredictions
from benchmark.evaluation.subgroups import By, gap_table
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.definition import CONDITIONINGS, Experiment
from benchmark.files import canonical_json
from benchmark.identity import steering_content
from benchmark.reporting.board_tables import listed
from benchmark.reporting.comparison_tables import pairs_table
from benchmark.reporting.evidence import Evidence, RankedNetwork
from benchmark.reporting.figures import (
    CostPoint,
    Matrix,
    PageFigure,
    cost_panel,
    heat_map,
    intervals_figure,
)
from benchmark.reporting.networks import depth_figures, stored_tables
from benchmark.reporting.tables import NOTHING, Cell, Column, Table
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

SEEDS: Final = "--seeds 0,1,2"
NO_RUN: Final = "no honest run is finished and ranked on this data set."
FIELD_OF: Final[dict[Family, tuple[str, str]]] = {
    "weights": ("backbone", "weights"),
    "depth": ("backbone", "trainable_stages"),
    "conditioning": ("head", "conditioning"),
}
"""What the experiments of a question differ in: part and field of their definitions."""
RATES_NOTE: Final = (
    "Compared experiments are equal in all that steers a training but this, and perhaps the "
    "learning rate, which the study chose anew for frozen backbones."
)
SHOWN_IN_RANKING: Final = 12
DIVISIONS: Final[tuple[By, ...]] = ("gender", "race", "gender_race", "age_group")
MOST_RIVALS: Final = 60
"""So many networks are compared with the first of their table."""
COSTS: Final = (
    ("By training time", "training of one run, s", "seconds", 1.0),
    ("By parameters", "parameters, millions", "parameters", 1e-6),
    ("By operations", "GMACs of one face", "gmacs", 1.0),
)
"""Heading, axis, field of a row, scale."""


@dataclass(frozen=True)
class Question:
    """A research question, and which function answers it."""

    slug: str
    name: str
    """The question in a word or two."""
    text: str
    ask: Callable[[Evidence, "Question"], "Answer"]
    family: Family = "first"
    """Of its pairs."""
    title: str = ""
    """Of its table of pairs."""
    suites: tuple[str, ...] = ()
    """Those that answer it."""


@dataclass(frozen=True)
class Answer:
    """What the runs say to a question."""

    question: Question
    sentences: tuple[str, ...] = ()
    """The first is the short answer, or why there is none."""
    href: str = ""
    """The address of the runs behind it."""
    figures: tuple[PageFigure, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    tables: tuple[Table, ...] = ()
    commands: tuple[str, ...] = ()
    """What would answer the question."""
    missing: tuple[str, ...] = ()
    """What could not be compared, and why."""
    notes: tuple[str, ...] = ()
    leaky: bool = False
    answered: bool = True


def _unanswered(question: Question, why: str, *commands: str) -> Answer:
    said = f"Not answered by these runs: {why}"
    return Answer(question, (said,), commands=commands, answered=False)


def _suite_command(suite: str, dataset: str) -> str:
    return f"facebench run --suite {suite} {SEEDS} --dataset {dataset}"


def _first_runs(evidence: Evidence) -> str:
    return _suite_command(evidence.suites[0] if evidence.suites else "quick", evidence.dataset)


def siblings(experiments: Iterable[Experiment], family: Family) -> list[tuple[Experiment, ...]]:
    """Group experiments that differ in one of FIELD_OF alone, their learning rates perhaps with
    it: shallow to deep, the reference first. Groups of one are none."""
    part, name = FIELD_OF[family]
    groups: dict[str, dict[str, Experiment]] = {}
    for item in experiments:
        content = steering_content(item.as_dict())
        value = content[part].pop(name)
        # The study trained frozen backbones at another rate than deeper ones.
        content["recipe"].pop("learning_rate")
        groups.setdefault(canonical_json(content), {}).setdefault(str(value), item)
    found = [tuple(sorted(it.values(), key=lambda x: _place(x, family))) for it in groups.values()]
    return [
        members
        for members in found
        if len(members) > 1 and (family != "conditioning" or members[0].head.conditioning == "none")
    ]


def _place(item: Experiment, family: Family) -> tuple[int, str]:
    if family == "depth":
        return len(item.backbone.trained_stages), ""
    if family == "conditioning":
        return CONDITIONINGS.index(item.head.conditioning), ""
    sources = architecture_named(item.backbone.architecture).weight_sources
    ordered = ["none", *(name for name in sources if name != "none")]
    weights = item.backbone.weights
    return (ordered.index(weights) if weights in ordered else len(ordered)), weights


def sibling_pairs(evidence: Evidence, family: Family) -> list[tuple[Experiment, Experiment]]:
    """List who is compared, reference first: neighbours by depth, all weights, all with `none`."""
    fold = evidence.setting.protocol.fold if evidence.setting else None
    # Folds of the split are no networks of their own: `leaderboard --folds` has them.
    ours = (it for it in evidence.experiments if it.protocol.fold == fold and not it.protocol.leaky)
    pairs: list[tuple[Experiment, Experiment]] = []
    for group in siblings(ours, family):
        if family == "depth":
            pairs += itertools.pairwise(group)
        elif family == "weights":
            pairs += itertools.combinations(group, 2)
        else:
            pairs += [(group[0], other) for other in group[1:]]
    return pairs


def judged(evidence: Evidence, family: Family) -> Found:
    """Give what came of one question; all of the report's are compared and corrected together."""
    if not evidence.found:

        def plan(pairs: Iterable[tuple[str, str]]) -> PairPlan:
            made = PairPlan()
            for reference, other in pairs:
                made.add(evidence.of_name(reference), evidence.of_name(other))
            made.gaps = [gap for gap in made.gaps if gap.why != NO_TASK]
            return made

        plans = {
            question: plan(
                (one.name, other.name) for one, other in sibling_pairs(evidence, question)
            )
            for question in FIELD_OF
        }
        groups = [evidence.of_name(item.name) for item in evidence.experiments]
        plans["mtl_stl"] = counterparts_plan(evidence.library, groups, evidence.dataset, TASKS)
        # Shown by no table of the report, and compared all the same: the leaderboard of these runs
        # corrects a pair within this family, and a pair has one corrected p on both.
        defined = [(item.compare_with, item.name) for item in evidence.experiments]
        plans["compare_with"] = plan((one, other) for one, other in defined if one is not None)
        firsts = [evidence.ranked(kind)[: 1 + MOST_RIVALS] for kind in KINDS]
        plans["first"] = plan((r[0].name, other.name) for r in firsts for other in r[1:])
        evidence.found.update(judge_plans(plans, evidence.book))
    return evidence.found[family]


def _pairs_of(title: str, lines: Sequence[TaskComparison]) -> Table:
    return dataclasses.replace(pairs_table(lines), title=title, notes=(words.family_text(lines),))


def _best_network(evidence: Evidence, question: Question) -> Answer:
    if not evidence.first_ranked:
        return _unanswered(question, NO_RUN, _first_runs(evidence))
    sentences: list[str] = []
    tables: list[Table] = []
    missing: list[str] = []
    for kind in (kind for kind in KINDS if evidence.ranked(kind)):
        ranked, found = evidence.ranked(kind), judged(evidence, "first")
        best = ranked[0].row
        lines = [line for line in found.lines if line.reference.label == best.name]
        missing += words.gap_sentences([gap for gap in found.gaps if gap.reference == best.name])
        scores = joined(
            f"{TASK_TITLES[t]} {words.accuracy_text(s)} %" for t, s in best.scores.items()
        )
        among = f"of {len(ranked)} networks" if len(ranked) > 1 else "and the only one"
        seeds = f"{len(best.seeds)} seeds" if len(best.seeds) > 1 else "one seed"
        sentences.append(
            f"{HEADINGS[kind]}: {best.name} is best on validation {among}, with "
            f"{words.with_sd(best.val_combined, best.val_combined_sd)} % over {seeds}. Its test "
            f"accuracy: {scores}. {_ties(lines)}".rstrip()
        )
        if lines:
            tables.append(
                _pairs_of(f"{HEADINGS[kind]}: every other network against the first", lines)
            )
    return Answer(
        question,
        tuple(sentences),
        evidence.links.of(evidence.first_ranked[0].group.identities),
        figures=tuple(_rankings(evidence)),
        tables=tuple(tables),
        missing=tuple(missing),
        notes=(
            "Best means best on validation, which ranks; test was evaluated once and is shown. No "
            "significant difference does not mean equal.",
        ),
    )


def _ties(lines: Sequence[TaskComparison]) -> str:
    """Say which networks do not differ from the first on test, and which are better."""
    pairs = words.by_pair(lines)
    tied = [ours[0].group.label for ours in pairs if not any(line.significant for line in ours)]
    ahead = [
        f"{ours[0].group.label} ({joined(TASK_TITLES[line.task] for line in better)})"
        for ours in pairs
        if (better := [line for line in ours if line.verdict == "better"])
    ]
    said = [f"No significant difference from it on any task: {listed(tied)}."] if tied else []
    said += [f"Better than it on test: {joined(ahead)}."] if ahead else []
    if any(line.of_trainings_alone for line in lines):
        said.append("Where a side has one run, this is about these trainings alone.")
    return " ".join(said)


def _rankings(evidence: Evidence) -> Iterator[PageFigure]:
    """Draw the test accuracies of the best networks, in the order of their rank."""
    caption = (
        "Test accuracy with its 95 % interval, in the order of the rank on validation, the first "
        f"{SHOWN_IN_RANKING} at most. Overlapping intervals do not mean that two networks are "
        "equal: the table tests it."
    )
    for title, is_mtl in ((HEADINGS["mtl"], True), ("One task, one network (STL)", False)):
        marks = {
            task: [
                Mark(f"{item.row.rank}  {item.name}", score.accuracy, score.low, score.high)
                for item in evidence.ranked("mtl" if is_mtl else task)[:SHOWN_IN_RANKING]
                if (score := item.row.scores.get(task)) is not None
            ]
            for task in TASKS
        }
        if any(marks.values()):
            picture = StudyPicture("", title, caption, _panels(marks))
            yield intervals_figure(f"best-{'mtl' if is_mtl else 'stl'}", picture)


def _panels(marks: Mapping[TaskName, Sequence[Mark]]) -> tuple[StudyPanel, ...]:
    return tuple(
        StudyPanel(task, TASK_TITLES[task].capitalize(), tuple(ours))
        for task, ours in marks.items()
        if ours
    )


def _pairs(evidence: Evidence, question: Question) -> Answer:
    """Answer for pairs that differ in one respect, or for MTL against its STL counterparts."""
    family = question.family
    found, is_mtl = judged(evidence, family), family == "mtl_stl"
    if not found.lines:
        alike = "that differ in this alone"
        if is_mtl:
            alike = "of which one is the single-task counterpart of the other"
        why = f"no two networks {alike} are finished on the same faces."
        return _unanswered(question, why, *_command_for(evidence, question))
    if is_mtl:
        short, *further = words.sentences(found.lines, of_mtl=True)
        sentences, better = [short.removeprefix("Does MTL beat STL? "), *further], "MTL"
    else:
        sentences, better = list(words.sentences(found.lines)), "the named network"
        if len(sentences) > 1:
            sentences = [_tally(found.lines)]
    known = evidence.library.experiments

    def label_of(line: TaskComparison) -> str:
        against = known[line.reference.label].backbone.weights if family == "weights" else ""
        return f"{line.group.label} against {against}" if against else line.group.label

    marks = {
        task: [
            Mark(label_of(line), it.accuracy, it.low, it.high, filled=line.significant)
            for line in found.lines
            if line.task == task
            for it in (line.difference,)
        ]
        for task in TASKS
    }
    caption = (
        "Difference in test accuracy in percentage points, with its 95 % interval; right of 0: "
        f"{better} is better. Hollow: not significant after Holm's correction."
    )
    picture = StudyPicture("", question.title, caption, _panels(marks), of_differences=True)
    groups = {g.label: g for line in found.lines for g in (line.reference, line.group)}
    identities = [key for group in groups.values() for key in group.identities]
    return Answer(
        question,
        tuple(sentences),
        evidence.links.of(identities),
        figures=(
            *(_depths(evidence) if family == "depth" else ()),
            intervals_figure(question.slug, picture),
        ),
        tables=(_pairs_of(question.title, found.lines),),
        missing=tuple(words.gap_sentences(found.gaps)),
        notes=(
            *(() if is_mtl else (RATES_NOTE,)),
            *words.reading_notes(found.lines, list(groups.values())),
        ),
    )


def _command_for(evidence: Evidence, question: Question) -> list[str]:
    """Write the command that makes the runs of a first pair, or of the smallest suite with one."""
    library, family = evidence.library, question.family
    if family == "mtl_stl":
        return [_first_runs(evidence)]
    if pairs := sibling_pairs(evidence, family):
        names = " ".join(item.name for item in pairs[0])
        return [f"facebench run {names} {SEEDS} --dataset {evidence.dataset}"]
    for suite in sorted(library.suites.values(), key=lambda suite: len(suite.experiments)):
        members = (library.experiments[name] for name in suite.experiments)
        if siblings((item for item in members if not item.protocol.leaky), family):
            return [_suite_command(suite.name, evidence.dataset)]
    return []


def _tally(lines: Sequence[TaskComparison]) -> str:
    """Count verdicts task by task, and name the largest significant difference."""
    parts = []
    for task in TASKS:
        ours = [line for line in lines if line.task == task]
        if not ours:
            continue
        counts = Counter(line.verdict for line in ours)
        said = joined(f"{verdict} in {n}" for verdict, n in sorted(counts.items()))
        part = f"{TASK_TITLES[task].capitalize()}: {said} of {len(ours)} comparisons"
        if significant := [line for line in ours if line.significant]:
            largest = max(significant, key=lambda line: abs(line.difference.accuracy))
            pair = f"{largest.group.label} against {largest.reference.label}"
            part += f", by {words.points(largest.difference.accuracy)} pp at most ({pair})"
        parts.append(f"{part}.")
    if any(line.of_trainings_alone for line in lines):
        parts.append("One seed on a side speaks of these trainings alone.")
    return " ".join(parts)


def _lowest_subgroups(evidence: Evidence, question: Question) -> Answer:
    if not evidence.first_ranked:
        return _unanswered(question, NO_RUN, _first_runs(evidence))
    best = evidence.first_ranked[0]
    try:
        predictions = evidence.book.predictions(best.group)
        matrices = tuple(heat_map(predictions, task) for task in best.group.tasks)
        gaps = _gaps(predictions)
    except RunError as error:
        return _unanswered(question, str(error))
    sentences, rows, beyond = [], [], []
    if (worst := best.row.worst) is not None:
        overall = words.percent(best.row.scores[worst.task].accuracy)
        sentences.append(
            f"{best.name} has its lowest {TASK_TITLES[worst.task]} accuracy for {worst.group}: "
            f"{words.percent(worst.accuracy)} % ({words.span(worst.low, worst.high)}, n "
            f"{worst.n:,}), against {overall} % of all test faces."
        )
    for gap in gaps.to_dict("records"):
        task, by, p = TASK_TITLES[gap["task"]], BY_TITLES[gap["by"]], float(gap["p"])
        gap_cell = Cell(f"{gap['gap']:.1f}", f"{gap['low']:.1f}–{gap['high']:.1f}", gap["gap"])
        numbers = (gap_cell, Cell(f"{gap['permuted']:.1f}"), Cell(words.p_text(p), value=p))
        rows.append((task, by, gap["worst"], gap["best"], *numbers))
        if p <= ALPHA:
            beyond.append(f"{task} by {by} ({gap['gap']:.1f} pp, {gap['worst']} lowest)")
    if gaps.empty:
        said = "No two subgroups have 30 test faces or more, so none can be ranked."
    elif beyond:
        said = f"Gaps beyond those of a random assignment, after correction: {joined(beyond)}."
    else:
        said = "No gap is significantly beyond that of a random assignment to subgroups."
    headings = ("task", "subgroups by", "lowest", "highest", "gap, pp", "permuted, pp", "p, Holm")
    title = f"{best.name}: gap between the lowest and the highest subgroup"
    return Answer(
        question,
        (*sentences, said),
        evidence.links.of(best.group.identities),
        matrices=matrices,
        tables=(Table.of(headings, rows, title), *stored_tables(best)),
        notes=(
            "Subgroups are by the labels; those of under 30 faces are marked and not ranked. "
            "Permuted: the mean gap when faces are assigned to the subgroups at random, with the "
            "p-value of a gap as wide, corrected by Holm over all rows of the table. Several seeds "
            "have a gap each; a row shows their mean, and the p of the seed with the largest p.",
            "Rates: each class against the rest; equalized odds is the larger difference of true- "
            "and false-positive rates between subgroups, permuted among faces of one true class. "
            "Women and men: adjusted means of one age group. Years: a prediction counts as the "
            "mean age of its group's training faces; the true group's error is that of a network "
            "that is always right. Several seeds: means, and the largest p.",
        ),
    )


def _depths(evidence: Evidence) -> Iterator[PageFigure]:
    scored = {name for name, item in evidence.networks.items() if item.row.scores}
    tested = (item for item in evidence.experiments if item.name in scored)
    return depth_figures(evidence, siblings(tested, "depth"))


def _gaps(predictions: RunPredictions) -> pd.DataFrame:
    """Compare subgroups seed by seed and average, in pp; a task's own classes are no subgroup."""
    tables = []
    for index in range(len(next(iter(predictions.predicted.values())))):
        one = predictions.of_run(index)
        right = {task: one.right(task)[0] for task in one.predicted}
        tables.append(gap_table(one.faces, right, DIVISIONS))
    found = pd.concat(tables)
    own = (found["by"] == found["task"]) | (
        (found["by"] == "gender_race") & found["task"].isin(["gender", "race"])
    )
    by_row = found[~own & (found["n_ranked"] >= 2)].groupby(["task", "by"], sort=False)
    means = 100 * by_row[["gap", "gap_low", "gap_high", "chance_gap"]].mean()
    means.columns = pd.Index(["gap", "low", "high", "permuted"])
    for end in ("worst", "best"):
        means[end] = [" or ".join(ours[f"{end}_group"].unique()) for _, ours in by_row]
    return means.assign(p=by_row["p_holm"].max()).reset_index()


def _cost_of_accuracy(evidence: Evidence, question: Question) -> Answer:
    ranked = evidence.first_ranked
    if len(ranked) < 2:
        why = "fewer than two networks are finished and ranked on this data set."
        return _unanswered(question, why, _first_runs(evidence))
    panels: list[Markup] = []
    sentences = []
    fronts: dict[str, list[str]] = {item.name: [] for item in ranked}
    for heading, axis, field, scale in COSTS:
        points = _cost_points(ranked, field, scale)
        if len(points) < 2:
            continue
        panels.append(cost_panel(f"cost-{len(panels)}", heading, points, axis))
        front = [point.label for point in points if point.on_front]
        for label in front:
            fronts[label].append(heading.removeprefix("By "))
        sentences.append(
            f"{heading}, no network is both cheaper and better on validation than "
            f"{joined(front)}: the Pareto front of {len(points)} networks."
        )
    caption = (
        "Weighted validation accuracy, which ranks, against cost on a logarithmic axis. The line "
        "is the Pareto front: the best that a budget buys. Numbers are those of the table."
    )
    rows = [
        (
            str(number), item.name, Cell(words.with_sd(row.val_combined, row.val_combined_sd)),
            Cell(words.duration_text(row.seconds), value=row.seconds),
            Cell(words.count_text(row.parameters), value=row.parameters),
            Cell(words.number_text(row.gmacs), value=row.gmacs),
            joined(fronts[item.name]) or NOTHING,
        )
        for number, item in enumerate(ranked, 1)
        for row in (item.row,)
    ]  # fmt: skip
    headings = ("#", Column("network", left=True), "val, %", "training", "parameters", "GMACs",
                Column("on the front of", left=True))  # fmt: skip
    title = "Costs; training is the mean of a run's seconds"
    figure = PageFigure("Accuracy against cost", caption, tuple(panels))
    tables = (Table.of(headings, rows, title),)
    return Answer(question, tuple(sentences), figures=(figure,), tables=tables)


def _cost_points(ranked: Sequence[RankedNetwork], field: str, scale: float) -> list[CostPoint]:
    """Place the networks whose cost is known; on the front is what none dominates."""
    places = {
        (number, item.name): (scale * cost, item.row.val_combined or 0.0)
        for number, item in enumerate(ranked, 1)
        if (cost := getattr(item.row, field))
    }
    return [
        CostPoint(
            *key, cost, score,
            on_front=not any(
                other <= cost and theirs >= score and (other, theirs) != (cost, score)
                for other, theirs in places.values()
            ),
        )
        for key, (cost, score) in places.items()
    ]  # fmt: skip


def _study(evidence: Evidence, question: Question) -> Answer:
    """Show what `facebench leak` or `facebench subsets` tells."""
    library, slug, dataset = evidence.library, question.slug, evidence.dataset
    names = [name for suite in question.suites for name in library.suites[suite].experiments]
    members = [library.experiments[name] for name in names]
    try:
        if slug == "leak":
            page = leak_page(leak_study(library, members, dataset))
        else:
            page = subset_page(subset_study(library, members, dataset))
    except RunError as error:
        places = {place for name in names for place in library.datasets_of(name)} - {dataset}
        others = f"; there are such runs on {', '.join(sorted(places))}" if places else ""
        suite = "leak" if slug == "leak" else question.suites[0]
        return _unanswered(question, f"{error.found}{others}.", _suite_command(suite, dataset))
    groups = [library.run_group(name, dataset) for name in sorted(page.experiments)]
    known = [key for group in groups if isinstance(group, RunGroup) for key in group.identities]
    tables = []
    for found in page.tables:
        columns = [Column(head, left=place == 0) for place, head in enumerate(found.heads)]
        rows = [[Cell(name), *map(Cell.parted, texts)] for name, *texts in found.rows]
        tables.append(Table.of(columns, rows, found.caption))
    return Answer(
        question,
        page.sentences or ("Nothing could be compared.",),
        evidence.links.of(known),
        figures=tuple(
            intervals_figure(f"{slug}-{number}", picture)
            for number, picture in enumerate(page.pictures)
        ),
        tables=tuple(tables),
        notes=page.notes,
        leaky=page.title.startswith("LEAKY"),
    )


# fmt: off
QUESTIONS: Final = (
    Question("best", "Best network", "Which network predicts best?", _best_network),
    Question("mtl-or-stl", "MTL or STL", "One network for all three tasks, or one for each?",
             _pairs, "mtl_stl", "Networks of three tasks against their single-task counterparts"),
    Question("weights", "Weights", "Which weights to start from?",
             _pairs, "weights", "The same network from other weights"),
    Question("depth", "Depth", "How deep to unfreeze the backbone?",
             _pairs, "depth", "Each depth against the next shallower one"),
    Question("gender", "Conditioning", "Does conditioning on gender features help?",
             _pairs, "conditioning", "Each conditioning against none"),
    Question("subgroups", "Subgroups", "Which subgroups have the lowest accuracy?",
             _lowest_subgroups),
    Question("cost", "Cost", "What does accuracy cost?", _cost_of_accuracy),
    Question("leak", "Leak", "What does a leak do to the numbers?", _study, suites=LEAK_SUITES),
    Question("specialists", "Specialists",
             "Does a specialist predict the age group of its subset better?",
             _study, suites=("subsets",)),
)
# fmt: on
"""What the report answers, in this order."""
