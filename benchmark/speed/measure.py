"""What is measured and the clocks: every loop of a row in turns, so that a busy moment hits all."""

import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import psutil
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import require
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.speed import loops
from benchmark.speed.loops import Job, Loop
from benchmark.training.device import Device, device_trouble
from benchmark.training.steps import resolve_precision

SCHEMA: Final = 1
ON_GPU: Final = 16
"""How many times more faces a row trains on there."""
Round = tuple[float, float]
"""Seconds of the clock, and of the processor for this process and its workers: the sturdier number
where cores are shared."""


@dataclass(frozen=True)
class SpeedRow:
    """One thing that is measured by several loops.

    images: faces that train on a CPU, some minutes of three loops and rounds on two cores. others:
    whether timm's and Lightning's loops are measured too.
    """

    name: str
    title: str
    kind: Literal["data", "epoch", "run"]
    architecture: str
    images: int
    trainable_stages: int | Literal["all"] = "all"
    others: bool = False

    def experiment(self, image_px: int, epochs: int) -> Experiment:
        """Define what is trained: random weights, whose values cost what trained ones cost."""
        recipe = Recipe(1e-4, max_epochs=epochs, schedule="constant", clipping="global")
        backbone = Backbone(self.architecture, "none", self.trainable_stages, image_px)
        return Experiment(f"speed-{self.name}", "How fast?", backbone, Head(), recipe, ad_hoc=True)


ROWS: Final = (
    SpeedRow("data", "data path alone, one pass", "data", "cnn", 2048),
    SpeedRow("cnn", "small CNN, an epoch", "epoch", "cnn", 1760, others=True),
    SpeedRow("vgg16", "VGG16, an epoch", "epoch", "vgg16", 256, others=True),
    SpeedRow("resnet50", "ResNet50, an epoch", "epoch", "resnet50", 352),
    SpeedRow("densenet121", "DenseNet121, an epoch", "epoch", "densenet121", 480),
    SpeedRow("block5", "VGG16, block 5, a run", "run", "vgg16", 96, 1),
    SpeedRow("frozen", "VGG16, frozen, a run", "run", "vgg16", 96, 0),
)


LOOPS: Final[dict[str, tuple[Callable[[Job], Loop], Callable[[Job], Loop]]]] = {
    "data": (loops.PlainPass, loops.OurPass), "epoch": (loops.PlainTraining, loops.OurEpochs),
    "run": (loops.PlainTraining, loops.OurRun),
}  # fmt: skip
"""The plain loop and ours, by kind of row."""


def rows_named(names: str | None) -> tuple[SpeedRow, ...]:
    """Give the rows named in `data,cnn`, in our order; raises ExperimentError for another name."""
    known = [row.name for row in ROWS]
    asked = known if names is None else [name.strip() for name in names.split(",")]
    for name in asked:
        require(name in known, f"there is no row {name!r}", allowed=", ".join(known))
    return tuple(row for row in ROWS if row.name in asked)


def in_turns(
    candidates: Mapping[str, Loop], rounds: int
) -> tuple[dict[str, float], dict[str, list[Round]]]:
    """Warm every loop up, then measure all `rounds` times, in turns; give what each took."""
    warm_ups = {name: _measured(loop.warm_up)[0] for name, loop in candidates.items()}
    found: dict[str, list[Round]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, loop in candidates.items():
            loop.prepare()
            found[name].append(_measured(loop.measure))
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
        with contextlib.suppress(psutil.Error):
            spent = child.cpu_times()
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

    images: faces that every row trains on; None: as the row says. workers: of everybody's
    DataLoader; None: one per core, four at most. against: further loops, measured where their
    packages are installed. compile: whether torch.compile fuses our operations.
    """

    faces: FaceSet
    device: Device
    rows: tuple[SpeedRow, ...] = ROWS
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
        device, faces = self.device, self.faces
        return {
            "device": device.description, "kind": device.kind, "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "torch": torch.__version__,
            "python": platform.python_version(), "loops": self.loops, "dataset": faces.name,
            "drawn": faces.drawn, "image_px": faces.image_px, "workers": self.n_workers,
            "compiled": self.compile, "load_before": self.load_before,
        }  # fmt: skip

    def measure(self) -> Generator[tuple[SpeedRow, int | dict[str, Any]]]:
        """Measure row by row: yield each with its number of faces, then with all that was measured.

        Files are written in a temporary folder, which is removed.
        """
        device, on_gpu = self.device, self.device.kind == "cuda"
        pixels, table = self.faces.pixels(), self.faces.table
        faces = FaceBatches.on_device(pixels, table, device.torch_device)
        for row in self.rows:
            most = self.images or row.images * (ON_GPU if on_gpu else 1)
            train, val = loops.rows_that_train(self.faces, most)
            yield row, len(train)
            epochs = (30 if on_gpu else 10) if row.kind == "run" else 1
            experiment = row.experiment(self.faces.image_px, epochs)
            with tempfile.TemporaryDirectory(prefix="facebench-speed-") as folder:
                job = Job(
                    experiment, faces, train, val, Path(folder), device, self.n_workers, epochs,
                    self.compile,
                )  # fmt: skip
                try:
                    yield row, self._row(row, job)
                except RuntimeError as error:
                    raise device_trouble(error) or error from error

    def _row(self, row: SpeedRow, job: Job) -> dict[str, Any]:
        chosen, _ = resolve_precision(
            self.device, job.network(), job.faces, job.experiment, cached=row.kind == "run"
        )
        job = replace(job, device=chosen)
        plain, ours = LOOPS[row.kind]
        others = {name: loops.OTHER_LOOPS[name][1](job) for name in self.loops if row.others}
        candidates: dict[str, Loop] = {"plain": plain(job), "ours": ours(job), **others}
        try:
            warm_ups, measured = in_turns(candidates, self.rounds)
            origin = getattr(candidates["ours"], "origin", "built")
        finally:
            for loop in candidates.values():
                loop.close()
        notes = [] if origin == "built" else [f"the cache was not built on the disk: {origin}"]
        return _row_data(row, job, warm_ups, measured) | {"notes": notes}


def _row_data(
    row: SpeedRow, job: Job, warm_ups: Mapping[str, float], measured: Mapping[str, list[Round]]
) -> dict[str, Any]:
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
        "name": row.name, "title": row.title, "images": len(job.train),
        "validation_images": len(job.val), "epochs": job.epochs, "rounds": len(measured["ours"]),
        "reference": "plain", "ours": "ours", "ratio": plain["ours_is_faster"],
        "cpu_ratio": plain["cpu_seconds"] / max(1e-9, ours["cpu_seconds"]),
        "precision": job.device.precision, "channels_last": job.device.channels_last,
        "ways": by_loop,
    }  # fmt: skip
