"""`facebench tune` as a person meets it: a search on drawn faces, its refit, and failures."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from benchmark import registry
from benchmark.cli.tune import print_best, print_grid
from benchmark.data.dataset import FaceSet
from benchmark.experiment.space import RATE, point_of
from benchmark.files import lock_owner
from benchmark.record import RunRecord, all_records
from benchmark.tracking.mirror import TrialView
from benchmark.tracking.store import open_store
from benchmark.tuning.search import Outcome
from benchmark.tuning.study import Study
from tests.cli.conftest import GENDER, TINY, answered_json, facebench
from tests.cli.test_run import Places, facebench_process
from tests.tuning.planted import EXPERIMENT, SPACE, a_study

pytestmark = pytest.mark.filterwarnings("ignore")  # optuna, plotly and mlflow warn of each other
TUNE = ("tune", GENDER, *TINY)


def trials_of(runs_dir: Path) -> list[RunRecord]:
    return [record for record in all_records(runs_dir) if record.is_trial]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_is_tracked_refitted_and_ranked(on_drawn: Places, tmp_path: Path) -> None:
    places = on_drawn[:-2]  # tracked in MLflow
    tune = (*TUNE, "--trials", "3", "--only", "learning_rate", *places)
    drawn = ("--sampler", "random", "--sampler-seed", "2", "--seeds", "0")
    (found,) = answered_json(*tune, *drawn)["studies"]
    assert found["trials"] == {"complete": 3, "pruned": 0, "failed": 0}

    # No trial read a test face, and none kept a network.
    for record in trials_of(tmp_path):
        assert set(pd.read_csv(record.predictions_path)["part"]) == {"val"}
        assert not (record.folder / "model.safetensors").exists()

    # MLflow has one parent with as many children, in an experiment of their own.
    client = open_store(tmp_path)
    experiment = client.get_experiment_by_name("drawn-v1-searches")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "facebench.study" in run.data.tags]
    children = [it for it in runs if it.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    trials = {run.data.tags.get("trial") for run in children}
    assert (trials, len(children)) == ({None, "000", "001", "002"}, 3 + 6)

    assert "3 of 3 trials" in facebench(*tune, "--no-refit").stderr
    assert len(trials_of(tmp_path)) == 9

    # Fresh seeds decided between the best and the runner-up, and none of theirs was the trials'.
    assert [len(item["by_seed"]) for item in found["fresh_seeds"]] == [3, 3]
    by_seed = Counter(record.seed for record in trials_of(tmp_path))
    assert by_seed == {1000: 3, 1001: 2, 1002: 2, 1003: 2}

    if found["recipe"] is not None:
        assert found["refit"]["finished"] == 1
        board = facebench("leaderboard", "--suite", "tuned", *places)
        assert f"{GENDER}-tuned" in board.stdout.replace("\n", "")


def test_a_search_whose_trials_all_fail_says_why(on_drawn: Places) -> None:
    """At a rate of 1e30 the loss is not finite within an epoch."""
    broken = ("--set", "recipe.learning_rate=1e30", "--set", "recipe.clipping=none")
    answer = facebench(*TUNE, "--only", "hidden_units", *broken, *on_drawn, "--trials", "2")
    assert answer.exit_code == 3, answer.output
    assert "no trial of gender-cnn-none-full-short was good" in answer.stderr
    assert "a finite loss" in answer.stderr


def test_a_best_recipe_and_a_grid_are_printed_beside_what_they_are_compared_with(
    drawn_faces: FaceSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, grid = a_study(tmp_path, drawn_faces), registry.grid("grid-mtl-vgg16-block5")
    points = (start := point_of(EXPERIMENT, SPACE), start | {RATE: 2e-3})
    trials = tuple(TrialView(n, "complete", point, 0.5 + n / 8) for n, point in enumerate(points))
    print_best(study, trials[1], Outcome(trials, trials[1]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["learning_rate", "0.001", "0.002"] in lines
    assert ["validation", "50.00%", "62.50%"] in lines
    study = Study(grid.experiment, grid.space, drawn_faces, tmp_path)
    point = dict(zip(grid.space.paths, next(iter(grid.printed)), strict=True))
    tried = TrialView(0, "complete", point, 0.42)
    print_grid(study, grid, Outcome((tried,), tried))
    assert "42.0 | " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_several_processes_search_at_once_and_no_trial_is_tried_twice(
    on_drawn: Places, tmp_path: Path
) -> None:
    command = (*TUNE, "--trials", "16", "--only", "learning_rate", "--jobs", "2", "--no-refit")
    process = facebench_process(*command, "--json", *on_drawn[:-2])
    assert process.returncode == 0, process.stderr
    (found,) = json.loads(process.stdout)["data"]["studies"]
    assert sum(found["trials"][state] for state in ("complete", "pruned")) == 16
    assert found["trials"]["failed"] == 0
    owners = {lock_owner(record.folder / "claim").get("pid") for record in trials_of(tmp_path)}
    assert len(owners) == 2, "the second process took no trial"
