"""A leaderboard as GitHub Markdown; other forms have their own rooms.

The terminal's table is in benchmark.cli.leaderboard_table, the HTML page in
benchmark.results.leaderboard_page, LaTeX in .latex, CSV and JSON in .columns.
"""

from collections.abc import Iterator

from benchmark.results.board import HEADINGS, Leaderboard
from benchmark.results.cells import setting_text, title_of
from benchmark.results.columns import csv_text as csv_text
from benchmark.results.columns import flat_rows as flat_rows
from benchmark.results.grids import Grid, document_grids


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
