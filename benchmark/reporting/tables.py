"""One table model, and how it is written: terminal, Markdown, LaTeX, HTML, CSV.

What a table shows is decided where it is made; the renderers only lay it out. Nothing here knows
of runs or loads pandas, so that every command may import it.
"""

import base64
import functools
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    import jinja2

NOTHING: Final = "–"
"""Stands where there is no value."""
NUMBER: Final = re.compile(
    r"[+−<-]?[\d.,]+(e-?\d+)?\*?( ± [\d.,]+)?( ?[%A-Za-z/]{1,6})?( \(.*\))?", re.DOTALL
)
"""A number with its sign, standard deviation, unit and interval."""


@dataclass(frozen=True)
class Column:
    """A heading, and how the cells below it are set."""

    heading: str
    left: bool | None = None
    """Whether cells begin at the left; None: unless all of them are numbers."""
    part: str = ""
    """The group of columns that a page shows and hides together; empty: always shown."""
    below: bool = False
    """Whether its cells go below the row's name where the width does not suffice."""
    fold: bool = False
    """Whether its texts are long, and wrapped between words."""
    names: bool = False
    """Whether it names the row; if no column does, the first one of text."""


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str = NOTHING
    note: str = ""
    """An interval, a count: what belongs to the text, in parentheses or smaller beneath it."""
    value: float | str | None = None
    """What a page sorts it by; a cell without one stands last."""
    links: tuple[tuple[str, str], ...] = ()
    """Words and addresses beneath the text of a page."""
    marks: tuple[int, ...] = ()
    """Which of the table's notes belong to it, counted from 1; not in a terminal."""
    style: str = ""
    """In a terminal, in rich's words: `bold`, `dim`, `red`; of a page's matrix, the colour."""

    @classmethod
    def parted(cls, text: str) -> "Cell":
        """Part a number from its interval: `71.2 (69.4–73.0)`."""
        words, _, note = text.removesuffix(")").partition(" (")
        return cls(words, note) if text.endswith(")") else cls(text)

    @property
    def whole(self) -> str:
        """The text with its note, on one line."""
        return f"{self.text} ({self.note})" if self.note else self.text

    @property
    def marked(self) -> str:
        """The same with the numbers of its notes."""
        return self.whole + "".join(f" [{mark}]" for mark in self.marks)

    @property
    def is_there(self) -> bool:
        return self.text not in ("", NOTHING)


@dataclass(frozen=True)
class TableRow:
    """Cells in the order of the columns."""

    cells: tuple[Cell, ...]
    section: str = ""
    """A heading above this row and those after it that have the same."""
    status: str = ""
    """How the row is set apart: a class of a page, and a style of ROW_STYLES."""


@dataclass(frozen=True)
class Table:
    """Rows below headings, and notes that cells refer to."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    title: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        headings: Iterable[str | Column],
        rows: Iterable[TableRow | Sequence[str | Cell]],
        title: str = "",
        notes: Iterable[str] = (),
    ) -> "Table":
        """Make a table of texts, or of cells where a text is not enough."""
        made = (
            row
            if isinstance(row, TableRow)
            else TableRow(tuple(c if isinstance(c, Cell) else Cell(c) for c in row))
            for row in rows
        )
        columns = (h if isinstance(h, Column) else Column(h) for h in headings)
        return cls(tuple(columns), tuple(made), title, tuple(notes))

    def is_left(self, index: int) -> bool:
        """Whether a column's cells begin at the left."""
        if self.columns[index].left is not None:
            return bool(self.columns[index].left)
        cells = (row.cells[index] for row in self.rows)
        return not all(NUMBER.fullmatch(cell.text) for cell in cells if cell.is_there)

    @property
    def name_column(self) -> int:
        """The column that names the row."""
        named = [index for index, column in enumerate(self.columns) if column.names]
        left = [index for index in range(len(self.columns)) if self.is_left(index)]
        return next(iter((*named, *left)), 0)

    def keeping(self, parts: Iterable[str], headings: Iterable[str] = ()) -> "Table":
        """Keep the columns without a part (or those of `headings`), and those of `parts` in which
        some row has something."""
        kept = [
            i
            for i, column in enumerate(self.columns)
            if (column.part in parts and any(row.cells[i].is_there for row in self.rows))
            or (not column.part and (not headings or column.heading in headings))
        ]
        rows = (replace(row, cells=tuple(row.cells[i] for i in kept)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=tuple(rows))

    def sections(self) -> list[tuple[str, list[TableRow]]]:
        """Part the rows by the headings above them; one part without a heading where none has."""
        grouped = itertools.groupby(self.rows, lambda row: row.section)
        return [(section, list(rows)) for section, rows in grouped]


def broken(text: str, width: int) -> str:
    """Break a text at spaces, hyphens and = into lines of at most `width`; a longer piece stays."""
    lines = [""]
    for piece in re.findall(r"[^\s=-]*[\s=-]?", text):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip(" ") for line in lines)


SHORTEST_NAME: Final = 18
"""Characters that the names of rows keep at least, if they have so many; so do wrapped texts."""
SHORTEST_HEADING: Final = 8
"""Characters on a line of a heading, even where the cells are narrower."""
ROW_STYLES: Final = {"reference": "italic", "missing": "dim"}
FORMS: Final = ((True, False, 2), (False, False, 2), (False, True, 2), (False, True, 1))
"""Whether cells' notes stand beside them, whether columns with `below` go below the row's name,
and the characters between columns."""


def terminal(table: Table, width: int) -> Group:
    """Lay a table out for a terminal of `width` columns, in the first of FORMS that fits; in the
    last, names are broken at their hyphens, and at spaces what is widest."""
    name = table.name_column
    for is_beside, is_narrow, gap in FORMS:
        shown = [i for i, c in enumerate(table.columns) if not (is_narrow and c.below)]
        rows = [{i: _text(row, row.cells[i], is_beside) for i in shown} for row in table.rows]
        widths = {i: _width(table.columns[i], [row[i] for row in rows]) for i in shown}
        spare = width - sum(widths.values()) - gap * (len(widths) - 1)
        if spare >= min(0, SHORTEST_NAME - widths[name]) * is_narrow:
            break
    if spare < 0 or is_narrow:
        widths[name] = max(widths[name] + spare, min(widths[name], SHORTEST_NAME))
    for i in sorted(shown, key=lambda i: -widths[i]):
        if (over := sum(widths.values()) + gap * (len(widths) - 1) - width) > 0:
            texts = [table.columns[i].heading.replace("-", " "), *(row[i].plain for row in rows)]
            longest = max(cell_len(piece) for piece in [*" ".join(texts).split(), ""])
            widths[i] = max(min(longest, widths[i]), widths[i] - over)
    for i in (i for i in shown if table.columns[i].fold):
        longest = max((cell_len(row.cells[i].whole) for row in table.rows), default=0)
        more = max(0, min(longest - widths[i], spare))
        widths[i], spare = widths[i] + more, spare - more
    for row, cells in zip(table.rows, rows, strict=True):
        first, *beneath = cells[name].plain.split("\n")
        if is_narrow:
            pairs = zip(table.columns, row.cells, strict=True)
            beneath += [cell.whole for c, cell in pairs if c.below and cell.is_there]
        cells[name] = Text(broken(first, widths[name]), style=cells[name].style)
        if beneath:
            cells[name].append("\n" + broken(" · ".join(beneath), widths[name]), style="dim")
    headings = {i: Text(broken(table.columns[i].heading, widths[i])) for i in shown}
    parts: list[RenderableType] = [Text(table.title, style="bold")] if table.title else []
    if any(table.columns[i].heading for i in shown):
        parts.append(_grid(table, widths, gap, [headings], "bold"))
    following = iter(rows)
    for section, members in table.sections():
        parts += ["", Text(section, style="bold underline")] if section else []
        parts.append(_grid(table, widths, gap, [next(following) for _ in members]))
    return Group(*parts)


def _text(row: TableRow, cell: Cell, is_beside: bool) -> Text:
    words = cell.text if is_beside else cell.text.replace(" ± ", "\n±")
    text = Text(words, style=cell.style or ROW_STYLES.get(row.status, ""))
    if cell.note:
        note = f" ({cell.note})" if is_beside else "\n" + cell.note.replace(", ", "\n")
        text.append(note, style="dim")
    return text


def _width(column: Column, texts: Sequence[Text]) -> int:
    """Measure a column by its longest line, or as far as it must not be wrapped."""
    longest = max((cell_len(line) for t in texts for line in t.plain.split("\n")), default=0)
    if column.fold:
        longest = min(longest, SHORTEST_NAME)
    heading = broken(column.heading, max(longest, SHORTEST_HEADING))
    return max(longest, *(cell_len(line) for line in heading.split("\n")))


def _grid(
    table: Table, widths: Mapping[int, int], gap: int, rows: Sequence[Any], style: str = ""
) -> RichTable:
    grid = RichTable(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_header=False)
    vertical: Any = "bottom" if style else "top"
    for index, width in widths.items():
        justify: Any = "left" if table.is_left(index) else "right"
        grid.add_column(justify=justify, width=width, vertical=vertical, overflow="fold")
    for cells in rows:
        grid.add_row(*cells.values(), style=style or None)
    return grid


def markdown(table: Table) -> str:
    """Write a table as GitHub Markdown: title, rows by section, numbered notes."""

    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(map(markdown_text, texts)) + " |"

    columns, name = range(len(table.columns)), table.name_column
    lines = [f"### {markdown_text(table.title)}", ""] if table.title else []
    for section, members in table.sections():
        lines += [f"**{markdown_text(section)}**", ""] if section else []
        # What no row of a section has needs no column there.
        kept = [i for i in columns if i == name or any(row.cells[i].is_there for row in members)]
        lines.append(line(table.columns[i].heading for i in kept))
        lines.append(f"|{'|'.join('---' if table.is_left(i) else '--:' for i in kept)}|")
        lines += [line(row.cells[i].marked for i in kept) for row in members]
        lines.append("")
    lines += [f"{number}. {markdown_text(note)}" for number, note in enumerate(table.notes, 1)]
    return "\n".join(lines).rstrip("\n") + "\n"


def markdown_text(text: str) -> str:
    """Keep text of any origin from breaking a Markdown table or being read as HTML.

    Backticks stay: a sentence of ours has commands between them. `tracking.notes.plain` is for
    names and values, in which they are letters, and `_`, `[` and `#` are too.
    """
    flat = " ".join(text.split())
    return flat.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


LATEX_PACKAGES: Final = "\\usepackage{booktabs} and \\usepackage{graphicx}"
LATEX_WIDTH: Final = 26
"""Characters on a line of a name, in LaTeX."""
LATEX_HEAD: Final = r"""\begin{table}
\centering
\caption{%s}
\setlength{\tabcolsep}{4pt}
%% Made narrower where it is too wide, and never wider than it is.
\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%%
\begin{tabular}{%s}
\toprule"""


def latex(table: Table) -> str:
    """Write a table as a LaTeX `table`, captioned by its title; needs LATEX_PACKAGES."""
    sides = ["l" if table.is_left(index) else "r" for index in range(len(table.columns))]

    def stack(text: str, side: str) -> str:
        lines = "\\\\".join(map(latex_text, text.split("\n")))
        stacked = f"\\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{lines}\\end{{tabular}}"
        return stacked if "\n" in text else lines

    def line(cells: Iterable[str]) -> str:
        return " & ".join(map(stack, cells, sides)) + " \\\\"

    def lines(cell: Cell) -> str:
        text = replace(cell, note="").marked
        return "\n".join([broken(text, LATEX_WIDTH), *filter(None, cell.note.split(", "))])

    found = [LATEX_HEAD % (latex_text(table.title), "".join(sides))]
    found.append(line(broken(column.heading, 14) for column in table.columns))
    for section, members in table.sections():
        heading = f"\\multicolumn{{{len(sides)}}}{{l}}{{\\textit{{{latex_text(section)}}}}} \\\\"
        found += ["\\midrule", *([heading] if section else [])]
        for row in members:
            found += ["\\addlinespace", line(map(lines, row.cells))]
    found += ["\\bottomrule", "\\end{tabular}}"]
    if table.notes:
        found.append("\\par\\smallskip\\footnotesize\\raggedright")
        found += [f"[{n}] {latex_text(note)}\\par" for n, note in enumerate(table.notes, 1)]
    return "\n".join([*found, "\\end{table}"])


# fmt: off
LATEX_SIGNS: Final = str.maketrans({
    "\\": "\\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "|": "\\textbar{}",
    "<": "\\textless{}", ">": "\\textgreater{}", "−": "$-$", "±": "$\\pm$", "×": "$\\times$",
    "–": "--", "·": "$\\cdot$", "’": "'", "“": "``", "”": "''", "…": "\\dots{}",
})
# fmt: on
"""What LaTeX reads as a command, and what pdflatex may not know, as it writes them."""


def latex_text(text: str) -> str:
    """Write any text so that LaTeX shows it as it is; commands stand between backticks."""
    parts = " ".join(text.split()).split("`")
    written = [part.translate(LATEX_SIGNS) for part in parts]
    written[1::2] = [f"\\texttt{{{command}}}" for command in written[1::2]]
    return "".join(written)


@functools.cache
def environment() -> "jinja2.Environment":
    """Make what loads benchmark/reporting/templates; only pages are escaped as HTML."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmark.reporting"),
        autoescape=jinja2.select_autoescape(("html",)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"commands": _with_code, "sha256": _digest}
    return made


def template(name: str) -> "jinja2.Template":
    """Load a template; `table.html` has the macro for a Table, `base.html` the style and script of
    every page."""
    return environment().get_template(name)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _with_code(text: str) -> str:
    """Set what stands between backticks as code, and lines below each other."""
    from markupsafe import Markup, escape

    parts: list[str] = [escape(part) for part in text.split("`")]
    parts[1::2] = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup("").join(parts).replace("\n", Markup("<br>"))
