"""A comparison as plain values, CSV, Markdown, and the tables that the terminal prints.

In plain values and CSV, rates and differences are fractions and nothing is rounded; in tables they
are percent and percentage points (pp) with one decimal.
"""

import dataclasses
from typing import Any, Final

from benchmark.comparison import wording
from benchmark.comparison.pairs import Comparison, ComparisonTable, GroupScores
from benchmark.comparison.wording import TaskComparison, span, with_sd
from benchmark.reporting import tables
from benchmark.reporting.tables import Cell, Column, Table, TableRow, markdown_text
from benchmark.tasks import TASK_TITLES

NUMBERS: Final = (
    *("macro_f1", "macro_f1_low", "macro_f1_high", "se", "se_seeds", "df"),
    *("only_reference", "only_arm", "n_faces", "n_clusters"),
)
"""Fields of a Difference with columns of the same names."""
STYLES: Final = {"better": "green", "worse": "red", "no significant difference": ""}


def title_of(comparison: Comparison) -> str:
    """Write a comparison's title; synthetic faces say so."""
    return f"{'SYNTHETIC FACES · ' if comparison.drawn else ''}Comparison on {comparison.dataset}"


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Give everything a comparison found as plain values."""
    return {
        "dataset": comparison.dataset,
        "drawn": comparison.drawn,
        "arms": [_group_data(standing) for standing in comparison.groups],
        "missing": [{"arm": group.label, "why": group.why} for group in comparison.absent],
        "tables": [
            {
                "kind": table.kind,
                "title": table.title,
                "rows": [flat_line(table, line) for line in table.lines],
                "not_compared": [
                    {"arm": it.group, "reference": it.reference, "why": it.why, "task": it.task}
                    for it in table.gaps
                ],
                "sentences": list(table.sentences),
                "family": table.family,
            }
            for table in comparison.tables
        ],
        "notes": list(comparison.notes),
        "limits": list(comparison.limits),
    }


def _group_data(standing: GroupScores) -> dict[str, Any]:
    group = standing.group
    return {
        "arm": group.label,
        "experiment": group.name,
        "seeds": list(group.seeds),
        "runs": list(group.identities),
        "ad_hoc": group.ad_hoc,
        "leaky": group.leaky,
        "remarks": list(group.remarks),
        "scores": {task: vars(score) for task, score in standing.scores.items()},
    }


def flat_line(table: ComparisonTable, line: TaskComparison) -> dict[str, Any]:
    """Give one task of one pair as plain values by column name; the same columns every time."""
    found = line.difference
    return {
        "table": table.kind,
        "arm": line.group.label,
        "reference": line.reference.label,
        "task": line.task,
        "difference": found.accuracy,
        "low": found.low,
        "high": found.high,
        "test": found.test,
        "p": found.p,
        "p_holm": line.p_holm,
        "verdict": line.verdict,
        "family": line.family,
        "p_values_in_family": line.n_family,
        "minimum_detectable": line.minimum_detectable,
        **{name: getattr(found, name) for name in NUMBERS},
        "arm_seeds": " ".join(str(seed) for seed in line.group.seeds),
        "reference_seeds": " ".join(str(seed) for seed in line.reference.seeds),
        "arm_runs": " ".join(identity[:12] for identity in line.group.identities),
        "reference_runs": " ".join(identity[:12] for identity in line.reference.identities),
    }


def csv_text(comparison: Comparison) -> str:
    """Write every line of every table as CSV; a cell that does not exist is empty."""
    rows = [flat_line(table, line) for table in comparison.tables for line in table.lines]
    return tables.csv_text(
        rows, list(rows[0]), lambda value: f"{value:.6g}" if isinstance(value, float) else value
    )


def scores_table(comparison: Comparison) -> Table:
    """Show each run group's test accuracy; what was not run as well."""
    columns = [Column("test accuracy, %", True), Column("seeds", True)]
    columns += [Column("runs", True, "document")]
    for task in comparison.tasks:
        title = TASK_TITLES[task]
        columns += [Column(title, False), Column(f"{title} macro-F1", False, "document")]
    rows = []
    for item in comparison.groups:
        group = item.group
        runs = ", ".join(identity[:12] for identity in group.identities)
        texts = (
            f"{group.label}{' (LEAKY)' if group.leaky else ''}",
            wording.seeds_text(group.seeds),
        )
        cells = [*map(Cell, texts), Cell(runs)]
        for task in comparison.tasks:
            if (it := item.scores.get(task)) is None:
                cells += [Cell(), Cell()]
            else:
                cells += [Cell(with_sd(it.accuracy, it.accuracy_sd), span(it.low, it.high))]
                cells += [Cell(with_sd(it.macro_f1, it.macro_f1_sd))]
        rows.append(TableRow(tuple(cells)))
    for absent in comparison.absent:
        name = Cell(f"{absent.label} (not run: {absent.why})")
        rows.append(TableRow((name, *[Cell()] * (len(columns) - 1)), status="missing"))
    return Table(tuple(columns), tuple(rows))


def pairs_table(table: ComparisonTable) -> Table:
    """Show a table's differences, a section a pair; documents have its names in every row."""
    columns = (
        Column("run group", True, "document"),
        Column("against", True, "document"),
        Column("task", True),
        Column("accuracy, pp", False),
        Column("macro-F1, pp", False),
        Column("p", False),
        Column("Holm", False),
        Column("verdict", True, fold=True),
        Column("test", True, "document"),
    )
    rows = []
    for line in table.lines:
        found, test = line.difference, wording.test_text(line)
        group, reference = line.group.label, line.reference.label
        cells = (
            Cell(group),
            Cell(reference),
            Cell(TASK_TITLES[line.task]),
            difference_cell(found.accuracy, found.low, found.high),
            difference_cell(found.macro_f1, found.macro_f1_low, found.macro_f1_high),
            Cell(wording.p_text(found.p), value=found.p),
            Cell(wording.p_text(line.p_holm), value=line.p_holm),
            Cell(wording.verdict_text(line), style=STYLES[line.verdict]),
            Cell(test),
        )
        other = wording.COUNTERPARTS if table.kind == "twins" else reference
        rows.append(TableRow(cells, f"{group} against {other} · {test}"))
    return Table(columns, tuple(rows))


def difference_cell(value: float | None, low: float | None, high: float | None) -> Cell:
    """Write a difference with its interval in points: `+2.6`, `+1.4 to +3.8`."""
    if value is None or low is None or high is None:
        return Cell()
    return Cell(wording.points(value), wording.points_span(low, high), value)


def markdown(comparison: Comparison) -> str:
    """Write a comparison as GitHub Markdown, in percent and points."""
    lines = [f"# {title_of(comparison)}", "", tables.markdown(scores_table(comparison))]
    for table in comparison.tables:
        lines += [f"## {table.title}", ""]
        lines += [f"{markdown_text(text)}\n" for text in table.sentences]
        if table.lines:
            made = pairs_table(table)
            rows = tuple(dataclasses.replace(row, section="") for row in made.rows)
            lines += [tables.markdown(dataclasses.replace(made, rows=rows)), table.family, ""]
        lines += [*(f"- {markdown_text(text)}" for text in table.gap_sentences), ""]
    for title, texts in (("How to read it", comparison.notes), ("Limitations", comparison.limits)):
        lines += [f"## {title}", "", *(f"- {markdown_text(text)}" for text in texts), ""]
    return "\n".join(lines)
