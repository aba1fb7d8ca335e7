"""A comparison as plain values, and its tables; those of a study's page.

In plain values, rates and differences are fractions and nothing is rounded; in tables they are
percent and percentage points (pp) with one decimal.
"""

from collections.abc import Sequence
from typing import Any, Final

from benchmark.comparison import wording
from benchmark.comparison.pairs import QUESTIONS, Comparison, Kind
from benchmark.comparison.wording import StudyPage, TaskComparison, span, with_sd
from benchmark.reporting.tables import Cell, Column, Table, TableRow
from benchmark.tasks import TASK_TITLES

STYLES: Final = {"better": "green", "worse": "red", "no significant difference": ""}


def title_of(comparison: Comparison) -> str:
    """Write a comparison's title; synthetic faces say so."""
    return f"{'SYNTHETIC FACES · ' if comparison.drawn else ''}Comparison on {comparison.dataset}"


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Give everything a comparison found as plain values."""
    return {
        "dataset": comparison.dataset,
        "drawn": comparison.drawn,
        "arms": [
            {
                "arm": group.label,
                "experiment": group.runs[0].name,
                "seeds": list(group.seeds),
                "runs": list(group.identities),
                "ad_hoc": group.runs[0].ad_hoc,
                "leaky": group.leaky,
                "remarks": list(group.remarks),
                "scores": {task: vars(score) for task, score in scores.items()},
            }
            for group, scores in comparison.groups
        ],
        "missing": [{"arm": group.label, "why": group.why} for group in comparison.absent],
        "tables": [
            {
                "kind": kind,
                "title": QUESTIONS[kind][1],
                "rows": [flat_line(kind, line) for line in found.lines],
                "not_compared": [
                    {"arm": it.group, "reference": it.reference, "why": it.why, "task": it.task}
                    for it in found.gaps
                ],
                "sentences": list(wording.sentences(found.lines, of_mtl=kind == "twins")),
                "family": wording.family_text(found.lines),
            }
            for kind, found in comparison.tables.items()
        ],
        "notes": list(comparison.notes),
        "limits": list(comparison.limits),
    }


def flat_line(kind: Kind, line: TaskComparison) -> dict[str, Any]:
    """Give one task of one pair as plain values by column name; the same columns every time."""
    numbers = dict(vars(line.difference))
    sides = {"arm": line.group, "reference": line.reference}
    return {
        "table": kind,
        **{side: group.label for side, group in sides.items()},
        "task": line.task,
        "difference": numbers.pop("accuracy"),
        **numbers,
        "p_holm": line.p_holm,
        "verdict": line.verdict,
        "family": line.family,
        "p_values_in_family": line.n_family,
        "minimum_detectable": line.minimum_detectable,
        **{f"{side}_seeds": " ".join(map(str, group.seeds)) for side, group in sides.items()},
        **{f"{it}_runs": " ".join(k[:12] for k in group.identities) for it, group in sides.items()},
    }


def scores_table(comparison: Comparison) -> Table:
    """Show each run group's test accuracy; what was not run as well."""
    tasks, names = comparison.tasks, (Column("test accuracy, %", True), Column("seeds", True))
    rows: list[TableRow] = []
    for group, scores in comparison.groups:
        name = Cell(f"{group.label}{' (LEAKY)' * group.leaky}")
        cells = [
            Cell(with_sd(s.accuracy, s.accuracy_sd), span(s.low, s.high)) if s else Cell()
            for s in map(scores.get, tasks)
        ]
        rows.append(TableRow((name, Cell(", ".join(map(str, group.seeds))), *cells)))
    for absent in comparison.absent:
        name = Cell(f"{absent.label} (not run: {absent.why})")
        rows.append(TableRow((name, *[Cell()] * (1 + len(tasks))), "", "missing"))
    return Table.of((*names, *(Column(TASK_TITLES[task], False) for task in tasks)), rows)


def pairs_table(lines: Sequence[TaskComparison], *, of_mtl: bool = False) -> Table:
    """Show differences, a section a pair; of_mtl: MTL networks against their counterparts."""
    numbers = [Column(head, False) for head in ("accuracy, pp", "macro-F1, pp", "p", "Holm")]
    rows = []
    for line in lines:
        found = line.difference
        other = wording.COUNTERPARTS if of_mtl else line.reference.label
        section = f"{line.group.label} against {other} · {wording.test_text(line)}"
        cells = (
            Cell(TASK_TITLES[line.task]),
            difference_cell(found.accuracy, found.low, found.high),
            difference_cell(found.macro_f1, found.macro_f1_low, found.macro_f1_high),
            Cell(wording.p_text(found.p), value=found.p),
            Cell(wording.p_text(line.p_holm), value=line.p_holm),
            Cell(wording.verdict_text(line), style=STYLES[line.verdict]),
        )
        rows.append(TableRow(cells, section))
    return Table.of((Column("task", True), *numbers, Column("verdict", True, fold=True)), rows)


def difference_cell(value: float | None, low: float | None, high: float | None) -> Cell:
    """Write a difference with its interval in points: `+2.6`, `+1.4 to +3.8`."""
    if value is None or low is None or high is None:
        return Cell()
    return Cell(wording.points(value), wording.points_span(low, high), value)


def study_tables(page: StudyPage) -> list[Table]:
    """Lay out the tables of a study's page; a number's interval is its cell's note."""
    return [
        Table.of(
            [Column(head, left=not place) for place, head in enumerate(found.heads)],
            [[Cell(name), *map(Cell.parted, texts)] for name, *texts in found.rows],
            found.caption,
        )
        for found in page.tables
    ]
