"""One table model, and how it is written: terminal, Markdown, LaTeX, HTML, CSV.

What a table shows is decided where it is made; the renderers only lay it out. Nothing here knows
of runs or loads pandas, so that every command may import it.
"""

import csv
import dataclasses
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    least: int = 18
    """Characters that a wrapped text keeps at least."""
    about: str = ""
    """What the heading means, for a page's tooltip."""
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
    """In a terminal, in rich's words: `bold`, `dim`, `red`."""

    @classmethod
    def parted(cls, text: str) -> "Cell":
        """Part a number from its interval: `71.2 (69.4–73.0)`."""
        words, _, note = text.removesuffix(")").partition(" (")
        return cls(words, note) if text.endswith(")") else cls(text)

    @property
    def whole(self) -> str:
        """The text with its note, on one line."""
        return f"{self.text} ({self.note})" if self.note else self.text


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
    ) -> "Table":
        """Make a table of texts, or of cells where a text is not enough."""
        made = (
            row
            if isinstance(row, TableRow)
            else TableRow(tuple(c if isinstance(c, Cell) else Cell(c) for c in row))
            for row in rows
        )
        columns = (h if isinstance(h, Column) else Column(h) for h in headings)
        return cls(tuple(columns), tuple(made), title)

    def is_left(self, index: int) -> bool:
        """Whether a column's cells begin at the left."""
        left = self.columns[index].left
        if left is not None:
            return left
        texts = {row.cells[index].text for row in self.rows} - {"", NOTHING}
        return not all(NUMBER.fullmatch(text) for text in texts)

    @property
    def name_column(self) -> int:
        """The column that names the row."""
        named = [index for index, column in enumerate(self.columns) if column.names]
        left = [index for index in range(len(self.columns)) if self.is_left(index)]
        return next(iter((*named, *left)), 0)

    def keeping(self, parts: Iterable[str]) -> "Table":
        """Keep the columns without a part, and those of `parts` in which some row has something."""
        return self.where(lambda column: not column.part or column.part in parts)

    def where(self, wanted: Callable[[Column], bool]) -> "Table":
        """Keep the columns that are wanted; of those with a part, where some row has something."""
        kept = [
            index
            for index, column in enumerate(self.columns)
            if wanted(column)
            and (not column.part or any(self.has(row, index) for row in self.rows))
        ]
        rows = (
            dataclasses.replace(row, cells=tuple(row.cells[index] for index in kept))
            for row in self.rows
        )
        columns = tuple(self.columns[index] for index in kept)
        return dataclasses.replace(self, columns=columns, rows=tuple(rows))

    @staticmethod
    def has(row: TableRow, index: int) -> bool:
        """Whether a row has anything in a column."""
        return row.cells[index].text not in ("", NOTHING)

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
"""Characters that the names of rows keep at least."""
SHORTEST_HEADING: Final = 10
"""Characters on a line of a heading, even where the cells are narrower."""
ROW_STYLES: Final = {"reference": "italic", "missing": "dim", "total": "bold"}


def terminal(table: Table, width: int) -> Group:
    """Lay a table out for a terminal of `width` columns, in the first form that fits.

    Notes of cells beside them; notes beneath; columns with `below` under the row's name as well.
    Then names are broken at their hyphens.
    """
    name = table.name_column
    for between, is_narrow, gap in (
        (" ", False, 2),
        ("\n", False, 2),
        ("\n", True, 2),
        ("\n", True, 1),
    ):
        shown = [i for i, c in enumerate(table.columns) if not (is_narrow and c.below)]
        rows = [[_text(row, row.cells[i], between) for i in shown] for row in table.rows]
        widths = [_width(table, i, [r[n].plain for r in rows]) for n, i in enumerate(shown)]
        spare = width - sum(widths) - gap * (len(widths) - 1)
        if spare >= min(0, SHORTEST_NAME - widths[shown.index(name)]) * is_narrow:
            break
    at = shown.index(name)
    if spare < 0 or is_narrow:
        widths[at] = max(widths[at] + spare, SHORTEST_NAME)
    for place, index in enumerate(shown):
        if table.columns[index].fold and spare > 0:
            longest = max((cell_len(row.cells[index].whole) for row in table.rows), default=0)
            more = max(0, min(longest - widths[place], spare))
            widths[place], spare = widths[place] + more, spare - more
    for row, cells in zip(table.rows, rows, strict=True):
        below = [
            cell.whole
            for column, cell in zip(table.columns, row.cells, strict=True)
            if is_narrow and column.below and cell.text not in ("", NOTHING)
        ]
        cells[at] = _name(row, cells[at], below, widths[at])
    headings = [table.columns[index].heading for index in shown]
    parts: list[RenderableType] = [Text(table.title, style="bold")] if table.title else []
    if any(headings):
        lines = [Text(broken(h, w)) for h, w in zip(headings, widths, strict=True)]
        parts.append(_grid(table, shown, widths, gap, [lines], "bold"))
    following = iter(rows)
    for section, members in table.sections():
        parts += ["", Text(section, style="bold underline")] if section else []
        ours = [next(following) for _ in members]
        parts.append(_grid(table, shown, widths, gap, ours))
    return Group(*parts)


def _text(row: TableRow, cell: Cell, between: str) -> Text:
    words = cell.text if between == " " else cell.text.replace(" ± ", "\n±")
    text = Text(words, style=cell.style or ROW_STYLES.get(row.status, ""))
    if cell.note:
        beside = between == " "
        note = f" ({cell.note})" if beside else "\n" + cell.note.replace(", ", "\n")
        text.append(note, style="dim")
    return text


def _name(row: TableRow, text: Text, below: Sequence[str], width: int) -> Text:
    """Break a row's name to its column, and set what goes beneath it there."""
    first, *notes = text.plain.split("\n")
    name = Text(broken(first, width), style=text.style)
    pieces = [piece for note in notes for piece in note.split(" · ")] + list(below)
    line = ""
    for piece in pieces:
        joined = f"{line} · {piece}" if line else piece
        if line and cell_len(joined) > width:
            name.append(f"\n{line}", style="dim")
            joined = piece
        line = joined
    return name.append(f"\n{broken(line, width)}", style="dim") if line else name


def _width(table: Table, index: int, texts: Sequence[str]) -> int:
    """Measure a column by its longest line, or as far as it must not be wrapped."""
    longest = max((cell_len(line) for text in texts for line in text.split("\n")), default=0)
    if table.columns[index].fold:
        longest = min(longest, table.columns[index].least)
    heading = broken(table.columns[index].heading, max(longest, SHORTEST_HEADING))
    return max(longest, *(cell_len(line) for line in heading.split("\n")))


def _grid(
    table: Table,
    shown: Sequence[int],
    widths: Sequence[int],
    gap: int,
    rows: Sequence[Sequence[Text]],
    style: str = "",
) -> RichTable:
    grid = RichTable(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_header=False)
    for index, width in zip(shown, widths, strict=True):
        grid.add_column(
            justify="left" if table.is_left(index) else "right",
            width=width,
            vertical="bottom" if style else "top",
            overflow="fold",
        )
    for cells in rows:
        grid.add_row(*cells, style=style or None)
    return grid


def markdown(table: Table) -> str:
    """Write a table as GitHub Markdown: title, rows by section, numbered notes."""
    lines = [f"### {markdown_text(table.title)}", ""] if table.title else []
    for section, members in table.sections():
        lines += [f"**{markdown_text(section)}**", ""] if section else []
        # What no row of a section has needs no column there.
        kept = [
            index
            for index in range(len(table.columns))
            if index == table.name_column or any(table.has(row, index) for row in members)
        ]
        lines.append(_markdown_line(table.columns[index].heading for index in kept))
        lines.append(f"|{'|'.join('---' if table.is_left(index) else '--:' for index in kept)}|")
        for row in members:
            cells = (row.cells[index] for index in kept)
            lines.append(_markdown_line(cell.whole + _marks(cell) for cell in cells))
        lines.append("")
    lines += [f"{number}. {markdown_text(note)}" for number, note in enumerate(table.notes, 1)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _marks(cell: Cell) -> str:
    return "".join(f" [{mark}]" for mark in cell.marks)


def _markdown_line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(map(markdown_text, texts)) + " |"


def markdown_text(text: str) -> str:
    """Keep text of any origin from breaking a Markdown table or being read as HTML."""
    flat = " ".join(text.split())
    return flat.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


LATEX_PACKAGES: Final = "\\usepackage{booktabs} and \\usepackage{graphicx}"
LATEX_WIDTH: Final = 26
"""Characters on a line of a name, in LaTeX."""


def latex(table: Table) -> str:
    """Write a table as a LaTeX `table`, captioned by its title; needs LATEX_PACKAGES.

    Narrow enough to be read on a page: a cell's note stands smaller below it.
    """
    left = [table.is_left(index) for index in range(len(table.columns))]
    headings = (
        _latex_stack(broken(column.heading, 14).split("\n"), left=is_left, side="b")
        for column, is_left in zip(table.columns, left, strict=True)
    )
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(table.title)}}}",
        "\\setlength{\\tabcolsep}{4pt}",
        # Made narrower where it is too wide, and never wider than it is.
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{''.join('l' if is_left else 'r' for is_left in left)}}}",
        "\\toprule",
        f"{' & '.join(headings)} \\\\",
    ]
    for section, members in table.sections():
        lines.append("\\midrule")
        if section:
            heading = f"\\multicolumn{{{len(left)}}}{{l}}{{\\textit{{{latex_text(section)}}}}}"
            lines.append(f"{heading} \\\\\n\\addlinespace")
        rows = [
            " & ".join(_latex_cell(c, left=s) for c, s in zip(row.cells, left, strict=True))
            for row in members
        ]
        lines.append(" \\\\\n\\addlinespace\n".join(rows) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}}"]
    if table.notes:
        notes = (f"[{n}] {latex_text(note)}\\par" for n, note in enumerate(table.notes, 1))
        lines += ["\\par\\smallskip", "\\footnotesize\\raggedright", *notes]
    return "\n".join([*lines, "\\end{table}"])


def _latex_cell(cell: Cell, *, left: bool) -> str:
    text = f"{cell.text}{_marks(cell)}"
    lines = broken(text, LATEX_WIDTH).split("\n") if left else [text]
    return _latex_stack([*lines, *(cell.note.split(", ") if cell.note else ())], left=left)


def _latex_stack(lines: Sequence[str], *, left: bool, side: str = "t") -> str:
    """Set lines below each other, in a cell whose own line is the first (t) or the last (b)."""
    written = [latex_text(line) for line in lines]
    if len(written) == 1:
        return written[0]
    # What belongs to a number is smaller than it; a name or a heading is of one size.
    if not left and side == "t":
        written[1:] = [f"\\scriptsize {line}" for line in written[1:]]
    column = f"@{{}}{'l' if left else 'r'}@{{}}"
    return f"\\begin{{tabular}}[{side}]{{{column}}}" + "\\\\".join(written) + "\\end{tabular}"


# fmt: off
LATEX_SIGNS: Final = {
    "\\": "\\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "|": "\\textbar{}",
    "<": "\\textless{}", ">": "\\textgreater{}", "−": "$-$", "±": "$\\pm$", "×": "$\\times$",
    "–": "--", "·": "$\\cdot$", "’": "'", "“": "``", "”": "''", "…": "\\dots{}",
}
# fmt: on
"""What LaTeX reads as a command, and what pdflatex may not know, as it writes them."""
_LATEX_SIGN: Final = re.compile("|".join(map(re.escape, LATEX_SIGNS)))


def latex_text(text: str) -> str:
    """Write any text so that LaTeX shows it as it is; commands stand between backticks."""
    parts = re.split("`([^`]*)`", " ".join(text.split()))
    written = [_LATEX_SIGN.sub(lambda found: LATEX_SIGNS[found[0]], part) for part in parts]
    written[1::2] = [f"\\texttt{{{command}}}" for command in written[1::2]]
    return "".join(written)


def csv_text(
    rows: Iterable[Mapping[str, Any]], names: Sequence[str], plain: Callable[[Any], Any]
) -> str:
    """Write values by column name as CSV, each as `plain` gives it."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: plain(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


@functools.cache
def template(name: str) -> "jinja2.Template":
    """Load a page of benchmark/reporting/templates; `table.html` has the macro for a Table."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmark.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["commands"] = _with_code
    return environment.get_template(name)


def _with_code(text: str) -> str:
    """Set what stands between backticks as code, and lines below each other."""
    from markupsafe import Markup, escape

    parts: list[str] = [escape(part) for part in re.split("`([^`]*)`", text)]
    parts[1::2] = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup("").join(parts).replace("\n", Markup("<br>"))
