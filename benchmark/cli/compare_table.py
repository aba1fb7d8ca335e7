"""A comparison in the terminal: the arms by themselves, then the differences, pair by pair.

Two forms: with room, a task is one line; without, macro-F1 stands below accuracy and the verdict
is broken into lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.comparison.cells import (
    NOTHING,
    accuracy_text,
    seeds_text,
    setting_text,
    span,
    with_sd,
)
from benchmark.comparison.pairs import Comparison, ComparisonTable, GroupScores
from benchmark.comparison.rows import TaskScore
from benchmark.comparison.verdicts import (
    COUNTERPARTS,
    Line,
    by_group,
    by_pair,
    p_text,
    test_text,
    verdict_text,
)
from benchmark.reporting.comparison_tables import difference_text, title_of
from benchmark.tasks import TASK_TITLES

GAP: Final = 2
"""Spaces between two columns."""
INDENT: Final = 2
SHORTEST_VERDICT: Final = 24
"""Characters that a verdict gets at least."""
SHORTEST_NAME: Final = 18
STYLES: Final = {"better": "green", "worse": "red", "no significant difference": ""}


def render(comparison: Comparison, width: int) -> Group:
    """Arrange a comparison for a terminal of `width` columns, 80 or more."""
    style = "bold yellow" if comparison.drawn else "bold"
    parts: list[RenderableType] = [Text(title_of(comparison), style=style)]
    settings = dict.fromkeys(standing.group.setting for standing in comparison.groups)
    parts += [Text(setting_text(setting), style="dim") for setting in settings]
    parts += ["", _groups(comparison, width)]
    parts += [_bullet(f"{group.label}: missing, {group.why}") for group in comparison.absent]
    for table in comparison.tables:
        parts += ["", *_differences(table, width)]
    parts += ["", Text("How to read it", style="bold"), *map(_bullet, comparison.notes)]
    parts += ["", Text("What these numbers are not", style="bold")]
    return Group(*parts, *map(_bullet, comparison.limits))


def _bullet(text: str) -> RenderableType:
    row = RichTable.grid(padding=(0, 1, 0, 0))
    row.add_row("·", Text(text))
    return Padding(row, (0, 0, 0, 1))


def _groups(comparison: Comparison, width: int) -> RichTable:
    """Show each arm's accuracy: one line an arm where that fits, the interval below if not."""
    tasks = comparison.tasks
    heads = ["test accuracy, %", "seeds", *(TASK_TITLES[task] for task in tasks)]
    names = [_name(standing) for standing in comparison.groups]
    seeds = [seeds_text(standing.group.seeds) for standing in comparison.groups]
    scores = [[item.scores.get(task) for item in comparison.groups] for task in tasks]
    lines = [names, seeds, *([accuracy_text(score) for score in column] for column in scores)]
    if _total(_widths(heads, lines)) > width:
        blocks = [names, seeds, *([_two_lines(score) for score in column] for column in scores)]
        widths = _widths(heads, blocks)
        room = max(width - _total(widths) + widths[0], SHORTEST_NAME)
        lines = [[_broken(name, room) for name in names], *blocks[1:]]
    table = _empty(show_header=True)
    for index, head in enumerate(heads):
        justify = "right" if index > 1 else "left"
        table.add_column(head, justify=justify, no_wrap=True, overflow="fold")  # type: ignore[arg-type]
    for cells in zip(*lines, strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _name(standing: GroupScores) -> str:
    return f"{standing.group.label}{' (LEAKY)' if standing.group.leaky else ''}"


def _two_lines(score: TaskScore | None) -> str:
    if score is None:
        return NOTHING
    mean = with_sd(score.accuracy, score.accuracy_sd).replace("± ", "±")
    return f"{mean}\n{span(score.low, score.high)}"


def _broken(name: str, room: int) -> str:
    """Break a name at hyphens and spaces into lines of at most `room`, a longer piece by itself."""
    lines = [""]
    for piece in name.replace("-", "-\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > room:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


@dataclass(frozen=True)
class _Form:
    """How the differences of a table are laid out: the columns and how wide they are."""

    heads: tuple[str, ...]
    widths: tuple[int, ...]
    one_line: bool


def _differences(table: ComparisonTable, width: int) -> list[RenderableType]:
    """Show one table: pair by pair, then what it says in words and what is missing."""
    parts: list[RenderableType] = [Text(table.title, style="bold underline")]
    if table.lines:
        form = _form(table.lines, width)
        parts.append(_block(form, []))
        pairs = by_group(table.lines) if table.kind == "twins" else by_pair(table.lines)
        for lines in pairs:
            parts += [*_pair_heading(table, lines), _block(form, lines)]
        parts += [Text(table.family, style="dim"), ""]
    parts += [Text(sentence) for sentence in table.sentences]
    return [*parts, *map(_bullet, table.gap_sentences)]


def _pair_heading(table: ComparisonTable, lines: Sequence[Line]) -> list[Text]:
    reference = COUNTERPARTS if table.kind == "twins" else lines[0].reference.label
    how = test_text(lines[0])
    if any(test_text(line) != how for line in lines):
        how = "; ".join(f"{TASK_TITLES[line.task]}: {test_text(line)}" for line in lines)
    heading = [Text(lines[0].group.label, style="bold"), Text(f"against {reference}")]
    return [*heading, Text(how, style="dim")]


def _form(lines: Sequence[Line], width: int) -> _Form:
    """Take one line a task where that fits, else two lines and a verdict in a narrow column."""
    roomy = ("", "accuracy, pp", "macro-F1, pp", "p", "Holm", "verdict")
    widths = _widths(roomy, _columns([_one_line(line) for line in lines]))
    if INDENT + _total(widths) <= width:
        return _Form(roomy, tuple(widths), one_line=True)
    narrow = ("", "difference, pp", "p", "Holm", "verdict")
    widths = _widths(narrow, _columns([_stacked(line) for line in lines]))
    widths[-1] = max(width - INDENT - _total(widths) + widths[-1], SHORTEST_VERDICT)
    return _Form(narrow, tuple(widths), one_line=False)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return list(zip(*rows, strict=True))


def _one_line(line: Line) -> tuple[str, ...]:
    accuracy, macro_f1 = _texts(line)
    numbers = (p_text(line.difference.p), p_text(line.p_holm))
    return (TASK_TITLES[line.task], accuracy, macro_f1, *numbers, verdict_text(line))


def _stacked(line: Line) -> tuple[str, ...]:
    accuracy, macro_f1 = _texts(line)
    numbers = (p_text(line.difference.p), p_text(line.p_holm))
    task = f"{TASK_TITLES[line.task]}\n  macro-F1"
    return (task, f"{accuracy}\n{macro_f1}", *numbers, verdict_text(line))


def _texts(line: Line) -> tuple[str, str]:
    found = line.difference
    return (
        difference_text(found.accuracy, found.low, found.high),
        difference_text(found.macro_f1, found.macro_f1_low, found.macro_f1_high),
    )


def _block(form: _Form, lines: Sequence[Line]) -> RenderableType:
    """Lay out some lines in the columns of `form`; the headings alone where there are none."""
    table = _empty(show_header=not lines)
    for index, (head, width) in enumerate(zip(form.heads, form.widths, strict=True)):
        table.add_column(head, width=width, no_wrap=index < len(form.heads) - 1)
    for line in lines:
        cells = _one_line(line) if form.one_line else _stacked(line)
        styles = [""] * (len(cells) - 1) + [STYLES[line.verdict]]
        table.add_row(*map(Text, cells, styles))
    return Padding(table, (0, 0, 0, INDENT))


def _empty(*, show_header: bool) -> RichTable:
    return RichTable(
        box=None,
        padding=(0, GAP, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_header=show_header,
    )


def _widths(heads: Sequence[str], columns: Sequence[Sequence[str]]) -> list[int]:
    """Measure each column by its longest line."""
    return [
        max(cell_len(line) for cell in (head, *column) for line in cell.split("\n"))
        for head, column in zip(heads, columns, strict=True)
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)
