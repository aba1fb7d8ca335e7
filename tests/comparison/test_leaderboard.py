"""Leaderboards: order, ties, what is missing and why, and what never stands in one table; the five
folds of an experiment beside its runs on the fixed split."""

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from benchmark.comparison.leaderboard import (
    ONE_SEED,
    Leaderboard,
    stability_cells,
    stability_tables,
)
from benchmark.comparison.library import edited_after, read_run
from benchmark.comparison.rows import Row
from benchmark.experiment.definition import Experiment
from benchmark.reporting.board_tables import markdown
from benchmark.reporting.columns import csv_text
from tests import made_runs as made
from tests.made_runs import RunBuilder, an_experiment

MTL = an_experiment("a")
A, B, C, D = (
    an_experiment(variant, tasks=("gender",), **{"recipe.learning_rate": rate})
    for variant, rate in (("a", 1e-3), ("b", 2e-3), ("c", 3e-3), ("d", 4e-3))
)
predicted = functools.partial(made.exact_predictions, tasks=("gender",))
"""One task is enough where tables are arranged, and three times as fast."""


def board_of(runs: RunBuilder, experiments: Sequence[Experiment], **options: Any) -> Leaderboard:
    return made.build(runs.records(), experiments, "utkface-100", **options)


def rows_of(runs: RunBuilder, *experiments: Experiment, **options: Any) -> tuple[Row, ...]:
    (table,) = board_of(runs, experiments, **options).tables
    return table.rows


def changed(experiment: Experiment, **changes: Any) -> Experiment:
    return experiment.varied(name=experiment.name, **changes)


def test_rows_are_ranked_by_validation_and_ties_stand_by_name(runs: RunBuilder) -> None:
    for experiment, n_val, n_test in ((C, 70, 50), (A, 70, 50), (B, 60, 90)):
        runs.done(experiment, predicted(n_val, n_test))
    of_one_class = predicted(90, 80).assign(gender=0, gender_pred=0, gender_p0=0.9, gender_p1=0.1)
    for version in (1, 2):
        runs.done(D, of_one_class, trainer_version=version)
    lone, other, *rows = rows_of(runs, C, B, A, D)
    assert [(row.rank, row.name) for row in rows] == [(1, A.name), (1, C.name), (3, B.name)]
    assert (lone.scores["gender"].accuracy, lone.rank) == (1, None)
    assert "all test faces have one gender: its accuracy says nothing" in lone.remarks
    versions = {row.remarks[0] for row in (lone, other)}
    assert versions == {"trainer version 1", "trainer version 2"}


def test_seeds_make_one_row_one_seed_permits_no_claim_and_a_rebuild_is_byte_identical(
    runs: RunBuilder,
) -> None:
    tables = [predicted(60 + seed, 80) for seed in (0, 1, 2)]
    runs.done(A, tables[0])
    board = board_of(runs, [A])
    assert board.tables[0].rows[0].remarks == (ONE_SEED,)
    assert any("supports no claim" in note for note in board.notes)
    for seed in (1, 2):
        runs.done(A, tables[seed], seed=seed)
    (row,) = rows_of(runs, A)
    assert (row.seeds, row.val_combined, row.remarks) == ((0, 1, 2), pytest.approx(0.61), ())
    runs.done(B, predicted(60, 80))
    for form in (markdown, csv_text):
        one, other = (
            form(made.build(records, [A, B], "utkface-100", suite="quick"))
            for records in (runs.records(), reversed(runs.records()))
        )
        assert one == other


@pytest.mark.parametrize(
    ("changes", "dataset"),
    [
        *(({}, {key: "99" * 32}) for key in ("pixel_digest", "split_digest", "split_version")),
        ({"protocol.fold": 2}, {}),
        ({"protocol.input_scaling": "weights_swapped"}, {}),
    ],
)
def test_other_faces_splits_or_protocols_never_stand_in_one_table(
    changes: dict[str, Any], dataset: dict[str, str], runs: RunBuilder
) -> None:
    other = changed(B, **changes)
    runs.done(A, predicted(60, 80))
    RunBuilder(runs.runs_dir, runs.dataset | dataset).done(other, predicted(70, 80))
    elsewhere = RunBuilder(runs.runs_dir, runs.dataset | {"name": "other-100"})
    elsewhere.done(C, predicted(60, 80))
    tables = board_of(runs, [A, other, C]).tables
    done = [[row.name for row in table.rows if row.status == "done"] for table in tables]
    assert sorted(done) == [[A.name], [B.name]], "and no other data set"


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
    stopped = changed(C, **{"recipe.max_epochs": 3})
    absent = an_experiment("absent", tasks=("gender",), **{"recipe.max_epochs": 4})
    weights = an_experiment("weights", tasks=("gender",), **{"recipe.max_epochs": 5})
    runs.failed(D, "the loss of epoch 3 is nan")
    runs.begun(stopped, seed=4)
    (runs.done(B, predicted(60, 80)).folder / "subgroups.csv").unlink()
    runs.done(A, predicted(60, 80), seed=0)
    runs.failed(A, "disk full", seed=1)
    known = {weights.name: "weights not available"}
    rows = rows_of(runs, D, stopped, absent, weights, B, A, missing=known)
    assert (rows[0].name, rows[0].seeds) == (A.name, (0,))
    assert "seed 1 failed: disk full" in rows[0].remarks
    assert [row.remarks[0] for row in rows[1:5]] == [
        "seed 0 failed: the loss of epoch 3 is nan",
        "seed 4 was interrupted or is still running",
        "not run",
        "weights not available",
    ]
    assert "has no subgroups.csv" in rows[5].remarks[0]
    assert rows[3] == Row("missing", absent.name, remarks=("not run",), definition=absent.as_dict())
    board = made.build([], [A, changed(B, **{"protocol.fold": 1})], "utkface-100")
    assert [row.status for table in board.tables for row in table.rows] == ["missing"] * 2


def test_ad_hoc_runs_are_left_out_unless_asked_for(runs: RunBuilder) -> None:
    runs.done(A, predicted(60, 80))
    runs.done(A.adjusted({"recipe.max_epochs": 3}), predicted(90, 90).query("part == 'val'"))
    board = board_of(runs, [A])
    assert len(board.tables[0].rows) == 1
    assert any("1 ad-hoc run," in note for note in board.notes)
    untested, _ = rows_of(runs, A, ad_hoc=True)
    assert {"ad hoc: recipe.max_epochs=3", "not evaluated on the test set"} <= {*untested.remarks}
    assert (untested.scores, untested.worst) == ({}, None)
    assert untested.val_combined == pytest.approx(0.9)


def test_building_a_leaderboard_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, benchmark.reporting.board_tables\n"
        "sys.exit(', '.join({'torch', 'mlflow', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def with_folds(
    runs: RunBuilder, experiment: Experiment, right: list[int], *, seed: int = 0, fixed: int = 20
) -> None:
    """Finish a run on the fixed split and one per fold; of 25 test faces so many are right."""
    folds = [experiment.in_fold(number) for number in range(len(right))]
    for item, n_right in zip((experiment, *folds), (fixed, *right), strict=True):
        runs.done(item, made.exact_predictions(n_right, n_right, n=25), seed=seed)


def stability_of(runs: RunBuilder, *experiments: Experiment) -> list[pd.DataFrame]:
    tables = stability_tables(map(read_run, runs.records()), experiments)
    assert all(setting.protocol.fold is None for setting, _ in tables)
    return [table for _, table in tables]


def test_stability_by_hand(runs: RunBuilder) -> None:
    # A: fixed 20/25 = 0.8; folds 20, 15, 20, 15, 20: mean 0.72, sample sd 0.2 * sqrt(0.3) = 0.1095.
    # B: fixed 19/25; folds 19 each: 0.76 and no sd. By folds B is first.
    first, second = an_experiment("a"), an_experiment("b", **{"recipe.learning_rate": 0.01})
    with_folds(runs, first, [20, 15, 20, 15, 20])
    with_folds(runs, second, [19] * 5, fixed=19)
    (table,) = stability_of(runs, first, second)
    rows = table.set_index("name")
    numbers = [f"test/gender/accuracy/{end}" for end in ("fixed", "mean", "sd")]
    assert rows.loc[first.name, numbers].tolist() == pytest.approx([0.8, 0.72, 0.2 * 0.3**0.5])
    assert rows.loc[second.name, numbers].tolist() == pytest.approx([0.76, 0.76, 0])
    ranks = ["rank_fixed", "rank_folds"]
    assert rows.loc[[first.name, second.name], ranks].to_numpy().tolist() == [[1, 2], [2, 1]]
    heads, (line_b, line_a) = stability_cells(table)
    assert line_a[1] == "1 → 2"
    assert line_a[heads.index("gender: fixed / folds")] == "80.0 / 72.0 ± 11.0"
    assert line_b[0] == second.name


def test_seeds_of_a_fold_are_averaged_before_the_folds(runs: RunBuilder) -> None:
    # Seeds 0.8 and 0.4 in every fold: each fold's mean is 0.6, and between folds there is nothing.
    for seed, n_right in enumerate((20, 10)):
        with_folds(runs, MTL, [n_right] * 5, seed=seed)
    row = stability_of(runs, MTL)[0].iloc[0]
    assert (row["seeds"], row["fixed_seeds"]) == (2, 2)
    found = [row[f"test/race/accuracy/{end}"] for end in ("mean", "sd")]
    assert found == pytest.approx([0.6, 0])


def test_folds_of_other_faces_or_changed_by_hand_are_no_fifth_fold(runs: RunBuilder) -> None:
    with_folds(runs, MTL, [20] * 4)
    (table,) = stability_of(runs, MTL)
    assert table[["test/race/accuracy/mean", "rank_folds"]].isna().all(axis=None)
    assert stability_cells(table)[1][0][1] == "4 of 5 folds"
    runs.dataset = runs.dataset | {"split_digest": "99" * 32}
    for item in (MTL, MTL.adjusted({"recipe.max_epochs": 3})):
        runs.done(item.in_fold(4), made.exact_predictions(20, 20, n=25))
    assert sorted(table["n_folds"].iloc[0] for table in stability_of(runs, MTL)) == [1, 4]
