"""What the report is made from: runs, rows and predictions, with tables and MLflow links.

What the page is made from: the runs, the rows they make, and their answers, read once.

Addresses of runs in the MLflow UI; which run is where is for benchmark.tracking to say.

Tables of the page: cells that sort, search and lead to MLflow. How they look is the template's.

Without scripts they are plain tables with captions and scopes; a script adds the rest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal
from urllib.parse import urlencode, urlsplit

from benchmark.comparison.cells import NOTHING
from benchmark.comparison.leaderboard import BoardTable, Kind, Leaderboard
from benchmark.comparison.library import Library, NotRun, Run, RunGroup, Setting, definition_key
from benchmark.comparison.pairs import Book, Found
from benchmark.comparison.rows import Row
from benchmark.comparison.statistics import Family
from benchmark.comparison.verdicts import Line, p_text, points, points_span, test_text, verdict_text
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment, Protocol
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

DEFAULT_URL: Final = "http://127.0.0.1:5000"
DIGITS: Final = 12
"""How many digits of an identity name a run on the page."""
COMPARED_AT_MOST: Final = 24
"""More runs than MLflow can show beside each other: the link leads to the list of all."""


@dataclass(frozen=True)
class MlflowLinks:
    """Where a number's runs are shown; no link for runs that MLflow does not know."""

    base: str = DEFAULT_URL
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By the first digits of an identity: MLflow's ids of the experiment and of the run."""

    def of(self, identities: Sequence[str]) -> str:
        """Give the page of one run, MLflow's comparison of several, or its list of very many.

        Empty where one is unknown.
        """
        places = [self.known.get(identity[:DIGITS]) for identity in dict.fromkeys(identities)]
        found = [place for place in places if place is not None]
        if not found or len(found) < len(places):
            return ""
        experiments = sorted({place for place, _ in found})
        if len(found) > COMPARED_AT_MOST and len(experiments) == 1:
            return f"{self.base}/#/experiments/{experiments[0]}/runs"
        if len(found) == 1:
            experiment, run = found[0]
            return f"{self.base}/#/experiments/{experiment}/runs/{run}"
        query = {
            "runs": json.dumps([run for _, run in found], separators=(",", ":")),
            "experiments": json.dumps(experiments, separators=(",", ":")),
        }
        return f"{self.base}/#/compare-runs?{urlencode(query)}"


def mlflow_links(url: str, known: Mapping[str, tuple[str, str]]) -> MlflowLinks:
    """Make links to the UI at `url`; raise RunError for what is no address of a web page.

    known: by identity, MLflow's ids of the experiment and of the run.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise RunError(
            f"--mlflow-url {url!r} is no address", allowed=f"http://… or https://…, {DEFAULT_URL}"
        )
    short = {identity[:DIGITS]: place for identity, place in known.items()}
    return MlflowLinks(url.rstrip("/"), short)


Status = Literal["done", "missing", "reference", "leaky"]


@dataclass(frozen=True)
class Link:
    """One of several places that a cell leads to."""

    words: str
    href: str
    about: str = ""
    """What a screen reader is told besides; empty where the words say all."""


@dataclass(frozen=True)
class Cell:
    """One cell; what has no `value` stands last, however the column is sorted."""

    words: str
    value: float | str | None = None
    href: str = ""
    note: str = ""
    """In small print beneath: an interval, a macro-F1."""
    links: tuple[Link, ...] = ()
    """Instead of words, where a cell is about several runs."""


@dataclass(frozen=True)
class Column:
    """A heading, and whether it stands over numbers."""

    title: str
    numeric: bool = True
    about: str = ""


@dataclass(frozen=True)
class TableRow:
    """Cells in the order of the columns; the first names the row."""

    cells: tuple[Cell, ...]
    status: Status = "done"
    anchor: str = ""


@dataclass(frozen=True)
class DataTable:
    """A table with its caption."""

    name: str
    """Unique on the page; part of its ids."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    leaky: bool = False


def words(text: str) -> Cell:
    """Make a cell that sorts as it reads."""
    return Cell(text, None if text == NOTHING else text)


def number(text: str, value: float | None, *, href: str = "", note: str = "") -> Cell:
    """Make a cell that sorts by its number; what does not exist is shown as such."""
    if value is None:
        return Cell(NOTHING)
    return Cell(text, value, href, note)


def text_table(
    name: str,
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    hrefs: Sequence[str] = (),
) -> DataTable:
    """Make a table of cells that are text already; the first column names the row.

    A cell such as `70.1 ±0.3 (68.2–72.0)` sorts by its first number, its interval goes beneath.
    hrefs: where each row's numbers lead to.
    """
    columns = tuple(Column(head, numeric=place > 0) for place, head in enumerate(heads))
    made = tuple(
        TableRow(
            (words(cells[0]), *(_numeric(cell, href) for cell in cells[1:])),
            status="leaky" if cells[0].startswith("LEAKY") else "done",
        )
        for cells, href in zip(rows, hrefs or [""] * len(rows), strict=True)
    )
    return DataTable(name, caption, columns, made, leaky=any(row.status == "leaky" for row in made))


def _numeric(cell: str, href: str) -> Cell:
    if cell == NOTHING:
        return Cell(NOTHING)
    main, _, rest = cell.partition(" (")
    digits = main.split(" ")[0].replace(",", "").replace("−", "-").lstrip("+<")
    try:
        value: float | str = float(digits)
    except ValueError:
        value = main
    return Cell(main, value, href, note=rest.rstrip(")"))


def lines_table(
    name: str, caption: str, lines: Sequence[Line], links: MlflowLinks, family: str
) -> DataTable:
    """Make the table of judged differences: arm, reference, task, how much, how sure."""
    columns = (
        Column("network", numeric=False),
        Column("against", numeric=False),
        Column("task", numeric=False),
        Column("accuracy, pp", about="difference in percentage points, 95 % interval beneath"),
        Column("macro-F1, pp", about="difference in percentage points, 95 % interval beneath"),
        Column("p, Holm", about="corrected over the family; uncorrected beneath"),
        Column("verdict", numeric=False),
        Column("test", numeric=False),
    )
    rows = tuple(_line_row(item, links) for item in lines)
    return DataTable(name, caption, columns, rows, notes=(family,))


def _line_row(item: Line, links: MlflowLinks) -> TableRow:
    found = item.difference
    href = links.of([*item.reference.identities, *item.group.identities])
    f1_span = ""
    if found.macro_f1_low is not None and found.macro_f1_high is not None:
        f1_span = points_span(found.macro_f1_low, found.macro_f1_high)
    f1 = NOTHING if found.macro_f1 is None else points(found.macro_f1)
    return TableRow(
        (
            words(item.group.label),
            words(item.reference.label),
            words(TASK_TITLES[item.task]),
            number(
                points(found.accuracy),
                found.accuracy,
                href=href,
                note=points_span(found.low, found.high),
            ),
            number(f1, found.macro_f1, href=href, note=f1_span),
            number(p_text(item.p_holm), item.p_holm, note=f"uncorrected {p_text(found.p)}"),
            words(verdict_text(item)),
            words(test_text(item)),
        )
    )


@dataclass(frozen=True)
class Network:
    """A row of a table with the runs behind it."""

    row: Row
    kind: Kind
    experiment: Experiment
    runs: tuple[Run, ...]
    """By ascending seed."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it predicts."""
        return tuple(task for task in TASKS if task in self.experiment.head.tasks)

    @property
    def tested(self) -> bool:
        """Whether its test faces were read."""
        return bool(self.row.scores)

    @property
    def multiply_adds(self) -> int | None:
        """Of one face; None for runs of a time when it was not counted."""
        found = self.runs[0].about.get("multiply_adds")
        return None if found is None else int(found)

    def as_group(self) -> RunGroup:
        """Give the very runs of the row as one side of a comparison."""
        return RunGroup(self.row.name, self.runs)


@dataclass(frozen=True)
class Evidence:
    """All that is known of one data set's runs."""

    library: Library
    board: Leaderboard
    experiments: tuple[Experiment, ...]
    """Those that the page is about, in order."""
    suites: tuple[str, ...]
    """Those asked for; empty: every experiment that was begun."""
    links: MlflowLinks
    book: Book = field(default_factory=Book)
    found: dict[Family, Found] = field(default_factory=dict)
    """What came of the page's comparisons, once benchmark.reporting.comparisons has made them."""

    @property
    def dataset(self) -> str:
        """The data set that all numbers are about."""
        return self.board.dataset

    @cached_property
    def setting(self) -> Setting | None:
        """What the answers are about: everyone's faces, honestly split, as most rows have it.

        None where no such run is finished. Other settings have tables of their own and take part
        in no answer.
        """
        counts: dict[Setting, int] = {}
        for table in self.board.tables:
            where = table.setting
            if where.protocol == Protocol() and where.subset is None:
                done = sum(row.status == "done" and not row.leaky for row in table.rows)
                counts[where] = counts.get(where, 0) + done
        found = [where for where, count in counts.items() if count]
        return max(found, key=lambda where: counts[where]) if found else None

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The finished honest rows of the setting, in the order of the tables; one per name."""
        found: dict[str, Network] = {}
        for table in self.board.tables:
            if table.setting == self.setting:
                for row in table.rows:
                    if row.status == "done" and not row.leaky and row.name not in found:
                        found[row.name] = self._network(row, table)
        return tuple(found.values())

    def ranked(self, kind: Kind) -> tuple[Network, ...]:
        """The networks of a kind that have a rank, best on validation first."""
        return tuple(
            network
            for network in self.networks
            if network.kind == kind and network.row.rank is not None and network.tested
        )

    @property
    def drawn(self) -> bool:
        """Whether the faces are drawn and not photographed."""
        return self.board.drawn

    def _network(self, row: Row, table: BoardTable) -> Network:
        runs = tuple(self.runs_by_id[identity[:DIGITS]] for identity in row.identities)
        return Network(row, table.kind, self.library.experiments[row.name], runs)

    @cached_property
    def runs_by_id(self) -> Mapping[str, Run]:
        """All runs that could be read, by the first digits of their identities."""
        return {run.record.identity[:DIGITS]: run for run in self.library.runs}

    @cached_property
    def _networks_by_name(self) -> Mapping[str, Network]:
        return {network.row.name: network for network in self.networks}

    def run_group(self, name: str) -> RunGroup | NotRun:
        """Give the runs of an experiment as its row has them, or say why there are none."""
        network = self._networks_by_name.get(name)
        if network is None:
            found = self.library.run_group(name, self.dataset)
            return found if isinstance(found, NotRun) else NotRun(name, _why_apart(found))
        if not network.tested:
            return NotRun(name, "its test was not read")
        return network.as_group()


def _why_apart(group: RunGroup) -> str:
    if group.leaky:
        return "LEAKY, never set beside honest runs"
    return "run on other faces, another split or another protocol"


def chosen_experiments(library: Library, suites: Sequence[str], dataset: str) -> list[Experiment]:
    """List the experiments of some suites, or every one that was begun on a data set.

    Raises RunError for a suite that is not registered.
    """
    if suites:
        unknown = [name for name in suites if name not in library.suites]
        if unknown:
            raise RunError(f"unknown suite {unknown[0]!r}", allowed=", ".join(library.suites))
        names = [name for suite in suites for name in library.suites[suite].experiments]
        return [library.experiments[name] for name in dict.fromkeys(names)]
    here = [run for run in library.runs if run.setting.dataset == dataset]
    begun = {str(run.definition["name"]) for run in here}
    keys = {run.definition_key for run in here}
    return [
        item
        for item in library.experiments.values()
        if item.name in begun or definition_key(item.as_dict()) in keys
    ]
