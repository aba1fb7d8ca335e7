"""A leaderboard as tables: its columns, what stands in their cells, and its forms as documents."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from benchmark.comparison import wording as words
from benchmark.comparison.leaderboard import HEADINGS, ONE_SEED, BoardTable, Leaderboard
from benchmark.comparison.library import Setting, counted
from benchmark.comparison.rows import CombinedScore, GroupGap, Row, TaskScore, WorstGroup
from benchmark.comparison.statistics import Judged
from benchmark.comparison.wording import percent, span, with_sd
from benchmark.errors import and_more
from benchmark.reporting import tables as forms
from benchmark.reporting.columns import READING as STUDY_READING
from benchmark.reporting.columns import study_table
from benchmark.reporting.tables import NOTHING, Cell, Column, Table, TableRow, markdown_text
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

PARTS: Final = {"scores": "More scores", "cost": "Costs", "origin": "Seeds, device, commit"}
"""Columns that stand beside those always shown, by what a page calls them."""
COSTS: Final = ("experiment", "parameters", "time")
"""Columns always shown that a document's table of costs has too."""
READING: Final = "Test accuracy in percent with its 95 % interval; # ranks by validation (val)."
MOST_NAMES: Final = 3

Links = Mapping[str, tuple[tuple[str, str], ...]]
"""Words and addresses of a run's folder and card, by its identity."""


def by_setting(board: Leaderboard) -> list[tuple[str, list[BoardTable]]]:
    """Group a leaderboard's tables by what their rows have in common, in words."""
    found: dict[Setting, list[BoardTable]] = defaultdict(list)
    for table in board.tables:
        found[table.setting].append(table)
    return [(words.setting_text(setting), tables) for setting, tables in found.items()]


def footnotes(row: Row) -> tuple[str, ...]:
    """Give the remarks that stand below the table: not what a row's own cells say."""
    if row.status == "missing":
        return ()
    found = row.all_remarks
    return tuple(r for r in found if r != ONE_SEED and not r.startswith(words.AD_HOC))


def board_table(tables: Sequence[BoardTable], links: Links | None = None) -> Table:
    """Lay out tables of one setting below each other, all parts of all rows; remarks are notes."""
    tasks = [task for task in TASKS if any(task in table.tasks for table in tables)]
    remarks = list(dict.fromkeys(r for t in tables for row in t.rows for r in footnotes(row)))
    worst = tables[0].worst_heading if len(tables) == 1 else "worst subgroup"
    columns = [
        Column("#", False),
        Column("experiment", True),
        Column("val", False, about="validation accuracy, which ranks"),
        *(Column(TASK_TITLES[task], False) for task in tasks),
        Column(worst, False, about="of 30 faces or more"),
        Column("parameters", False, below=True),
        Column("time", False, below=True, about="to train a run"),
        Column("seeds", False, below=True),
        *(Column(f"{TASK_TITLES[task]} macro-F1", False, "scores") for task in tasks),
        Column("combined", False, "scores", about="0.4 age group + 0.2 gender + 0.4 race"),
        Column("gap", False, "scores", about="highest minus lowest accuracy of a group"),
        *(Column(f"study's {TASK_TITLES[task]}", False, "scores") for task in tasks),
        Column("trained", False, "cost", about="parameters that are trained"),
        *(Column(heading, False, "cost") for heading in ("GMACs", "images/s", "memory")),
        *(Column(name, True, "origin", below=True) for name in ("seeds run", "device", "commit")),
    ]
    rows = [
        TableRow(
            tuple(_cells(row, tasks, remarks, links or {})),
            HEADINGS[table.kind] + (f" · {table.worst_heading}" if len(tables) > 1 else ""),
            row.status + " leaky" * row.leaky + " stopped" * row.stopped,
        )
        for table in tables
        for row in table.rows
    ]
    return Table(tuple(columns), tuple(rows), notes=tuple(remarks))


def _cells(
    row: Row, tasks: Sequence[TaskName], remarks: Sequence[str], links: Links
) -> Iterator[Cell]:
    """Give a row's cells, in the order of `board_table`'s columns."""
    n, low, both, gap = len(row.seeds), row.worst, row.combined, row.gap
    # What a network does not predict is empty; what was not measured is a dash.
    scores, empty = [row.scores.get(task) for task in tasks], Cell("" if row.scores else NOTHING)
    rank = row.rank_text or NOTHING
    yield Cell(rank, "", row.rank, style="bold" + " red" * row.stopped)
    yield _name(row, remarks, links)
    yield Cell(with_sd(row.val_combined, row.val_combined_sd), value=row.val_combined)
    for s in scores:
        yield _rate(s, s.accuracy, s.accuracy_sd) if s else empty
    yield _rate(low, low.accuracy, None, f" (n {low.n})", low.group) if low else Cell()
    yield Cell(words.count_text(row.parameters), value=row.parameters)
    yield Cell(words.duration_text(row.seconds), value=row.seconds)
    yield Cell(f"{n} seed{'s' * (n > 1)}", value=n) if n else Cell()
    for s in scores:
        yield Cell(with_sd(s.macro_f1, s.macro_f1_sd), value=s.macro_f1) if s else empty
    yield _rate(both, both.value, both.sd) if both else Cell()
    yield _rate(gap, gap.gap, None, "", f"permuted {percent(gap.chance)}") if gap else Cell()
    for task in tasks:
        printed = getattr(row.study, task, None)
        yield Cell() if printed is None else Cell(f"LEAKY {percent(printed)}", "", printed)
    yield Cell(words.count_text(row.trainable_parameters), value=row.trainable_parameters)
    for number in (row.gmacs, row.images_per_second):
        yield Cell(words.number_text(number), value=number)
    yield Cell(words.memory_text(row.peak_memory_mib), value=row.peak_memory_mib)
    commits = [commit[:12] for commit in row.commits]
    for texts in (row.seeds, (*row.devices, *row.precisions), commits):
        text = ", ".join(map(str, texts))
        yield Cell(text or NOTHING, value=text or None)


def _rate(
    score: TaskScore | CombinedScore | WorstGroup | GroupGap, rate: float, sd: float | None,
    after: str = "", beneath: str = "",
) -> Cell:  # fmt: skip
    """Write a rate, its score's interval beneath it; `after` and `beneath` stand after either."""
    ends = "" if score.low is None or score.high is None else span(score.low, score.high)
    return Cell(with_sd(rate, sd) + after, ", ".join(filter(None, (ends, beneath))), rate)


def _name(row: Row, remarks: Sequence[str], links: Links) -> Cell:
    """Write a row's name; beneath it the reason why it is missing, or an ad-hoc row's changes."""
    changes = [r.removeprefix(words.AD_HOC) for r in row.remarks if r.startswith(words.AD_HOC)]
    note = "; ".join(row.remarks) if row.status == "missing" else ""
    if changes and not note:
        runs = ", ".join(identity[:12] for identity in row.identities)
        note = f"run {runs} · {changes[0].replace(', ', ' · ')}"
    found = tuple(link for identity in row.identities for link in links.get(identity, ()))
    marks = tuple(1 + remarks.index(remark) for remark in footnotes(row))
    return Cell(row.title, note, row.name, found, marks)


def differences_table(tables: Sequence[BoardTable]) -> Table:
    """Set each row beside what it is compared with; no row where there is nothing of the kind."""
    tasks = [task for task in TASKS if any(task in table.tasks for table in tables)]
    columns = [Column("difference, pp", True)]
    columns += [Column(TASK_TITLES[task], False, "differences") for task in tasks]
    columns.append(Column("together", False, "differences"))
    rows = []
    for table in tables:
        counterpart = f"to its {'STL' if table.kind == 'mtl' else 'MTL'} counterpart"
        labels = {"first": "to the first row", "counterpart": counterpart}
        for row in table.rows:
            found: dict[str, dict[TaskName | None, Cell]] = defaultdict(dict)
            for outcome in row.comparisons:
                if (judged := outcome.judged) is not None:
                    label = labels.get(outcome.kind, f"to {outcome.other}")
                    # Of one task there is no other column.
                    task = table.tasks[0] if len(table.tasks) == 1 else outcome.task
                    found[label][task] = _difference(judged)
            for label, cells in found.items():
                name = Cell(row.title, label, row.name)
                line = (name, *(cells.get(task, Cell("")) for task in (*tasks, None)))
                rows.append(TableRow(line, HEADINGS[table.kind]))
    return Table(tuple(columns), tuple(rows), "Differences").keeping(("differences",))


def _difference(judged: Judged) -> Cell:
    """Write a difference in points, `*` where it is significant, its interval and corrected p."""
    found = judged.difference
    mark, style = (words.SIGNIFICANT, "bold") if judged.significant else ("", "")
    note = f"{words.points_span(found.low, found.high)}, p {words.p_text(judged.p_holm)}"
    return Cell(f"{words.points(found.accuracy)}{mark}", note, found.accuracy, style=style)


def document_tables(tables: Sequence[BoardTable]) -> list[Table]:
    """Divide tables of one setting into those that a page's width can bear: scores, the rest."""
    whole = board_table(tables)
    scores, costs = whole.keeping(("scores",)), whole.keeping(("cost", "origin"), COSTS)
    measured = tuple(row for row in scores.rows if row.status != "missing")
    done = tuple(row for row in costs.rows if row.status.startswith("done"))
    scores = dataclasses.replace(scores, rows=measured)
    costs = dataclasses.replace(costs, rows=done, title="Costs", notes=())
    return [table for table in (scores, differences_table(tables), costs) if table.rows]


def not_run(board: Leaderboard) -> Iterator[str]:
    """Say which experiments were not run and why, a sentence a reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in (row for table in board.tables for row in table.rows if row.status == "missing"):
        reasons["; ".join(row.remarks)].append(row.name)
    for reason, names in reasons.items():
        yield f"{counted(len(names), 'experiment')} not run, {listed(names)}: {reason}"


def listed(names: Sequence[str]) -> str:
    """List the first names, and count the others."""
    return and_more(names, MOST_NAMES)


def markdown(board: Leaderboard) -> str:
    """Write the leaderboard as GitHub Markdown, in percent."""
    lines = [f"# {markdown_text(board.title)}", ""]
    if (study := study_table(board)).rows:
        lines += [markdown_text(STUDY_READING), "", forms.markdown(study)]
    lines += [READING, ""]
    for setting, tables in by_setting(board):
        lines += [markdown_text(setting), "", *map(forms.markdown, document_tables(tables))]
    reading = (*not_run(board), *board.notes)
    for title, notes in (("How to read it", reading), ("Limitations", board.limits)):
        if notes:
            lines += [f"## {title}", "", *(f"- {markdown_text(note)}" for note in notes), ""]
    return "\n".join(lines)


def latex(board: Leaderboard) -> str:
    """Write the tables as LaTeX, one `table` each; \\input it where they shall stand."""
    title = board.title
    parts = [f"% {title}", f"% Needs {forms.LATEX_PACKAGES}."]
    for setting, tables in by_setting(board):
        for table in document_tables(tables):
            caption = ". ".join(filter(None, (title, table.title, setting)))
            parts.append(forms.latex(dataclasses.replace(table, title=caption)))
    notes = (*not_run(board), *board.notes, *board.limits)
    return "\n".join([*parts, *(f"% {' '.join(text.split())}" for text in notes), ""])


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
    said = {"title": board.title, "reading": READING, "study_reading": STUDY_READING}
    return forms.template("leaderboard.html").render(
        **said, board=board, study=study_table(board), settings=made, parts=parts
    )
