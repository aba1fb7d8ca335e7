"""A comparison's forms: plain values, CSV, Markdown."""

import csv
import json
from dataclasses import replace

import pytest

from benchmark.comparison.library import NotRun, RunGroup
from benchmark.comparison.pairs import Comparison, ComparisonTable, GroupScores
from benchmark.comparison.rows import TaskScore
from benchmark.comparison.wording import Gap
from benchmark.reporting.comparison_tables import as_data, csv_text, difference_cell, markdown
from benchmark.tasks import TASKS
from tests.comparison.test_verdicts import FOUND, TIE, lines_of
from tests.comparison.test_verdicts import groups as groups


@pytest.fixture
def comparison(groups: tuple[RunGroup, RunGroup]) -> Comparison:
    single_class = replace(TIE, macro_f1=None, macro_f1_low=None, macro_f1_high=None)
    score = TaskScore(0.7, 0.65, 0.75, 0.6, 0.01, 0.02)
    return Comparison(
        dataset="utkface-100",
        drawn=False,
        tasks=TASKS[:2],
        groups=tuple(GroupScores(group, {"age_group": score}) for group in groups),
        absent=(NotRun("third", "failed: <b>|x"),),
        tables=(
            ComparisonTable(
                "first", lines_of(groups, FOUND, single_class), (Gap("third", "old", "|"),)
            ),
        ),
        notes=("a note",),
        limits=("a limit",),
    )


def test_plain_values_are_json_and_hold_fractions(comparison: Comparison) -> None:
    data = json.loads(json.dumps(as_data(comparison), allow_nan=False))
    row = data["tables"][0]["rows"][0]
    assert (row["arm"], row["reference"], row["difference"]) == ("new", "old", 0.0263)
    assert (row["p"], row["p_holm"], row["verdict"]) == (0.0004, 0.0008, "better")
    assert (row["family"], row["p_values_in_family"]) == ("named", 2)
    assert data["arms"][0]["scores"]["age_group"]["accuracy_sd"] == 0.01
    assert [len(group["runs"]) for group in data["arms"]] == [3, 2]
    assert data["missing"] == [{"arm": "third", "why": "failed: <b>|x"}]


def test_csv_leaves_what_does_not_exist_empty(comparison: Comparison) -> None:
    rows = list(csv.DictReader(csv_text(comparison).splitlines()))
    assert [row["task"] for row in rows] == ["age_group", "gender"]
    assert rows[1]["macro_f1"] == ""
    assert float(rows[1]["minimum_detectable"]) == pytest.approx(0.01887, abs=1e-4)
    assert rows[0]["arm_seeds"] == "0 1 2"


def test_markdown_holds_the_tables_and_cannot_be_broken(comparison: Comparison) -> None:
    text = markdown(comparison)
    assert "| new | old | age group | +2.6 (+1.4 to +3.8) | −1.2 (−3.0 to +0.6) | 0.0004 |" in text
    assert "third (not run: failed: &lt;b>\\|x)" in text
    assert "what was named (2 p-values)" in text
    widths = {line.count("|") - line.count("\\|") for line in text.splitlines() if "new |" in line}
    assert len(widths) == 2


def test_a_number_that_does_not_exist_is_a_dash() -> None:
    assert difference_cell(None, None, None).whole == "–"
