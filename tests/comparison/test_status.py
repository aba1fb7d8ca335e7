"""Where every run stands, and which process works on it."""

import json
import os
from pathlib import Path

import pytest

from benchmark.comparison.library import standing
from benchmark.data.dataset import FaceSet
from benchmark.files import file_lock
from benchmark.record import RunRecord
from tests.runs.small import a_plan, done_run, settings


@pytest.fixture(scope="module")
def runs_dir(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("standings")
    done_run(drawn_faces, settings(folder))
    return folder


@pytest.fixture
def record(runs_dir: Path) -> RunRecord:
    return RunRecord(next((runs_dir / "work").iterdir()))


def test_a_finished_run_and_one_that_a_process_works_on(record: RunRecord) -> None:
    shown = standing(record)
    assert (shown.state, shown.epochs, shown.of_epochs, shown.pid) == ("done", 2, 2, None)
    with file_lock(record.folder / "claim"):
        shown = standing(record)
    assert (shown.state, shown.pid) == ("claimed", os.getpid())
    (record.folder / "claim").write_text('{"pid": 1, "since": 0}', encoding="utf-8")
    assert standing(record).state == "done", "nobody holds the lock"


def test_a_failed_run_says_why(drawn_faces: FaceSet, tmp_path: Path) -> None:
    plan = a_plan(drawn_faces, settings(tmp_path))
    plan.folder.mkdir(parents=True)
    about = {
        "schema": 1, "identity": plan.identity, "family": "f", "seed": 0, "ad_hoc": False,
        "experiment": plan.experiment.as_dict(), "leaky": False,
        "dataset": {"name": "d", "drawn": True, "split_version": "leak-free-2",
                    "split_digest": "s", "pixel_digest": "p"},
    }  # fmt: skip
    (plan.folder / "experiment.json").write_text(json.dumps(about), encoding="utf-8")
    assert standing(plan.record).state == "interrupted"
    why = {"schema": 1, "why": "the loss is nan"}
    (plan.folder / "failed.json").write_text(json.dumps(why), encoding="utf-8")
    shown = standing(RunRecord(plan.folder))
    assert (shown.state, shown.why) == ("failed", "the loss is nan")


def test_a_damaged_run_is_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text("{", encoding="utf-8")
    shown = standing(RunRecord(tmp_path))
    assert shown.state == "damaged"
    assert "experiment.json" in shown.why
