"""Tables of the page: cells that sort, search and lead to MLflow. How they look is the template's.

Without scripts they are plain tables with captions and scopes; a script adds the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmark.report.links import MlflowLinks
from benchmark.results.cells import NOTHING
from benchmark.results.verdicts import (
    Line,
    p_text,
    points,
    points_span,
    test_text,
    verdict_text,
)
from benchmark.tasks import TASK_TITLES

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
    href = links.of([*item.reference.identities, *item.arm.identities])
    f1_span = ""
    if found.macro_f1_low is not None and found.macro_f1_high is not None:
        f1_span = points_span(found.macro_f1_low, found.macro_f1_high)
    f1 = NOTHING if found.macro_f1 is None else points(found.macro_f1)
    return TableRow(
        (
            words(item.arm.label),
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
