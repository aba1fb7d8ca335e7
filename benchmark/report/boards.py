"""The leaderboards as tables of the page: ranked by validation, every number with its runs."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmark.report.evidence import Evidence
from benchmark.report.networks import anchor_of
from benchmark.report.tables import Cell, Column, DataTable, Status, TableRow, number, words
from benchmark.results.board import HEADINGS
from benchmark.results.cells import (
    NOTHING,
    count_text,
    duration_text,
    percent,
    rank_text,
    remarks_of,
    seeds_text,
    setting_text,
    span,
    with_sd,
    worst_heading,
)
from benchmark.results.leaderboard import Table
from benchmark.results.rows import Row
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


def _table(evidence: Evidence, table: Table, name: str, portrayed: frozenset[str]) -> DataTable:
    printed = any(_printed(evidence, row) for row in table.rows)
    leaky = table.setting.protocol.leaky or any(row.leaky for row in table.rows)
    rows = []
    for row in table.rows:
        href = evidence.links.of(row.identities)
        anchor = anchor_of(row.name) if row.name in portrayed and not row.leaky else ""
        cells = tuple(_cells(evidence, table, row, href, anchor, printed=printed))
        rows.append(TableRow(cells, _status(row)))
    title = HEADINGS[table.kind]
    caption = f"LEAKY · {title}" if leaky else title
    return DataTable(
        name, caption, tuple(_columns(table, printed=printed)), tuple(rows), leaky=leaky
    )


def _columns(table: Table, *, printed: bool) -> Iterator[Column]:
    yield Column("network", numeric=False)
    yield Column("#", about="rank by validation")
    yield Column("val, %", about="combined validation accuracy, which ranks")
    for task in table.tasks:
        yield Column(f"{TASK_TITLES[task]}, %", about="test accuracy, its 95 % interval beneath")
        yield Column("macro-F1, %", about=f"of {TASK_TITLES[task]}, on test")
        if printed:
            yield Column("study printed, %", about="LEAKY: what the original study printed")
    yield Column(worst_heading(table) + ", %", about="of 30 faces or more; which one beneath")
    yield Column("parameters")
    yield Column("trained", about="parameters that are trained")
    yield Column("training", about="of one run")
    yield Column("seeds", numeric=False)
    yield Column("device", numeric=False)
    yield Column("remarks", numeric=False)


def _cells(
    evidence: Evidence, table: Table, row: Row, href: str, anchor: str, *, printed: bool
) -> Iterator[Cell]:
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
            rate = _printed(evidence, row).get(task)
            yield number(f"LEAKY {percent(rate)}", rate)
    yield _worst(row, href)
    yield number(count_text(row.parameters), row.parameters, href=href)
    yield number(count_text(row.trainable_parameters), row.trainable_parameters, href=href)
    yield number(duration_text(row.seconds), row.seconds, href=href)
    yield words(seeds_text(row.seeds))
    yield words(", ".join(row.devices) or NOTHING)
    yield words("; ".join(remarks_of(row)) or NOTHING)


def _worst(row: Row, href: str) -> Cell:
    if row.worst is None:
        return Cell(NOTHING)
    note = f"{row.worst.group}, n {row.worst.n:,}, {span(row.worst.low, row.worst.high)}"
    return number(percent(row.worst.accuracy), row.worst.accuracy, href=href, note=note)


def _printed(evidence: Evidence, row: Row) -> dict[str, float]:
    """Give what the study printed for this very experiment, by task."""
    experiment = evidence.library.experiments.get(row.name)
    if experiment is None or experiment.study is None:
        return {}
    printed = {task: getattr(experiment.study, task) for task in experiment.head.tasks}
    return {task: rate for task, rate in printed.items() if rate is not None}


def _status(row: Row) -> Status:
    return "leaky" if row.leaky else row.status
