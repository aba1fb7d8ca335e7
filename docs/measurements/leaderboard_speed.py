"""Measure how long a leaderboard of many finished runs takes to build, once their metrics are kept.

Makes run folders as `facebench run` leaves them, but for pictures, weights and predictions, which a
leaderboard does not read: of registered experiments on made-up faces, with made-up answers. Then
reads them, builds the leaderboard and writes every format, and says what each step took.

    python docs/measurements/leaderboard_speed.py --experiments 200 --seeds 3
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark import registry
from benchmark.evaluation.metrics import score
from benchmark.evaluation.predictions import packed_correctness, predictions_table
from benchmark.evaluation.subgroups import group_codes
from benchmark.experiment.definition import Experiment
from benchmark.files import write_json
from benchmark.identity import Ingredients, group_identity, identity_of
from benchmark.reporting.leaderboards import FORMATS, available_runs, leaderboards
from benchmark.tasks import TASKS, TaskName, combined, n_classes

DIGESTS = {"pixel_digest": "ab" * 32, "split_digest": "cd" * 32}
COUNTS = {"train": 18_522, "val": 2_315, "test": 2_315}
"""Faces of the 80/10/10 split of UTKFace."""
YEARS = np.array([7, 20, 33, 50, 70])

RunPredictions = dict[TaskName, npt.NDArray[np.int64]]


def made_up_faces(n: int, seed: int) -> pd.DataFrame:
    """Draw n faces, a few of them in clusters of two."""
    random = np.random.default_rng(seed)
    age_group = random.choice(5, n, p=[0.154, 0.168, 0.395, 0.182, 0.101])
    return pd.DataFrame(
        {
            "file": [f"{seed}-{index:05d}.jpg" for index in range(n)],
            "cluster": np.maximum(np.arange(n) - (np.arange(n) % 40 == 0), 0),
            "age": YEARS[age_group],
            "age_group": age_group,
            "gender": random.choice(2, n, p=[0.523, 0.477]),
            "race": random.choice(5, n, p=[0.425, 0.19, 0.145, 0.168, 0.072]),
        }
    )


def made_up_answers(
    faces: pd.DataFrame, tasks: tuple[TaskName, ...], seed: list[int]
) -> RunPredictions:
    """Answer rightly at a rate of this seed's own, else with the next class."""
    random = np.random.default_rng(seed)
    rate = random.uniform(0.6, 0.8)
    return {
        task: (faces[task].to_numpy() + (random.random(len(faces)) > rate)) % n_classes(task)
        for task in tasks
    }


class Store:
    """Writes run folders whose numbers are their own answers', the costly ones a pattern's."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.test = made_up_faces(COUNTS["test"], seed=2)
        validation = made_up_faces(COUNTS["val"], seed=1)
        self.patterns: dict[tuple[TaskName, ...], Any] = {}
        for tasks in (TASKS, *((task,) for task in TASKS)):
            tables = [
                predictions_table(
                    faces,
                    part,
                    {
                        task: np.eye(n_classes(task))[answers]
                        for task, answers in made_up_answers(faces, tasks, [0]).items()
                    },
                )
                for part, faces in (("val", validation), ("test", self.test))
            ]
            self.patterns[tasks] = score(pd.concat(tables, ignore_index=True))

    def add(self, experiment: Experiment, number: int, seed: int) -> None:
        """Write a finished run."""
        pretrained = experiment.backbone.weights != "none"
        ingredients = Ingredients("ef" * 32 if pretrained else None, **DIGESTS, trainer_version=1)
        identity = identity_of(experiment, ingredients, seed)
        folder = self.runs_dir / "work" / identity
        about = {
            "schema": 1,
            "identity": identity,
            "family": group_identity(experiment, ingredients),
            "experiment": experiment.as_dict(),
            "seed": seed,
            "dataset": {
                "name": "made-up-100",
                "drawn": False,
                "split_version": experiment.protocol.split,
                "counts": COUNTS,
                **DIGESTS,
            },
            "weights": {
                "source": experiment.backbone.weights,
                "sha256": ingredients.weights_sha256,
            },
            "trainer_version": 1,
            "protocol_name": experiment.protocol.name,
            "ad_hoc": False,
            "leaky": experiment.protocol.leaky,
            "device": "made up",
            "precision": "fp32",
            "commit": "0123456789ab",
            "parameters": {"total": 722_496, "trainable": 12_345},
            "multiply_adds": 50_000_000,
        }
        write_json(folder / "experiment.json", about)
        write_json(folder / "metrics.json", self._metrics(experiment.head.tasks, number, seed))
        end: dict[str, Any] = {
            "seconds": 200.0,
            "images_per_second": 500.0,
            "peak_memory_mib": 800.0,
        }
        end |= {"epochs": 8, "selected_epoch": 7, "finished": "2026-11-24T03:00:00+00:00"}
        write_json(folder / "done.json", {"schema": 1, "identity": identity, **end})

    def _metrics(self, tasks: tuple[TaskName, ...], number: int, seed: int) -> dict[str, Any]:
        pattern = self.patterns[tasks]
        answers = made_up_answers(self.test, tasks, [number, seed])
        right = {task: answers[task] == self.test[task].to_numpy() for task in tasks}
        rates: dict[TaskName, float] = {task: float(right[task].mean()) for task in tasks}
        metrics = dict(pattern.metrics)
        metrics |= {f"test/{task}/accuracy": rate for task, rate in rates.items()}
        metrics |= {"test/combined": combined(rates), "selected/val/combined": combined(rates)}
        subgroups = pattern.subgroups.copy()
        for task in tasks:
            for by, groups in subgroups[subgroups["task"] == task].groupby("by"):
                codes = group_codes(self.test, by)
                n_faces = np.bincount(codes, minlength=len(groups))
                n_right = np.bincount(codes[right[task]], minlength=len(groups))
                subgroups.loc[groups.index, "accuracy"] = n_right / n_faces
        plain = subgroups.astype(object).where(subgroups.notna(), None)
        predicted = {f"{task}_pred": answers[task] for task in tasks}
        return {
            "schema": 1,
            "scoring_version": 3,
            "predictions_sha256": "12" * 32,
            "metrics": metrics,
            "subgroups": {name: plain[name].tolist() for name in plain.columns},
            "answers": packed_correctness(self.test.assign(**predicted)),
        }


def chosen(n_experiments: int) -> list[Experiment]:
    """Give registered experiments, those on everyone's faces and honestly split first."""
    known = list(registry.experiments().values())
    if n_experiments > len(known):
        raise SystemExit(f"--experiments {n_experiments}: only {len(known)} are registered")
    known.sort(key=lambda item: (item.protocol.leaky, item.subset is not None))
    return known[:n_experiments]


def main() -> None:
    """Make the store, build its leaderboard, print seconds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="say which functions take longest")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs_dir = Path(folder) / "mlruns"
        store = Store(runs_dir)
        for number, experiment in enumerate(chosen(arguments.experiments)):
            for seed in range(arguments.seeds):
                store.add(experiment, number, seed)
        profile = cProfile.Profile()
        if arguments.profile:
            profile.enable()
        _measure(runs_dir)
        if arguments.profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def _measure(runs_dir: Path) -> None:
    marks = [(time.perf_counter(), time.process_time())]

    def tell(what: str) -> None:
        marks.append((time.perf_counter(), time.process_time()))
        wall, cpu = (new - old for new, old in zip(marks[-1], marks[-2], strict=True))
        print(f"{what:<22} {wall:6.2f} s, of the processor {cpu:6.2f} s", flush=True)

    at_hand = available_runs(runs_dir)
    tell(f"read {len(at_hand.runs)} runs")
    (board,) = leaderboards(
        at_hand, runs_dir.parent / "data", weights_dir=runs_dir.parent / "weights"
    )
    rows = sum(len(table.rows) for table in board.tables)
    tell(f"built {rows} rows")
    n_bytes = sum(len(text(board).encode()) for text in FORMATS.values())
    tell(f"wrote {n_bytes / 1e6:.1f} MB")
    wall, cpu = (new - old for new, old in zip(marks[-1], marks[0], strict=True))
    print(f"{'together':<22} {wall:6.2f} s, of the processor {cpu:6.2f} s")


if __name__ == "__main__":
    main()
