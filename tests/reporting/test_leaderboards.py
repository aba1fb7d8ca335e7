"""The leaderboards of the available runs: which rows are shown, and what is said of the others."""

from pathlib import Path

import pytest

from benchmark import leaderboard, registry
from benchmark.comparison.leaderboard import Leaderboard
from benchmark.errors import RunError
from benchmark.files import write_text
from benchmark.reporting.leaderboards import FORMATS, write_board
from tests.made_runs import RunBuilder, an_experiment, exact_predictions

GENDER = registry.experiment("gender-cnn-none-full-short")


def only_board(runs: RunBuilder, *suites: str) -> Leaderboard:
    return leaderboard(*suites, runs_dir=runs.runs_dir, data_dir=runs.runs_dir).leaderboard


def one_run(runs: RunBuilder) -> None:
    runs.done(GENDER, exact_predictions(70, 80, tasks=("gender",)))


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
    rows = [(t.setting.split_version, r.seeds) for t in only_board(runs).tables for r in t.rows]
    assert sorted(row for row in rows if row[1]) == [("leak-free-1", (1,)), ("leak-free-2", (0,))]


def test_what_cannot_be_shown_is_counted_and_said_in_few_lines(runs: RunBuilder) -> None:
    write_text(runs.runs_dir / "work/0abc/experiment.json", '{"schema": 0}')
    with pytest.raises(RunError, match="no run to show .*has schema 0"):
        only_board(runs)
    record = runs.begun(GENDER, seed=2)
    write_text(record.folder / "history.csv", "epoch,val/combined\n1,0.5\n2,0.6\n")
    stranger = an_experiment("stranger", tasks=("race",), **{"recipe.learning_rate": 7e-3})
    runs.begun(stranger)
    for number in range(1, 9):
        write_text(runs.runs_dir / f"work/{number}abc/experiment.json", '{"schema": 0}')
    board = only_board(runs)
    notes = [note for note in board.notes if note.startswith("Left out")]
    assert len(notes) == 5
    assert "has schema 0" in notes[0]
    assert notes[3] == "Left out, not readable either: 6 more runs."
    assert notes[4] == f"Left out: 1 run of experiments not registered here ({stranger.name})."
    (row,) = board.tables[0].rows
    of = GENDER.recipe.max_epochs
    assert row.remarks == (f"seed 2 was interrupted or is still running (2 of {of} epochs done)",)
