"""The leaderboards of the runs at hand: which rows are shown, and what is said of the others."""

from pathlib import Path

import pytest

from benchmark import registry
from benchmark.comparison.leaderboard import Leaderboard
from benchmark.errors import RunError
from benchmark.files import write_text
from benchmark.reporting.leaderboards import (
    FORMATS,
    Places,
    available_runs,
    leaderboards,
    write_board,
)
from tests.results.conftest import RunBuilder, an_experiment, exact_predictions

GENDER = registry.experiment("gender-cnn-none-full-short")


@pytest.fixture
def runs(tmp_path: Path) -> RunBuilder:
    return RunBuilder(tmp_path / "mlruns")


def places(runs: RunBuilder) -> Places:
    data_dir = runs.runs_dir.parent / "data"
    return Places(runs.runs_dir, data_dir, data_dir / "weights")


def only_board(runs: RunBuilder, *suites: str) -> Leaderboard:
    (board,) = leaderboards(available_runs(runs.runs_dir), places(runs), suites)
    return board


def one_run(runs: RunBuilder, *, seed: int = 0) -> None:
    runs.done(GENDER, exact_predictions(70, 80, tasks=("gender",)), seed=seed)


def test_a_page_with_comparisons_of_its_own_has_none_from_the_leaderboard(runs: RunBuilder) -> None:
    for name, n_right in (("gender-cnn-none-full-short", 80), ("mtl-cnn-none-full-short", 79)):
        experiment = registry.experiment(name)
        runs.done(experiment, exact_predictions(70, n_right, tasks=experiment.head.tasks))
    for compared in (True, False):
        (board,) = leaderboards(
            available_runs(runs.runs_dir), places(runs), ("quick",), compared=compared
        )
        rows = [row for table in board.tables for row in table.rows if row.status == "done"]
        assert any(row.comparisons for row in rows) is compared
        assert any(note.startswith("Differences are") for note in board.notes) is compared


def test_several_suites_share_their_tables_and_each_row_stands_once(
    runs: RunBuilder, tmp_path: Path
) -> None:
    one_run(runs)
    board = only_board(runs, "quick", "depth", "quick")
    names = [row.name for table in board.tables for row in table.rows]
    quick, depth = (set(registry.suite(name).experiments) for name in ("quick", "depth"))
    assert (set(names), len(names)) == (quick | depth, len(quick | depth))
    assert board.suites_of("mtl-squeezenet1_1-imagenet-frozen-short") == ("quick", "depth")
    files = write_board(board, tmp_path / "out", runs.runs_dir)
    assert [path.name for path in files] == [
        f"leaderboard-utkface-100-quick+depth.{ending}" for ending in FORMATS
    ]


def test_runs_on_the_older_split_are_shown_and_never_pooled_with_those_on_the_current(
    runs: RunBuilder,
) -> None:
    one_run(runs)
    older = RunBuilder(
        runs.runs_dir, runs.dataset | {"split_version": "leak-free-1", "split_digest": "11" * 32}
    )
    was_run = GENDER.varied(name=GENDER.name, **{"protocol.split": "leak-free-1"})
    older.done(was_run, exact_predictions(60, 80, tasks=("gender",)), seed=1)
    rows = [
        (table.setting.split_version, row.name, list(row.seeds))
        for table in only_board(runs).tables
        for row in table.rows
        if row.seeds
    ]
    assert sorted(rows) == [
        ("leak-free-1", GENDER.name, [1]),
        ("leak-free-2", GENDER.name, [0]),
    ]


def test_runs_of_experiments_that_nobody_defines_are_counted(runs: RunBuilder) -> None:
    one_run(runs)
    stranger = an_experiment("stranger", tasks=("race",), **{"recipe.learning_rate": 7e-3})
    runs.begun(stranger)
    board = only_board(runs)
    assert f"Left out: 1 run of experiments not registered here ({stranger.name})." in board.notes


def test_many_runs_of_an_older_layout_take_few_lines(runs: RunBuilder) -> None:
    one_run(runs)
    for number in range(9):
        write_text(runs.runs_dir / f"work/{number}abc/experiment.json", '{"schema": 0}')
    notes = [note for note in only_board(runs).notes if note.startswith("Left out")]
    assert len(notes) == 4
    assert "has schema 0" in notes[0]
    assert notes[-1] == "Left out, not readable either: 6 more runs."


def test_where_no_run_can_be_read_it_is_said_why(runs: RunBuilder) -> None:
    write_text(runs.runs_dir / "work/0abc/experiment.json", "{}")
    with pytest.raises(RunError, match="no run to show .*has schema None"):
        only_board(runs)


def test_a_run_still_going_says_how_far_it_is(runs: RunBuilder) -> None:
    record = runs.begun(GENDER, seed=2)
    write_text(record.folder / "history.csv", "epoch,val/combined\n1,0.5\n2,0.6\n")
    (row,) = only_board(runs).tables[0].rows
    of = GENDER.recipe.max_epochs
    assert row.remarks == (f"seed 2 was interrupted or is still running (2 of {of} epochs done)",)


def test_reading_and_building_are_watched(runs: RunBuilder) -> None:
    one_run(runs)
    one_run(runs, seed=1)
    seen: list[tuple[str, int, int]] = []
    available = available_runs(runs.runs_dir, watch=lambda *told: seen.append(told))
    leaderboards(available, places(runs), watch=lambda *told: seen.append(told))
    assert ("Reading runs", 2, 2) in seen
    assert any(what == "Making rows" for what, _, _ in seen)
