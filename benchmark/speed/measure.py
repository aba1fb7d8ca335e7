"""What is measured and the clocks: every loop of a row in turns, so that a busy moment hits all."""

import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import psutil
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import ExperimentError, RunError
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.speed import loops
from benchmark.speed.loops import Job, Loop
from benchmark.training.device import Device, device_trouble
from benchmark.training.steps import resolve_precision

SCHEMA: Final = 1
MOST_ON_CPU: Final = 2048
CALIBRATION: Final = 64
"""Faces whose plain training tells how many fit into the time."""
Round = tuple[float, float]
"""Seconds of the clock, and of the processor for this process and its workers: the sturdier number
where cores are shared."""


@dataclass(frozen=True)
class SpeedRow:
    """One thing that is measured by several loops.

    share: of the time that there is. others: whether timm's and Lightning's loops are measured too.
    """

    name: str
    title: str
    kind: Literal["data", "epoch", "run"]
    architecture: str
    share: float
    trainable_stages: int | Literal["all"] = "all"
    others: bool = False

    def experiment(self, image_px: int, epochs: int) -> Experiment:
        """Define what is trained: random weights, whose values cost what trained ones cost."""
        recipe = Recipe(1e-4, max_epochs=epochs, schedule="constant", clipping="global")
        backbone = Backbone(
            self.architecture, trainable_stages=self.trainable_stages, input_px=image_px
        )
        return Experiment(f"speed-{self.name}", "How fast?", backbone, Head(), recipe, ad_hoc=True)


ROWS: Final = (
    SpeedRow("data", "data path alone, one pass", "data", "cnn", 0.03),
    SpeedRow("cnn", "small CNN, an epoch", "epoch", "cnn", 0.12, others=True),
    SpeedRow("vgg16", "VGG16, an epoch", "epoch", "vgg16", 0.30, others=True),
    SpeedRow("resnet50", "ResNet50, an epoch", "epoch", "resnet50", 0.09),
    SpeedRow("densenet121", "DenseNet121, an epoch", "epoch", "densenet121", 0.13),
    SpeedRow("block5", "VGG16, block 5, a run", "run", "vgg16", 0.19, 1),
    SpeedRow("frozen", "VGG16, frozen, a run", "run", "vgg16", 0.14, 0),
)


def rows_named(names: str | None) -> tuple[SpeedRow, ...]:
    """Give the rows named in `data,cnn`, in our order; raises ExperimentError for another name."""
    known = [row.name for row in ROWS]
    asked = known if names is None else [name.strip() for name in names.split(",")]
    if unknown := [name for name in asked if name not in known]:
        raise ExperimentError(f"there is no row {unknown[0]!r}", allowed=", ".join(known))
    return tuple(row for row in ROWS if row.name in asked)


def images_for(device: Device, seconds: float, per_image: float, cap: int) -> int:
    """Say how many faces a row trains on: what fits into `seconds`, in whole batches of 32.

    per_image: seconds that all rounds of all loops take for a face; 0 where that is little.
    """
    most = cap if device.kind == "cuda" else min(cap, MOST_ON_CPU)
    fitting = int(seconds / per_image) if per_image > 0 else most
    return max(32, min(most, fitting) // 32 * 32)


def in_turns(
    candidates: Mapping[str, Loop], rounds: int, deadline: float
) -> tuple[dict[str, float], dict[str, list[Round]]]:
    """Warm every loop up, then measure all of them `rounds` times, in turns; give what each took.

    deadline: of time.perf_counter; after it no further round begins, though one is always made.
    """
    warm_ups = {name: _measured(loop.warm_up)[0] for name, loop in candidates.items()}
    found: dict[str, list[Round]] = {name: [] for name in candidates}
    longest = 0.0
    for number in range(rounds):
        if number and time.perf_counter() + longest > deadline:
            break
        for name, loop in candidates.items():
            loop.prepare()
            found[name].append(_measured(loop.measure))
        longest = max(longest, sum(values[-1][0] for values in found.values()))
    return warm_ups, found


def _measured(work: Any) -> Round:
    cpu, started = _cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return seconds, max(0.0, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    """Add up the processor time of this process, of its workers, and of those that have ended."""
    times = os.times()
    total = time.process_time() + times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.Error:
            continue
        total += spent.user + spent.system
    return float(total)


def ratio_of(slow: Sequence[Round], fast: Sequence[Round]) -> dict[str, float]:
    """Say how many times faster: median, least and most of the rounds' ratios.

    Compared within rounds, where both met the same machine.
    """
    values = [one[0] / other[0] for one, other in zip(slow, fast, strict=True)]
    return {"middle": median(values), "low": min(values), "high": max(values)}


@dataclass
class SpeedSession:
    """Measures rows on one machine.

    images: faces that every row trains on; None: as many as fit into the time. workers: of
    everybody's DataLoader; None: one per core, four at most. against: further loops, measured where
    their packages are installed. compile: whether torch.compile fuses our operations.
    """

    faces: FaceSet
    device: Device
    rows: tuple[SpeedRow, ...] = ROWS
    budget_minutes: float = 20.0
    rounds: int = 3
    images: int | None = None
    workers: int | None = None
    against: tuple[str, ...] = tuple(loops.OTHER_LOOPS)
    compile: bool = False

    def __post_init__(self) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self.n_workers = min(4, cores) if self.workers is None else self.workers
        self.load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self.loops: dict[str, str] = {}
        """Versions of the packages whose loops are measured too."""
        for name in self.against:
            with contextlib.suppress(PackageNotFoundError):
                self.loops[name] = version(loops.OTHER_LOOPS[name][0])

    def machine(self) -> dict[str, Any]:
        """Say as plain values where it is measured, and how busy that was before."""
        return {
            "device": self.device.description,
            "kind": self.device.kind,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "loops": self.loops,
            "dataset": self.faces.name,
            "drawn": self.faces.drawn,
            "image_px": self.faces.image_px,
            "workers": self.n_workers,
            "compiled": self.compile,
            "load_before": self.load_before,
        }

    def measure(self) -> Generator[tuple[SpeedRow, int | dict[str, Any]]]:
        """Measure row by row: yield each with its number of faces, then with all that was measured.

        Files are written in a temporary folder, which is removed.
        """
        device = self.device
        most = self.images or (None if device.kind == "cuda" else MOST_ON_CPU)
        seconds = 60 * self.budget_minutes / sum(row.share for row in self.rows)
        with tempfile.TemporaryDirectory(prefix="facebench-speed-") as folder:
            train, val = loops.rows_that_train(self.faces, most)
            pixels, table = self.faces.pixels(), self.faces.table
            faces = FaceBatches.on_device(pixels, table, device.torch_device)
            for row in self.rows:
                epochs = (30 if device.kind == "cuda" else 10) if row.kind == "run" else 1
                experiment = row.experiment(self.faces.image_px, epochs)
                job = Job(
                    experiment, faces, train, val, Path(folder), device, self.n_workers, epochs,
                    self.compile,
                )  # fmt: skip
                try:
                    yield from self._measure(row, job, seconds * row.share)
                except RuntimeError as error:
                    raise explained(error) from error

    def _measure(
        self, row: SpeedRow, job: Job, seconds: float
    ) -> Generator[tuple[SpeedRow, int | dict[str, Any]]]:
        deadline = time.perf_counter() + 1.25 * seconds
        n = images_for(self.device, seconds, self._seconds_per_image(row, job), len(job.train))
        yield row, n
        chosen, _ = resolve_precision(
            self.device, job.network(), job.faces, job.experiment, cached=row.kind == "run"
        )
        job = replace(job.first(n), device=chosen)
        candidates = self._candidates(row, job)
        try:
            warm_ups, measured = in_turns(candidates, self.rounds, deadline)
            origin = getattr(candidates.get("ours"), "origin", "built")
        finally:
            for loop in candidates.values():
                loop.close()
        notes = [] if origin == "built" else [f"the cache was not built on the disk: {origin}"]
        yield row, _row_data(row, job, warm_ups, measured) | {"notes": notes}

    def _seconds_per_image(self, row: SpeedRow, job: Job) -> float:
        """Say what all rounds of all loops take for a face, by the plain loop on a few, generously.

        0 where the data path alone is measured, or the number of faces is given.
        """
        if row.kind == "data" or self.images:
            return 0.0
        few = replace(job.first(min(CALIBRATION, len(job.train))), epochs=1)
        plain = loops.PlainTraining(few)
        plain.warm_up()
        seconds, _ = _measured(plain.measure)
        plain.close()
        rounds = self.rounds + (row.kind != "run" and job.is_pinned)
        ours, validation = (0.25 if row.kind == "run" else 0.8), 1.05
        n_loops = 1 + ours + row.others * len(self.loops)
        return seconds / len(few.train) * job.epochs * validation * n_loops * rounds

    def _candidates(self, row: SpeedRow, job: Job) -> dict[str, Loop]:
        if row.kind == "data":
            return {"plain": loops.PlainPass(job), "ours": loops.OurPass(job)}
        ours = loops.OurRun(job) if row.kind == "run" else loops.OurEpochs(job)
        others = {name: loops.OTHER_LOOPS[name][1](job) for name in self.loops if row.others}
        return {"plain": loops.PlainTraining(job), "ours": ours, **others}


def _row_data(
    row: SpeedRow, job: Job, warm_ups: Mapping[str, float], measured: Mapping[str, list[Round]]
) -> dict[str, Any]:
    """Give all that was measured of a row as plain values, as speed.json has it."""
    by_loop: dict[str, dict[str, Any]] = {
        name: {
            "seconds": median(one for one, _ in rounds),
            "cpu_seconds": median(cpu for _, cpu in rounds),
            "warm_up_seconds": warm_ups[name],
            "rounds": [{"seconds": one, "cpu_seconds": cpu} for one, cpu in rounds],
            "ours_is_faster": None if name == "ours" else ratio_of(rounds, measured["ours"]),
        }
        for name, rounds in measured.items()
    }
    plain, ours = by_loop["plain"], by_loop["ours"]
    return {
        "name": row.name,
        "title": row.title,
        "images": len(job.train),
        "validation_images": len(job.val),
        "epochs": job.epochs,
        "rounds": len(measured["ours"]),
        "reference": "plain",
        "ours": "ours",
        "ratio": plain["ours_is_faster"],
        "cpu_ratio": plain["cpu_seconds"] / max(1e-9, ours["cpu_seconds"]),
        "precision": job.device.precision,
        "channels_last": job.device.channels_last,
        "ways": by_loop,
    }


def explained(error: RuntimeError) -> Exception:
    """Say in a sentence what happened to the device or to a worker of a loader, if that is it."""
    if "DataLoader worker" in str(error):
        return RunError(
            f"a worker of a loader that is measured ended ({str(error).splitlines()[0]})",
            fix="If it was for memory, take --workers 0, or fewer faces with --images",
        )
    return device_trouble(error) or error
