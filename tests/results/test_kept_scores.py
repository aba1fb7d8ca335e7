"""A run's numbers from its predictions alone: the same leaderboard, to the byte, and no file."""

from pathlib import Path

import pytest

from benchmark.comparison.leaderboard import Leaderboard, LeaderboardQuery, arrange
from benchmark.errors import RunError
from benchmark.evaluation.artifacts import RebuiltRecord
from benchmark.reporting.leaderboards import FORMATS, available_runs
from tests.results.conftest import RunBuilder, an_experiment, made_up_predictions

EXPERIMENT = an_experiment(tasks=("race",))


@pytest.fixture
def store(runs: RunBuilder) -> RunBuilder:
    for seed in (0, 1):
        predictions = made_up_predictions({"race": 1.2}, n=120, seed=seed)
        predictions = predictions.assign(cluster=predictions["cluster"] // 2)
        runs.done(EXPERIMENT, predictions, seed=seed)
    return runs


def board_of(runs: RunBuilder, **options: bool) -> Leaderboard:
    at_hand = available_runs(runs.runs_dir, **options)
    return arrange(at_hand.runs, LeaderboardQuery([EXPERIMENT], "utkface-100"))


def test_it_is_the_same_to_the_byte_and_writes_nothing(store: RunBuilder) -> None:
    kept = board_of(store)
    before = contents(store.runs_dir)
    rebuilt = board_of(store, from_predictions=True)
    for text in FORMATS.values():
        assert text(kept) == text(rebuilt)
    assert contents(store.runs_dir) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_lost_its_metrics_is_scored_again(store: RunBuilder) -> None:
    kept = board_of(store)
    for record in store.records():
        (record.folder / "metrics.json").unlink()
        (record.folder / "subgroups.csv").unlink()
    assert board_of(store) == kept


def test_predictions_that_changed_since_are_refused(store: RunBuilder) -> None:
    path = store.records()[0].predictions_path
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    record = RebuiltRecord(path.parent)
    with pytest.raises(RunError):
        _ = record.metrics
