"""A leaderboard in the terminal, in the roomiest of three forms that fits its width.

One line a row; three lines a row, costs in columns; three lines a row, costs below the name.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.results.formats import (
    HEADINGS,
    NOTHING,
    accuracy_text,
    count_text,
    duration_text,
    macro_f1_text,
    name_text,
    percent,
    rank_text,
    remarks_of,
    seeds_text,
    setting_text,
    span,
    title_of,
    with_sd,
    worst_heading,
    worst_text,
)
from benchmark.results.leaderboard import ONE_SEED, Leaderboard, Table
from benchmark.results.rows import Row, TaskScore, WorstGroup
from benchmark.tasks import TASK_TITLES

READING: Final = (
    "Percent of test faces read right, with 95 % interval; # ranks by validation (val)."
)
READING_COSTS: Final = "With each name: seeds, parameters that were trained, time to train a run."
GAP: Final = 2
"""Spaces between two columns."""
SHORTEST_NAME: Final = 18
"""Characters a name gets at least; longer names are broken at their hyphens."""
NAME_COLUMN: Final = 1

COST_HEADS: Final = tuple(Text(head) for head in ("parameters", "trained", "time", "seeds"))

Cells = list[Text]


def render(board: Leaderboard, width: int) -> Group:
    """Arrange a leaderboard for a terminal of `width` columns, 80 or more."""
    parts: list[RenderableType] = [
        Text(title_of(board), style="bold yellow" if board.drawn else "bold")
    ]
    setting = None
    for table in board.tables:
        if table.setting != setting:
            parts += [""] if setting is not None else []
            parts.append(Text(setting_text(table.setting), style="dim"))
            setting = table.setting
        parts += ["", Text(HEADINGS[table.kind], style="bold underline"), _fitting(table, width)]
        parts += [bullet(remark) for remark in _remarks(table)]
    notes = (READING, READING_COSTS, *board.notes)
    parts += ["", Text("How to read it", style="bold"), *(bullet(note) for note in notes)]
    parts += ["", Text("What these numbers are not", style="bold")]
    parts += [bullet(text) for text in board.limits]
    return Group(*parts)


def bullet(text: str) -> RenderableType:
    """Set a sentence as a point of a list, its further lines under its first."""
    row = RichTable.grid(padding=(0, 1, 0, 0))
    row.add_row("·", Text(text))
    return Padding(row, (0, 0, 0, 1))


def _remarks(table: Table) -> Iterator[str]:
    """Give the rows' remarks, equal ones once; that a row has one seed stands in its cells."""
    names: dict[str, list[str]] = {}
    for row in table.rows:
        said = [remark for remark in remarks_of(row) if remark != ONE_SEED]
        if said:
            label = "missing, " if row.status == "missing" else ""
            names.setdefault(label + "; ".join(said), []).append(row.name)
    for remark, rows in names.items():
        yield f"{', '.join(rows)}: {remark}"


def _fitting(table: Table, width: int) -> RichTable:
    """Take the first form that breaks no cell; the last one breaks names at hyphens."""
    lines = [_line(table, row) for row in table.rows]
    if _total(_widths(_line_heads(table), lines)) <= width:
        return _laid_out(_line_heads(table), lines)
    heads, blocks = _block_heads(table), [_block(table, row) for row in table.rows]
    roomy = [[*cells, *_costs(row)] for row, cells in zip(table.rows, blocks, strict=True)]
    if _total(_widths([*heads, *COST_HEADS], roomy)) <= width:
        return _laid_out([*heads, *COST_HEADS], _spaced(roomy))
    widths = _widths(heads, blocks)
    room = max(width - _total(widths) + widths[NAME_COLUMN], SHORTEST_NAME)
    for row, cells in zip(table.rows, blocks, strict=True):
        cells[NAME_COLUMN] = _name_and_costs(row, room)
    return _laid_out(heads, _spaced(blocks))


def _spaced(rows: Sequence[Cells]) -> Sequence[Cells]:
    """Part rows by an empty line."""
    for cells in rows[:-1]:
        height = max(cell.plain.count("\n") for cell in cells)
        name = cells[NAME_COLUMN]
        name.append("\n" * (height + 1 - name.plain.count("\n")))
    return rows


def _widths(heads: Cells, rows: Sequence[Cells]) -> list[int]:
    """Measure each column by its longest line."""
    columns = zip(heads, *rows, strict=True)
    return [
        max(cell_len(line) for cell in column for line in cell.plain.split("\n"))
        for column in columns
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _laid_out(heads: Cells, rows: Sequence[Cells]) -> RichTable:
    shown = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for index, head in enumerate(heads):
        left = index == NAME_COLUMN
        shown.add_column(head, justify="left" if left else "right", no_wrap=True, overflow="fold")
    for cells in rows:
        shown.add_row(*cells)
    return shown


def _style(row: Row) -> str:
    return {"reference": "italic", "missing": "dim"}.get(row.status, "")


def _rank(row: Row) -> Text:
    return Text(rank_text(row), style="bold red" if row.stopped else "bold")


def _costs(row: Row) -> Cells:
    values = [
        count_text(row.parameters),
        count_text(row.trainable_parameters),
        duration_text(row.seconds),
        seeds_text(row.seeds),
    ]
    return [Text(value, style=_style(row)) for value in values]


def _line_heads(table: Table) -> Cells:
    heads = ["#", "experiment", "val"]
    for task in table.tasks:
        heads += [TASK_TITLES[task], "macro-F1"]
    return [Text(head) for head in (*heads, worst_heading(table))] + list(COST_HEADS)


def _line(table: Table, row: Row) -> Cells:
    """Put a row on one line."""
    values = [name_text(row), with_sd(row.val_combined, row.val_combined_sd)]
    for task in table.tasks:
        values += [accuracy_text(row.scores.get(task)), macro_f1_text(row.scores.get(task))]
    values.append(worst_text(row.worst))
    return [_rank(row), *(Text(value, style=_style(row)) for value in values), *_costs(row)]


def _block_heads(table: Table) -> Cells:
    heads = ["#", "experiment", "val", *(TASK_TITLES[task] for task in table.tasks)]
    worst = f"worst group\n({TASK_TITLES[table.tasks[0]]})"
    return [Text(head) for head in (*heads, worst)]


def _block(table: Table, row: Row) -> Cells:
    """Put a row on three lines: accuracy, interval, macro-F1."""
    style = _style(row)
    val = Text(percent(row.val_combined), style=style)
    if row.val_combined_sd is not None:
        val.append(f"\n±{percent(row.val_combined_sd)}", style="dim")
    scores = [_score_cell(row.scores.get(task), style) for task in table.tasks]
    name = Text(name_text(row), style=style)
    return [_rank(row), name, val, *scores, _worst_cell(row.worst, style)]


def _score_cell(score: TaskScore | None, style: str) -> Text:
    if score is None:
        return Text(NOTHING, style=style)
    cell = Text(with_sd(score.accuracy, score.accuracy_sd).replace("± ", "±"), style=style)
    cell.append(f"\n{span(score.low, score.high)}", style="dim")
    return cell.append(f"\nF1 {percent(score.macro_f1)}", style="dim")


def _worst_cell(worst: WorstGroup | None, style: str) -> Text:
    if worst is None:
        return Text(NOTHING, style=style)
    cell = Text(f"{percent(worst.accuracy)} (n {worst.n})", style=style)
    cell.append(f"\n{span(worst.low, worst.high)}", style="dim")
    return cell.append(f"\n{worst.group}", style="dim")


def _name_and_costs(row: Row, room: int) -> Text:
    """Write a name in lines of at most `room`, and below it what the run cost."""
    pieces = (("LEAKY-" if row.leaky else "") + row.name).replace("-", "-\0").split("\0")
    cell = Text("\n".join(_broken(pieces, room)), style=_style(row))
    if row.status == "missing":
        cell.append("\nmissing")
    if row.status == "done":
        seeds = f"{len(row.seeds)} seed{'' if len(row.seeds) == 1 else 's'}"
        costs = [seeds, count_text(row.trainable_parameters), duration_text(row.seconds)]
        lines = _broken([f"{cost} · " for cost in costs], room + len(" · "))
        cell.append("\n" + "\n".join(line.removesuffix(" · ") for line in lines), style="dim")
    return cell


def _broken(pieces: Sequence[str], room: int) -> list[str]:
    """Join pieces into lines of at most `room`; a longer piece has a line of its own."""
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece) > room:
            lines.append("")
        lines[-1] += piece
    return lines
