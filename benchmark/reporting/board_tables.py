"""Leaderboards as Markdown, LaTeX and HTML.

A leaderboard as one HTML page that needs nothing else: sorted by a click, filtered by a word.

Every text is escaped by Jinja2. Without scripts the page still shows all rows, by rank.

A table's cells in order, for every form that lays them out in columns: Markdown, LaTeX, pages.

A cell has its text, what stands small beside it, and the value that it is sorted by. Columns in
which no row has anything are left out.

A leaderboard as GitHub Markdown; other forms have their own rooms.

The terminal's table is in benchmark.cli.leaderboard, the HTML page in
benchmark.reporting.board_tables, LaTeX in .latex, CSV and JSON in .columns.

A leaderboard as LaTeX for booktabs: narrow enough to be read on a page.

What is on one line elsewhere stands below each other: a number, its interval, its macro-F1.
Remarks are notes below the table.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import jinja2
import pandas as pd

from benchmark.comparison.cells import (
    NOTHING,
    broken,
    broken_name,
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
    setting_text,
    span,
    title_of,
    with_sd,
    worst_heading,
)
from benchmark.comparison.leaderboard import HEADINGS, Leaderboard, Table
from benchmark.comparison.rows import Row, RowComparison, RowQuestion
from benchmark.reporting.columns import csv_text as csv_text
from benchmark.reporting.columns import flat_rows as flat_rows
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


AGAINST_TITLES: Final[dict[RowQuestion, str]] = {"twin": "twin", "defined": "compared"}
MACRO_F1: Final = " macro-F1"
"""How the heading ends of a column beside that of its task's accuracy."""
COSTS: Final = ("parameters", "trained", "GMACs", "time", "images/s", "memory")
ORIGIN: Final = ("seeds", "device", "commit")
REMARKS: Final = Head("remarks", "remarks", left=True)


def _compared(table: Table, kind: RowQuestion, task: TaskName) -> Head:
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
    for outcome in row.comparisons:
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


def _difference(outcome: RowComparison) -> Cell:
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


def markdown(board: Leaderboard) -> str:
    """Write the leaderboard as GitHub Markdown, in percent."""
    lines = [f"# {_cell(title_of(board))}", ""]
    lines += [
        "Ranked by validation (*val*). Test accuracy in percent with its 95 % interval.",
        "",
    ]
    setting = None
    for table in board.tables:
        lines += [f"## {HEADINGS[table.kind]}", ""]
        if table.setting != setting:
            lines += [_cell(setting_text(table.setting)), ""]
            setting = table.setting
        for title, grid in document_grids(table):
            lines += [f"### {title}", ""] if title else []
            lines += [*_markdown_table(grid), ""]
    if board.notes:
        lines += ["## How to read it", "", *(f"- {_cell(note)}" for note in board.notes), ""]
    lines += ["## What these numbers are not", "", *(f"- {text}" for text in board.limits), ""]
    return "\n".join(lines)


def _markdown_table(grid: Grid) -> Iterator[str]:
    yield "| " + " | ".join(_cell(head.label) for head in grid.heads) + " |"
    yield "|" + "|".join("---" if head.left else "--:" for head in grid.heads) + "|"
    for line in grid.lines:
        yield "| " + " | ".join(_cell(cell.whole) for cell in line) + " |"


def _cell(text: str) -> str:
    """Keep text of any origin from breaking a Markdown table or being read as HTML."""
    flat = " ".join(text.split())
    return flat.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


NAME_ROOM: Final = 26
"""Characters of a line of a name."""
HEAD_ROOM: Final = 14
"""Characters of a line of a heading."""


def latex(board: Leaderboard) -> str:
    """Write the tables as LaTeX, one `table` each; \\input it where they shall stand.

    Needs \\usepackage{booktabs} and \\usepackage{graphicx}, which fits wide ones to the page.
    """
    parts = [
        f"% {_comment(title_of(board))}",
        "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.",
    ]
    for table in board.tables:
        for title, grid in document_grids(table):
            heading = f"{HEADINGS[table.kind]}{f': {title.lower()}' if title else ''}"
            caption = f"{title_of(board)}. {heading}. {setting_text(table.setting)}"
            parts.append(_table(grid, caption))
    parts += [f"% {_comment(text)}" for text in (*board.notes, *board.limits)]
    return "\n".join(parts) + "\n"


def _table(grid: Grid, caption: str) -> str:
    columns = list(_columns(grid))
    # Headings may repeat, so that columns go by number until they are shown.
    frame = pd.DataFrame([[cells[row] for _, cells in columns] for row in range(len(grid.lines))])
    frame.columns = pd.Index([_stacked(_head_lines(head), head, "b") for head, _ in columns])
    aligned = "".join("l" if head.left else "r" for head, _ in columns)
    tabular = frame.style.hide(axis="index").to_latex(hrules=True, column_format=aligned)
    # Rows of several lines need air between them; the last one has its rule.
    above, body = tabular.split("\\midrule\n")
    tabular = f"{above}\\midrule\n" + body.replace(
        "\\\\\n", "\\\\\n\\addlinespace\n", len(grid.lines) - 1
    )
    notes = [f"{_text(names)}: {_text(remarks)}." for remarks, names in _remarks(grid).items()]
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_text(caption)}}}",
        "\\setlength{\\tabcolsep}{4pt}",
        # Made narrower where it is too wide, and never wider than it is.
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
        f"{tabular.rstrip()}}}",
        *(["\\par\\smallskip", "\\footnotesize\\raggedright"] if notes else []),
        *(f"{note}\\par" for note in notes),
        "\\end{table}",
    ]
    return "\n".join(["", *lines])


def _columns(grid: Grid) -> Iterator[tuple[Head, list[str]]]:
    """Give each column that is shown, macro-F1 in that of its task."""
    for place, head in enumerate(grid.heads):
        if head == REMARKS or head.label.endswith(MACRO_F1):
            continue
        beneath = grid.heads[place + 1 : place + 2]
        with_f1 = bool(beneath) and beneath[0].label == f"{head.label}{MACRO_F1}"
        cells = []
        for line in grid.lines:
            lines = _cell_lines(line[place], head)
            if with_f1 and line[place + 1].text != NOTHING:
                lines.append(f"F1 {line[place + 1].text}")
            cells.append(_stacked(lines, head, "t"))
        yield head, cells


def _head_lines(head: Head) -> list[str]:
    return broken(re.findall(r"\S+ ?", head.label), HEAD_ROOM)


def _cell_lines(cell: Cell, head: Head) -> list[str]:
    if head.left and not cell.more:
        return broken_name(cell.text, NAME_ROOM).split("\n")
    return [cell.text, *(cell.more.split(", ") if cell.more else ())]


def _stacked(lines: Sequence[str], head: Head, side: str) -> str:
    """Set lines below each other, in a cell whose own line is the first (t) or the last (b)."""
    written = [_text(line) for line in lines]
    if len(written) == 1:
        return written[0]
    # What belongs to a number is smaller than it; a name or a heading is of one size.
    if not head.left and side == "t":
        written[1:] = [f"\\scriptsize {line}" for line in written[1:]]
    column = f"@{{}}{'l' if head.left else 'r'}@{{}}"
    return f"\\begin{{tabular}}[{side}]{{{column}}}" + "\\\\".join(written) + "\\end{tabular}"


def _remarks(grid: Grid) -> dict[str, str]:
    """Give the names of the rows of which the same is remarked, by the remark."""
    labels = [head.label for head in grid.heads]
    if REMARKS.label not in labels:
        return {}
    found: dict[str, list[str]] = {}
    for line in grid.lines:
        name, remarks = line[labels.index("experiment")], line[labels.index(REMARKS.label)]
        if remarks.text != NOTHING:
            found.setdefault(remarks.text, []).append(name.text)
    return {remarks: ", ".join(names) for remarks, names in found.items()}


SIGNS: Final = {
    "−": "$-$",
    "±": "$\\pm$",
    "–": "--",
    "×": "$\\times$",
    "·": "$\\cdot$",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": "\\dots{}",
}
"""Signs that pdflatex may not know, as it writes them."""
SPECIAL: Final = {
    "\\": "\\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
}
_SHOWN: Final = SPECIAL | SIGNS
WRITTEN: Final = re.compile("|".join(map(re.escape, _SHOWN)))


def _text(text: str) -> str:
    """Write any text so that LaTeX shows it as it is."""
    # Commands stand between backticks.
    plain_and_commands = re.split("`([^`]*)`", " ".join(text.split()))
    written = [WRITTEN.sub(lambda found: _SHOWN[found[0]], part) for part in plain_and_commands]
    written[1::2] = [f"\\texttt{{{command}}}" for command in written[1::2]]
    return "".join(written)


def _comment(text: str) -> str:
    """Keep a text on the line of its comment."""
    return " ".join(text.split())


TEMPLATE: Final = "leaderboard.html.jinja"
FIRST_SHOWN: Final[tuple[Part, ...]] = ("scores", "against", "cost", "remarks")
"""What a reader sees before asking for more."""


def page(board: Leaderboard) -> str:
    """Write the page; the same leaderboard gives the same bytes."""
    tables = list(_tables(board))
    parts = [part for part in PART_TITLES if any(part in table["parts"] for table in tables)]
    return _template().render(
        title=title_of(board),
        drawn=board.drawn,
        tables=tables,
        parts=[
            {"name": part, "title": PART_TITLES[part], "shown": part in FIRST_SHOWN}
            for part in parts
        ],
        notes=board.notes,
        limits=board.limits,
    )


def _tables(board: Leaderboard) -> Iterator[dict[str, Any]]:
    for table in board.tables:
        grid = grid_of(table)
        yield {
            "heading": HEADINGS[table.kind],
            "setting": setting_text(table.setting),
            "leaky": table.setting.protocol.leaky or any(row.leaky for row in table.rows),
            "heads": grid.heads,
            "parts": {head.part for head in grid.heads},
            "lines": [
                {"row": row, "cells": list(zip(grid.heads, line, strict=True))}
                for row, line in zip(table.rows, grid.lines, strict=True)
            ],
        }


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmark.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE)
