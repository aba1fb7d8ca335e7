"""Leaderboards: order, ties, what is missing and why, and what never stands in one table."""

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Sequence

import pytest

from benchmark.comparison.leaderboard import ONE_SEED, Leaderboard, Table, build
from benchmark.comparison.library import Setting
from benchmark.comparison.references import majority_row
from benchmark.comparison.rows import Row
from benchmark.experiment.definition import Experiment
from benchmark.files import write_text
from benchmark.reporting.board_tables import csv_text, markdown
from benchmark.tasks import TaskName
from tests.results.conftest import (
    RunBuilder,
    an_experiment,
    exact_predictions,
    made_up_faces,
)

MTL = an_experiment("a")
A, B, C = (an_experiment(variant, tasks=("gender",)) for variant in ("a", "b", "c"))

predicted = functools.partial(exact_predictions, tasks=("gender",))
"""One task is enough where tables are arranged, and three times as fast."""


def board_of(runs: RunBuilder, experiments: Sequence[Experiment], **options: object) -> Leaderboard:
    return build(runs.records(), experiments, "utkface-100", **options)  # type: ignore[arg-type]


def only_table(board: Leaderboard) -> Table:
    assert len(board.tables) == 1
    return board.tables[0]


def changed(experiment: Experiment, **changes: object) -> Experiment:
    return experiment.varied(name=experiment.name, **changes)


def distinct(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Give each experiment a learning rate of its own, so that no two are one definition."""
    return [
        changed(item, **{"recipe.learning_rate": 1e-3 * (1 + index)})
        for index, item in enumerate(experiments)
    ]


def test_rows_are_ranked_by_validation_not_by_test(runs: RunBuilder) -> None:
    a, b = distinct([A, B])
    runs.done(a, predicted(60, 90))
    runs.done(b, predicted(70, 50))
    rows = only_table(board_of(runs, [a, b])).rows
    assert [(row.rank, row.name) for row in rows] == [(1, b.name), (2, a.name)]


def test_ties_share_a_rank_and_stand_by_name(runs: RunBuilder) -> None:
    a, b, c = distinct([A, B, C])
    for experiment, n_right in ((c, 70), (a, 70), (b, 60)):
        runs.done(experiment, predicted(n_right, 50))
    rows = only_table(board_of(runs, [c, b, a])).rows
    assert [(row.rank, row.name) for row in rows] == [(1, a.name), (1, c.name), (3, b.name)]


def test_seeds_of_one_experiment_make_one_row(runs: RunBuilder) -> None:
    for seed in (0, 1, 2):
        runs.done(A, predicted(60 + seed, 80), seed=seed)
    row = only_table(board_of(runs, [A])).rows[0]
    assert row.seeds == (0, 1, 2)
    assert row.val_combined == pytest.approx(0.61)
    assert ONE_SEED not in row.remarks


def test_one_seed_says_that_it_permits_no_claim(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    board = board_of(runs, [A])
    assert only_table(board).rows[0].remarks == (ONE_SEED,)
    assert any("permit no claim" in note for note in board.notes)


def test_near_duplicates_among_test_faces_are_said_where_wilson_is_used(runs: RunBuilder) -> None:
    predictions = predicted(60, 80)
    runs.done(A, predictions.assign(cluster=predictions["cluster"].clip(lower=9)))
    assert any("9 test faces are near-duplicates" in note for note in board_of(runs, [A]).notes)


def test_each_kind_of_network_has_a_table_of_its_own(runs: RunBuilder) -> None:
    tasks: tuple[TaskName, ...] = ("age_group", "gender", "race")
    alone = [an_experiment("a", tasks=(task,)) for task in tasks]
    runs.done(MTL, exact_predictions(60, 80))
    for experiment in alone:
        runs.done(experiment, predicted(60, 80, tasks=experiment.head.tasks))
    board = board_of(runs, [MTL, *alone])
    assert [table.kind for table in board.tables] == ["mtl", *tasks]
    assert [list(table.rows[0].scores) for table in board.tables[1:]] == [[task] for task in tasks]


@pytest.mark.parametrize("key", ["pixel_digest", "split_digest", "split_version"])
def test_other_faces_or_splits_never_stand_in_one_table(key: str, runs: RunBuilder) -> None:
    a, b = distinct([A, B])
    runs.done(a, predicted(60, 80))
    other = RunBuilder(runs.runs_dir, runs.dataset | {key: "99" * 32})
    other.done(b, predicted(70, 80))
    tables = board_of(runs, [a, b]).tables
    done = [[row.name for row in table.rows if row.status == "done"] for table in tables]
    assert sorted(done) == [[a.name], [b.name]]


def test_other_protocols_never_stand_in_one_table(runs: RunBuilder) -> None:
    fold = changed(B, **{"protocol.fold": 2})
    swapped = changed(C, **{"protocol.input_scaling": "weights_swapped"})
    for experiment in (A, fold, swapped):
        runs.done(experiment, predicted(60, 80))
    board = board_of(runs, [A, fold, swapped])
    assert [[row.name for row in table.rows] for table in board.tables][0] == [A.name]
    assert len(board.tables) == 3
    assert "leak-free fold 2" in markdown(board)
    assert "red and blue exchanged" in markdown(board)


def test_another_data_set_is_not_shown(runs: RunBuilder) -> None:
    RunBuilder(runs.runs_dir, runs.dataset | {"name": "other-100"}).done(A, predicted(60, 80))
    assert only_table(board_of(runs, [A])).rows[0].remarks == ("not run",)


def test_a_run_of_an_older_definition_is_left_out_and_counted(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    now = changed(A, **{"recipe.max_epochs": 3})
    board = board_of(runs, [now])
    assert only_table(board).rows[0].status == "missing"
    assert f"Left out: 1 run of an older definition of {A.name}." in board.notes


def test_editing_a_sentence_or_the_name_keeps_the_row(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    reworded = dataclasses.replace(A, asks="Is it still a test?", compare_with=B.name)
    renamed = dataclasses.replace(A, name=B.name)
    for experiment in (reworded, renamed):
        row = only_table(board_of(runs, [experiment])).rows[0]
        assert (row.status, row.name) == ("done", experiment.name)


def test_missing_rows_say_why(runs: RunBuilder) -> None:
    failed, stopped, absent, weights = distinct(
        [an_experiment(name, tasks=("race",)) for name in ("failed", "stopped", "absent", "late")]
    )
    runs.failed(failed, "the loss of epoch 3 is nan")
    runs.begun(stopped, seed=4)
    known = {weights.name: "weights missing"}
    board = board_of(runs, [failed, stopped, absent, weights], missing=known)
    assert [row.remarks[0] for row in only_table(board).rows] == [
        "seed 0 failed: the loss of epoch 3 is nan",
        "seed 4 was interrupted or is still running",
        "not run",
        "weights missing",
    ]


def test_missing_rows_stand_last_and_have_no_numbers(runs: RunBuilder) -> None:
    a, b = distinct([A, B])
    runs.done(b, predicted(60, 80))
    rows = only_table(board_of(runs, [a, b])).rows
    assert [row.name for row in rows] == [b.name, a.name]
    assert rows[1] == Row("missing", a.name, remarks=("not run",), definition=a.as_dict())


def test_a_seed_that_failed_is_said_beside_those_that_are_done(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80), seed=0)
    runs.failed(A, "disk full", seed=1)
    row = only_table(board_of(runs, [A])).rows[0]
    assert row.seeds == (0,)
    assert "seed 1 failed: disk full" in row.remarks


def test_a_suite_that_was_never_run_is_all_missing(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    fold = changed(B, **{"protocol.fold": 1})
    board = build([], [A, fold], "utkface-100")
    assert [row.status for table in board.tables for row in table.rows] == ["missing"] * 2
    assert "Not run." in markdown(board)


def test_ad_hoc_runs_are_left_out_unless_asked(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    runs.done(A.adjusted({"recipe.max_epochs": 3}), predicted(90, 90))
    board = board_of(runs, [A])
    assert len(only_table(board).rows) == 1
    assert any("1 ad-hoc run" in note for note in board.notes)
    asked = only_table(board_of(runs, [A], ad_hoc=True)).rows
    assert asked[0].remarks[0] == "ad hoc: recipe.max_epochs=3"
    assert len(asked) == 2


def test_an_ad_hoc_run_that_did_not_read_test_has_no_test_numbers(runs: RunBuilder) -> None:
    predictions = predicted(60, 80)
    validation = predictions[predictions["part"] == "val"]
    runs.done(A.adjusted({"recipe.max_epochs": 3}), validation)
    row = only_table(board_of(runs, [A], ad_hoc=True)).rows[0]
    assert (row.scores, row.worst) == ({}, None)
    assert row.val_combined == pytest.approx(0.6)
    assert "test was not read" in row.remarks


def test_two_trainer_versions_are_two_rows_that_say_so(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80), trainer_version=1)
    runs.done(A, predicted(60, 80), trainer_version=2)
    rows = only_table(board_of(runs, [A])).rows
    assert sorted(row.remarks[0] for row in rows) == ["trainer version 1", "trainer version 2"]


def test_reference_rows_stand_first_and_are_of_the_table_s_tasks(runs: RunBuilder) -> None:
    runs.done(MTL, exact_predictions(60, 80))
    runs.done(A, predicted(60, 80))
    faces = made_up_faces(400)

    def majority(setting: Setting, tasks: tuple[TaskName, ...]) -> Sequence[Row]:
        return (majority_row(faces[:300], faces[300:], tasks),)

    board = board_of(runs, [MTL, A], references=majority)
    assert [table.rows[0].name for table in board.tables] == ["majority class"] * 2
    assert list(board.tables[1].rows[0].scores) == ["gender"]
    assert not any("No majority-class row" in note for note in board.notes)


def test_a_table_without_references_says_so(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    assert any("No majority-class row" in note for note in board_of(runs, [A]).notes)


def test_drawn_faces_are_in_the_title_and_the_limits(runs: RunBuilder) -> None:
    runs.dataset |= {"drawn": True}
    runs.done(A, predicted(60, 80))
    board = board_of(runs, [A])
    assert markdown(board).startswith("# DRAWN FACES")
    assert "say nothing about faces of people" in board.limits[0]


def test_a_leak_is_written_into_the_row(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80), leaky=True)
    assert "LEAKY" in markdown(board_of(runs, [A]))


def test_unreadable_runs_become_notes_and_the_others_stand(runs: RunBuilder) -> None:
    a, b = distinct([A, B])
    runs.done(a, predicted(60, 80))
    damaged = runs.begun(b)
    write_text(damaged.folder / "experiment.json", "{")
    board = board_of(runs, [a])
    assert only_table(board).rows[0].status == "done"
    assert any(damaged.identity[:12] in note for note in board.notes)


def test_a_done_run_that_lost_its_files_is_missing_with_the_reason(runs: RunBuilder) -> None:
    record = runs.done(A, predicted(60, 80))
    (record.folder / "subgroups.csv").unlink()
    row = only_table(board_of(runs, [A])).rows[0]
    assert row.status == "missing"
    assert "has no subgroups.csv" in row.remarks[0]


def test_a_rebuild_is_byte_identical(runs: RunBuilder) -> None:
    a, b = distinct([A, B])
    for seed in (0, 1, 2):
        runs.done(a, predicted(60 + seed, 80), seed=seed)
    runs.done(b, predicted(60, 80))
    boards = [
        build(records, [a, b], "utkface-100", suite="quick")
        for records in (runs.records(), reversed(runs.records()))
    ]
    assert markdown(boards[0]) == markdown(boards[1])
    assert csv_text(boards[0]) == csv_text(boards[1])


def test_building_a_leaderboard_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, benchmark.reporting.board_tables\n"
        "sys.exit(', '.join({'torch', 'mlflow', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
