"""The report on accuracy against cost, and its overview of the best networks.

Which network is best, and which do not differ from it significantly.

What accuracy costs: networks by their score and by what they take, and the front among them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from benchmark.comparison.cells import accuracy_text, count_text, duration_text, with_sd
from benchmark.comparison.leaderboard import HEADINGS, KINDS, Kind
from benchmark.comparison.pairs import Found
from benchmark.comparison.verdicts import by_pair, family_text, gap_sentences, joined
from benchmark.reporting import figures
from benchmark.reporting.answer import Answer, Sentence, runs_of, suite_command, unanswered
from benchmark.reporting.comparisons import judged
from benchmark.reporting.evidence import (
    Cell,
    Column,
    DataTable,
    Evidence,
    Network,
    TableRow,
    lines_table,
    number,
    words,
)
from benchmark.reporting.figures import Picture, Point, Span
from benchmark.tasks import TASK_TITLES, TASKS, TaskName


@dataclass(frozen=True)
class Cost:
    """A cost that a network may have."""

    heading: str
    axis: str
    of: Callable[[Network], float | None]


COSTS = (
    Cost(
        "By arithmetic",
        "multiply-adds of one face, in millions",
        lambda n: _millions(n.multiply_adds),
    ),
    Cost("By size", "parameters, in millions", lambda n: _millions(n.row.parameters)),
    Cost("By training", "training of one run, in seconds", lambda n: n.row.seconds),
)


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


@dataclass(frozen=True)
class CostReport:
    """The section on cost."""

    sentence: str
    pictures: tuple[Picture, ...]
    tables: tuple[DataTable, ...]


def costs(evidence: Evidence) -> CostReport | None:
    """Set validation scores of the networks for three tasks against what these cost.

    None where fewer than two networks are ranked.
    """
    ranked = evidence.ranked("mtl")
    if len(ranked) < 2:
        return None
    numbers = {network.row.name: place for place, network in enumerate(ranked, start=1)}
    panels, on_front = [], {}
    for cost in COSTS:
        points = _points(ranked, numbers, cost)
        if len(points) > 1:
            panels.append(figures.cost_panel(cost.heading, points, cost.axis))
            on_front[cost.heading] = [point.label for point in points if point.on_front]
    if not panels:
        return None
    heading = next(iter(on_front))
    sentence = (
        f"{heading}, nothing both cheaper and better was found than "
        f"{joined(on_front[heading])}: the front among {len(ranked)} networks."
    )
    picture = Picture(
        "Accuracy against cost",
        "Combined validation accuracy, which ranks, against cost on a logarithmic axis. Diamonds "
        "on the line: the front, where nothing is both cheaper and better. Numbers as in the "
        "table.",
        tuple(panels),
    )
    return CostReport(sentence, (picture,), (_table(evidence, ranked, numbers, on_front),))


def _points(ranked: Sequence[Network], numbers: dict[str, int], cost: Cost) -> list[Point]:
    known = [(network, value) for network in ranked if (value := cost.of(network))]
    return [
        Point(
            numbers[network.row.name],
            network.row.name,
            value,
            network.row.val_combined or 0.0,
            on_front=not any(_dominates(other, network, cost) for other, _ in known),
        )
        for network, value in known
    ]


def _dominates(other: Network, network: Network, cost: Cost) -> bool:
    """Tell whether another network is as cheap and as good, and one of the two more so."""
    theirs, ours = cost.of(other) or 0.0, cost.of(network) or 0.0
    score, mine = other.row.val_combined or 0.0, network.row.val_combined or 0.0
    return theirs <= ours and score >= mine and (theirs < ours or score > mine)


def _table(
    evidence: Evidence,
    ranked: Sequence[Network],
    numbers: dict[str, int],
    on_front: dict[str, list[str]],
) -> DataTable:
    columns = (
        Column("network", numeric=False),
        Column("#"),
        Column("val, %"),
        Column("multiply-adds"),
        Column("parameters"),
        Column("trained"),
        Column("training"),
        Column("images/s"),
        Column("peak memory, MiB"),
        Column("device", numeric=False),
        Column("on the front", numeric=False),
    )
    rows = tuple(
        TableRow(tuple(_cells(evidence, network, numbers, on_front))) for network in ranked
    )
    caption = "Costs of the networks for three tasks; training is the mean of a run's seconds"
    return DataTable("costs-table", caption, columns, rows)


def _cells(
    evidence: Evidence,
    network: Network,
    numbers: dict[str, int],
    on_front: dict[str, list[str]],
) -> Iterator[Cell]:
    row = network.row
    href = evidence.links.of(row.identities)
    fronts = [heading.lower() for heading, names in on_front.items() if row.name in names]
    yield words(row.name)
    yield number(str(numbers[row.name]), numbers[row.name])
    yield number(with_sd(row.val_combined, row.val_combined_sd), row.val_combined, href=href)
    yield number(count_text(network.multiply_adds), network.multiply_adds, href=href)
    yield number(count_text(row.parameters), row.parameters, href=href)
    yield number(count_text(row.trainable_parameters), row.trainable_parameters, href=href)
    yield number(duration_text(row.seconds), row.seconds, href=href)
    rate, memory = _mean(network, "images_per_second"), _mean(network, "peak_memory_mib")
    yield number(f"{rate or 0:,.0f}", rate, href=href)
    yield number(f"{memory or 0:,.0f}", memory, href=href)
    yield words(", ".join(row.devices))
    yield words(joined(fronts) or "–")


def _mean(network: Network, name: str) -> float | None:
    """Average what `done.json` says over seeds; None where an older run does not say it."""
    found = [run.record.done.get(name) for run in network.runs]
    known = [float(value) for value in found if value is not None]
    return sum(known) / len(known) if len(known) == len(found) else None


SHOWN_IN_RANKING: Final = 12


def which_network(evidence: Evidence) -> Answer:
    """Which network is best on validation, and which do not differ from it on test?"""
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
            href = evidence.links.of(ranked[0].row.identities)
            sentences.append(Sentence(_best_sentence(kind, ranked), href))
            sentences += [
                Sentence(words, runs_of(rivals.lines, evidence.links))
                for words in _tie_sentences(ranked, rivals)
            ]
            missing += list(gap_sentences(rivals.gaps))
            if rivals.lines:
                caption = f"{HEADINGS[kind]}: every other network against the first"
                tables.append(
                    lines_table(
                        f"{slug}-{kind}",
                        caption,
                        rivals.lines,
                        evidence.links,
                        family_text(rivals.lines),
                    )
                )
    return Answer(
        slug,
        question,
        " ".join(item.words for item in sentences[: 1 + (len(first) > 1)]),
        sentences[0].href,
        sentences=tuple(sentences),
        pictures=tuple(_rankings(dict(boards))),
        tables=tuple(tables),
        missing=tuple(missing),
        notes=(
            "Best means best on validation, which ranks; test was read once and is shown. No "
            "significant difference does not mean equal.",
        ),
    )


def _rankings(boards: Mapping[Kind, Sequence[Network]]) -> Iterator[Picture]:
    """Draw the test accuracies of the best networks, in the order of their rank."""
    caption = (
        "Test accuracy with its 95 % interval, in the order of their rank on validation, the "
        f"first {SHOWN_IN_RANKING} at most. Intervals that overlap do not say that two networks "
        "are equal: the table does."
    )
    together = [panel for task in TASKS if (panel := _ranking(task, boards["mtl"]))]
    if together:
        yield Picture(HEADINGS["mtl"], caption, tuple(together))
    alone = [panel for task in TASKS if (panel := _ranking(task, boards[task]))]
    if alone:
        yield Picture("One task, one network (STL)", caption, tuple(alone))


def _ranking(task: TaskName, ranked: Sequence[Network]) -> Markup | None:
    spans = [
        Span(f"{network.row.rank}  {network.row.name}", score.accuracy, score.low, score.high)
        for network in ranked[:SHOWN_IN_RANKING]
        if (score := network.row.scores.get(task)) is not None
    ]
    return figures.rates_panel(task, spans) if spans else None


def _rivals(evidence: Evidence, ranked: Sequence[Network]) -> Found:
    """Keep what was compared with the first of these networks."""
    found, first = judged(evidence, "first"), ranked[0].row.name
    return Found(
        tuple(line for line in found.lines if line.reference.label == first),
        tuple(gap for gap in found.gaps if gap.reference == first),
    )


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


def _tie_sentences(ranked: Sequence[Network], rivals: Found) -> Iterator[str]:
    if len(ranked) < 2 or not rivals.lines:
        return
    pairs = by_pair(rivals.lines)
    tied = [ours[0].group.label for ours in pairs if not any(line.significant for line in ours)]
    better = {
        ours[0].group.label: [TASK_TITLES[line.task] for line in ours if line.verdict == "better"]
        for ours in pairs
    }
    ahead = [f"{name} ({joined(tasks)})" for name, tasks in better.items() if tasks]
    if tied:
        yield f"No significant difference from it on any task of the test: {joined(tied)}."
    else:
        yield "Each of the others differs from it significantly on some task of the test."
    if ahead:
        yield f"Better than it on test: {joined(ahead)}."
    if any(line.of_trainings_alone for line in rivals.lines):
        yield "Where one seed met one seed, this speaks of these trainings alone."
