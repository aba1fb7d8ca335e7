"""How a leaderboard's tables are set in a terminal: widths, broken names, no line but the text."""

from collections.abc import Collection, Sequence
from typing import Final

from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

GAP: Final = 2
"""Spaces between two columns."""

Cells = list[Text]


def widths(heads: Cells, rows: Sequence[Cells]) -> list[int]:
    """Measure each column by its longest line."""
    columns = zip(heads, *rows, strict=True)
    return [
        max(cell_len(line) for cell in column for line in cell.plain.split("\n"))
        for column in columns
    ]


def total(measured: Sequence[int]) -> int:
    """Add up columns and the gaps between them."""
    return sum(measured) + GAP * (len(measured) - 1)


def laid_out(heads: Cells, rows: Sequence[Cells], left: Collection[int]) -> RichTable:
    """Set a table; columns numbered in `left` begin at the left, all others end at the right."""
    shown = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for index, head in enumerate(heads):
        side = "left" if index in left else "right"
        shown.add_column(head, justify=side, no_wrap=True, overflow="fold")  # type: ignore[arg-type]
    for cells in rows:
        shown.add_row(*cells)
    return shown


def bullet(text: str) -> Padding:
    """Set a sentence as a point of a list, its further lines under its first."""
    row = RichTable.grid(padding=(0, 1, 0, 0))
    row.add_row("·", Text(text))
    return Padding(row, (0, 0, 0, 1))
