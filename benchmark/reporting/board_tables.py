"""Leaderboards, comparisons and studies as tables, and a leaderboard's forms as documents.

Rates are in percent and differences in percentage points (pp), with one decimal.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from benchmark.comparison import wording as words
from benchmark.comparison.leaderboard import HEADINGS, ONE_SEED, BoardTable, Leaderboard
from benchmark.comparison.library import Run, Setting, counted
from benchmark.comparison.rows import CombinedScore, GroupGap, Row, TaskScore, WorstGroup
from benchmark.comparison.statistics import PairResult
from benchmark.comparison.wording import StudyTable, TaskComparison, percent, span, with_sd
from benchmark.errors import and_more
from benchmark.reporting import tables as forms
from benchmark.reporting.tables import NOTHING, Cell, Column, Table, TableRow, markdown_text
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

PARTS: Final = {"scores": "More scores", "cost": "Costs", "origin": "Seeds, device, commit"}
"""Columns that stand beside those always shown, by what a page calls them."""
COSTS: Final = ("experiment", "parameters", "time")
"""Columns always shown that a document's table of costs has too."""
READING: Final = (
    "Test accuracy in percent with its 95 % interval; # ranks by weighted validation accuracy "
    "(val. acc.)."
)
STUDY_READING: Final = (
    "Test accuracy in percent: age group / gender / race. printed: by the study, on a split that "
    "puts about 80 % of its test faces into training, and so is LEAKY. leak-free: this benchmark, "
    "mean ± sd over seeds with its 95 % interval; one seed permits no claim about the experiment. "
    "replayed: the same network under the study's conditions, its leak included, and LEAKY."
)
STYLES: Final = {"better": "green", "worse": "red", "no significant difference": ""}

Links = Callable[[Run], tuple[tuple[str, str], ...]]
"""Gives words and addresses of a run's folder and card."""


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
    return tuple(r for r in row.all_remarks if r != ONE_SEED and not r.startswith(words.AD_HOC))


def board_table(tables: Sequence[BoardTable], links: Links = lambda _: ()) -> Table:
    """Lay out tables of one setting below each other, all parts of all rows; remarks are notes."""
    tasks = [task for task in TASKS if any(task in table.tasks for table in tables)]
    remarks = list(dict.fromkeys(r for t in tables for row in t.rows for r in footnotes(row)))
    worst = tables[0].worst_heading if len(tables) == 1 else "worst subgroup"
    columns, rows = tuple[Column, ...](), list[TableRow]()
    for table in tables:
        section = HEADINGS[table.kind] + (f" · {table.worst_heading}" if len(tables) > 1 else "")
        for row in table.rows:
            name = _name(row, remarks, links)
            columns, cells = zip(*_cells(row, tasks, worst, name), strict=True)
            status = row.status + " leaky" * row.leaky + " stopped" * row.stopped
            rows.append(TableRow(cells, section, status))
    return Table(columns, tuple(rows), notes=tuple(remarks))


def _cells(
    row: Row, tasks: Sequence[TaskName], worst: str, name: Cell
) -> Iterator[tuple[Column, Cell]]:
    """Give a row's cells, each with its column."""

    def number(
        heading: str, text: Callable[[Any], str], value: float | None, part: str = ""
    ) -> tuple[Column, Cell]:
        return Column(heading, False, part, below=not part), Cell(text(value), value=value)

    n, low, both, gap = len(row.seeds), row.worst, row.combined, row.gap
    # What a network does not predict is empty; what was not measured is a dash.
    scores = [(TASK_TITLES[task], row.scores.get(task)) for task in tasks]
    empty = Cell("" if row.scores else NOTHING)
    # Stopped by a red flag, or not significantly below the first.
    rank = "!" if row.stopped else f"{row.rank or ''}{'=' * row.tied}"
    style = "bold" + " red" * row.stopped
    yield Column("#", False), Cell(rank or NOTHING, "", row.rank, style=style)
    yield Column("experiment", True), name
    val = Cell(with_sd(row.val_combined, row.val_combined_sd), value=row.val_combined)
    yield Column("val. acc.", False), val
    for title, s in scores:
        yield Column(title, False), _rate(s, s.accuracy, s.accuracy_sd) if s else empty
    lowest = _rate(low, low.accuracy, None, f" (n {low.n})", low.group) if low else Cell()
    yield Column(worst, False), lowest
    yield number("parameters", words.count_text, row.parameters)
    yield number("time", words.duration_text, row.seconds)
    seeds = Cell(counted(n, "seed"), value=n) if n else Cell()
    yield Column("seeds", False, below=True), seeds
    for title, s in scores:
        f1 = Cell(with_sd(s.macro_f1, s.macro_f1_sd), value=s.macro_f1) if s else empty
        yield Column(f"{title} macro-F1", False, "scores"), f1
    together = _rate(both, both.value, both.sd) if both else Cell()
    yield Column("weighted acc.", False, "scores"), together
    widest = _rate(gap, gap.gap, None, "", f"permuted {percent(gap.chance)}") if gap else Cell()
    yield Column("gap", False, "scores"), widest
    for task in tasks:
        printed = getattr(row.study, task, None)
        cell = Cell() if printed is None else Cell(f"LEAKY {percent(printed)}", "", printed)
        yield Column(f"study's {TASK_TITLES[task]}", False, "scores"), cell
    yield number("trained", words.count_text, row.trainable_parameters, "cost")
    yield number("GMACs", words.number_text, row.gmacs, "cost")
    yield number("images/s", words.number_text, row.images_per_second, "cost")
    yield number("memory", words.memory_text, row.peak_memory_mib, "cost")
    for heading, texts in (
        ("seeds run", [*map(str, row.seeds)]),
        ("device", [*row.devices, *row.precisions]),
        ("commit", [commit[:12] for commit in row.commits]),
    ):
        text = ", ".join(texts)
        yield Column(heading, True, "origin", True), Cell(text or NOTHING, value=text or None)


def _rate(
    score: TaskScore | CombinedScore | WorstGroup | GroupGap, rate: float, sd: float | None,
    after: str = "", beneath: str = "",
) -> Cell:  # fmt: skip
    """Write a rate, its score's interval beneath it; `after` and `beneath` stand after either."""
    ends = "" if score.low is None or score.high is None else span(score.low, score.high)
    return Cell(with_sd(rate, sd) + after, ", ".join(filter(None, (ends, beneath))), rate)


def _name(row: Row, remarks: Sequence[str], links: Links) -> Cell:
    """Write a row's name; beneath it the reason why it was not run, or an ad-hoc row's changes."""
    note = "; ".join(row.remarks) if row.status == "missing" else ""
    changes = (r.removeprefix(words.AD_HOC) for r in row.remarks if r.startswith(words.AD_HOC))
    if not note and (changed := next(changes, "")):
        runs = ", ".join(identity[:12] for identity in row.identities)
        note = f"run {runs} · {changed.replace(', ', ' · ')}"
    found = tuple(link for run in row.runs for link in links(run))
    marks = tuple(1 + remarks.index(remark) for remark in footnotes(row))
    return Cell(row.title, note, row.name, found, marks)


def differences_table(tables: Sequence[BoardTable]) -> Table:
    """Set each row beside what it is compared with; no row where there is nothing of the kind."""
    titles = (*TASK_TITLES.values(), "together")
    columns = [Column(title, False, "differences") for title in titles]
    rows = []
    for table in tables:
        counterpart = f"to its {'STL' if table.kind == 'mtl' else 'MTL'} counterpart"
        labels = {"first": "to the first row", "mtl_stl": counterpart}
        for row in table.rows:
            found: dict[str, dict[TaskName | None, Cell]] = defaultdict(dict)
            for family, outcome in row.comparisons:
                if isinstance(outcome, TaskComparison):
                    label = labels.get(family, f"to {outcome.reference.label}")
                    found[label][outcome.task] = _difference(outcome)
            for label, cells in found.items():
                line = (cells.get(task, Cell("")) for task in (*TASKS, None))
                name = Cell(row.title, label, row.name)
                rows.append(TableRow((name, *line), HEADINGS[table.kind]))
    table_of = Table.of((Column("difference, pp", True), *columns), rows, "Differences")
    return table_of.keeping(("differences",))


def _difference(result: PairResult) -> Cell:
    """Write a difference in pp, `*` where it is significant, its interval and corrected p."""
    found = result.difference
    mark, style = (words.SIGNIFICANT, "bold") if result.significant else ("", "")
    note = f"{words.pp_span(found.low, found.high)}, p {words.p_text(result.p_holm)}"
    return Cell(f"{words.pp(found.accuracy)}{mark}", note, found.accuracy, style=style)


def study_table(board: Leaderboard) -> Table:
    """Lay the study's rows out in its order; none where the leaderboard is not of its suite."""
    rows = {row.name: row for table in board.tables for row in table.rows if not row.leaky}
    names = dict.fromkeys(name for names in board.suites.values() for name in names)
    found = [rows[name] for name in names if name in rows and rows[name].study is not None]
    if found:
        found = [*(it for it in board.tables[0].rows if it.status == "reference"), *found]

    def line(row: Row) -> tuple[str, ...]:
        ours = "\n".join(
            f"{TASK_TITLES[task]} {with_sd(s.accuracy, s.accuracy_sd)} ({span(s.low, s.high)})"
            for task, s in row.scores.items()
        )
        if row.study is None:
            return "", row.name, "", ours, "", ""
        study, replay, replayed = vars(row.study), board.replays.get(row.name), NOTHING
        printed = " / ".join(percent(study[task]) for task in row.definition["head"]["tasks"])
        if replay:
            replayed = f"replayed {' / '.join(percent(s.accuracy) for s in replay.scores.values())}"
        why = state(row).replace(" (", "\n(")
        return study["row"], row.name, f"printed {printed}", ours or NOTHING, replayed, why

    heads = ("row", "experiment", "printed, LEAKY", "leak-free", "replayed, LEAKY", "state")
    columns = [Column(head, left=head != "row", below="LEAKY" in head) for head in heads]
    # A page for phones hides cells without a value: here only those with nothing to show.
    cells = [[Cell(it, value=it.strip(NOTHING) or None) for it in line(row)] for row in found]
    return Table.of(columns, cells)


def state(row: Row) -> str:
    """Say what a row was measured on, or why it was not."""
    if row.status == "missing":
        return row.unmeasured
    devices = {"GPU" if "nvidia" in device.lower() else "CPU" for device in row.devices}
    return f"{' and '.join(sorted(devices))}, {counted(len(row.seeds), 'seed')}"


def document_tables(tables: Sequence[BoardTable], *parts: str) -> list[Table]:
    """Divide tables of one setting into those that a page's width can bear: what is always shown
    with `parts`, differences, costs."""
    whole = board_table(tables)
    scores, costs = whole.keeping(parts), whole.keeping(("cost", "origin"), COSTS)
    measured = tuple(row for row in scores.rows if row.status != "missing")
    done = tuple(row for row in costs.rows if row.status.startswith("done"))
    scores = dataclasses.replace(scores, rows=measured)
    costs = Table(costs.columns, done, "Costs")
    return [table for table in (scores, differences_table(tables), costs) if table.rows]


def not_run(board: Leaderboard) -> Iterator[str]:
    """Say which experiments were not run and why, a sentence a reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in (row for table in board.tables for row in table.rows if row.status == "missing"):
        reasons["; ".join(row.remarks)].append(row.name)
    for reason, names in reasons.items():
        why = f": {reason}" * (reason != "not run")
        yield f"{counted(len(names), 'experiment')} not run, {and_more(names)}{why}"


def markdown(board: Leaderboard) -> str:
    """Write the leaderboard as GitHub Markdown, in percent."""
    lines = [f"# {markdown_text(board.title)}", ""]
    if (study := study_table(board)).rows:
        lines += [markdown_text(STUDY_READING), "", forms.markdown(study)]
    lines += [READING, ""]
    for setting, tables in by_setting(board):
        shown = document_tables(tables, "scores")
        lines += [markdown_text(setting), "", *map(forms.markdown, shown)]
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
        for table in document_tables(tables, "scores"):
            caption = ". ".join(filter(None, (title, table.title, setting)))
            parts.append(forms.latex(dataclasses.replace(table, title=caption)))
    notes = (*not_run(board), *board.notes, *board.limits)
    return "\n".join([*parts, *(f"% {' '.join(text.split())}" for text in notes), ""])


def page(board: Leaderboard, links: Links = lambda _: ()) -> str:
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


def scores_table(comparison: Mapping[str, Any]) -> Table:
    """Show each run group's test accuracy; what was not run as well."""
    compared = {line.task for found in comparison["tables"].values() for line in found.lines}
    tasks = [task for task in TASKS if task in compared]
    names = Column("test accuracy, %", True), Column("seeds", True)
    rows: list[TableRow] = []
    for group in comparison["arms"]:
        name = Cell(group["arm"] + " (LEAKY)" * group["leaky"])
        found = (TaskScore(**it) if it else None for it in map(group["scores"].get, tasks))
        cells = [_rate(s, s.accuracy, s.accuracy_sd) if s else Cell() for s in found]
        rows.append(TableRow((name, Cell(", ".join(map(str, group["seeds"]))), *cells)))
    for absent in comparison["missing"]:
        why = absent["why"].removeprefix("not run").lstrip(": ")
        name = Cell(f"{absent['arm']} (not run{f': {why}' * bool(why)})")
        rows.append(TableRow((name, *[Cell()] * (1 + len(tasks))), "", "missing"))
    return Table.of((*names, *(Column(TASK_TITLES[task], False) for task in tasks)), rows)


def pairs_table(lines: Sequence[TaskComparison]) -> Table:
    """Show differences, a section a pair; an MTL network's counterparts are one."""
    numbers = [Column(head, False) for head in ("accuracy, pp", "macro-F1, pp", "p", "Holm")]
    rows = []
    for line in lines:
        found, is_mtl = line.difference, line.family == "mtl_stl"
        other = words.COUNTERPARTS if is_mtl else line.reference.label
        section = f"{line.group.label} against {other} · {words.test_text(line)}"
        cells = (
            Cell(TASK_TITLES[line.task]),
            difference_cell(found.accuracy, found.low, found.high),
            difference_cell(found.macro_f1, found.macro_f1_low, found.macro_f1_high),
            Cell(words.p_text(found.p), value=found.p),
            Cell(words.p_text(line.p_holm), value=line.p_holm),
            Cell(words.verdict_text(line), style=STYLES[line.verdict]),
        )
        rows.append(TableRow(cells, section))
    return Table.of((Column("task", True), *numbers, Column("verdict", True, fold=True)), rows)


def difference_cell(value: float | None, low: float | None, high: float | None) -> Cell:
    """Write a difference with its interval, in pp: `+2.6`, `+1.4 to +3.8`."""
    if value is None or low is None or high is None:
        return Cell()
    return Cell(words.pp(value), words.pp_span(low, high), value)


def text_table(found: StudyTable) -> Table:
    """Lay out a table of texts, the first of a row its name; an interval is its cell's note."""
    columns = [Column(head, left=not place) for place, head in enumerate(found.heads)]
    rows = [[Cell(name), *map(Cell.parted, texts)] for name, *texts in found.rows]
    return Table.of(columns, rows, found.caption)
