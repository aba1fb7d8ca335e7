"""A comparison as plain values and as tables."""

import json
from dataclasses import replace

import pytest

from benchmark.comparison.library import NotRun, RunGroup
from benchmark.comparison.pairs import Comparison, Found
from benchmark.comparison.rows import TaskScore
from benchmark.comparison.wording import Gap
from benchmark.reporting.comparison_tables import as_data, pairs_table, scores_table
from benchmark.tasks import TASKS
from tests.comparison.test_wording import FOUND, TIE, lines_of
from tests.comparison.test_wording import groups as groups


@pytest.fixture
def comparison(groups: tuple[RunGroup, RunGroup]) -> Comparison:
    single_class = replace(TIE, macro_f1=None, macro_f1_low=None, macro_f1_high=None)
    score = TaskScore(0.7, 0.65, 0.75, 0.6, 0.01, 0.02)
    lines = lines_of(groups, FOUND, single_class)
    return Comparison(
        dataset="utkface-100",
        drawn=False,
        tasks=TASKS[:2],
        groups=[(group, {"age_group": score}) for group in groups],
        absent=(NotRun("third", "failed: <b>|x"),),
        tables={"first": Found(lines, (Gap("third", "old", "|"),))},
        notes=("a note",),
        limits=("a limit",),
    )


def test_plain_values_are_json_and_hold_fractions(comparison: Comparison) -> None:
    data = json.loads(json.dumps(as_data(comparison), allow_nan=False))
    row, other = data["tables"][0]["rows"]
    assert (row["arm"], row["reference"], row["difference"]) == ("new", "old", 0.0263)
    assert (row["p"], row["p_holm"], row["verdict"]) == (0.0004, 0.0008, "better")
    assert (row["family"], row["p_values_in_family"]) == ("named", 2)
    assert (row["arm_seeds"], other["macro_f1"]) == ("0 1 2", None)
    assert other["minimum_detectable"] == pytest.approx(0.01887, abs=1e-4)
    assert data["arms"][0]["scores"]["age_group"]["accuracy_sd"] == 0.01
    assert [len(group["runs"]) for group in data["arms"]] == [3, 2]
    assert data["missing"] == [{"arm": "third", "why": "failed: <b>|x"}]


def test_tables_show_percent_intervals_and_a_dash_for_what_does_not_exist(
    comparison: Comparison,
) -> None:
    rows = [
        [cell.whole for cell in row.cells]
        for row in pairs_table(comparison.tables["first"].lines).rows
    ]
    assert rows[0][:5] == ["age group", "+2.6 (+1.4 to +3.8)", "−1.2 (−3.0 to +0.6)"] + [
        *("0.0004", "0.0008"),
    ]
    assert (rows[1][0], rows[1][2]) == ("gender", "–")
    scores = [[cell.whole for cell in row.cells] for row in scores_table(comparison).rows]
    assert scores[0][1:] == ["0, 1, 2", "70.0 ± 1.0 (65.0–75.0)", "–"]
    assert scores[2] == ["third (not run: failed: <b>|x)", "–", "–", "–"]
