"""What Ray costs: runs that take one second on a node each, against the ideal time.

A real run is trained once; then every task sleeps for a second and returns that run's files, so
that what is measured is sending, scheduling, returning and writing, and no training.

    python docs/measurements/cluster.py --runs 200 --workers 2
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmark.cluster.connection import ClusterOptions, connected
from benchmark.cluster.fleet import Fleet
from benchmark.cluster.worker import Returned, read_files
from benchmark.data.dataset import choose_dataset
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.runs.plan import Settings
from benchmark.runs.run import Finished, run_all
from benchmark.training.device import Device

SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mlflow", action="store_true", help="mirror every run to MLflow (SQLite)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(asked.runs, asked.workers, Path(folder), mlflow=asked.mlflow)


def measure(n_runs: int, n_workers: int, folder: Path, *, mlflow: bool) -> None:
    """Run them and print the seconds beside the ideal ones."""
    faces = choose_dataset(folder / "data", "drawn")
    experiment = Experiment(
        name="mtl-cnn-none-full-second",
        asks="What does a cluster cost?",
        backbone=Backbone("cnn", input_px=32),
        head=Head(hidden_units=16),
        recipe=Recipe(learning_rate=1e-3, max_epochs=1),
    )
    settings = Settings(folder / "one", folder / "weights", Device(torch.device("cpu"), "fp32"))
    *_, done = run_all([experiment], (0,), faces, settings)
    assert isinstance(done, Finished)
    files = read_files(done.plan.folder)

    def one_second(*_arguments: Any) -> Returned:
        time.sleep(SECONDS)
        return Returned("done", files=files)

    where = Settings(folder / "runs", folder / "weights", settings.device)
    if mlflow:
        from dataclasses import replace

        from benchmark.tracking.mirror import MlflowMirror

        where = replace(where, mirror=MlflowMirror(where.runs_dir, on_trouble=print))
    with connected(ClusterOptions("ray", cpus=os.cpu_count() / n_workers)) as connection:
        fleet = Fleet(connection)
        fleet._train = connection.ray.remote(num_cpus=connection.needs["CPU"])(one_second)
        # The first task of a worker process starts it.
        list(fleet.run_all([experiment], range(n_runs, n_runs + 2 * n_workers), faces, where))
        began = time.perf_counter()
        events = list(fleet.run_all([experiment], range(n_runs), faces, where))
        seconds = time.perf_counter() - began
    n_done = sum(isinstance(event, Finished) for event in events)
    ideal = n_done * SECONDS / n_workers
    print(
        f"{n_done} runs of {SECONDS:g} s, {n_workers} workers: {seconds:.1f} s, ideal "
        f"{ideal:.1f} s, {seconds / ideal:.3f} times"
    )


if __name__ == "__main__":
    main()
