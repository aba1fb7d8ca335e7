"""`facebench status` names every run's state, its process and the time left."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmark import registry
from benchmark.files import file_lock, write_json
from benchmark.runs.queue import Queue, QueuedRun, queues_folder, seconds_left
from tests.cli.conftest import flat
from tests.cli.test_run import facebench
from tests.results.conftest import RunBuilder


def test_states_processes_and_time_left_are_named(runs: RunBuilder) -> None:
    name = "mtl-cnn-none-full-short"
    experiment = registry.experiment(name)
    done, running = runs.begun(experiment, seed=0), runs.begun(experiment, seed=1)
    (done.folder / "done.json").write_text('{"schema": 1}')
    history = pd.DataFrame({"epoch": [1, 2, 3], "epoch_seconds": [30.0, 10.0, 20.0]})
    history.to_csv(running.folder / "history.csv", index=False)
    places = ("--runs-dir", runs.runs_dir, "--seeds", "0,1,2")
    with file_lock(running.folder / "claim"):
        answer = facebench("status", name, *places, "--json")
        shown = facebench("status", name, *places)
    assert answer.exit_code == 0, answer.stderr
    data = json.loads(answer.stdout)["data"]
    assert data["counts"] == {"done": 1, "claimed": 1, "absent": 1}
    rows = {row["seed"]: row for row in data["runs"]}
    assert rows[0]["identity"] == done.identity
    assert rows[1]["pid"] == os.getpid()
    epochs_left = experiment.recipe.max_epochs - 3
    assert rows[1]["seconds_left"] == 20 * epochs_left
    assert "seconds_left" not in rows[0]
    assert "1 running, 1 not run, 1 done." in flat(shown.stdout)


def test_without_runs_the_next_command_is_named(tmp_path: Path) -> None:
    answer = facebench("status", "--runs-dir", tmp_path)
    assert answer.exit_code == 0
    assert "facebench run --suite quick" in flat(answer.stdout)


def test_a_running_suite_tells_what_waits_where_runs_are_and_the_time_left(
    runs: RunBuilder,
) -> None:
    name, other = "mtl-cnn-none-full-short", "gender-cnn-none-full-short"
    running = runs.begun(registry.experiment(name), seed=1)
    now = time.time()
    told = [
        QueuedRun(name, 0, "done", "0" * 64, "node-a", now - 10, 60.0),
        QueuedRun(name, 1, "running", running.identity, "node-b", now - 20),
        QueuedRun(name, 2, since=now),
        QueuedRun(other, 0, since=now),
    ]
    queue = {"host": "head", "pid": 7, "engine": "ray", "n_slots": 2, "since": now - 80}
    path = queues_folder(runs.runs_dir) / "head-7.json"
    write_json(path, queue | {"schema": 1, "runs": [vars(run) for run in told]})
    asked = ("status", "--runs-dir", runs.runs_dir)
    with file_lock(running.folder / "claim"), file_lock(path.with_suffix(".lock")):
        data = json.loads(facebench(*asked, "--json").stdout)["data"]
        shown = flat(facebench(*asked).stdout)
        named = facebench(*asked, name, "--seeds", "1,2,3", "--json").stdout
    (suite,) = data["suites"]
    assert suite["counts"] == {"done": 1, "running": 1, "queued": 2}
    # 40 s of the one that runs, 60 s of each that waits: of an experiment that never ran, as usual.
    assert suite["seconds_left"] == pytest.approx((40 + 60 + 60) / 2, abs=5)
    assert data["counts"] == {"claimed": 1, "queued": 2}
    (row,) = [row for row in data["runs"] if row["state"] == "claimed"]
    assert row["where"] == "node-b"
    assert "4 runs by process 7 on head (ray, 2 at once): 1 done, 1 running, 2 queued" in shown
    states = [row["state"] for row in json.loads(named)["data"]["runs"]]
    assert states == ["claimed", "queued", "absent"]
    gone = json.loads(facebench(*asked, "--json").stdout)["data"]
    assert (gone["suites"], gone["counts"]) == ([], {"interrupted": 1})


def test_time_left_follows_what_runs_of_that_experiment_took() -> None:
    runs = (QueuedRun("slow", 0), QueuedRun("quick", 0), QueuedRun("quick", 1))
    queue = Queue("here", 1, "local", 1, 0.0, runs)
    assert seconds_left(queue, {}, 0.0) is None
    assert seconds_left(queue, {"slow": 100.0, "quick": 5.0}, 0.0) == 110.0
    # More at once than there are runs: the longest decides.
    assert seconds_left(replace(queue, n_slots=8), {"slow": 100.0, "quick": 5.0}, 0.0) == 100.0
    ended = replace(queue, runs=(QueuedRun("slow", 0, "done", seconds=9.0),))
    assert seconds_left(ended, {}, 0.0) == 0.0
