"""Leaderboards: order, ties, what is missing and why, and what never stands in one table."""

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Sequence

import pytest

from benchmark.comparison.leaderboard import ONE_SEED, Leaderboard
from benchmark.comparison.library import Setting, edited_after
from benchmark.comparison.references import majority_row
from benchmark.comparison.rows import Row
from benchmark.experiment.definition import Experiment
from benchmark.reporting.board_tables import markdown
from benchmark.reporting.columns import csv_text
from benchmark.tasks import TaskName
from tests.results import conftest as made
from tests.results.conftest import RunBuilder, an_experiment

MTL = an_experiment("a")
A, B, C = (
    an_experiment(variant, tasks=("gender",), **{"recipe.learning_rate": rate})
    for variant, rate in (("a", 1e-3), ("b", 2e-3), ("c", 3e-3))
)
predicted = functools.partial(made.exact_predictions, tasks=("gender",))
"""One task is enough where tables are arranged, and three times as fast."""


def board_of(runs: RunBuilder, experiments: Sequence[Experiment], **options: object) -> Leaderboard:
    return made.build(runs.records(), experiments, "utkface-100", **options)


def rows_of(runs: RunBuilder, *experiments: Experiment, **options: object) -> tuple[Row, ...]:
    (table,) = board_of(runs, experiments, **options).tables
    return table.rows


def changed(experiment: Experiment, **changes: object) -> Experiment:
    return experiment.varied(name=experiment.name, **changes)


def test_rows_are_ranked_by_validation_and_ties_stand_by_name(runs: RunBuilder) -> None:
    for experiment, n_val, n_test in ((C, 70, 50), (A, 70, 50), (B, 60, 90)):
        runs.done(experiment, predicted(n_val, n_test))
    rows = rows_of(runs, C, B, A)
    assert [(row.rank, row.name) for row in rows] == [(1, A.name), (1, C.name), (3, B.name)]


def test_a_rebuild_is_byte_identical(runs: RunBuilder) -> None:
    for seed in (0, 1, 2):
        runs.done(A, predicted(60 + seed, 80), seed=seed)
    runs.done(B, predicted(60, 80))
    boards = [
        made.build(records, [A, B], "utkface-100", suite="quick")
        for records in (runs.records(), reversed(runs.records()))
    ]
    assert markdown(boards[0]) == markdown(boards[1])
    assert csv_text(boards[0]) == csv_text(boards[1])


def test_seeds_of_one_experiment_make_one_row_and_one_seed_permits_no_claim(
    runs: RunBuilder,
) -> None:
    tables = [predicted(60 + seed, 80) for seed in (0, 1, 2)]
    shared = [table.assign(cluster=table["cluster"].clip(lower=9)) for table in tables]
    runs.done(A, shared[0])
    board = board_of(runs, [A])
    assert board.tables[0].rows[0].remarks == (ONE_SEED,)
    assert any("permit no claim" in note for note in board.notes)
    assert any("9 test faces are near-duplicates" in note for note in board.notes)
    for seed in (1, 2):
        runs.done(A, shared[seed], seed=seed)
    (row,) = rows_of(runs, A)
    assert row.seeds == (0, 1, 2)
    assert row.val_combined == pytest.approx(0.61)
    assert ONE_SEED not in row.remarks


@pytest.mark.parametrize("key", ["pixel_digest", "split_digest", "split_version"])
def test_other_faces_or_splits_never_stand_in_one_table(key: str, runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    RunBuilder(runs.runs_dir, runs.dataset | {key: "99" * 32}).done(B, predicted(70, 80))
    tables = board_of(runs, [A, B]).tables
    done = [[row.name for row in table.rows if row.status == "done"] for table in tables]
    assert sorted(done) == [[A.name], [B.name]]


def test_other_protocols_never_stand_in_one_table_nor_other_data_sets(runs: RunBuilder) -> None:
    fold = changed(B, **{"protocol.fold": 2})
    swapped = changed(C, **{"protocol.input_scaling": "weights_swapped"})
    for experiment in (A, fold, swapped):
        runs.done(experiment, predicted(60, 80))
    board = board_of(runs, [A, fold, swapped])
    first, *others = [[row.name for row in table.rows] for table in board.tables]
    assert (first, len(others)) == ([A.name], 2)
    assert "leak-free fold 2" in markdown(board)
    assert "red and blue exchanged" in markdown(board)
    other = RunBuilder(runs.runs_dir.parent / "other", runs.dataset | {"name": "other-100"})
    other.done(A, predicted(60, 80))
    assert rows_of(other, A)[0].remarks == ("not run",)


def test_a_run_of_an_older_definition_is_left_out_and_rewording_is_none(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    board = board_of(runs, [changed(A, **{"recipe.max_epochs": 3})])
    assert board.tables[0].rows[0].status == "missing"
    assert f"{A.name}: {edited_after(A.name, 1)}." in board.notes
    reworded = dataclasses.replace(A, asks="Is it still a test?", compare_with=B.name)
    for experiment in (reworded, dataclasses.replace(A, name=B.name)):
        (row,) = rows_of(runs, experiment)
        assert (row.status, row.name) == ("done", experiment.name)


def test_missing_rows_stand_last_say_why_and_have_no_numbers(runs: RunBuilder) -> None:
    failed, stopped, absent, weights = (
        an_experiment(name, tasks=("gender",), **{"recipe.learning_rate": rate})
        for name, rate in (("failed", 4e-3), ("stopped", 5e-3), ("absent", 6e-3), ("late", 7e-3))
    )
    runs.failed(failed, "the loss of epoch 3 is nan")
    runs.begun(stopped, seed=4)
    lost = runs.done(B, predicted(60, 80))
    (lost.folder / "subgroups.csv").unlink()
    runs.done(A, predicted(60, 80), seed=0)
    runs.failed(A, "disk full", seed=1)
    known = {weights.name: "weights missing"}
    rows = rows_of(runs, failed, stopped, absent, weights, B, A, missing=known)
    assert (rows[0].name, rows[0].seeds) == (A.name, (0,))
    assert "seed 1 failed: disk full" in rows[0].remarks
    assert [row.remarks[0] for row in rows[1:5]] == [
        "seed 0 failed: the loss of epoch 3 is nan",
        "seed 4 was interrupted or is still running",
        "not run",
        "weights missing",
    ]
    assert "has no subgroups.csv" in rows[5].remarks[0]
    assert rows[3] == Row("missing", absent.name, remarks=("not run",), definition=absent.as_dict())


def test_a_suite_that_was_never_run_is_all_missing() -> None:
    board = made.build([], [A, changed(B, **{"protocol.fold": 1})], "utkface-100")
    assert [row.status for table in board.tables for row in table.rows] == ["missing"] * 2
    assert "Not run." in markdown(board)


def test_ad_hoc_runs_are_left_out_unless_asked_for(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    predictions = predicted(60, 80)
    validation = predictions[predictions["part"] == "val"]
    runs.done(A.adjusted({"recipe.max_epochs": 3}), predicted(90, 90))
    runs.done(A.adjusted({"recipe.max_epochs": 4}), validation)
    board = board_of(runs, [A])
    assert len(board.tables[0].rows) == 1
    assert any("2 ad-hoc runs" in note for note in board.notes)
    rows = {row.remarks: row for row in rows_of(runs, A, ad_hoc=True)}
    assert len(rows) == 3
    assert any(remarks[0] == "ad hoc: recipe.max_epochs=3" for remarks in rows)
    (untested,) = (row for remarks, row in rows.items() if "test was not read" in remarks)
    assert (untested.scores, untested.worst) == ({}, None)
    assert untested.val_combined == pytest.approx(0.6)


def test_two_trainer_versions_are_two_rows_that_say_so(runs: RunBuilder) -> None:
    for version in (1, 2):
        runs.done(A, predicted(60, 80), trainer_version=version)
    rows = rows_of(runs, A)
    assert sorted(row.remarks[0] for row in rows) == ["trainer version 1", "trainer version 2"]


def test_reference_rows_stand_first_and_are_of_the_tables_tasks(runs: RunBuilder) -> None:
    runs.done(MTL, made.exact_predictions(60, 80))
    runs.done(A, predicted(60, 80))
    faces = made.made_up_faces(400)

    def majority(setting: Setting, tasks: tuple[TaskName, ...]) -> Sequence[Row]:
        return (majority_row(faces[:300], faces[300:], tasks),)

    board = board_of(runs, [MTL, A], references=majority)
    assert [table.rows[0].name for table in board.tables] == ["majority class"] * 2
    assert list(board.tables[1].rows[0].scores) == ["gender"]


def test_building_a_leaderboard_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, benchmark.reporting.board_tables\n"
        "sys.exit(', '.join({'torch', 'mlflow', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_task_of_one_class_is_said_and_not_ranked(runs: RunBuilder) -> None:
    table = predicted(60, 80).assign(gender=0, gender_pred=0, gender_p0=0.9, gender_p1=0.1)
    runs.done(A, table)
    (row,) = rows_of(runs, A)
    assert (row.scores["gender"].accuracy, row.rank) == (1, None)
    assert "all test faces have one gender: its accuracy says nothing" in row.remarks
