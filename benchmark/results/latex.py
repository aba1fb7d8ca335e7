"""A leaderboard as LaTeX for booktabs: narrow enough to be read on a page.

What is on one line elsewhere stands below each other: a number, its interval, its macro-F1.
Remarks are notes below the table.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import pandas as pd

from benchmark.results.board import HEADINGS, Leaderboard
from benchmark.results.cells import NOTHING, broken, broken_name, setting_text, title_of
from benchmark.results.grids import MACRO_F1, REMARKS, Cell, Grid, Head, document_grids

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
