"""What a row is set against: twins, the one its definition names, the first; p-values by hand."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmark.comparison.leaderboard import Leaderboard, LeaderboardQuery, arrange
from benchmark.comparison.library import read_runs
from benchmark.comparison.rows import Row, RowComparison
from benchmark.comparison.statistics import holm, mcnemar_p, paired_difference
from benchmark.evaluation.answers import read_answers
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TaskName
from tests.results.conftest import RunBuilder, an_experiment, build, exact_predictions

GENDER: tuple[TaskName, ...] = ("gender",)
MTL = an_experiment("a")
TWIN = an_experiment("a", tasks=GENDER)
OTHER = an_experiment("b", tasks=GENDER, **{"recipe.learning_rate": 5e-4})
NAMING = dataclasses.replace(OTHER, compare_with=TWIN.name)


def row_of(board: Leaderboard, name: str) -> Row:
    (row,) = (row for table in board.tables for row in table.rows if row.name == name)
    return row


def outcomes(
    runs: RunBuilder, experiments: Sequence[Experiment], name: str
) -> Mapping[str, RowComparison]:
    board = build(runs.records(), experiments, "utkface-100")
    return {
        f"{item.kind} {item.task or 'together'}": item for item in row_of(board, name).comparisons
    }


def right(n_val: int, n_test: int, tasks: Sequence[TaskName] = GENDER, *, n: int = 100) -> Any:
    return exact_predictions(n_val, n_test, n=n, tasks=tasks)


def test_a_multi_task_network_meets_its_twin_on_the_twin_s_task(runs: RunBuilder) -> None:
    runs.done(MTL, exact_predictions(70, 80))
    runs.done(TWIN, right(70, 60))
    found = outcomes(runs, [MTL, TWIN], MTL.name)
    twin = found["twin gender"]
    assert twin.difference is not None
    # 80 and 60 of 100 right, the first so many: 20 faces the network alone, none the twin alone.
    assert twin.difference.accuracy == pytest.approx(0.2)
    assert twin.difference.p == pytest.approx(mcnemar_p(0, 20))
    assert twin.of_trainings_alone
    assert (found["twin race"].difference, found["twin race"].why) == (None, "not registered")


def test_a_single_task_network_meets_its_multi_task_twin(runs: RunBuilder) -> None:
    runs.done(MTL, exact_predictions(70, 80))
    runs.done(TWIN, right(70, 60))
    twin = outcomes(runs, [MTL, TWIN], TWIN.name)["twin gender"]
    assert twin.other == MTL.name
    assert twin.difference is not None
    assert twin.difference.accuracy == pytest.approx(-0.2)


def test_one_that_bears_the_twin_s_name_and_was_trained_otherwise_is_none(
    runs: RunBuilder,
) -> None:
    trained_longer = TWIN.varied(name=TWIN.name, **{"recipe.max_epochs": 99})
    runs.done(MTL, exact_predictions(70, 80))
    runs.done(trained_longer, right(70, 60))
    found = outcomes(runs, [MTL, trained_longer], MTL.name)
    assert found["twin gender"].why == "no counterpart, its recipe differ"


def test_several_seeds_meet_several_as_in_a_comparison(runs: RunBuilder) -> None:
    for seed, n_right in enumerate((80, 85, 90)):
        runs.done(TWIN, right(60, n_right), seed=seed)
    for seed, n_right in enumerate((84, 70)):
        runs.done(NAMING, right(70, n_right), seed=seed)
    found = outcomes(runs, [TWIN, NAMING], NAMING.name)["defined gender"]
    groups = [
        [record for record in runs.records() if record.experiment_name == item.name]
        for item in (TWIN, NAMING)
    ]
    reference, group = (read_answers(records, GENDER) for records in groups)
    expected = paired_difference(
        group.predicted["gender"],
        reference.predicted["gender"],
        group.faces["gender"].to_numpy(),
        group.faces["cluster"].to_numpy(),
    )
    assert found.difference is not None
    for name in ("accuracy", "low", "high", "p", "se", "se_seeds", "df", "test"):
        assert getattr(found.difference, name) == pytest.approx(getattr(expected, name)), name
    assert not found.of_trainings_alone


def test_all_rows_meet_the_first_by_validation(runs: RunBuilder) -> None:
    runs.done(TWIN, right(90, 60))
    runs.done(OTHER, right(70, 80))
    board = build(runs.records(), [TWIN, OTHER], "utkface-100")
    assert row_of(board, TWIN.name).comparisons == ()
    (found,) = row_of(board, OTHER.name).comparisons
    assert (found.kind, found.other) == ("first", TWIN.name)
    assert found.difference is not None
    assert found.difference.accuracy == pytest.approx(0.2)


@pytest.mark.parametrize(("n_right", "tied"), [(58, True), (40, False)])
def test_a_row_not_told_from_the_first_is_tied(n_right: int, tied: bool, runs: RunBuilder) -> None:
    # Of 100 faces one alone reads 2: p = 0.5. One alone reads 20: p = 2 / 2^20.
    runs.done(TWIN, right(90, 60))
    runs.done(OTHER, right(70, n_right))
    board = build(runs.records(), [TWIN, OTHER], "utkface-100")
    row = row_of(board, OTHER.name)
    assert row.tied is tied
    assert row.comparisons[0].significant is not tied
    assert any(note.startswith("= marks") for note in board.notes) is tied


def test_all_tasks_together_count_as_combined_does(runs: RunBuilder) -> None:
    other = MTL.varied(name=an_experiment("b").name, **{"recipe.learning_rate": 5e-4})
    runs.done(MTL, exact_predictions(90, 60))
    runs.done(other, exact_predictions(80, 50))
    found = outcomes(runs, [MTL, other], other.name)["first together"]
    assert found.difference is not None
    # The same 10 faces are lost on all three tasks: 10 of 100, whatever the weights.
    assert found.difference.accuracy == pytest.approx(-0.1)
    assert found.difference.p == pytest.approx(2 / 2**10)


def test_a_comparison_has_one_p_of_one_family_however_often_it_is_shown(runs: RunBuilder) -> None:
    third = an_experiment("c", tasks=GENDER, **{"recipe.learning_rate": 2e-4})
    fourth = an_experiment("d", tasks=GENDER, **{"recipe.learning_rate": 3e-4})
    runs.done(TWIN, right(90, 60))
    runs.done(NAMING, right(80, 66))
    runs.done(third, right(70, 54))
    runs.done(fourth, right(60, 50))
    board = build(runs.records(), [TWIN, NAMING, third, fourth], "utkface-100")
    # NAMING meets TWIN both as the one it names and as the first: one comparison, which belongs to
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
    runs.done(TWIN, right(70, 74))
    runs.done(race, right(70, 72, ("race",)))
    board = build(runs.records(), [MTL, TWIN, race], "utkface-100")
    gender, of_race = holm([mcnemar_p(0, 6), mcnemar_p(0, 8)])[0]
    for name in (MTL.name, TWIN.name, race.name):
        for item in row_of(board, name).comparisons:
            if item.judged:
                expected = gender if item.task == "gender" else of_race
                assert (item.judged.p_holm, item.judged.n_family) == (pytest.approx(expected), 2)
    (note,) = (note for note in board.notes if note.startswith("Differences are"))
    assert "MTL networks against their single-task counterparts (2 p-values)" in note


def test_an_honest_row_never_meets_a_leaky_one(runs: RunBuilder) -> None:
    runs.done(TWIN, right(90, 60), leaky=True)
    runs.done(NAMING, right(70, 80))
    found = outcomes(runs, [TWIN, NAMING], NAMING.name)
    assert {item.why for item in found.values()} == {"one of the two is LEAKY"}


def test_rows_on_other_test_faces_are_not_compared(runs: RunBuilder) -> None:
    runs.done(TWIN, right(90, 60))
    runs.done(NAMING, right(70, 80, n=90))
    found = outcomes(runs, [TWIN, NAMING], NAMING.name)
    assert {item.why for item in found.values()} == {"tested on different faces"}


def test_a_row_outside_the_suite_is_met_all_the_same(runs: RunBuilder) -> None:
    runs.done(MTL, exact_predictions(70, 80))
    runs.done(TWIN, right(70, 60))
    read, _ = read_runs(runs.records())
    board = arrange(read, LeaderboardQuery([MTL], "utkface-100", known={TWIN.name: TWIN}))
    assert [row.name for table in board.tables for row in table.rows] == [MTL.name]
    by_task = {item.task: item for item in row_of(board, MTL.name).comparisons}
    assert by_task["gender"].difference is not None


def test_missing_twins_are_said_beneath(runs: RunBuilder) -> None:
    runs.done(MTL, exact_predictions(70, 80))
    board = build(runs.records(), [MTL, TWIN], "utkface-100")
    (note,) = (note for note in board.notes if note.startswith("Single-task counterparts missing"))
    assert f"gender ({TWIN.name}: not run here)" in note
    assert "age group and race (not registered)" in note


def test_ad_hoc_rows_meet_the_first_alone(runs: RunBuilder) -> None:
    runs.done(TWIN, right(90, 60))
    runs.done(NAMING.adjusted({"recipe.max_epochs": 3}), right(70, 80))
    board = build(runs.records(), [TWIN, NAMING], "utkface-100", ad_hoc=True)
    ad_hoc = next(row for table in board.tables for row in table.rows if row.rank == 2)
    assert [item.kind for item in ad_hoc.comparisons] == ["first"]


def test_order_of_the_folders_changes_no_p_value(runs: RunBuilder) -> None:
    for seed in (0, 1):
        runs.done(TWIN, right(90, 60 + seed), seed=seed)
        runs.done(NAMING, right(80, 66 - seed), seed=seed)
    boards = [
        build(records, [TWIN, NAMING], "utkface-100")
        for records in (runs.records(), runs.records()[::-1])
    ]
    assert boards[0].tables == boards[1].tables
    assert row_of(boards[0], NAMING.name).comparisons[0].judged is not None
