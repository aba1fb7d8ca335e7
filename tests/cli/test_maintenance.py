"""`status` and `runs rescore`: what they say, touch and leave alone."""

import os
import time

import pandas as pd
import pytest

from benchmark import registry
from benchmark.evaluation.metrics import SCORING_VERSION
from benchmark.files import file_lock, write_json
from benchmark.record import RunRecord
from benchmark.runs.queue import QueuedRun, queues_folder
from tests.cli.conftest import GENDER, MTL, RACE, answered_json, facebench, flat, one_run, outcome
from tests.made_runs import RunBuilder, an_experiment, exact_predictions


def is_scored(record: RunRecord) -> bool:
    return RunRecord(record.folder).scoring_version == SCORING_VERSION


def test_runs_are_rescored_once_and_one_that_cannot_be_does_not_stop_the_others(
    runs: RunBuilder,
) -> None:
    gender, race = one_run(runs, GENDER), one_run(runs, RACE)
    other = runs.done(an_experiment("other"), exact_predictions(20, 20, n=25))
    rescore = ("runs", "rescore")
    for name, done in ((gender.identity[:8], [gender]), (RACE, [gender, race])):
        assert answered_json(*rescore, name) == {"runs": {"rescored": 1}}
        assert [record for record in (gender, race, other) if is_scored(record)] == done
    assert "0 runs rescored, 2 were up to date" in flat(facebench(*rescore, "quick").output)
    gender.predictions_path.unlink()
    code, stdout, stderr = outcome(*rescore)
    assert (code, "cannot be read" in flat(stderr)) == (3, True)
    assert "1 runs rescored, 1 were up to date, 1 could not be" in flat(stdout)
    assert is_scored(other)


def test_states_processes_and_time_left_are_named(runs: RunBuilder) -> None:
    experiment = registry.experiment(MTL)
    done, running = runs.begun(experiment, seed=0), runs.begun(experiment, seed=1)
    (done.folder / "done.json").write_text('{"schema": 1}')
    history = pd.DataFrame({"epoch": [1, 2, 3], "epoch_seconds": [30.0, 10.0, 20.0]})
    history.to_csv(running.folder / "history.csv", index=False)
    with file_lock(running.folder / "claim"):
        data, shown = answered_json("status"), facebench("status")
    assert data["counts"] == {"done": 1, "claimed": 1}
    rows = {row["seed"]: row for row in data["runs"]}
    assert (rows[0]["identity"], rows[1]["pid"]) == (done.identity, os.getpid())
    assert rows[1]["seconds_left"] == 20 * (experiment.recipe.max_epochs - 3)
    assert "1 running, 1 done." in flat(shown.stdout)


def test_a_running_suite_tells_what_waits_where_runs_are_and_the_time_left(
    runs: RunBuilder,
) -> None:
    running, now = runs.begun(experiment := registry.experiment(MTL), seed=1), time.time()
    each = 40 / (experiment.recipe.max_epochs - 2)
    history = pd.DataFrame({"epoch": [1, 2], "epoch_seconds": [each, each]})
    history.to_csv(running.folder / "history.csv", index=False)
    told = [
        QueuedRun(MTL, 0, "done", "0" * 64, "node-a", now - 10, 60.0),
        QueuedRun(MTL, 1, "running", running.identity, "node-b", now - 20),
        QueuedRun(MTL, 2, since=now),
        QueuedRun(GENDER, 0, since=now),
    ]
    queue = {"host": "head", "pid": 7, "engine": "ray", "n_slots": 2}
    path = queues_folder(runs.runs_dir) / "head-7.json"
    write_json(path, queue | {"schema": 1, "runs": [vars(run) for run in told]})
    with file_lock(running.folder / "claim"), file_lock(path.with_suffix(".lock")):
        data, shown = answered_json("status"), flat(facebench("status").stdout)
        write_json(path, queue | {"schema": 1, "runs": [vars(run) for run in told[1:]]})
        (early,) = answered_json("status")["suites"]
        told[1].state = "queued"  # It has just begun, and the file does not say so yet.
        write_json(path, queue | {"schema": 1, "runs": [vars(run) for run in told]})
        assert answered_json("status")["counts"] == {"claimed": 1, "queued": 2}
    (suite,) = data["suites"]
    assert suite["counts"] == {"done": 1, "running": 1, "queued": 2}
    # 40 s of the one that runs, 60 s of each that waits: of an experiment that never ran, as usual.
    assert suite["seconds_left"] == pytest.approx((40 + 60 + 60) / 2, abs=5)
    assert early["seconds_left"] == pytest.approx((40 + 60 + 60) / 2, abs=40)
    assert data["counts"] == {"claimed": 1, "queued": 2}
    assert {row["state"]: row.get("where") for row in data["runs"]}["claimed"] == "node-b"
    assert "4 runs by process 7 on head (ray, 2 at once): 1 done, 1 running, 2 queued" in shown
    gone = answered_json("status")
    assert (gone["suites"], gone["counts"]) == ([], {"interrupted": 1})
