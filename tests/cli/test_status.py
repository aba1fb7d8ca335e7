"""`facebench status` names every run's state, its process and the time left."""

import json
import os
from pathlib import Path

import pandas as pd

from benchmark import registry
from benchmark.files import file_lock
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
