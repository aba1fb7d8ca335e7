"""What accuracy costs: networks by their score and by what they take, and the front among them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmark.report import plots
from benchmark.report.evidence import Evidence, Network
from benchmark.report.plots import Picture, Point
from benchmark.report.tables import Cell, Column, DataTable, TableRow, number, words
from benchmark.results.cells import count_text, duration_text, with_sd
from benchmark.results.verdicts import joined


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
            panels.append(plots.cost_panel(cost.heading, points, cost.axis))
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
