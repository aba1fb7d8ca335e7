"""The leaderboards as tables of the page: ranked by validation, every number with its runs."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmark.comparison.cells import (
    NOTHING,
    count_text,
    duration_text,
    number_text,
    percent,
    rank_text,
    remarks_of,
    seeds_text,
    setting_text,
    span,
    with_sd,
    worst_heading,
)
from benchmark.comparison.leaderboard import HEADINGS, BoardTable
from benchmark.comparison.rows import Row
from benchmark.reporting.answer import anchor_of
from benchmark.reporting.evidence import (
    Cell,
    Column,
    DataTable,
    Evidence,
    Status,
    TableRow,
    number,
    words,
)
from benchmark.tasks import TASK_TITLES


@dataclass(frozen=True)
class Board:
    """The tables of one setting: the same faces, split and protocol."""

    title: str
    leaky: bool
    tables: tuple[DataTable, ...]


def boards(evidence: Evidence, portrayed: frozenset[str]) -> Iterator[Board]:
    """Make the tables of all settings; names in `portrayed` lead to these networks on the page."""
    settings = dict.fromkeys(table.setting for table in evidence.board.tables)
    for place, setting in enumerate(settings):
        tables = [table for table in evidence.board.tables if table.setting == setting]
        made = tuple(_table(evidence, table, f"board-{place}-{table.kind}", portrayed)
                     for table in tables)  # fmt: skip
        yield Board(setting_text(setting), any(table.leaky for table in made), made)


def _table(
    evidence: Evidence, table: BoardTable, name: str, portrayed: frozenset[str]
) -> DataTable:
    printed = any(row.study is not None for row in table.rows)
    leaky = table.setting.protocol.leaky or any(row.leaky for row in table.rows)
    rows = []
    for row in table.rows:
        href = evidence.links.of(row.identities)
        anchor = anchor_of(row.name) if row.name in portrayed and not row.leaky else ""
        cells = tuple(_cells(table, row, href, anchor, printed=printed))
        rows.append(TableRow(cells, _status(row)))
    title = HEADINGS[table.kind]
    caption = f"LEAKY · {title}" if leaky else title
    return DataTable(
        name, caption, tuple(_columns(table, printed=printed)), tuple(rows), leaky=leaky
    )


def _columns(table: BoardTable, *, printed: bool) -> Iterator[Column]:
    yield Column("network", numeric=False)
    yield Column("#", about="rank by validation")
    yield Column("val, %", about="combined validation accuracy, which ranks")
    for task in table.tasks:
        yield Column(f"{TASK_TITLES[task]}, %", about="test accuracy, its 95 % interval beneath")
        yield Column("macro-F1, %", about=f"of {TASK_TITLES[task]}, on test")
        if printed:
            yield Column("study printed, %", about="LEAKY: what the original study printed")
    if table.kind == "mtl":
        yield Column("combined, %", about="on test: 0.4 age group + 0.2 gender + 0.4 race")
    yield Column(worst_heading(table) + ", %", about="of 30 faces or more; which one beneath")
    yield Column("gap, points", about="between the best and the worst such group; beneath: chance")
    yield Column("parameters")
    yield Column("trained", about="parameters that are trained")
    yield Column("GMACs", about="billions of multiply-adds to read one face")
    yield Column("training", about="of one run")
    yield Column("seeds", numeric=False)
    yield Column("device", numeric=False)
    yield Column("remarks", numeric=False)


def _cells(table: BoardTable, row: Row, href: str, anchor: str, *, printed: bool) -> Iterator[Cell]:
    name = f"LEAKY {row.name}" if row.leaky else row.name
    yield Cell(name, name, f"#{anchor}" if anchor else "")
    yield Cell(rank_text(row) or NOTHING, row.rank)
    yield number(with_sd(row.val_combined, row.val_combined_sd), row.val_combined, href=href)
    for task in table.tasks:
        score = row.scores.get(task)
        if score is None:
            yield from (Cell(NOTHING), Cell(NOTHING))
        else:
            shown = with_sd(score.accuracy, score.accuracy_sd)
            yield number(shown, score.accuracy, href=href, note=span(score.low, score.high))
            f1 = with_sd(score.macro_f1, score.macro_f1_sd)
            yield number(f1, score.macro_f1, href=href)
        if printed:
            rate = getattr(row.study, task, None)
            yield number(f"LEAKY {percent(rate)}", rate)
    if table.kind == "mtl":
        yield _combined(row, href)
    yield _worst(row, href)
    yield _gap(row, href)
    yield number(count_text(row.parameters), row.parameters, href=href)
    yield number(count_text(row.trainable_parameters), row.trainable_parameters, href=href)
    yield number(number_text(row.gmacs), row.gmacs, href=href)
    yield number(duration_text(row.seconds), row.seconds, href=href)
    yield words(seeds_text(row.seeds))
    yield words(", ".join(row.devices) or NOTHING)
    yield words("; ".join(remarks_of(row)) or NOTHING)


def _combined(row: Row, href: str) -> Cell:
    score = row.combined
    if score is None:
        return Cell(NOTHING)
    ends = "" if score.low is None or score.high is None else span(score.low, score.high)
    return number(with_sd(score.value, score.sd), score.value, href=href, note=ends)


def _gap(row: Row, href: str) -> Cell:
    if row.gap is None:
        return Cell(NOTHING)
    note = f"{percent(row.gap.low)}–{percent(row.gap.high)}; by chance {percent(row.gap.chance)}"
    return number(percent(row.gap.gap), row.gap.gap, href=href, note=note)


def _worst(row: Row, href: str) -> Cell:
    if row.worst is None:
        return Cell(NOTHING)
    note = f"{row.worst.group}, n {row.worst.n:,}, {span(row.worst.low, row.worst.high)}"
    return number(percent(row.worst.accuracy), row.worst.accuracy, href=href, note=note)


def _status(row: Row) -> Status:
    return "leaky" if row.leaky else row.status
