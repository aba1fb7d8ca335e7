"""A leaderboard as text for documents: GitHub Markdown and LaTeX; other forms have their own rooms.

The terminal's table is in benchmark.cli.leaderboard_table, the HTML page in
benchmark.results.leaderboard_page, CSV and JSON in benchmark.results.columns.
"""

import re
from collections.abc import Iterator
from typing import Final

import pandas as pd

from benchmark.results.board import HEADINGS, Leaderboard, Table
from benchmark.results.cells import setting_text, title_of
from benchmark.results.columns import csv_text as csv_text
from benchmark.results.columns import flat_rows as flat_rows
from benchmark.results.grids import PART_TITLES, Grid, Part, grid_of

DOCUMENT_PARTS: Final[tuple[tuple[Part, ...], ...]] = (
    ("scores", "remarks"),
    ("against",),
    ("cost", "origin"),
)
"""What stands side by side: one table of a document is as wide as a page can bear."""


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
        for title, grid in _grids(table):
            lines += [f"### {title}", ""] if title else []
            lines += [*_markdown_table(grid), ""]
    if board.notes:
        lines += ["## How to read it", "", *(f"- {_cell(note)}" for note in board.notes), ""]
    lines += ["## What these numbers are not", "", *(f"- {text}" for text in board.limits), ""]
    return "\n".join(lines)


def _grids(table: Table) -> Iterator[tuple[str, Grid]]:
    """Divide a table into those that stand below each other; the scores need no title."""
    whole = grid_of(table)
    for parts in DOCUMENT_PARTS:
        if any(whole.has(part) for part in parts):
            title = "" if parts[0] == "scores" else PART_TITLES[parts[0]]
            yield title, whole.of(*parts)


def _markdown_table(grid: Grid) -> Iterator[str]:
    yield "| " + " | ".join(_cell(head.label) for head in grid.heads) + " |"
    yield "|" + "|".join("---" if head.left else "--:" for head in grid.heads) + "|"
    for line in grid.lines:
        yield "| " + " | ".join(_cell(cell.whole) for cell in line) + " |"


def _cell(text: str) -> str:
    """Keep text of any origin from breaking a Markdown table or being read as HTML."""
    flat = " ".join(text.split())
    return flat.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


LATEX_SIGNS: Final = {
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


def latex(board: Leaderboard) -> str:
    """Write the tables as LaTeX for booktabs, one `table` each; \\input it where they shall stand.

    Needs \\usepackage{booktabs} and \\usepackage{graphicx}, which fits each to the page's width.
    """
    parts = [
        f"% {_comment(title_of(board))}",
        "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.",
    ]
    for table in board.tables:
        for title, grid in _grids(table):
            heading = f"{HEADINGS[table.kind]}{f': {title.lower()}' if title else ''}"
            caption = f"{title_of(board)}. {heading}. {setting_text(table.setting)}"
            parts.append(_latex_table(grid, caption))
    parts += [f"% {_comment(text)}" for text in (*board.notes, *board.limits)]
    return "\n".join(parts) + "\n"


def _latex_table(grid: Grid, caption: str) -> str:
    # Labels may repeat (two tasks' intervals), so that columns go by number until they are shown.
    frame = pd.DataFrame([[cell.whole for cell in line] for line in grid.lines])
    frame.columns = pd.Index([head.label for head in grid.heads])
    styler = frame.style.hide(axis="index").format(_latex_text)
    styler = styler.format_index(_latex_text, axis="columns")
    aligned = "".join("l" if head.left else "r" for head in grid.heads)
    tabular = styler.to_latex(hrules=True, column_format=aligned)
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_latex_text(caption)}}}",
        "\\resizebox{\\textwidth}{!}{%",
        f"{tabular.rstrip()}}}",
        "\\end{table}",
    ]
    return "\n".join(["", *lines])


LATEX_SPECIAL: Final = {
    "\\": "\\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
}
SIGNS: Final = re.compile("|".join(map(re.escape, (*LATEX_SPECIAL, *LATEX_SIGNS))))


def _latex_text(text: object) -> str:
    """Write any text so that LaTeX shows it as it is."""
    written = LATEX_SPECIAL | LATEX_SIGNS
    flat = " ".join(str(text).split())
    return SIGNS.sub(lambda found: written[found[0]], flat)


def _comment(text: str) -> str:
    """Keep a text on the line of its comment."""
    return " ".join(text.split())
