"""Kill a search at random moments, again and again, and count what is left. Run by hand:

    python -m tests.tuning.kill_study planted sqlite    # a formula instead of training
    python -m tests.tuning.kill_study planted journal
    python -m tests.tuning.kill_study tune sqlite       # `facebench tune` on drawn faces, MLflow

Twenty trials are wanted; ten processes are killed with SIGKILL, each at a random moment after it
took a trial, and then two at once finish the study. Prints what is found, and ends with 1 where
anything is lost, double, or told otherwise by MLflow. Outcomes are in docs/notes/tuning.md.
"""

import contextlib
import io
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.data.dataset import store_faces
from benchmark.data.drawn import draw_faces
from benchmark.data.sample import STORED_NAME, choose_dataset
from benchmark.errors import BenchmarkError
from benchmark.tuning.trials import Ledger, Told
from tests.tuning.planted import a_ledger, a_study, main

N_TRIALS = 20
N_KILLS = 10
NAME = "gender-cnn-none-full-short"

# Forked, so that a new process is searching at once and not after seconds of importing.
FORK = multiprocessing.get_context("fork")


def address_of(kind: str, runs_dir: Path) -> str:
    """Give the storage of a kind."""
    folder = runs_dir / "studies"
    return f"journal:{folder}/optuna.log" if kind == "journal" else f"sqlite:///{folder}/optuna.db"


def tune(runs_dir: Path, data_dir: Path, address: str) -> None:
    """Search as the command line does."""
    from benchmark.cli.main import app

    sys.stdout = sys.stderr = io.StringIO()
    app(
        [
            *("tune", NAME, "--trials", str(N_TRIALS), "--only", "learning_rate,hidden_units"),
            *("--set", "backbone.input_px=32", "--set", "recipe.max_epochs=2"),
            *("--device", "cpu", "--precision", "fp32", "--no-refit", "--storage", address),
            *("--runs-dir", str(runs_dir), "--data-dir", str(data_dir)),
        ]
    )


def killed_often(begin: Callable[[], Any], claims: Callable[[], int], longest: float) -> int:
    """Kill one process after another; give how many were killed while they searched."""
    moments = random.Random(20)
    n_killed = 0
    for _ in range(N_KILLS):
        before = claims()
        process = begin()
        while process.is_alive() and claims() == before:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, longest))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            n_killed += 1
        process.join()
    pair = [begin(), begin()]
    for process in pair:
        process.join()
    sys.stdout.write(f"killed {n_killed}, then two together, exit {[p.exitcode for p in pair]}\n")
    return n_killed


def judged(trials: list[Told]) -> bool:
    """Print what is left and tell whether it is right."""
    done = [trial for trial in trials if trial.counts]
    points = Counter(tuple(trial.point.values()) for trial in done)
    failed = {trial.number for trial in trials if trial.state == "failed"}
    retried = [trial.retry_of for trial in trials if trial.retry_of is not None]
    sys.stdout.write(
        f"{len(done)} of {N_TRIALS} trials finished, {len(points)} different, {len(failed)} failed "
        f"by dying, {len(set(retried))} of them queued again; "
        f"states {dict(Counter(trial.state for trial in trials))}\n"
    )
    left = {trial.state for trial in trials} - {"complete", "pruned", "failed"}
    return len(done) == len(points) == N_TRIALS and len(retried) == len(set(retried)) and not left


def mlflow_agrees(runs_dir: Path, trials: list[Told]) -> bool:
    """Compare the children of the study in MLflow with the trials that count."""
    from benchmark.tracking import open_store

    client = open_store(runs_dir)
    experiment = client.get_experiment_by_name(f"{STORED_NAME}-searches")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    shown = {
        int(run.data.tags["trial"]): run.data.tags["trial_state"]
        for run in runs
        if "trial" in run.data.tags
    }
    known = {trial.number: trial.state for trial in trials if trial.counts}
    unfinished = [run.info.run_id for run in runs if run.info.status == "RUNNING"]
    sys.stdout.write(
        f"MLflow shows {len(shown)} trials, the same ones in the same states: {shown == known}; "
        f"{len(unfinished)} runs left running\n"
    )
    return shown == known and not unfinished


def opened(runs_dir: Path, data_dir: Path, address: str, kind: str) -> Ledger:
    """Open the study once more, as a reader."""
    faces = choose_dataset(data_dir)
    if kind == "planted":
        return a_ledger(a_study(runs_dir / "studies", faces), address)
    from benchmark import registry
    from benchmark.experiment.search_points import space_of
    from benchmark.tuning.study import Study

    experiment = registry.experiment(NAME).adjusted(
        {"backbone.input_px": 32, "recipe.max_epochs": 2}
    )
    space = space_of(experiment).only(("recipe.learning_rate", "head.hidden_units"))
    return Ledger(Study(experiment, space, faces, runs_dir / "studies"), address, 2)


def run(kind: str, storage: str, runs_dir: Path, data_dir: Path) -> bool:
    """Do it all, and tell whether everything is as it should be."""
    address = address_of(storage, runs_dir)
    studies = runs_dir / "studies"

    def begin() -> Any:
        if kind == "planted":
            arguments = (str(studies), str(data_dir), str(N_TRIALS), "0.3", address)
            process = FORK.Process(target=main, args=arguments)
        else:
            process = FORK.Process(target=tune, args=(runs_dir, data_dir, address))
        process.start()
        return process

    def claims() -> int:
        return len(list(studies.glob("*/claims/*")))

    began = time.monotonic()
    killed_often(begin, claims, 0.4 if kind == "planted" else 3.0)
    sys.stdout.write(f"{kind}, {storage}: {time.monotonic() - began:.0f} s\n")
    try:
        trials = opened(runs_dir, data_dir, address, kind).trials()
    except BenchmarkError as error:
        sys.stdout.write(f"LOST: {error}\n")
        return False
    good = judged(trials)
    return mlflow_agrees(runs_dir, trials) and good if kind == "tune" else good


def small_faces(data_dir: Path) -> None:
    """Store 240 drawn faces of 32 px."""
    drawn = draw_faces(240, seed=3, image_px=32)
    store_faces(drawn.images, drawn.labels, name=STORED_NAME, drawn=True, data_dir=data_dir)


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        small_faces(scratch / "data")
        fine = run(sys.argv[1], sys.argv[2], scratch / "runs", scratch / "data")
        sys.stdout.write("as it should be\n" if fine else "NOT as it should be\n")
    sys.exit(0 if fine else 1)
