"""A comparison for machines and for documents: plain values, CSV, Markdown.

In plain values and CSV, rates and differences are fractions and nothing is rounded for the eye; in
Markdown they are percent and points with one decimal. The terminal's form is in benchmark.cli.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

from benchmark.comparison.cells import NOTHING, accuracy_text, macro_f1_text, seeds_text
from benchmark.comparison.pairs import Comparison, ComparisonTable, GroupScores
from benchmark.comparison.statistics import Difference
from benchmark.comparison.verdicts import (
    Gap,
    Line,
    p_text,
    points,
    points_span,
    test_text,
    verdict_text,
)
from benchmark.tasks import TASK_TITLES

NUMBERS: Final = (
    *("macro_f1", "macro_f1_low", "macro_f1_high", "se", "se_seeds", "df"),
    *("only_reference", "only_arm", "n_faces", "n_clusters"),
)
"""Fields of a Difference that are told under their own names."""


def title_of(comparison: Comparison) -> str:
    """Write a comparison's title; drawn faces say so."""
    return f"{'DRAWN FACES · ' if comparison.drawn else ''}Comparison on {comparison.dataset}"


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
                "not_compared": [_gap_data(gap) for gap in table.gaps],
                "sentences": list(table.sentences),
                "family": table.family,
            }
            for table in comparison.tables
        ],
        "notes": list(comparison.notes),
        "limits": list(comparison.limits),
    }


def _gap_data(gap: Gap) -> dict[str, Any]:
    return {"arm": gap.group, "reference": gap.reference, "why": gap.why, "task": gap.task}


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


def flat_line(table: ComparisonTable, line: Line) -> dict[str, Any]:
    """Give one task of one pair as plain values by column name; the same columns every time."""
    found: Difference = line.difference
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
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def markdown(comparison: Comparison) -> str:
    """Write a comparison as GitHub Markdown, in percent and points."""
    lines = [f"# {title_of(comparison)}", "", *_groups(comparison), ""]
    for table in comparison.tables:
        lines += [f"## {table.title}", ""]
        lines += [f"{_cell(text)}\n" for text in table.sentences]
        if table.lines:
            lines += [*_markdown_table(table), "", table.family, ""]
        lines += [*(f"- {_cell(text)}" for text in table.gap_sentences), ""]
    lines += ["## How to read it", "", *(f"- {_cell(note)}" for note in comparison.notes), ""]
    lines += ["## What these numbers are not", "", *(f"- {text}" for text in comparison.limits)]
    return "\n".join([*lines, ""])


def _groups(comparison: Comparison) -> Iterator[str]:
    heads = ["arm", "seeds", "runs"]
    for task in comparison.tasks:
        heads += [TASK_TITLES[task], f"{TASK_TITLES[task]} macro-F1"]
    yield from _heads(heads, left=("arm", "runs"))
    for standing in comparison.groups:
        group = standing.group
        mark = " (LEAKY)" if group.leaky else ""
        runs = ", ".join(identity[:12] for identity in group.identities)
        cells = [f"{group.label}{mark}", seeds_text(group.seeds), runs]
        for task in comparison.tasks:
            score = standing.scores.get(task)
            cells += [accuracy_text(score), macro_f1_text(score)]
        yield _row(cells)
    for absent in comparison.absent:
        cells = [f"{absent.label} (missing: {absent.why})"]
        yield _row([*cells, *[NOTHING] * (len(heads) - 1)])


def _markdown_table(table: ComparisonTable) -> Iterator[str]:
    numbers = ("accuracy, pp (95 %)", "macro-F1, pp (95 %)", "p", "Holm")
    heads = ("arm", "against", "task", *numbers, "verdict", "test")
    yield from _heads(heads, left=("arm", "against", "task", "verdict", "test"))
    for line in table.lines:
        found = line.difference
        yield _row(
            [
                line.group.label,
                line.reference.label,
                TASK_TITLES[line.task],
                difference_text(found.accuracy, found.low, found.high),
                difference_text(found.macro_f1, found.macro_f1_low, found.macro_f1_high),
                p_text(found.p),
                p_text(line.p_holm),
                verdict_text(line),
                test_text(line),
            ]
        )


def difference_text(value: float | None, low: float | None, high: float | None) -> str:
    """Write a difference with its interval in points: `+2.6 (+1.4 to +3.8)`."""
    if value is None or low is None or high is None:
        return NOTHING
    return f"{points(value)} ({points_span(low, high)})"


def _heads(heads: Sequence[str], left: Sequence[str]) -> Iterator[str]:
    yield _row(heads)
    yield "|" + "|".join("---" if head in left else "--:" for head in heads) + "|"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Keep text of any origin from breaking a Markdown table or being read as HTML."""
    flat = " ".join(text.split())
    return flat.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
