"""The report's research questions about cost, subgroups, leak and specialists.

Each function puts one question to the runs and gives an Answer: text, tables, figures, or the
command that would answer it. Questions about pairs of networks are in pair_questions.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from markupsafe import Markup

from benchmark.comparison.leak_study import LEAK_SUITES, leak_page, leak_study
from benchmark.comparison.library import RunGroup
from benchmark.comparison.pairs import ComparisonTable
from benchmark.comparison.statistics import ALPHA
from benchmark.comparison.subset_study import subset_page, subset_study
from benchmark.comparison.wording import (
    StudyPage,
    TaskComparison,
    count_text,
    duration_text,
    family_text,
    joined,
    number_text,
    p_text,
    percent,
    with_sd,
)
from benchmark.errors import RunError
from benchmark.evaluation.figures import BY_TITLES
from benchmark.evaluation.subgroups import By, gap_table
from benchmark.experiment.definition import Experiment
from benchmark.reporting.comparison_tables import pairs_table
from benchmark.reporting.evidence import Evidence, RankedNetwork
from benchmark.reporting.figures import CostPoint, PageFigure, cost_panel, intervals_figure
from benchmark.reporting.networks import Matrix, heat_map
from benchmark.reporting.tables import Cell, Column, Table
from benchmark.tasks import TASK_TITLES

SEEDS: Final = "--seeds 0,1,2"
NO_RUN: Final = "no honest run is finished and ranked on this data set."


@dataclass(frozen=True)
class Answer:
    """A research question and what the runs say to it."""

    slug: str
    name: str
    """The question in a word or two."""
    question: str
    sentences: tuple[str, ...] = ()
    """The first is the short answer."""
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


def unanswered(slug: str, name: str, question: str, why: str, commands: Iterable[str]) -> Answer:
    """Say that the runs do not tell, and which command would."""
    said = f"Not answered by these runs: {why}"
    return Answer(slug, name, question, (said,), commands=tuple(commands), answered=False)


def run_command(names: Sequence[str], dataset: str) -> str:
    """Write the command that runs experiments."""
    return f"facebench run {' '.join(names)} {SEEDS} --dataset {dataset}"


def suite_command(suite: str, dataset: str) -> str:
    """Write the command that runs a suite."""
    return f"facebench run --suite {suite} {SEEDS} --dataset {dataset}"


def some_run(evidence: Evidence) -> list[str]:
    """Write the command that makes first runs."""
    return [suite_command(evidence.suites[0] if evidence.suites else "quick", evidence.dataset)]


def runs_of(lines: Sequence[TaskComparison], evidence: Evidence) -> str:
    """Give the address of all runs that some differences are made of."""
    groups = [group for line in lines for group in (line.reference, line.group)]
    return evidence.links.of([identity for group in groups for identity in group.identities])


def lines_table(title: str, lines: Sequence[TaskComparison]) -> Table:
    """Make the table of differences, a section for each pair."""
    table = pairs_table(ComparisonTable("first", tuple(lines), ())).keeping(())
    return dataclasses.replace(table, title=title, notes=(family_text(lines),))


COSTS: Final = (
    ("By training time", "training of one run, s", "seconds", 1.0),
    ("By parameters", "parameters, millions", "parameters", 1e-6),
    ("By operations", "GMACs of one face", "gmacs", 1.0),
)
"""Heading, axis, field of a row, scale."""


def cost_of_accuracy(evidence: Evidence) -> Answer:
    """Which networks are on the Pareto front of accuracy against time, size and operations?"""
    slug, name, question = "cost", "Cost", "What does accuracy cost?"
    ranked = evidence.first_ranked
    if len(ranked) < 2:
        why = "fewer than two networks are finished and ranked on this data set."
        return unanswered(slug, name, question, why, some_run(evidence))
    panels: list[Markup] = []
    sentences: list[str] = []
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
            str(number), item.name, Cell(with_sd(row.val_combined, row.val_combined_sd)),
            Cell(duration_text(row.seconds), value=row.seconds),
            Cell(count_text(row.parameters), value=row.parameters),
            Cell(count_text(row.trainable_parameters), value=row.trainable_parameters),
            Cell(number_text(row.gmacs), value=row.gmacs),
            Cell(number_text(row.images_per_second), value=row.images_per_second),
            Cell(number_text(row.peak_memory_mib), value=row.peak_memory_mib),
            ", ".join(row.devices), joined(fronts[item.name]) or "–",
        )
        for number, item in enumerate(ranked, 1)
        for row in (item.row,)
    ]  # fmt: skip
    headings = (
        *("#", Column("network", left=True), "val, %", "training", "parameters", "trained"),
        *("GMACs", "images/s", "peak memory, MiB", Column("device", left=True)),
        Column("on the front of", left=True),
    )
    title = "Costs; training is the mean of a run's seconds"
    return Answer(
        slug,
        name,
        question,
        tuple(sentences),
        figures=(PageFigure("Accuracy against cost", caption, tuple(panels)),),
        tables=(Table.of(headings, rows, title),),
    )


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


def lowest_subgroups(evidence: Evidence) -> Answer:
    """For which subgroups is the best network's accuracy lowest, and is that beyond chance?"""
    slug, name = "subgroups", "Subgroups"
    question = "Which subgroups have the lowest accuracy?"
    if not evidence.first_ranked:
        return unanswered(slug, name, question, NO_RUN, some_run(evidence))
    best = evidence.first_ranked[0]
    try:
        matrices = tuple(heat_map(evidence, best, task) for task in best.tasks)
        gaps = _gaps(evidence, best)
    except RunError as error:
        return unanswered(slug, name, question, str(error), [])
    headings = (
        *("task", "subgroups by", "lowest", "highest"),
        *(Column("gap, pp"), Column("permuted, pp"), Column("p, Holm")),
    )
    rows = [
        (
            TASK_TITLES[gap["task"]], BY_TITLES[gap["by"]], gap["worst"], gap["best"],
            Cell(f"{gap['gap']:.1f}", f"{gap['gap_low']:.1f}–{gap['gap_high']:.1f}", gap["gap"]),
            Cell(f"{gap['chance_gap']:.1f}", value=gap["chance_gap"]),
            Cell(p_text(gap["p"]), value=gap["p"]),
        )
        for gap in gaps
    ]  # fmt: skip
    title = f"{best.name}: gap between the lowest and the highest subgroup"
    return Answer(
        slug,
        name,
        question,
        tuple(_gap_sentences(best, gaps)),
        evidence.links.of(best.row.identities),
        matrices=matrices,
        tables=(Table.of(headings, rows, title),),
        notes=SUBGROUP_NOTES,
    )


SUBGROUP_NOTES: Final = (
    "Subgroups are by the labels; those of under 30 faces are marked and not ranked. Permuted: the "
    "mean gap when faces are assigned to the subgroups at random, with the p-value of a gap as "
    "wide, corrected by Holm over all rows of the table. Several seeds have a gap each; a row "
    "shows their mean, and the p of the seed with the largest p.",
)


def _gaps(evidence: Evidence, network: RankedNetwork) -> list[dict[str, Any]]:
    """Compare subgroups seed by seed and average, in pp; a task's own classes are no subgroup."""
    predictions = evidence.book.answers(network.group)
    divisions: tuple[By, ...] = ("gender", "race", "gender_race", "age_group")
    tables = []
    for index in range(len(network.runs)):
        one = predictions.of_run(index)
        right = {task: one.right(task)[0] for task in network.tasks}
        tables.append(gap_table(one.faces, right, divisions))
    rows: list[dict[str, Any]] = []
    for place, first in enumerate(tables[0].to_dict("records")):
        task, by = first["task"], first["by"]
        own = by == task or (by == "gender_race" and task in ("gender", "race"))
        if own or first["n_ranked"] < 2:
            continue
        seeds = pd.DataFrame([table.iloc[place] for table in tables])
        means = {c: 100 * float(seeds[c].mean()) for c in
                 ("gap", "gap_low", "gap_high", "chance_gap")}  # fmt: skip
        ends = {end: " or ".join(dict.fromkeys(map(str, seeds[f"{end}_group"])))
                for end in ("worst", "best")}  # fmt: skip
        rows.append({"task": task, "by": by, "p": float(seeds["p_holm"].max()), **means, **ends})
    return rows


def _gap_sentences(best: RankedNetwork, gaps: Sequence[dict[str, Any]]) -> Iterator[str]:
    worst = best.row.worst
    if worst is not None:
        overall = best.row.scores[worst.task].accuracy
        yield (
            f"{best.name} has its lowest {TASK_TITLES[worst.task]} accuracy for {worst.group}: "
            f"{percent(worst.accuracy)} % ({percent(worst.low)}–{percent(worst.high)}, n "
            f"{worst.n:,}), against {percent(overall)} % of all test faces."
        )
    if not gaps:
        yield f"{best.name}: no two subgroups of 30 test faces or more, so none can be ranked."
        return
    beyond = [gap for gap in gaps if gap["p"] <= ALPHA]
    named = joined(
        f"{TASK_TITLES[gap['task']]} by {BY_TITLES[gap['by']]} ({gap['gap']:.1f} pp, "
        f"{gap['worst']} lowest)"
        for gap in beyond
    )
    yield (
        f"Gaps beyond those of a random assignment to subgroups, after correction: {named}."
        if beyond
        else "No gap is significantly beyond that of a random assignment to subgroups."
    )


def effect_of_the_leak(evidence: Evidence) -> Answer:
    """How much of a leaky score is honest? All of it is LEAKY but what is never met or honest."""
    return _study(
        evidence, ("leak", "Leak", "What does a leak do to the numbers?"), LEAK_SUITES,
        lambda members: leak_page(leak_study(evidence.library, members, evidence.dataset)),
    )  # fmt: skip


def specialists(evidence: Evidence) -> Answer:
    """Does a network trained on a subset alone predict this subset better?"""
    question = "Does a specialist predict the age group of its subset better?"
    return _study(
        evidence, ("specialists", "Specialists", question), ("subsets",),
        lambda members: subset_page(subset_study(evidence.library, members, evidence.dataset)),
    )  # fmt: skip


def _study(
    evidence: Evidence,
    asked: tuple[str, str, str],
    suites: Sequence[str],
    page_of: Callable[[Sequence[Experiment]], StudyPage],
) -> Answer:
    """Show what `facebench leak` or `facebench subsets` tells; asked: slug, name, question."""
    library, slug = evidence.library, asked[0]
    names = [name for suite in suites for name in library.suites[suite].experiments]
    try:
        page = page_of([library.experiments[name] for name in names])
    except RunError as error:
        places = {place for name in names for place in library.datasets_of(name)}
        others = ", ".join(sorted(places - {evidence.dataset}))
        why = f"{error.found}{f'; there are such runs on {others}' if others else ''}."
        command = suite_command("leak" if slug == "leak" else suites[0], evidence.dataset)
        return unanswered(*asked, why, [command])
    groups = [library.run_group(name, evidence.dataset) for name in sorted(page.experiments)]
    known = [key for group in groups if isinstance(group, RunGroup) for key in group.identities]
    return Answer(
        *asked,
        sentences=page.sentences or ("Nothing could be compared.",),
        href=evidence.links.of(known),
        figures=tuple(
            intervals_figure(f"{slug}-{number}", picture)
            for number, picture in enumerate(page.pictures)
        ),
        tables=tuple(_study_table(t.heads, t.rows, t.caption) for t in page.tables),
        notes=page.notes,
        leaky=page.title.startswith("LEAKY"),
    )


def _study_table(heads: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> Table:
    """Make a table of texts; an interval in parentheses goes beneath its number."""
    columns = [Column(head, left=place == 0) for place, head in enumerate(heads)]
    cells = [
        [Cell(name), *(Cell(text.split(" (")[0], text.partition(" (")[2][:-1]) for text in texts)]
        for name, *texts in rows
    ]
    return Table.of(columns, cells, title)
