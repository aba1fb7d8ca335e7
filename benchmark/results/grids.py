"""A table's cells in order, for every form that lays them out in columns: Markdown, LaTeX, pages.

A cell has its text, what stands small beside it, and the value that it is sorted by. Columns in
which no row has anything are left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmark.results.board import Table
from benchmark.results.cells import (
    NOTHING,
    count_text,
    difference_text,
    duration_text,
    ends_text,
    memory_text,
    name_text,
    number_text,
    percent,
    rank_text,
    remarks_of,
    seeds_text,
    span,
    with_sd,
    worst_heading,
)
from benchmark.results.row import Against, Opponent, Row
from benchmark.tasks import TASK_TITLES, TaskName

Part = Literal["name", "scores", "against", "cost", "origin", "remarks"]
PART_TITLES: Final[dict[Part, str]] = {
    "scores": "Scores",
    "against": "Differences",
    "cost": "Costs",
    "origin": "Where they come from",
    "remarks": "Remarks",
}


@dataclass(frozen=True)
class Head:
    """A column's heading, and which part of a row it is of."""

    label: str
    part: Part
    left: bool = False
    """Whether its cells are text, which begins at the left."""


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    more: str = ""
    """An interval, a count: what belongs to the text and may be set smaller."""
    value: float | str | None = None
    """What it is sorted by; None where there is nothing."""

    @property
    def whole(self) -> str:
        """The text with what belongs to it, on one line."""
        return f"{self.text} ({self.more})" if self.more else self.text


EMPTY: Final = Cell(NOTHING)


@dataclass(frozen=True)
class Grid:
    """Headings, and as many cells for each row."""

    heads: tuple[Head, ...]
    lines: tuple[tuple[Cell, ...], ...]

    def of(self, *parts: Part) -> "Grid":
        """Keep the name and some parts of every row."""
        kept = [index for index, head in enumerate(self.heads) if head.part in ("name", *parts)]
        return Grid(
            tuple(self.heads[index] for index in kept),
            tuple(tuple(line[index] for index in kept) for line in self.lines),
        )

    def has(self, part: Part) -> bool:
        """Tell whether any row has anything of a part."""
        return any(head.part == part for head in self.heads)


def grid_of(table: Table) -> Grid:
    """Lay out all rows of a table."""
    columns = [dict(_cells(table, row)) for row in table.rows]
    heads = list(dict.fromkeys(head for cells in columns for head in cells))
    order = {head: index for index, head in enumerate(_order(table))}
    heads.sort(key=lambda head: order[head])
    filled = [
        head
        for head in heads
        if head.part == "name" or any(cells.get(head, EMPTY).text != NOTHING for cells in columns)
    ]
    lines = tuple(tuple(cells.get(head, EMPTY) for head in filled) for cells in columns)
    return Grid(tuple(filled), lines)


def _order(table: Table) -> Iterator[Head]:
    """Name all columns that a table may have, in order."""
    yield from (Head("#", "name"), Head("experiment", "name", left=True), Head("val", "scores"))
    for task in table.tasks:
        title = TASK_TITLES[task]
        yield from (Head(title, "scores"), Head(f"{title}{MACRO_F1}", "scores"))
    yield Head("combined", "scores")
    yield from (Head(worst_heading(table), "scores"), Head("gap", "scores"))
    for kind in AGAINST_TITLES:
        yield from (_compared(table, kind, task) for task in table.tasks)
    yield from (Head("compared with", "against", left=True), Head("to the first", "against"))
    yield from (_printed(task) for task in table.tasks)
    yield from (Head(label, "cost") for label in COSTS)
    yield from (Head(label, "origin", left=True) for label in ORIGIN)
    yield REMARKS


DOCUMENT_PARTS: Final[tuple[tuple[Part, ...], ...]] = (
    ("scores", "remarks"),
    ("against",),
    ("cost", "origin"),
)
"""What stands side by side: one table of a document is as wide as a page can bear."""


def document_grids(table: Table) -> Iterator[tuple[str, Grid]]:
    """Divide a table into those that stand below each other; the scores need no title."""
    whole = grid_of(table)
    for parts in DOCUMENT_PARTS:
        if any(whole.has(part) for part in parts):
            title = "" if parts[0] == "scores" else PART_TITLES[parts[0]]
            yield title, whole.of(*parts)


AGAINST_TITLES: Final[dict[Opponent, str]] = {"twin": "twin", "defined": "compared"}
MACRO_F1: Final = " macro-F1"
"""How the heading ends of a column beside that of its task's accuracy."""
COSTS: Final = ("parameters", "trained", "GMACs", "time", "images/s", "memory")
ORIGIN: Final = ("seeds", "device", "commit")
REMARKS: Final = Head("remarks", "remarks", left=True)


def _compared(table: Table, kind: Opponent, task: TaskName) -> Head:
    twin = "STL" if table.kind == "mtl" else "MTL"
    title = f"− {twin} twin" if kind == "twin" else "− compared"
    return Head(f"{TASK_TITLES[task]} {title}", "against")


def _printed(task: TaskName) -> Head:
    return Head(f"study's {TASK_TITLES[task]}", "against")


def _cells(table: Table, row: Row) -> Iterator[tuple[Head, Cell]]:
    # A tie with the first is sorted by the rank alone.
    yield Head("#", "name"), Cell(rank_text(row) or NOTHING, value=row.rank)
    yield Head("experiment", "name", left=True), Cell(name_text(row), value=row.name)
    yield from _score_cells(table, row)
    yield from _against_cells(table, row)
    yield from _cost_cells(row)
    yield from _origin_cells(row)
    remarks = "; ".join(remarks_of(row))
    yield REMARKS, Cell(remarks or NOTHING, value=remarks or None)


def _score_cells(table: Table, row: Row) -> Iterator[tuple[Head, Cell]]:
    val = Cell(with_sd(row.val_combined, row.val_combined_sd), value=row.val_combined)
    yield Head("val", "scores"), val
    for task, score in row.scores.items():
        title = TASK_TITLES[task]
        accuracy = with_sd(score.accuracy, score.accuracy_sd)
        ends = span(score.low, score.high)
        yield Head(title, "scores"), Cell(accuracy, ends, score.accuracy)
        f1 = with_sd(score.macro_f1, score.macro_f1_sd)
        yield Head(f"{title}{MACRO_F1}", "scores"), Cell(f1, value=score.macro_f1)
    if row.combined is not None:
        value, low, high = row.combined.value, row.combined.low, row.combined.high
        ends = "" if low is None or high is None else span(low, high)
        yield Head("combined", "scores"), Cell(with_sd(value, row.combined.sd), ends, value)
    if row.worst is not None:
        worst = row.worst
        accuracy = percent(worst.accuracy)
        more = f"{span(worst.low, worst.high)}, n {worst.n}"
        cell = Cell(f"{worst.group} {accuracy}", more, worst.accuracy)
        yield Head(worst_heading(table), "scores"), cell
    if row.gap is not None:
        more = f"{span(row.gap.low, row.gap.high)}, by chance {percent(row.gap.chance)}"
        yield Head("gap", "scores"), Cell(percent(row.gap.gap), more, row.gap.gap)


def _against_cells(table: Table, row: Row) -> Iterator[tuple[Head, Cell]]:
    for outcome in row.against:
        if outcome.kind == "first":
            yield Head("to the first", "against"), _difference(outcome)
        elif outcome.task is not None:
            yield _compared(table, outcome.kind, outcome.task), _difference(outcome)
        if outcome.kind == "defined":
            # Told once for all tasks: a later one of the same name takes its place.
            other = Cell(outcome.other, outcome.why, outcome.other)
            yield Head("compared with", "against", left=True), other
    if row.study is not None:
        for task in table.tasks:
            printed = getattr(row.study, task)
            if printed is not None:
                cell = Cell(percent(printed), f"row {row.study.row}", printed)
                yield _printed(task), cell


def _difference(outcome: Against) -> Cell:
    if outcome.difference is None:
        return Cell(NOTHING, outcome.why)
    value = outcome.difference.accuracy
    return Cell(difference_text(outcome), ends_text(outcome), value)


def _cost_cells(row: Row) -> Iterator[tuple[Head, Cell]]:
    values: Sequence[tuple[str, float | None]] = (
        (count_text(row.parameters), row.parameters),
        (count_text(row.trainable_parameters), row.trainable_parameters),
        (number_text(row.gmacs), row.gmacs),
        (duration_text(row.seconds), row.seconds),
        (number_text(row.images_per_second), row.images_per_second),
        (memory_text(row.peak_memory_mib), row.peak_memory_mib),
    )
    for label, (text, value) in zip(COSTS, values, strict=True):
        yield Head(label, "cost"), Cell(text, value=value)


def _origin_cells(row: Row) -> Iterator[tuple[Head, Cell]]:
    device = ", ".join(row.devices)
    precision = ", ".join(row.precisions)
    texts = (
        seeds_text(row.seeds),
        f"{device}, {precision}" if device and precision else device,
        ", ".join(commit[:12] for commit in row.commits),
    )
    for label, text in zip(ORIGIN, texts, strict=True):
        # Seeds are sorted by their number: more of them say more.
        value = len(row.seeds) if label == "seeds" else text
        yield Head(label, "origin", left=True), Cell(text or NOTHING, value=value or None)
