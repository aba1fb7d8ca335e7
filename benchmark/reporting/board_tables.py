"""A leaderboard as tables: its columns, what stands in their cells, and its forms as documents."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from benchmark.comparison.leaderboard import HEADINGS, ONE_SEED, BoardTable, Leaderboard
from benchmark.comparison.library import Setting
from benchmark.comparison.rows import Row, RowComparison
from benchmark.comparison.wording import (
    AD_HOC,
    SIGNIFICANT,
    count_text,
    duration_text,
    memory_text,
    name_text,
    number_text,
    p_text,
    percent,
    points,
    points_span,
    rank_text,
    remarks_of,
    seeds_text,
    setting_text,
    span,
    title_of,
    with_sd,
    worst_heading,
)
from benchmark.reporting.columns import READING as STUDY_READING
from benchmark.reporting.columns import study_table
from benchmark.reporting.tables import (
    LATEX_PACKAGES,
    NOTHING,
    Cell,
    Column,
    Table,
    TableRow,
    markdown_text,
    template,
)
from benchmark.reporting.tables import latex as latex_table
from benchmark.reporting.tables import markdown as markdown_table
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

PARTS: Final = {"scores": "More scores", "cost": "Costs", "origin": "Seeds, device, commit"}
"""Columns that stand beside those always shown, by what a page calls them."""
COSTS: Final = ("experiment", "parameters", "time")
"""Columns always shown that a document's table of costs has too."""
READING: Final = "Test accuracy in percent with its 95 % interval; # ranks by validation (val)."

Links = Mapping[str, tuple[tuple[str, str], ...]]
"""Words and addresses of a run's folder and card, by its identity."""


def by_setting(board: Leaderboard) -> list[tuple[str, list[BoardTable]]]:
    """Group a leaderboard's tables by what their rows have in common, in words."""
    found: dict[Setting, list[BoardTable]] = {}
    for table in board.tables:
        found.setdefault(table.setting, []).append(table)
    return [(setting_text(setting), tables) for setting, tables in found.items()]


def board_table(tables: Sequence[BoardTable], links: Links | None = None) -> Table:
    """Lay out tables of one setting below each other, all parts of all rows; remarks are notes."""
    remarks = list(dict.fromkeys(r for t in tables for row in t.rows for r in footnotes(row)))
    columns = dict(_columns(tables, remarks, links or {}))
    rows = [
        TableRow(
            tuple(cell(row) for cell in columns.values()),
            HEADINGS[table.kind]
            + (f" · worst {TASK_TITLES[table.tasks[0]]} subgroup" if len(tables) > 1 else ""),
            row.status + " leaky" * row.leaky + " stopped" * row.stopped,
        )
        for table in tables
        for row in table.rows
    ]
    return Table(tuple(columns), tuple(rows), notes=tuple(remarks))


def footnotes(row: Row) -> tuple[str, ...]:
    """Give the remarks that stand below the table: not what a row's own cells say."""
    if row.status == "missing":
        return ()
    return tuple(r for r in remarks_of(row) if r != ONE_SEED and not r.startswith(AD_HOC))


def _columns(
    tables: Sequence[BoardTable], remarks: Sequence[str], links: Links
) -> Iterator[tuple[Column, Callable[[Row], Cell]]]:
    """Give every column with what makes its cell of a row."""
    tasks = [task for task in TASKS if any(task in table.tasks for table in tables)]
    worst = worst_heading(tables[0]) if len(tables) == 1 else "worst subgroup"
    yield Column("#", left=False), _rank
    yield Column("experiment", left=True), partial(_name, remarks, links)
    yield (
        Column("val", left=False, about="validation accuracy, which ranks"),
        lambda row: _rate(row.val_combined, row.val_combined_sd),
    )
    for task in tasks:
        yield Column(TASK_TITLES[task], left=False), partial(_accuracy, task)
    yield Column(worst, left=False, about="of 30 faces or more"), _worst
    yield Column("parameters", left=False, below=True), _number("parameters", count_text)
    yield (
        Column("time", left=False, below=True, about="to train a run"),
        _number("seconds", duration_text),
    )
    yield Column("seeds", left=False, below=True), _n_seeds
    for task in tasks:
        yield Column(f"{TASK_TITLES[task]} macro-F1", False, "scores"), partial(_macro_f1, task)
    yield (
        Column("combined", False, "scores", about="0.4 age group + 0.2 gender + 0.4 race"),
        _combined,
    )
    yield Column("gap", False, "scores", about="highest minus lowest accuracy of a group"), _gap
    for task in tasks:
        yield Column(f"study's {TASK_TITLES[task]}", False, "scores"), partial(_printed, task)
    trained = _number("trainable_parameters", count_text)
    yield Column("trained", False, "cost", about="parameters that are trained"), trained
    yield Column("GMACs", False, "cost"), _number("gmacs", number_text)
    yield Column("images/s", False, "cost"), _number("images_per_second", number_text)
    yield Column("memory", False, "cost"), _number("peak_memory_mib", memory_text)
    yield Column("seeds run", True, "origin", below=True), lambda row: _words(seeds_text(row.seeds))
    yield (
        Column("device", True, "origin", below=True),
        lambda row: _words(", ".join((*row.devices, *row.precisions))),
    )
    yield (
        Column("commit", True, "origin", below=True),
        lambda row: _words(", ".join(commit[:12] for commit in row.commits)),
    )


def _rank(row: Row) -> Cell:
    style = "bold red" if row.stopped else "bold"
    return Cell(rank_text(row) or NOTHING, value=row.rank, style=style)


def _name(remarks: Sequence[str], links: Links, row: Row) -> Cell:
    """Write a row's name; beneath it the reason why it is missing, or an ad-hoc row's changes."""
    changes = [r.removeprefix(AD_HOC) for r in row.remarks if r.startswith(AD_HOC)]
    note = ""
    if row.status == "missing":
        note = "; ".join(row.remarks)
    elif changes:
        runs = ", ".join(identity[:12] for identity in row.identities)
        note = f"run {runs} · {changes[0].replace(', ', ' · ')}"
    found = [links.get(identity, ()) for identity in row.identities]
    return Cell(
        name_text(row),
        note,
        row.name,
        tuple(link for ours in found for link in ours),
        tuple(1 + remarks.index(remark) for remark in footnotes(row)),
    )


def _rate(value: float | None, sd: float | None, note: str = "") -> Cell:
    return Cell(with_sd(value, sd), note, value)


def _accuracy(task: TaskName, row: Row) -> Cell:
    score = row.scores.get(task)
    if score is None:
        return Cell("" if row.scores else NOTHING)
    return _rate(score.accuracy, score.accuracy_sd, span(score.low, score.high))


def _macro_f1(task: TaskName, row: Row) -> Cell:
    score = row.scores.get(task)
    return (
        _rate(score.macro_f1, score.macro_f1_sd) if score else Cell("" if row.scores else NOTHING)
    )


def _combined(row: Row) -> Cell:
    if row.combined is None:
        return Cell()
    value, low, high = row.combined.value, row.combined.low, row.combined.high
    note = "" if low is None or high is None else span(low, high)
    return _rate(value, row.combined.sd, note)


def _worst(row: Row) -> Cell:
    if row.worst is None:
        return Cell()
    worst = row.worst
    note = f"{span(worst.low, worst.high)}, {worst.group}"
    return Cell(f"{percent(worst.accuracy)} (n {worst.n})", note, worst.accuracy)


def _gap(row: Row) -> Cell:
    if row.gap is None:
        return Cell()
    note = f"{span(row.gap.low, row.gap.high)}, permuted {percent(row.gap.chance)}"
    return Cell(percent(row.gap.gap), note, row.gap.gap)


def _printed(task: TaskName, row: Row) -> Cell:
    printed = getattr(row.study, task, None)
    return Cell() if printed is None else Cell(f"LEAKY {percent(printed)}", "", printed)


def _number(name: str, text: Callable[[Any], str]) -> Callable[[Row], Cell]:
    return lambda row: Cell(text(getattr(row, name)), value=getattr(row, name))


def _n_seeds(row: Row) -> Cell:
    n = len(row.seeds)
    return Cell(f"{n} seed{'' if n == 1 else 's'}", value=n) if n else Cell()


def _words(text: str) -> Cell:
    return Cell(text or NOTHING, value=text or None)


def differences_table(tables: Sequence[BoardTable]) -> Table:
    """Set each row beside what it is compared with; no row where there is nothing of the kind."""
    tasks: list[TaskName | None] = [t for t in TASKS if any(t in table.tasks for table in tables)]
    rows = [
        TableRow((Cell(name_text(row), label, row.name), *cells), HEADINGS[table.kind])
        for table in tables
        for row in table.rows
        for label, cells in _comparisons(table, row, [*tasks, None])
    ]
    headings = [TASK_TITLES[task] if task else "together" for task in (*tasks, None)]
    columns = [Column(heading, False, "differences") for heading in headings]
    table = Table((Column("difference, pp", left=True), *columns), tuple(rows), "Differences")
    return table.keeping(("differences",))


def _comparisons(
    table: BoardTable, row: Row, tasks: Sequence[TaskName | None]
) -> Iterator[tuple[str, list[Cell]]]:
    found: dict[str, dict[TaskName | None, RowComparison]] = {}
    for outcome in row.comparisons:
        if outcome.difference is not None:
            label = f"to {outcome.other}"
            if outcome.kind == "first":
                label = "to the first row"
            elif outcome.kind == "twin":
                label = f"to its {'STL' if table.kind == 'mtl' else 'MTL'} counterpart"
            # Of one task there is no other column.
            task = table.tasks[0] if len(table.tasks) == 1 else outcome.task
            found.setdefault(label, {})[task] = outcome
    for label, outcomes in found.items():
        yield label, [_difference(outcomes.get(task)) for task in tasks]


def _difference(outcome: RowComparison | None) -> Cell:
    """Write a difference in points, `*` where it is significant, its interval and corrected p."""
    if outcome is None or outcome.judged is None:
        return Cell("")
    found = outcome.judged.difference
    mark = SIGNIFICANT if outcome.significant else ""
    note = f"{points_span(found.low, found.high)}, p {p_text(outcome.judged.p_holm)}"
    style = "bold" if outcome.significant else ""
    return Cell(f"{points(found.accuracy)}{mark}", note, found.accuracy, style=style)


def document_tables(tables: Sequence[BoardTable]) -> list[Table]:
    """Divide tables of one setting into those that a page's width can bear: scores, the rest."""
    whole = board_table(tables)
    costs = whole.keeping(("cost", "origin"), COSTS)
    done = tuple(row for row in costs.rows if row.status.startswith("done"))
    costs = dataclasses.replace(costs, rows=done, title="Costs", notes=())
    scores = whole.keeping(("scores",))
    measured = tuple(row for row in scores.rows if row.status != "missing")
    made = (dataclasses.replace(scores, rows=measured), differences_table(tables), costs)
    return [table for table in made if table.rows]


MOST_NAMES: Final = 3


def not_run(board: Leaderboard) -> Iterator[str]:
    """Say which experiments were not run and why, a sentence a reason."""
    reasons: dict[str, list[str]] = {}
    for row in (row for table in board.tables for row in table.rows):
        if row.status == "missing":
            reasons.setdefault("; ".join(row.remarks), []).append(row.name)
    for reason, names in reasons.items():
        what = "experiment" if len(names) == 1 else "experiments"
        yield f"{len(names)} {what} not run, {listed(names)}: {reason}"


def listed(names: Sequence[str]) -> str:
    """List the first names, and count the others."""
    named = ", ".join(names[:MOST_NAMES])
    return named if len(names) <= MOST_NAMES else f"{named} and {len(names) - MOST_NAMES} more"


def markdown(board: Leaderboard) -> str:
    """Write the leaderboard as GitHub Markdown, in percent."""
    lines = [f"# {markdown_text(title_of(board))}", ""]
    if (study := study_table(board)).rows:
        lines += [markdown_text(STUDY_READING), "", markdown_table(study)]
    lines += [READING, ""]
    for setting, tables in by_setting(board):
        lines += [markdown_text(setting), ""]
        lines += [markdown_table(table) for table in document_tables(tables)]
    reading = (*not_run(board), *board.notes)
    for title, notes in (("How to read it", reading), ("Limitations", board.limits)):
        if notes:
            lines += [f"## {title}", "", *(f"- {markdown_text(note)}" for note in notes), ""]
    return "\n".join(lines)


def latex(board: Leaderboard) -> str:
    """Write the tables as LaTeX, one `table` each; \\input it where they shall stand."""
    parts = [f"% {title_of(board)}", f"% Needs {LATEX_PACKAGES}."]
    for setting, tables in by_setting(board):
        for table in document_tables(tables):
            title = f"{title_of(board)}. {table.title}{'. ' if table.title else ''}{setting}"
            parts.append(latex_table(dataclasses.replace(table, title=title)))
    parts += [
        f"% {' '.join(text.split())}" for text in (*not_run(board), *board.notes, *board.limits)
    ]
    return "\n".join(parts) + "\n"


def page(board: Leaderboard, links: Links | None = None) -> str:
    """Write one HTML page that needs nothing else; the same leaderboard gives the same bytes."""
    made = [
        (setting, board_table(tables, links).keeping(PARTS), differences_table(tables))
        for setting, tables in by_setting(board)
    ]
    found = {column.part for _, table, _ in made for column in table.columns}
    parts = {name: title for name, title in PARTS.items() if name in found}
    if any(differences.rows for _, _, differences in made):
        parts["differences"] = "Differences"
    return template("leaderboard.html").render(
        title=title_of(board),
        reading=READING,
        study=study_table(board),
        study_reading=STUDY_READING,
        drawn=board.drawn,
        settings=made,
        parts=parts,
        notes=board.notes,
        limits=board.limits,
    )
