"""Where every run stands, and which process works on it."""

import os
from pathlib import Path

from benchmark.comparison.library import standing
from benchmark.files import file_lock
from benchmark.record import RunRecord
from tests.results.conftest import RunBuilder, an_experiment, exact_predictions

EXPERIMENT = an_experiment()


def test_a_finished_run_and_one_that_a_process_works_on(runs: RunBuilder) -> None:
    record = runs.done(EXPERIMENT, exact_predictions(60, 80))
    shown = standing(record)
    assert (shown.state, shown.epochs, shown.pid) == ("done", 2, None)
    assert shown.of_epochs == EXPERIMENT.recipe.max_epochs
    with file_lock(record.folder / "claim"):
        shown = standing(record)
    assert (shown.state, shown.pid) == ("claimed", os.getpid())
    (record.folder / "claim").write_text('{"pid": 1, "since": 0}', encoding="utf-8")
    assert standing(record).state == "done", "nobody holds the lock"


def test_a_failed_run_says_why(runs: RunBuilder) -> None:
    assert standing(runs.begun(EXPERIMENT)).state == "interrupted"
    shown = standing(runs.failed(EXPERIMENT, "the loss is nan"))
    assert (shown.state, shown.why) == ("failed", "the loss is nan")


def test_a_damaged_run_is_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text("{", encoding="utf-8")
    shown = standing(RunRecord(tmp_path))
    assert shown.state == "damaged"
    assert "experiment.json" in shown.why
