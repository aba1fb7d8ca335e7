"""`facebench tune` as a person meets it: a search on drawn faces, its refit, and wrong turns."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmark.cli.output import Answer
from benchmark.cli.tune import Wish
from benchmark.cli.tune_session import Session
from benchmark.data.dataset import FaceSet
from benchmark.record import RunRecord, all_records
from benchmark.runs.plan import Settings
from benchmark.tracking import open_store
from benchmark.training.device import Device
from tests.cli.test_run import facebench
from tests.tuning.planted import a_study

pytestmark = pytest.mark.filterwarnings("ignore")  # optuna, plotly and mlflow warn of each other

NAME = "gender-cnn-none-full-short"
TINY = ("--set", "backbone.input_px=32", "--set", "recipe.max_epochs=1", "--device", "cpu")


def trials_of(runs_dir: Path) -> list[RunRecord]:
    return [record for record in all_records(runs_dir) if record.is_trial]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_is_tracked_refitted_and_ranked(drawn_data_dir: Path, tmp_path: Path) -> None:
    places = ("--data-dir", drawn_data_dir, "--runs-dir", tmp_path)
    tune = (
        "tune",
        NAME,
        "--trials",
        "3",
        "--only",
        "learning_rate",
        "--seeds",
        "0",
        *TINY,
        *places,
    )
    answer = facebench(*tune, "--sampler", "random", "--sampler-seed", "2", "--json")
    assert answer.exit_code == 0, answer.output
    (found,) = json.loads(answer.stdout)["data"]["studies"]
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
    children = [
        run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    trials = [run.data.tags for run in children if "trial" in run.data.tags]
    assert sorted(tags["trial"] for tags in trials) == ["000", "001", "002"]
    assert {tags["trial_state"] for tags in trials} == {"complete"}
    kept = {item.path for item in client.list_artifacts(parent.info.run_id, "study")}
    assert {"study/trials.csv", "study/study.html"} <= kept

    anew = [run.info.run_name for run in children if "trial" not in run.data.tags]
    assert len(anew) == 6
    assert all(", seed 100" in name for name in anew)

    again = facebench(*tune, "--no-refit")
    assert "3 of 3 trials" in again.stderr
    assert len(trials_of(tmp_path)) == 9

    # Fresh seeds decided between the best and the runner-up, and none of theirs was the trials'.
    assert [len(item["by_seed"]) for item in found["fresh_seeds"]] == [3, 3]
    by_seed = Counter(record.seed for record in trials_of(tmp_path))
    assert by_seed == {1000: 3, 1001: 2, 1002: 2, 1003: 2}

    if found["recipe"] is not None:
        assert found["refit"]["finished"] == 1
        board = facebench("leaderboard", "--suite", "tuned", *places)
        assert f"{NAME}-tuned" in board.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tune"], "nothing to tune was named"),
        (["tune", "mtl-cnn-none-ful-short"], "did you mean mtl-cnn-none-full-short"),
        (["tune", "grid-nobody"], "unknown grid 'grid-nobody'"),
        (["tune", "--suite", "tuned"], "nothing has been tuned here"),
        (["tune", NAME, "--row", "32"], "--row is of grids"),
        (["tune", NAME, "--seeds", "999,1000"], "--seeds is 999,1000"),
        (["tune", NAME, "--sampler", "magic"], "--sampler is 'magic'"),
        (["tune", NAME, "--pruner", "axe"], "--pruner is 'axe'"),
        (["tune", NAME, "--only", "depth"], "backbone.trainable_stages is not searched here"),
        (["tune", NAME, "--storage", "here.db"], "the storage 'here.db' is no address"),
        (["tune", "grid-mtl-vgg16-block5", "--row", "33"], "--row is '33'"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_exit_code_two(
    arguments: list[str], said: str, drawn_data_dir: Path, tmp_path: Path
) -> None:
    places = ("--data-dir", drawn_data_dir, "--runs-dir", tmp_path, "--tracking", "files")
    answer = facebench(*arguments, *places)
    assert answer.exit_code == 2, answer.output
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_search_whose_trials_all_fail_says_why(drawn_data_dir: Path, tmp_path: Path) -> None:
    """At a rate of 1e30 the loss is not finite within an epoch."""
    places = ("--data-dir", drawn_data_dir, "--runs-dir", tmp_path, "--tracking", "files")
    broken = ("--set", "recipe.learning_rate=1e30", "--set", "recipe.clipping=none")
    answer = facebench(
        "tune", NAME, "--trials", "2", "--only", "hidden_units", *broken, *TINY, *places
    )
    assert answer.exit_code == 3, answer.output
    assert "no trial of gender-cnn-none-full-short was good" in answer.stderr
    assert "a finite loss" in answer.stderr
    quiet = facebench(
        "tune", NAME, "--trials", "4", "--only", "hidden_units", *broken, *TINY, *places, "-q"
    )
    assert quiet.exit_code == 3, quiet.output
    assert "a finite loss" in quiet.stderr


def test_helpers_may_say_much_and_are_not_told_the_storage_where_others_can_read_it(
    drawn_faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds: one that nobody reads would let the helper wait for ever."""
    address = "postgresql://me:secret@host/db"
    program = (
        "import os, sys; print(sys.argv, os.environ['FACEBENCH_STORAGE'], file=sys.stderr);"
        "sys.stderr.write('x' * 200_000 + chr(10));"
        f"open({str(tmp_path / 'ended')!r}, 'w').close();"
        "sys.exit('the last word')"
    )
    begun = subprocess.Popen
    commands = []

    def begin(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return begun([*command[:2], program, *command[3:]], **options)

    monkeypatch.setattr(subprocess, "Popen", begin)
    monkeypatch.setattr(sys, "argv", ["facebench", "tune", NAME, "--storage", address])
    answer = Answer("tune")
    wish = Wish(1, None, 2, address, "tpe", 0, "median", (), {}, (), (), helps=False)
    settings = Settings(tmp_path, tmp_path, Device(torch.device("cpu"), "fp32"))
    session = Session(answer, drawn_faces, settings, wish, quiet=True, as_json=True)
    with session._helpers(a_study(tmp_path, drawn_faces), address):
        for _ in range(600):
            if (tmp_path / "ended").exists():
                break
            time.sleep(0.05)
        assert (tmp_path / "ended").exists()
    assert "secret" not in " ".join(commands[0])
    assert answer.warnings == ["a process that searched along ended: the last word"]
