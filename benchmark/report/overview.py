"""Which network is best, for whom it fails, and what accuracy costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.errors import RunError
from benchmark.report import plots
from benchmark.report.answers import Answer, suite_command, unanswered
from benchmark.report.evidence import Evidence, Network
from benchmark.report.networks import HeatMap, heat_map
from benchmark.report.pairs import Judged, judged, plan_couples
from benchmark.report.plots import Picture, Point
from benchmark.report.tables import Cell, Column, DataTable, TableRow, lines_table, number, words
from benchmark.results.comparison_notes import gap_sentences
from benchmark.results.formats import (
    HEADINGS,
    NOTHING,
    accuracy_text,
    count_text,
    duration_text,
    percent,
    with_sd,
)
from benchmark.results.gaps import gap_table
from benchmark.results.leaderboard import KINDS, Kind
from benchmark.results.subgroup_figures import BY_TITLES
from benchmark.results.subgroups import By, subgroup_table
from benchmark.results.verdicts import by_pair, joined
from benchmark.tasks import TASK_TITLES, TASKS, TaskName


def which_network(evidence: Evidence) -> Answer:
    """Which network is best on validation, and which cannot be told apart from it on test?"""
    slug, question = "best", "Which network reads a face best?"
    boards = [(kind, evidence.ranked(kind)) for kind in KINDS]
    first = next((ranked for _, ranked in boards if ranked), None)
    if first is None:
        why = "no honest run is finished and ranked on this data set."
        suite = evidence.suites[0] if evidence.suites else "quick"
        return unanswered(slug, question, why, [suite_command(suite, evidence.dataset)])
    sentences, tables, missing = [], [], []
    for kind, ranked in boards:
        if ranked:
            rivals = _rivals(evidence, ranked)
            sentences.append(_best_sentence(kind, ranked))
            sentences += _tie_sentences(ranked, rivals)
            missing += list(gap_sentences(rivals.gaps))
            if rivals.lines:
                caption = f"{HEADINGS[kind]}: every other network against the first"
                tables.append(
                    lines_table(
                        f"{slug}-{kind}", caption, rivals.lines, evidence.links, rivals.family
                    )
                )
    return Answer(
        slug,
        question,
        " ".join(sentences[: 1 + (len(first) > 1)]),
        sentences=tuple(sentences),
        tables=tuple(tables),
        missing=tuple(missing),
        notes=(
            "Best means best on validation, which ranks; test was read once and is shown. Not told "
            "apart means not separable on any of the tasks, no more.",
        ),
    )


def _rivals(evidence: Evidence, ranked: Sequence[Network]) -> Judged:
    couples = [(ranked[0].row.name, other.row.name) for other in ranked[1:]]
    return judged(evidence, plan_couples(evidence, couples, TASKS))


def _best_sentence(kind: Kind, ranked: Sequence[Network]) -> str:
    best = ranked[0].row
    scores = joined(
        f"{TASK_TITLES[task]} {accuracy_text(score)} %" for task, score in best.scores.items()
    )
    among = f"of {len(ranked)} networks" if len(ranked) > 1 else "and the only one"
    seeds = f"{len(best.seeds)} seeds" if len(best.seeds) > 1 else "one seed"
    return (
        f"{HEADINGS[kind]}: {best.name} is best on validation {among}, with "
        f"{with_sd(best.val_combined, best.val_combined_sd)} % over {seeds}. On test it reads "
        f"{scores}."
    )


def _tie_sentences(ranked: Sequence[Network], rivals: Judged) -> Iterator[str]:
    if len(ranked) < 2 or not rivals.lines:
        return
    pairs = by_pair(rivals.lines)
    tied = [
        ours[0].arm.label
        for ours in pairs
        if all(line.verdict == "cannot be told apart" for line in ours)
    ]
    ahead = [
        f"{ours[0].arm.label} ({joined(TASK_TITLES[line.task] for line in ours if line.verdict == 'better')})"
        for ours in pairs
        if any(line.verdict == "better" for line in ours)
    ]
    if tied:
        yield f"Not to be told apart from it on test: {joined(tied)}."
    else:
        yield f"Each of the {len(pairs)} others can be told apart from it on test."
    if ahead:
        yield f"Better than it on test: {joined(ahead)}."
    if any(line.of_trainings_alone for line in rivals.lines):
        yield "Where one seed met one seed, this speaks of these trainings alone."


@dataclass(frozen=True)
class ForWhom:
    """The answer to `for whom does it fail`, with the best network's heat maps."""

    answer: Answer
    heat_maps: tuple[HeatMap, ...] = ()
    network: str = ""


def for_whom(evidence: Evidence) -> ForWhom:
    """For whom does the best network fail, and is that more than chance?"""
    slug, question = "for-whom", "For whom does it fail?"
    best = next((ranked[0] for kind in KINDS if (ranked := evidence.ranked(kind))), None)
    if best is None:
        why = "no honest run is finished and ranked on this data set."
        suite = evidence.suites[0] if evidence.suites else "quick"
        return ForWhom(
            unanswered(slug, question, why, [suite_command(suite, evidence.dataset)])
        )
    try:
        maps = tuple(heat_map(evidence, best, task) for task in best.tasks)
        table = _gaps(evidence, best)
    except RunError as error:
        return ForWhom(unanswered(slug, question, str(error), []))
    sentences = tuple(_worst_sentences(best, table))
    answer = Answer(
        slug,
        question,
        sentences[0],
        sentences=sentences,
        tables=(table.shown(best, evidence),),
        notes=(
            "Groups are by the labels; those of under 30 faces are marked and not ranked. Chance: "
            "the mean gap when faces are dealt to the groups at random, with the p-value of a gap "
            "as wide, corrected by Holm over all rows of the table. Several seeds have a gap each; "
            "a row shows their mean, and the p of the seed with the largest p.",
        ),
    )
    return ForWhom(answer, maps, best.row.name)


@dataclass(frozen=True)
class _Gap:
    task: TaskName
    by: By
    gap: float
    low: float
    high: float
    chance: float
    p: float
    worst: str
    best: str


@dataclass(frozen=True)
class _Gaps:
    rows: tuple[_Gap, ...]

    def shown(self, network: Network, evidence: Evidence) -> DataTable:
        """Make the page's table of gaps."""
        columns = (
            Column("task", numeric=False),
            Column("groups by", numeric=False),
            Column("read worst", numeric=False),
            Column("read best", numeric=False),
            Column("gap, points"),
            Column("by chance, points"),
            Column("p, Holm"),
        )
        href = evidence.links.of(network.row.identities)
        rows = []
        for row in self.rows:
            ends = f"{100 * row.low:.1f}–{100 * row.high:.1f}"
            rows.append(
                TableRow(
                    (
                        words(TASK_TITLES[row.task]),
                        words(BY_TITLES[row.by]),
                        words(row.worst),
                        words(row.best),
                        number(f"{100 * row.gap:.1f}", row.gap, href=href, note=ends),
                        number(f"{100 * row.chance:.1f}", row.chance, href=href),
                        number(f"{row.p:.3f}", row.p),
                    )
                )
            )
        caption = f"{network.row.name}: worst and best group of people, beside what chance gives"
        return DataTable("gaps", caption, columns, tuple(rows))


def _gaps(evidence: Evidence, network: Network) -> _Gaps:
    """Set groups of people against each other, seed by seed; a task's own classes are no group."""
    answers = evidence.book.answers(network.as_arm())
    divisions: tuple[By, ...] = ("gender", "race", "gender_race", "age_group")
    tables = []
    for index in range(len(network.runs)):
        one = answers.of_run(index)
        predicted = {task: one.predicted[task][0] for task in network.tasks}
        groups = subgroup_table(one.faces, predicted)
        right = {task: one.right(task)[0] for task in network.tasks}
        tables.append(gap_table(groups, one.faces, right, divisions))
    rows = []
    for place, first in tables[0].iterrows():
        task, by = first["task"], first["by"]
        own = by == task or (by == "gender_race" and task in ("gender", "race"))
        if own or first["n_ranked"] < 2:
            continue
        seeds = [table.loc[place] for table in tables]
        mean = {
            name: float(np.mean([row[name] for row in seeds]))
            for name in ("gap", "gap_low", "gap_high", "chance_gap")
        }
        rows.append(
            _Gap(
                task,
                by,
                mean["gap"],
                mean["gap_low"],
                mean["gap_high"],
                mean["chance_gap"],
                max(float(row["p_holm"]) for row in seeds),
                _agreed([f"{row['worst_group']}" for row in seeds]),
                _agreed([f"{row['best_group']}" for row in seeds]),
            )
        )
    return _Gaps(tuple(rows))


def _agreed(groups: Sequence[str]) -> str:
    """Name the group that is worst or best, or all that are with one seed or another."""
    return " or ".join(dict.fromkeys(groups))


def _worst_sentences(best: Network, gaps: _Gaps) -> Iterator[str]:
    worst = best.row.worst
    name = best.row.name
    if worst is not None:
        overall = best.row.scores[worst.task].accuracy
        yield (
            f"{name} reads {TASK_TITLES[worst.task]} worst for the group {worst.group}: "
            f"{percent(worst.accuracy)} % ({percent(worst.low)}–{percent(worst.high)}, n "
            f"{worst.n:,}), against {percent(overall)} % of all test faces."
        )
    for row in gaps.rows:
        beyond = "more than chance makes" if row.p <= 0.05 else "not more than chance makes"
        yield (
            f"{TASK_TITLES[row.task].capitalize()} by {BY_TITLES[row.by]}: {row.worst} worst, "
            f"{row.best} best, {100 * row.gap:.1f} points apart "
            f"({100 * row.low:.1f}–{100 * row.high:.1f}); chance alone gives "
            f"{100 * row.chance:.1f}: {beyond}."
        )
    if worst is None and not gaps.rows:
        yield f"{name}: no two groups of 30 test faces or more, so none can be ranked."
