"""A leaderboard in the terminal, in the roomiest of three forms that fits its width.

One line a row; three lines a row, costs in columns; three lines a row, costs below the name.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.cli.leaderboard_beside import (
    COST_HEADS,
    cost_cells,
    costs_table,
    differences_table,
    origin_sentence,
)
from benchmark.cli.leaderboard_layout import Cells, laid_out, total, widths
from benchmark.cli.leaderboard_layout import bullet as bullet
from benchmark.comparison.cells import (
    NOTHING,
    accuracy_text,
    broken,
    broken_name,
    combined_text,
    count_text,
    duration_text,
    gap_text,
    macro_f1_text,
    name_text,
    percent,
    rank_text,
    remarks_of,
    setting_text,
    span,
    title_of,
    with_sd,
    worst_heading,
    worst_text,
)
from benchmark.comparison.leaderboard import HEADINGS, ONE_SEED, Leaderboard, Table
from benchmark.comparison.rows import CombinedScore, GroupGap, Row, TaskScore, WorstGroup
from benchmark.tasks import TASK_TITLES

READING: Final = (
    "Percent of test faces read right, with 95 % interval; # ranks by validation (val)."
)
READING_COSTS: Final = (
    "With each name: seeds, parameters that were trained, time to train a run. Gap: best group "
    "minus worst / what chance alone gives."
)
SHORTEST_NAME: Final = 18
"""Characters a name gets at least; longer names are broken at their hyphens."""
NAME_COLUMN: Final = 1
LEFT: Final = (NAME_COLUMN,)


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
        beside = differences_table(table, width)
        parts += ["", beside] if beside else []
        remarks = [bullet(remark) for remark in _remarks(table)]
        parts += ["", *remarks] if remarks else []
    costs = costs_table(board, width)
    if costs is not None:
        parts += ["", Text("What they cost", style="bold underline"), costs]
        parts += ["", bullet(origin_sentence(board))]
    notes = (READING, READING_COSTS, *board.notes)
    parts += ["", Text("How to read it", style="bold"), *(bullet(note) for note in notes)]
    parts += ["", Text("What these numbers are not", style="bold")]
    parts += [bullet(text) for text in board.limits]
    return Group(*parts)


def _remarks(table: Table) -> Iterator[str]:
    """Give the rows' remarks, equal ones once; that a row has one seed stands in its cells."""
    names: dict[str, list[str]] = {}
    for row in table.rows:
        said = [remark for remark in remarks_of(row) if remark != ONE_SEED]
        if said:
            label = "missing, " if row.status == "missing" else ""
            run_ids = f" ({_run_ids(row)})" if _is_ad_hoc(row) and row.identities else ""
            names.setdefault(label + "; ".join(said), []).append(row.name + run_ids)
    for remark, rows in names.items():
        yield f"{', '.join(rows)}: {remark}"


def _is_ad_hoc(row: Row) -> bool:
    return any(remark.startswith("ad hoc: ") for remark in row.remarks)


def _run_ids(row: Row) -> str:
    """Name an ad-hoc row's runs, which tell it from others of its experiment."""
    return "run " + ", ".join(identity[:12] for identity in row.identities)


def _fitting(table: Table, width: int) -> RichTable:
    """Take the first form that breaks no cell; the last one breaks names at hyphens."""
    lines = [_line(table, row) for row in table.rows]
    if total(widths(_line_heads(table), lines)) <= width:
        return laid_out(_line_heads(table), lines, LEFT)
    roomy = [_block(table, row, roomy=True) for row in table.rows]
    if total(widths(_block_heads(table, roomy=True), roomy)) <= width:
        return laid_out(_block_heads(table, roomy=True), _spaced(roomy), LEFT)
    heads, blocks = _block_heads(table), [_block(table, row) for row in table.rows]
    measured = widths(heads, blocks)
    room = max(width - total(measured) + measured[NAME_COLUMN], SHORTEST_NAME)
    for row, cells in zip(table.rows, blocks, strict=True):
        cells[NAME_COLUMN] = _name_and_costs(row, room)
    return laid_out(heads, _spaced(blocks), LEFT)


def _spaced(rows: Sequence[Cells]) -> Sequence[Cells]:
    """Part rows by an empty line."""
    for cells in rows[:-1]:
        height = max(cell.plain.count("\n") for cell in cells)
        name = cells[NAME_COLUMN]
        name.append("\n" * (height + 1 - name.plain.count("\n")))
    return rows


def _style(row: Row) -> str:
    return {"reference": "italic", "missing": "dim"}.get(row.status, "")


def _rank(row: Row) -> Text:
    return Text(rank_text(row), style="bold red" if row.stopped else "bold")


def _costs(row: Row) -> Cells:
    return [Text(value, style=_style(row)) for value in cost_cells(row)]


def _line_heads(table: Table) -> Cells:
    heads = ["#", "experiment", "val"]
    for task in table.tasks:
        heads += [TASK_TITLES[task], "macro-F1"]
    heads += ["combined"] if len(table.tasks) > 1 else []
    return [Text(head) for head in (*heads, worst_heading(table), "gap", *COST_HEADS)]


def _line(table: Table, row: Row) -> Cells:
    """Put a row on one line."""
    name = name_text(row) + (f"\n{_run_ids(row)}" if _is_ad_hoc(row) and row.identities else "")
    values = [name, with_sd(row.val_combined, row.val_combined_sd)]
    for task in table.tasks:
        values += [accuracy_text(row.scores.get(task)), macro_f1_text(row.scores.get(task))]
    values += [combined_text(row.combined)] if len(table.tasks) > 1 else []
    values += [worst_text(row.worst), gap_text(row.gap)]
    return [_rank(row), *(Text(value, style=_style(row)) for value in values), *_costs(row)]


def _block_heads(table: Table, *, roomy: bool = False) -> Cells:
    heads = ["#", "experiment", "val", *(TASK_TITLES[task] for task in table.tasks)]
    heads += ["combined"] if roomy and len(table.tasks) > 1 else []
    heads.append(f"worst group\n({TASK_TITLES[table.tasks[0]]})")
    return [Text(head) for head in (*heads, *(COST_HEADS if roomy else ()))]


def _block(table: Table, row: Row, *, roomy: bool = False) -> Cells:
    """Put a row on lines below each other: accuracy, interval, macro-F1.

    roomy: with the combined score and with costs in columns of their own.
    """
    style = _style(row)
    val = Text(percent(row.val_combined), style=style)
    if row.val_combined_sd is not None:
        val.append(f"\n±{percent(row.val_combined_sd)}", style="dim")
    scores = [_score_cell(row.scores.get(task), style) for task in table.tasks]
    scores += [_combined_cell(row.combined, style)] if roomy and len(table.tasks) > 1 else []
    name = Text(name_text(row), style=style)
    if _is_ad_hoc(row) and row.identities:
        name.append("\n" + _run_ids(row).replace(", ", ",\n"), style="dim")
    cells = [_rank(row), name, val, *scores]
    return [*cells, _worst_cell(row.worst, row.gap, style), *(_costs(row) if roomy else ())]


def _combined_cell(score: CombinedScore | None, style: str) -> Text:
    if score is None:
        return Text(NOTHING, style=style)
    cell = Text(with_sd(score.value, score.sd).replace("± ", "±"), style=style)
    if score.low is not None and score.high is not None:
        cell.append(f"\n{span(score.low, score.high)}", style="dim")
    return cell


def _score_cell(score: TaskScore | None, style: str) -> Text:
    if score is None:
        return Text(NOTHING, style=style)
    cell = Text(with_sd(score.accuracy, score.accuracy_sd).replace("± ", "±"), style=style)
    cell.append(f"\n{span(score.low, score.high)}", style="dim")
    return cell.append(f"\nF1 {percent(score.macro_f1)}", style="dim")


def _worst_cell(worst: WorstGroup | None, gap: GroupGap | None, style: str) -> Text:
    if worst is None:
        return Text(NOTHING, style=style)
    cell = Text(f"{percent(worst.accuracy)} (n {worst.n})", style=style)
    cell.append(f"\n{span(worst.low, worst.high)}", style="dim")
    cell.append(f"\n{worst.group}", style="dim")
    if gap is not None:
        cell.append(f"\ngap {percent(gap.gap)}/{percent(gap.chance)}", style="dim")
    return cell


def _name_and_costs(row: Row, room: int) -> Text:
    """Write a name in lines of at most `room`, and below it what the run cost."""
    name = ("LEAKY-" if row.leaky else "") + row.name
    cell = Text(broken_name(name, room), style=_style(row))
    if row.status == "missing":
        cell.append("\nmissing")
    if _is_ad_hoc(row) and row.identities:
        cell.append("\n" + _run_ids(row).replace(", ", ",\n"), style="dim")
    if row.status == "done":
        seeds = f"{len(row.seeds)} seed{'' if len(row.seeds) == 1 else 's'}"
        costs = [seeds, count_text(row.trainable_parameters), duration_text(row.seconds)]
        lines = broken([f"{cost} · " for cost in costs], room + len(" · "))
        cell.append("\n" + "\n".join(line.removesuffix(" · ") for line in lines), style="dim")
    return cell
