"""What stands below the scores in a terminal: differences to other rows, and what rows cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table as RichTable
from rich.text import Text

from benchmark.cli.leaderboard_layout import Cells, laid_out, total, widths
from benchmark.comparison.cells import (
    NOTHING,
    broken_name,
    count_text,
    difference_text,
    duration_text,
    ends_text,
    memory_text,
    name_text,
    number_text,
    percent,
    seeds_text,
)
from benchmark.comparison.leaderboard import Leaderboard, Table
from benchmark.comparison.rows import Row, RowComparison
from benchmark.tasks import TASK_TITLES, TaskName

SHORTEST_NAME: Final = 16
TOGETHER: Final = "together"

Outcomes = dict[TaskName | None, RowComparison]


def differences_table(table: Table, width: int) -> RichTable | None:
    """Set each row against its counterparts, what it is compared with, the first row and the study.

    One line a cell where that fits, else three; None where there is nothing to set against.
    """
    tasks: list[TaskName | None] = list(table.tasks)
    together = len(tasks) > 1 and any(
        outcome.difference and outcome.task is None
        for row in table.rows
        for outcome in row.comparisons
    )
    if together:
        tasks.append(None)
    heads = [Text("difference in pp"), *(Text(_title(task)) for task in tasks)]
    for between in (" ", "\n"):
        lines = list(_lines(table, tasks, between))
        measured = widths(heads, [[Text(line.first), *line.cells] for line in lines])
        if total(measured) <= width:
            break
    room = max(width - total(measured) + measured[0], SHORTEST_NAME)
    return laid_out(heads, [line.broken(room) for line in lines], left=(0,)) if lines else None


def _title(task: TaskName | None) -> str:
    return TASK_TITLES[task] if task else TOGETHER


@dataclass(frozen=True)
class _Line:
    """A row's name, where it stands first, who it is set against, and the outcomes."""

    name: str
    label: str
    cells: Cells

    @property
    def first(self) -> str:
        """Name and label below each other."""
        return f"{self.name}\n  {self.label}" if self.name else f"  {self.label}"

    def broken(self, room: int) -> Cells:
        """Break the name to fit, and set the outcomes beside the label, not beside the name."""
        name = broken_name(self.name, room).split("\n") if self.name else []
        label = broken_name(self.label, room - 2).replace("\n", "\n  ")
        first = Text("\n".join([*name, f"  {label}"]))
        return [first, *(Text("\n" * len(name)).append(cell) for cell in self.cells)]


def _lines(table: Table, tasks: Sequence[TaskName | None], between: str) -> Iterator[_Line]:
    for row in table.rows:
        name = name_text(row)
        for label, cells in _comparisons(table, row, tasks, between):
            # The row is named once, above the first that it is set against.
            yield _Line(name, label, cells)
            name = ""


def _comparisons(
    table: Table, row: Row, tasks: Sequence[TaskName | None], between: str
) -> Iterator[tuple[str, Cells]]:
    found: dict[str, Outcomes] = {}
    for outcome in row.comparisons:
        if outcome.difference is not None:
            found.setdefault(_label(table, outcome), {})[_column(table, outcome)] = outcome
    for label, outcomes in found.items():
        yield label, [_cell(outcomes.get(task), between) for task in tasks]
    if row.study is not None:
        printed = [getattr(row.study, task) if task else None for task in tasks]
        texts = [percent(value) if value is not None else NOTHING for value in printed]
        yield f"study's row {row.study.row} printed", [Text(text, style="dim") for text in texts]


def _label(table: Table, outcome: RowComparison) -> str:
    if outcome.kind == "twin":
        return "to its STL counterparts" if table.kind == "mtl" else "to its MTL counterpart"
    return "to the first row" if outcome.kind == "first" else f"to {outcome.other}"


def _column(table: Table, outcome: RowComparison) -> TaskName | None:
    """Place what is told of all tasks together; of one task there is no other column."""
    return table.tasks[0] if len(table.tasks) == 1 else outcome.task


def _cell(outcome: RowComparison | None, between: str) -> Text:
    if outcome is None:
        return Text(NOTHING, style="dim")
    cell = Text(difference_text(outcome), style="bold" if outcome.significant else "")
    ends, _, p = ends_text(outcome).partition(", ")
    small = f"({ends}), {p}" if between == " " else f"{ends.replace(' to ', ', ')}\n{p}"
    return cell.append(f"{between}{small}", style="dim")


COST_HEADS: Final = (
    *("para-\nmeters", "trained", "GMACs", "time", "images\n/s", "memory", "seeds"),
)


def cost_cells(row: Row) -> list[str]:
    """Say what a row cost, in the order of COST_HEADS."""
    return [
        count_text(row.parameters),
        count_text(row.trainable_parameters),
        number_text(row.gmacs),
        duration_text(row.seconds),
        number_text(row.images_per_second),
        memory_text(row.peak_memory_mib),
        seeds_text(row.seeds),
    ]


def costs_table(board: Leaderboard, width: int) -> RichTable | None:
    """Say what every finished row of a leaderboard cost; None where none is finished."""
    rows = {
        row.name + " ".join(row.identities): row
        for table in board.tables
        for row in table.rows
        if row.status == "done"
    }
    heads = [Text("experiment"), *(Text(head) for head in COST_HEADS)]
    lines = [
        [Text(name_text(row)), *(Text(text) for text in cost_cells(row))] for row in rows.values()
    ]
    if not lines:
        return None
    measured = widths(heads, lines)
    room = max(width - total(measured) + measured[0], SHORTEST_NAME)
    for cells in lines:
        cells[0] = Text(broken_name(cells[0].plain, room))
    return laid_out(heads, lines, left=(0,))


def origin_sentence(board: Leaderboard) -> str:
    """Say on what devices and by which commits the finished rows were trained."""
    rows = [row for table in board.tables for row in table.rows if row.status == "done"]
    devices = dict.fromkeys(device for row in rows for device in row.devices)
    precisions = dict.fromkeys(precision for row in rows for precision in row.precisions)
    commits = dict.fromkeys(commit[:12] for row in rows for commit in row.commits)
    return (
        f"Trained on {'; '.join(devices)}, in {', '.join(precisions) or 'unknown precision'}; "
        f"commit {', '.join(commits)}."
    )
