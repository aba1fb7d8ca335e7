"""What rows are compared with: counterparts, what their definitions name, the first."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmark.comparison.leaderboard import Leaderboard, LeaderboardQuery, arrange
from benchmark.comparison.library import read_runs
from benchmark.comparison.rows import Row, RowComparison
from benchmark.comparison.statistics import holm, mcnemar_p, paired_difference
from benchmark.comparison.wording import TaskComparison
from benchmark.evaluation.predictions import read_run_predictions
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TaskName
from tests.results.conftest import RunBuilder, an_experiment, build, exact_predictions

GENDER: tuple[TaskName, ...] = ("gender",)
MTL = an_experiment("a")
STL = an_experiment("a", tasks=GENDER)
OTHER = an_experiment("b", tasks=GENDER, **{"recipe.learning_rate": 5e-4})
NAMING = dataclasses.replace(OTHER, compare_with=STL.name)


def row_of(board: Leaderboard, name: str) -> Row:
    (row,) = (row for table in board.tables for row in table.rows if row.name == name)
    return row


def line_of(found: RowComparison) -> TaskComparison:
    assert isinstance(found.judged, TaskComparison), found.why
    return found.judged


def outcomes(
    runs: RunBuilder, experiments: Sequence[Experiment], name: str
) -> Mapping[str, RowComparison]:
    board = build(runs.records(), experiments, "utkface-100")
    return {
        f"{item.kind} {item.task or 'together'}": item for item in row_of(board, name).comparisons
    }


def right(n_val: int, n_test: int, tasks: Sequence[TaskName] = GENDER, *, n: int = 100) -> Any:
    return exact_predictions(n_val, n_test, n=n, tasks=tasks)


def test_mtl_and_stl_are_compared_on_the_task_they_share(runs: RunBuilder) -> None:
    runs.done(MTL, exact_predictions(70, 80))
    runs.done(STL, right(70, 60))
    found = outcomes(runs, [MTL, STL], MTL.name)
    ours = line_of(found["twin gender"])
    # 80 and 60 of 100 right, the first so many: 20 faces MTL alone, none STL alone.
    assert ours.difference.accuracy == pytest.approx(0.2)
    assert ours.difference.p == pytest.approx(mcnemar_p(0, 20))
    assert ours.of_trainings_alone
    assert (found["twin race"].judged, found["twin race"].why) == (None, "not registered")
    theirs = outcomes(runs, [MTL, STL], STL.name)["twin gender"]
    assert theirs.other == MTL.name
    assert line_of(theirs).difference.accuracy == pytest.approx(-0.2)


def test_several_seeds_are_compared_as_in_a_comparison(runs: RunBuilder) -> None:
    for seed, n_right in enumerate((80, 85, 90)):
        runs.done(STL, right(60, n_right), seed=seed)
    for seed, n_right in enumerate((84, 70)):
        runs.done(NAMING, right(70, n_right), seed=seed)
    found = line_of(outcomes(runs, [STL, NAMING], NAMING.name)["defined gender"])
    groups = [
        [record for record in runs.records() if record.experiment_name == item.name]
        for item in (STL, NAMING)
    ]
    reference, group = (read_run_predictions(records, GENDER) for records in groups)
    expected = paired_difference(
        group.predicted["gender"],
        reference.predicted["gender"],
        group.faces["gender"].to_numpy(),
        group.faces["cluster"].to_numpy(),
    )
    for name in ("accuracy", "low", "high", "p", "se", "se_seeds", "df", "test"):
        assert getattr(found.difference, name) == pytest.approx(getattr(expected, name)), name
    assert not found.of_trainings_alone


@pytest.mark.parametrize(("n_right", "tied"), [(58, True), (40, False)])
def test_rows_are_compared_with_the_first_by_validation_and_may_tie(
    n_right: int, tied: bool, runs: RunBuilder
) -> None:
    # Of 100 faces one alone is right on 2: p = 0.5. One alone on 20: p = 2 / 2^20.
    runs.done(STL, right(90, 60))
    runs.done(OTHER, right(70, n_right))
    board = build(runs.records(), [STL, OTHER], "utkface-100")
    assert not row_of(board, STL.name).comparisons
    row = row_of(board, OTHER.name)
    (found,) = row.comparisons
    assert (found.kind, found.other) == ("first", STL.name)
    assert line_of(found).difference.accuracy == pytest.approx(n_right / 100 - 0.6)
    assert (row.tied, line_of(found).significant) == (tied, not tied)
    assert any(note.startswith("= marks") for note in board.notes) is tied


def test_all_tasks_together_count_as_combined_does(runs: RunBuilder) -> None:
    other = MTL.varied(name=an_experiment("b").name, **{"recipe.learning_rate": 5e-4})
    runs.done(MTL, exact_predictions(90, 60))
    runs.done(other, exact_predictions(80, 50))
    found = line_of(outcomes(runs, [MTL, other], other.name)["first together"])
    # The same 10 faces are lost on all three tasks: 10 of 100, whatever the weights.
    assert found.difference.accuracy == pytest.approx(-0.1)
    assert found.difference.p == pytest.approx(2 / 2**10)


def test_a_comparison_has_one_p_of_one_family_however_often_it_is_shown(runs: RunBuilder) -> None:
    third = an_experiment("c", tasks=GENDER, **{"recipe.learning_rate": 2e-4})
    fourth = an_experiment("d", tasks=GENDER, **{"recipe.learning_rate": 3e-4})
    runs.done(STL, right(90, 60))
    runs.done(NAMING, right(80, 66))
    runs.done(third, right(70, 54))
    runs.done(fourth, right(60, 50))
    board = build(runs.records(), [STL, NAMING, third, fourth], "utkface-100")
    # NAMING meets STL both as the one it names and as the first: one comparison, which belongs to
    # the question of what definitions name. The two others are corrected with each other.
    p = mcnemar_p(6, 0)
    with_the_first, _ = holm([p, mcnemar_p(10, 0)])
    found = {
        (name[-1], item.kind): (item.judged.p_holm, item.judged.n_family)
        for name in (NAMING.name, third.name, fourth.name)
        for item in row_of(board, name).comparisons
        if item.judged
    }
    assert found == {
        ("b", "defined"): (pytest.approx(p), 1),
        ("b", "first"): (pytest.approx(p), 1),
        ("c", "first"): (pytest.approx(with_the_first[0]), 2),
        ("d", "first"): (pytest.approx(with_the_first[1]), 2),
    }


def test_counterparts_are_one_family_over_all_tables_of_the_page(runs: RunBuilder) -> None:
    race = an_experiment("a", tasks=("race",))
    runs.done(MTL, exact_predictions(70, 80))
    runs.done(STL, right(70, 74))
    runs.done(race, right(70, 72, ("race",)))
    board = build(runs.records(), [MTL, STL, race], "utkface-100")
    gender, of_race = holm([mcnemar_p(0, 6), mcnemar_p(0, 8)])[0]
    for name in (MTL.name, STL.name, race.name):
        for item in row_of(board, name).comparisons:
            if item.judged:
                expected = gender if item.task == "gender" else of_race
                assert (item.judged.p_holm, item.judged.n_family) == (pytest.approx(expected), 2)
    (note,) = (note for note in board.notes if note.startswith("Differences are"))
    assert "MTL networks against their single-task counterparts (2 p-values)" in note


@pytest.mark.parametrize(
    ("about", "n", "why"),
    [({"leaky": True}, 100, "one of the two is LEAKY"), ({}, 90, "tested on different faces")],
)
def test_rows_that_are_not_comparable_say_why(
    runs: RunBuilder, about: dict[str, bool], n: int, why: str
) -> None:
    runs.done(STL, right(90, 60), **about)
    runs.done(NAMING, right(70, 80, n=n))
    found = outcomes(runs, [STL, NAMING], NAMING.name)
    assert {item.why for item in found.values()} == {why}


def test_rows_that_are_not_shown_are_compared_all_the_same(runs: RunBuilder) -> None:
    runs.done(MTL, exact_predictions(70, 80))
    board = build(runs.records(), [MTL, STL], "utkface-100")
    (note,) = (note for note in board.notes if note.startswith("Single-task counterparts missing"))
    assert f"gender ({STL.name}: not run here)" in note
    assert "age group and race (not registered)" in note
    runs.done(STL, right(70, 60))
    board = arrange(
        read_runs(runs.records())[0], LeaderboardQuery([MTL], "utkface-100", known={STL.name: STL})
    )
    assert [row.name for table in board.tables for row in table.rows] == [MTL.name]
    by_task = {item.task: item for item in row_of(board, MTL.name).comparisons}
    assert by_task["gender"].judged is not None
    longer = STL.varied(name=STL.name, **{"recipe.max_epochs": 99})
    found = outcomes(runs, [MTL, longer], MTL.name)
    assert found["twin gender"].why == "no counterpart, its recipe differ"


def test_ad_hoc_rows_are_compared_with_the_first_alone(runs: RunBuilder) -> None:
    runs.done(STL, right(90, 60))
    runs.done(NAMING.adjusted({"recipe.max_epochs": 3}), right(70, 80))
    board = build(runs.records(), [STL, NAMING], "utkface-100", ad_hoc=True)
    ad_hoc = next(row for table in board.tables for row in table.rows if row.rank == 2)
    assert [item.kind for item in ad_hoc.comparisons] == ["first"]
