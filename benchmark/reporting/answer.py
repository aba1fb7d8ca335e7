"""An answer of the report, and the section on one network.

An answer of the page: its sentences, plots and tables, or the command that would tell.

What each question is, and how it is answered, is in overview, twins, respects and studies.

One network by itself: for whom it is right, what it takes for what, and how it learnt.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from benchmark.comparison.leaderboard import HEADINGS
from benchmark.comparison.verdicts import Line, reading_notes
from benchmark.errors import RunError
from benchmark.evaluation.intervals import cluster_bootstrap, wilson
from benchmark.evaluation.subgroups import SMALL_GROUP, By, group_codes, group_names
from benchmark.reporting import figures
from benchmark.reporting.evidence import DataTable, Evidence, MlflowLinks, Network
from benchmark.reporting.figures import Picture, Series, Span
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TASKS, TaskName, n_classes

Floats = npt.NDArray[np.float64]
CURVE_SEEDS: Final = 5
"""Learning curves are drawn for so many seeds at most."""
MOST_PORTRAITS: Final = 150
"""A page with more would not open at once."""
SMALLEST_REACH: Final = 0.05
"""Colours span at least this much accuracy on either side, so that chance stays pale."""


@dataclass(frozen=True)
class HeatCell:
    """A group of people: how well it is read, and of how many faces that is known."""

    n: int
    accuracy: float | None
    """None for a group without faces: missing, never 0."""
    low: float | None = None
    high: float | None = None
    shade: float = 0.0
    """Difference to all faces, -1 to 1 of the colours' reach; 0 where the group is too small."""

    @property
    def small(self) -> bool:
        """Whether it has too few faces to be ranked."""
        return 0 < self.n < SMALL_GROUP


@dataclass(frozen=True)
class HeatMap:
    """A task's accuracy by gender (rows) and race (columns), each with `all` at the end."""

    network: str
    href: str
    task: TaskName
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]

    @property
    def title(self) -> str:
        """What it is of."""
        return TASK_TITLES[self.task].capitalize()

    @property
    def has_small(self) -> bool:
        """Whether a group is too small to be coloured."""
        return any(cell.small for _, cells in self.rows for cell in cells)


@dataclass(frozen=True)
class Confusion:
    """What a task's classes are taken for: shares of each true class, averaged over seeds."""

    network: str
    href: str
    task: TaskName
    classes: tuple[str, ...]
    n: tuple[int, ...]
    """Faces of each true class."""
    shares: tuple[tuple[float | None, ...], ...]

    @property
    def title(self) -> str:
        """What it is of."""
        return TASK_TITLES[self.task].capitalize()


@dataclass(frozen=True)
class Portrait:
    """All that the page shows of one network by itself."""

    name: str
    anchor: str
    """Its place on the page, where tables lead to."""
    kind: str
    """The heading of the table that it stands in."""
    asks: str
    seeds: tuple[int, ...]
    href: str
    heat_maps: tuple[HeatMap, ...]
    confusions: tuple[Confusion, ...]
    curves: tuple[Markup, ...]
    legend: tuple[tuple[Markup, str], ...]
    """Of the curves: a line for each seed."""
    trouble: str = ""
    """Why something is not shown."""


def anchor_of(name: str) -> str:
    """Name the place on the page where a network is portrayed."""
    return f"network-{name}"


def portrayed(evidence: Evidence) -> list[Network]:
    """Choose whom the page portrays: all tested networks, or the best of each table if too many."""
    tested = [network for network in evidence.networks if network.tested]
    if len(tested) <= MOST_PORTRAITS:
        return tested
    best = sorted(tested, key=lambda network: network.row.rank or len(tested))[:MOST_PORTRAITS]
    chosen = {network.row.name for network in best}
    return [network for network in tested if network.row.name in chosen]


def portrait(evidence: Evidence, network: Network) -> Portrait:
    """Portray one network; what cannot be read is said instead."""
    heat_maps: tuple[HeatMap, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    trouble = []
    try:
        heat_maps = tuple(heat_map(evidence, network, task) for task in network.tasks)
        confusions = tuple(_confusion(evidence, network, task) for task in network.tasks)
    except RunError as error:
        trouble.append(str(error))
    try:
        curves = tuple(_curves(network))
    except (RunError, KeyError, ValueError) as error:
        curves = ()
        trouble.append(f"learning curves: {error}")
    return Portrait(
        name=network.row.name,
        anchor=anchor_of(network.row.name),
        kind=HEADINGS[network.kind],
        asks=network.experiment.asks,
        seeds=network.row.seeds,
        href=evidence.links.of(network.row.identities),
        heat_maps=heat_maps,
        confusions=confusions,
        curves=curves,
        legend=tuple(
            (figures.swatch(figures.style_of(place), figures.shape_of(place)), f"seed {seed}")
            for place, seed in enumerate(network.row.seeds[:CURVE_SEEDS])
        ),
        trouble="; ".join(trouble),
    )


def heat_map(evidence: Evidence, network: Network, task: TaskName) -> HeatMap:
    """Lay out a task's accuracy by gender and race; raise RunError where answers are unreadable."""
    answers = evidence.book.answers(network.as_group())
    right = answers.right(task)
    member = np.concatenate([_members(answers.faces, by) for by in _BYS], axis=1)
    n_faces = member.sum(axis=0).astype(int)
    mean = right.mean(axis=0)
    values = np.where(member, mean[:, None], np.nan)
    rates = np.divide(
        np.nansum(values, axis=0), n_faces, out=np.full(len(n_faces), np.nan), where=n_faces > 0
    )
    if len(right) == 1:
        low, high = wilson((right[0][:, None] & member).sum(axis=0), n_faces)
    else:
        low, high = cluster_bootstrap(values, answers.faces["cluster"].to_numpy())
    columns, rows = _laid_out(n_faces, rates, low, high)
    href = evidence.links.of(network.row.identities)
    return HeatMap(network.row.name, href, task, columns, rows)


_BYS: Final[tuple[By, ...]] = ("gender_race", "gender", "race", "all")


def _members(faces: object, by: By) -> npt.NDArray[np.bool_]:
    codes = group_codes(faces, by)  # type: ignore[arg-type]
    return np.asarray(codes[:, None] == np.arange(len(group_names(by))))


def _laid_out(
    n_faces: npt.NDArray[np.int64], rates: Floats, low: Floats, high: Floats
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[HeatCell, ...]], ...]]:
    """Arrange the groups of _BYS, in their order, as columns and rows."""
    ranked = rates[n_faces >= SMALL_GROUP] - rates[-1]
    reach = max(SMALLEST_REACH, float(np.abs(ranked).max(initial=0.0)))

    def cell(index: int) -> HeatCell:
        n = int(n_faces[index])
        if n == 0:
            return HeatCell(0, None)
        shade = (rates[index] - rates[-1]) / reach if n >= SMALL_GROUP else 0.0
        ends = float(low[index]), float(high[index])
        return HeatCell(n, float(rates[index]), *ends, shade=round(float(shade), 3))

    n_genders, n_races = n_classes("gender"), n_classes("race")
    crossed = n_genders * n_races
    rows = [
        (
            gender,
            (*(cell(place * n_races + race) for race in range(n_races)), cell(crossed + place)),
        )
        for place, gender in enumerate(CLASS_NAMES["gender"])
    ]
    races = tuple(cell(crossed + n_genders + race) for race in range(n_races))
    everyone = cell(crossed + n_genders + n_races)
    return (*CLASS_NAMES["race"], "all"), (*rows, ("all", (*races, everyone)))


def _confusion(evidence: Evidence, network: Network, task: TaskName) -> Confusion:
    answers = evidence.book.answers(network.as_group())
    truth = answers.faces[task].to_numpy(dtype=np.int64)
    k = n_classes(task)
    counts = np.zeros((k, k))
    predicted = answers.predicted[task]
    for one in predicted:
        np.add.at(counts, (truth, one), 1)
    totals = np.bincount(truth, minlength=k)
    # Seeds answer about the same faces: their shares are averaged, their faces not added up.
    shares = [
        tuple(float(count) / (total * len(predicted)) if total else None for count in row)
        for row, total in zip(counts, totals, strict=True)
    ]
    return Confusion(
        network.row.name,
        evidence.links.of(network.row.identities),
        task,
        CLASS_NAMES[task],
        tuple(int(n) for n in totals),
        tuple(shares),
    )


def _curves(network: Network) -> Iterator[Markup]:
    """Draw loss and validation accuracy by epoch, a line per seed."""
    histories = [run.record.history() for run in network.runs[:CURVE_SEEDS]]
    epochs = max(int(history["epoch"].max()) for history in histories)
    step = max(1, -(-epochs // 6))
    ticks = {float(epoch): str(epoch) for epoch in range(1, epochs + 1) if (epoch - 1) % step == 0}
    ticks[float(epochs)] = str(epochs)
    losses = [
        Series(
            f"seed {run.record.seed}",
            tuple(history["epoch"].astype(float)),
            tuple(history["train/loss"].astype(float)),
            style=index,
        )
        for index, (run, history) in enumerate(zip(network.runs, histories, strict=False))
        if "train/loss" in history
    ]
    if losses:
        yield figures.series_panel(
            "Training loss", losses, ticks, x_title="epoch", in_percent=False
        )
    for task in TASKS:
        column = f"val/{task}/accuracy"
        rates = [
            Series(
                f"seed {run.record.seed}",
                tuple(history["epoch"].astype(float)),
                tuple(history[column].astype(float)),
                style=index,
            )
            for index, (run, history) in enumerate(zip(network.runs, histories, strict=False))
            if column in history
        ]
        if rates:
            heading = f"{TASK_TITLES[task].capitalize()}: validation accuracy"
            yield figures.series_panel(heading, rates, ticks, x_title="epoch", css=task)


SEEDS: Final = "--seeds 0,1,2"
HOLLOW: Final = "Filled: significant after Holm's correction; hollow: not."


@dataclass(frozen=True)
class Sentence:
    """What is said, and where the runs that say it are shown."""

    words: str
    href: str = ""


@dataclass(frozen=True)
class Answer:
    """A question and what the runs say to it."""

    slug: str
    question: str
    short: str
    """The answer in a sentence or two, for the top of the page."""
    href: str = ""
    """The runs behind the short answer."""
    answered: bool = True
    sentences: tuple[Sentence, ...] = ()
    """In full."""
    pictures: tuple[Picture, ...] = ()
    heat_maps: tuple[HeatMap, ...] = ()
    tables: tuple[DataTable, ...] = ()
    commands: tuple[str, ...] = ()
    """What would answer the question, or what is missing of the answer."""
    missing: tuple[str, ...] = ()
    """What could not be compared, and why."""
    notes: tuple[str, ...] = ()
    leaky: bool = False


def unanswered(slug: str, question: str, why: str, commands: Iterable[str]) -> Answer:
    """Say that the runs do not tell, and which command would."""
    return Answer(
        slug,
        question,
        f"Not answered by these runs: {why}",
        answered=False,
        commands=tuple(commands),
    )


def run_command(names: Sequence[str], dataset: str) -> str:
    """Write the command that runs experiments."""
    return f"facebench run {' '.join(names)} {SEEDS} --dataset {dataset}"


def suite_command(suite: str, dataset: str) -> str:
    """Write the command that runs a suite."""
    return f"facebench run --suite {suite} {SEEDS} --dataset {dataset}"


def runs_of(lines: Sequence[Line], links: MlflowLinks) -> str:
    """Give the address of all runs that some differences are made of."""
    sides = [side for line in lines for side in (line.reference, line.group)]
    return links.of([identity for side in sides for identity in side.identities])


def forest(
    title: str, caption: str, lines: Sequence[Line], labels: Mapping[str, str] | None = None
) -> Picture:
    """Draw judged differences, a panel per task; labels by arm, or by `arm|reference`."""
    labels = labels or {}
    panels = []
    for task in TASKS:
        spans = [
            Span(
                labels.get(f"{line.group.label}|{line.reference.label}")
                or labels.get(line.group.label, line.group.label),
                line.difference.accuracy,
                line.difference.low,
                line.difference.high,
                filled=line.significant,
            )
            for line in lines
            if line.task == task
        ]
        if spans:
            panels.append(figures.differences_panel(task, spans))
    return Picture(title, caption, tuple(panels))


def comparison_notes(lines: Sequence[Line]) -> tuple[str, ...]:
    """Say how such a table is to be read."""
    groups = {group.label: group for line in lines for group in (line.reference, line.group)}
    return tuple(reading_notes(lines, list(groups.values())))
