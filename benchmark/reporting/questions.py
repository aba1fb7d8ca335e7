"""The report's research questions: a table of them, and what the runs answer to each."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pandas as pd

from benchmark.comparison import wording as words
from benchmark.comparison.leaderboard import HEADINGS
from benchmark.comparison.leak_study import LEAK_SUITES, leak_page, leak_study
from benchmark.comparison.library import counted
from benchmark.comparison.rows import Row
from benchmark.comparison.statistics import ALPHA, Family
from benchmark.comparison.subset_study import subset_page, subset_study
from benchmark.comparison.wording import Mark, StudyFigure, StudyPanel, TaskComparison, joined
from benchmark.errors import RunError, and_more
from benchmark.evaluation.figures import BY_TITLES, ROWS_BY
from benchmark.evaluation.predictions import RunPredictions
from benchmark.evaluation.subgroups import gap_table
from benchmark.experiment.architectures import architecture_named
from benchmark.reporting import figures
from benchmark.reporting.board_tables import pairs_table, text_table
from benchmark.reporting.evidence import Evidence, siblings
from benchmark.reporting.figures import PageFigure
from benchmark.reporting.tables import Cell, Column, Table
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

NO_RUN: Final = "no honest run is finished and ranked on this data set"
RATES_NOTE: Final = (
    "Compared experiments share every setting that affects training except this one and possibly "
    "the learning rate, which the study tuned separately for frozen backbones."
)
SHOWN_IN_RANKING: Final = 12
COSTS: Final[tuple[tuple[str, str, str, float, Callable[[Any], str]], ...]] = (
    ("By training time", "training of one run, s", "seconds", 1.0, words.duration_text),
    ("By parameters", "parameters, millions", "parameters", 1e-6, words.count_text),
    ("By operations", "GMACs of one face", "gmacs", 1.0, words.number_text),
)
"""Heading and axis of a figure, field of a row, scale; and how a table writes it."""


class Question(NamedTuple):
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
    """Those that answer it, last the one to run; none: whichever is asked for."""


class Answer(NamedTuple):
    """What the runs say to a question."""

    question: Question
    sentences: Sequence[str]
    """The first is the short answer, or why there is none."""
    href: str = ""
    """The address of the runs behind it."""
    figures: Sequence[PageFigure] = ()
    matrices: Sequence[Table] = ()
    tables: Sequence[Table] = ()
    command: str = ""
    """What would answer the question; empty: it is answered."""
    notes: Sequence[str] = ()
    leaky: bool = False


def answer(evidence: Evidence, question: Question) -> Answer:
    """Ask a question; where the runs do not answer it, say why, and which command would."""
    try:
        return question.ask(evidence, question)
    except RunError as error:
        suite = (*question.suites[-1:], *evidence.suites, "quick")[0]
        command = f"facebench run --suite {suite} --seeds 0,1,2 --dataset {evidence.dataset}"
        said = str(error) if error.source else f"{error.found}."
        why = f"Not answered by these runs: {said}"
        return Answer(question, [why], command=command)


def _pairs_of(title: str, lines: Sequence[TaskComparison]) -> Table:
    return dataclasses.replace(pairs_table(lines), title=title, notes=(words.family_text(lines),))


def _best_network(evidence: Evidence, question: Question) -> Answer:
    if not evidence.ranked:
        raise RunError(NO_RUN)
    sentences, tables, compared = list[str](), list[Table](), list[TaskComparison]()
    for kind, (best, *others) in evidence.ranked.items():
        lines = [it for it in evidence.found["first"].lines if it.reference.label == best.name]
        compared += lines
        scores = joined(
            f"{TASK_TITLES[t]} {words.with_sd(s.accuracy, s.accuracy_sd)} "
            f"({words.span(s.low, s.high)}) %"
            for t, s in best.scores.items()
        )
        val = words.with_sd(best.val_combined, best.val_combined_sd)
        sentences.append(
            f"{HEADINGS[kind]}: {best.name} is best on validation of "
            f"{counted(1 + len(others), 'network')}, with {val} % over "
            f"{counted(len(best.seeds), 'seed')}. Its test accuracy: {scores}."
        )
        sentences += _ties(lines)
        if lines:
            title = f"{HEADINGS[kind]}: every other network against the first"
            tables.append(_pairs_of(title, lines))
    return Answer(
        question,
        sentences,
        evidence.links.of(evidence.first_ranked[0].group.identities),
        figures=list(_rankings(evidence)),
        tables=tables,
        notes=(
            "Best means best on validation, which ranks; test was evaluated once and is shown.",
            *words.reading_notes(compared, ()),
        ),
    )


def _ties(lines: Sequence[TaskComparison]) -> Iterator[str]:
    """Say which networks do not differ from the first on test, and which are better."""
    pairs = words.by_pair(lines)
    tied = [ours[0].group.label for ours in pairs if not any(line.significant for line in ours)]
    if tied:
        yield f"No significant difference from it on any task: {and_more(tied)}."
    ahead = [f"{it.group.label} ({TASK_TITLES[it.task]})" for it in lines if it.verdict == "better"]
    if ahead:
        yield f"Better than it on test: {joined(ahead)}."


def _rankings(evidence: Evidence) -> Iterator[PageFigure]:
    """Draw the test accuracies of the best networks by rank."""
    caption = (
        "Test accuracy with its 95 % interval, in the order of the rank on validation, the first "
        f"{SHOWN_IN_RANKING} at most. Overlapping intervals do not mean that two networks are "
        "equal: the table tests it."
    )
    for title, is_mtl in ((HEADINGS["mtl"], True), ("One task, one network (STL)", False)):
        marks = {
            task: [
                Mark(f"{item.rank}  {item.name}", score.accuracy, score.low, score.high)
                for item in evidence.ranked.get("mtl" if is_mtl else task, [])[:SHOWN_IN_RANKING]
                if (score := item.scores.get(task)) is not None
            ]
            for task in TASKS
        }
        if any(marks.values()):
            yield _intervals(f"best-{'mtl' if is_mtl else 'stl'}", title, caption, marks)


def _intervals(
    name: str, title: str, caption: str, marks: Mapping[TaskName, Sequence[Mark]], **options: bool
) -> PageFigure:
    panels = [
        StudyPanel(task, TASK_TITLES[task].capitalize(), tuple(ours))
        for task, ours in marks.items()
        if ours
    ]
    figure = StudyFigure("", title, caption, tuple(panels), **options)
    return figures.intervals_figure(name, figure)


def _pairs(evidence: Evidence, question: Question) -> Answer:
    """Answer for pairs that differ in one respect, or for MTL against its STL counterparts."""
    family, is_mtl = question.family, question.family == "mtl_stl"
    found = evidence.found[family]
    if not found.lines:
        alike = "an MTL network and its counterpart" if is_mtl else "two that differ in this alone"
        raise RunError(f"of {alike}, both must be finished on the same faces")
    better = "MTL" if is_mtl else "the named network"
    is_tallied = not is_mtl and len(words.by_pair(found.lines)) > 1
    sentences = [_tally(found.lines)] if is_tallied else words.sentences(found.lines)
    marks: dict[TaskName, list[Mark]] = {task: [] for task in TASKS}
    for line in found.lines:
        label, it = line.group.label, line.difference
        if family == "weights":
            reference = evidence.library.experiments[line.reference.label]
            label += f" against {reference.backbone.weights}"
        mark = Mark(label, it.accuracy, it.low, it.high, filled=line.significant)
        marks[line.task].append(mark)
    caption = (
        "Difference in test accuracy in percentage points, with its 95 % interval; right of 0: "
        f"{better} is better. Hollow: not significant after Holm's correction."
    )
    figure = _intervals(question.slug, question.title, caption, marks, of_differences=True)
    groups = {g.label: g for line in found.lines for g in (line.reference, line.group)}
    identities = [key for group in groups.values() for key in group.identities]
    depths = _depths(evidence) if family == "depth" else ()
    reading = words.reading_notes(found.lines, list(groups.values()))
    return Answer(
        question,
        tuple(said.removeprefix("Does MTL beat STL? ") for said in sentences),
        evidence.links.of(identities),
        figures=(*depths, figure),
        tables=(_pairs_of(question.title, found.lines),),
        notes=(*(() if is_mtl else (RATES_NOTE,)), *reading),
    )


def _depths(evidence: Evidence) -> Iterator[PageFigure]:
    """Draw test accuracy by unfreezing depth, a line per group of networks that differ in it."""
    scores = {name: row.scores for name, row in evidence.networks.items() if row.scores}
    groups = siblings((item for item in evidence.experiments if item.name in scores), "depth")
    places = []
    for item, first in ((item, group[0]) for group in groups for item in group):
        label = first.name.replace(f"-{first.backbone.depth_name}", "")
        n_stages = len(architecture_named(first.backbone.architecture).stages)
        share = len(item.backbone.trained_stages) / n_stages
        tested = scores[item.name].items()
        places += [(task, label, share, it.accuracy, it.low, it.high) for task, it in tested]
    if places:
        names = ["task", "label", "share", "accuracy", "low", "high"]
        yield figures.depth_figure(pd.DataFrame(places, columns=names))


def _tally(lines: Sequence[TaskComparison]) -> str:
    """Count verdicts task by task, and name the largest significant difference."""
    parts = []
    for task in TASKS:
        ours = [line for line in lines if line.task == task]
        if not ours:
            continue
        part = f"{TASK_TITLES[task].capitalize()}: {words.verdict_counts(ours)} comparisons"
        if significant := [line for line in ours if line.significant]:
            largest = max(significant, key=lambda line: abs(line.difference.accuracy))
            pair = f"{largest.group.label} against {largest.reference.label}"
            part += f", by {words.pp(largest.difference.accuracy)} pp at most ({pair})"
        parts.append(f"{part}.")
    return " ".join(parts)


def _lowest_subgroups(evidence: Evidence, question: Question) -> Answer:
    if not evidence.first_ranked:
        raise RunError(NO_RUN)
    best = evidence.first_ranked[0]
    predictions = best.group.predictions
    gaps, sentences, rows, beyond = _gaps(predictions), [], [], []
    if (worst := best.worst) is not None:
        overall = words.percent(best.scores[worst.task].accuracy)
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
    said = (
        "Gaps significantly beyond those of a random assignment, after correction: "
        f"{joined(beyond) or 'none'}, of {len(gaps)} between subgroups of 30 faces or more."
    )
    headings = ("task", "subgroups by", "lowest", "highest", "gap, pp", "permuted, pp", "p, Holm")
    title = f"{best.name}: gap between the lowest and the highest subgroup"
    return Answer(
        question,
        (*sentences, said),
        evidence.links.of(best.group.identities),
        matrices=[figures.heat_map(best.group, task) for task in best.group.tasks],
        tables=(Table.of(headings, rows, title),),
        notes=(
            "Subgroups are by the labels; those of under 30 faces are marked and not ranked. "
            "Permuted: the mean gap when faces are assigned to the subgroups at random, with the "
            "p-value of a gap as wide, corrected by Holm over all rows of the table. Several seeds "
            "have a gap each; a row shows their mean, and the p of the seed with the largest p.",
        ),
    )


def _gaps(predictions: RunPredictions) -> pd.DataFrame:
    """Compare subgroups seed by seed and average, in pp; a task's own classes are no subgroup."""
    tables = []
    for index in range(len(next(iter(predictions.predicted.values())))):
        one = {f"{task}_pred": found[index] for task, found in predictions.predicted.items()}
        tables.append(gap_table(predictions.faces.assign(**one), ROWS_BY))
    found = pd.concat(tables)
    crossed = (found["by"] == "gender_race") & found["task"].isin(["gender", "race"])
    own = (found["by"] == found["task"]) | crossed
    by_row = found[~own & (found["n_ranked"] >= 2)].groupby(["task", "by"], sort=False)
    means = 100 * by_row[["gap", "gap_low", "gap_high", "chance_gap"]].mean()
    means.columns = pd.Index(["gap", "low", "high", "permuted"])
    for end in ("worst", "best"):
        means[end] = [" or ".join(ours[f"{end}_group"].unique()) for _, ours in by_row]
    return means.assign(p=by_row["p_holm"].max()).reset_index()


def _cost_of_accuracy(evidence: Evidence, question: Question) -> Answer:
    ranked = evidence.first_ranked
    if len(ranked) < 2:
        raise RunError("fewer than two networks are finished and ranked on this data set")
    panels, sentences = [], []
    for number, (heading, axis, field, scale, _) in enumerate(COSTS):
        points = _cost_points(ranked, field, scale)
        if len(points) > 1:
            panels.append(figures.cost_panel(f"cost-{number}", heading, points, axis))
            sentences.append(
                f"{heading}, no network is both cheaper and better on validation than "
                f"{joined(points.loc[points['on_front'], 'label'])}: the Pareto front of "
                f"{len(points)} networks."
            )
    caption = (
        "Weighted validation accuracy, which ranks, against cost on a logarithmic axis. The line "
        "is the Pareto front: the best that a budget buys. Numbers are those of the table."
    )
    rows: list[list[str | Cell]] = []
    for number, row in enumerate(ranked, 1):
        costs = [(text, getattr(row, field)) for _, _, field, _, text in COSTS]
        cells = (Cell(text(cost), value=cost) for text, cost in costs)
        val = words.with_sd(row.val_combined, row.val_combined_sd)
        rows.append([str(number), row.name, val, *cells])
    network = Column("network", left=True)
    headings = ("#", network, "val. acc., %", "training", "parameters", "GMACs")
    table = Table.of(headings, rows, "Costs; training is the mean of a run's seconds")
    figure = PageFigure("Accuracy against cost", caption, tuple(panels))
    return Answer(question, sentences, figures=(figure,), tables=(table,))


def _cost_points(ranked: Sequence[Row], field: str, scale: float) -> pd.DataFrame:
    """Place networks whose cost is known, by cost; on the front is what no cheaper one beats."""
    costs = [scale * (getattr(row, field) or 0.0) for row in ranked]
    found = {"label": [row.name for row in ranked], "cost": costs}
    found["score"] = [row.val_combined or 0.0 for row in ranked]
    places = pd.DataFrame(found, index=range(1, len(ranked) + 1)).query("cost > 0")
    places = places.sort_values(["cost", "score"], ascending=[True, False], kind="stable")
    best_before = places["score"].cummax().shift(fill_value=-1.0)
    return places.assign(on_front=places["score"] > best_before)


def _study(evidence: Evidence, question: Question) -> Answer:
    """Show what `facebench leak` or `facebench subsets` tells: of subsets, the first suite that
    has runs."""
    library, slug, dataset = evidence.library, question.slug, evidence.dataset
    suites = [
        [library.experiments[name] for name in library.suites[suite].experiments]
        for suite in question.suites
    ]
    if slug == "leak":
        studied = [*dict.fromkeys(itertools.chain(*suites))]
        page = leak_page(leak_study(library, studied, dataset))
    else:
        run = (of for of in suites if any(dataset in library.datasets_of(it.name) for it in of))
        studied = next(run, suites[-1])
        page = subset_page(subset_study(library, studied, dataset))
    known = [key for it in studied for key in library.run_group(it.name, dataset).identities]
    return Answer(
        question,
        page.sentences or ["Nothing could be compared."],
        evidence.links.of(known),
        figures=[figures.intervals_figure(f"{slug}-{n}", it) for n, it in enumerate(page.figures)],
        tables=[*map(text_table, page.tables)],
        notes=page.notes,
        leaky=page.title.startswith("LEAKY"),
    )


# fmt: off
QUESTIONS: Final = (
    Question("best", "Best network", "Which network predicts best?", _best_network),
    Question("mtl-or-stl", "MTL or STL", "One network for all three tasks, or one for each?",
             _pairs, "mtl_stl", "Networks of three tasks against their single-task counterparts"),
    Question("weights", "Weights", "Which weights to start from?",
             _pairs, "weights", "The same network from other weights", ("controls",)),
    Question("depth", "Depth", "How deep to unfreeze the backbone?",
             _pairs, "depth", "Each depth against the next shallower one", ("depth",)),
    Question("gender", "Conditioning", "Does conditioning on gender features help?",
             _pairs, "conditioning", "Each conditioning against none", ("demo",)),
    Question("subgroups", "Subgroups", "Which subgroups have the lowest accuracy?",
             _lowest_subgroups),
    Question("cost", "Cost", "What does accuracy cost?", _cost_of_accuracy),
    Question("leak", "Leak", "What does a leak do to the numbers?", _study,
             suites=(*LEAK_SUITES, "leak")),
    Question("specialists", "Specialists",
             "Does a specialist predict the age group of its subset better?",
             _study, suites=("subsets_vgg16_imagenet", "subsets_vgg16", "subsets")),
)
# fmt: on
"""What the report answers, in this order."""
