"""How fast this machine trains, against the loops that a user would write: rows and clocks.

Rows measure one thing each, all loops in turns, in one process, so that a busy moment hits all.
What a loop computes is training's; nothing here changes a number that a run stores.
"""

import contextlib
import gc
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import joblib
import psutil
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import require
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.speed.loops import LOOPS, PACKAGES, Job, Loop, rows_that_train
from benchmark.training.device import Device, device_trouble
from benchmark.training.steps import resolve_precision

SCHEMA: Final = 1
ON_GPU: Final = 16
"""How many times more faces a row trains on there."""
Round = tuple[float, float, Any]
"""Seconds of the clock; of the processor for this process and its workers, the sturdier number
where cores are shared; and what the work gave."""


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
        """Define what is trained: random weights, whose values cost what trained ones cost.

        Other rows than runs are read epoch by epoch, as long as somebody measures.
        """
        most = epochs if self.kind == "run" else 1_000_000
        recipe = Recipe(1e-4, max_epochs=most, schedule="constant", clipping="global")
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


def rows_named(names: str | None) -> tuple[SpeedRow, ...]:
    """Give the rows named in `data,cnn`, in our order; raises ExperimentError for another name."""
    known = [row.name for row in ROWS]
    asked = known if names is None else [name.strip() for name in names.split(",")]
    for name in asked:
        require(name in known, f"there is no row {name!r}", allowed=", ".join(known))
    return tuple(row for row in ROWS if row.name in asked)


def in_turns(loops: Mapping[str, Loop], rounds: int, device: Device) -> dict[str, list[Round]]:
    """Warm every loop up, then measure all `rounds` times, in turns; the warm-ups come first."""
    works = {name: iter(loop) for name, loop in loops.items()}
    found: dict[str, list[Round]] = {name: [] for name in loops}
    for _ in range(1 + rounds):
        for name, ready in works.items():
            work = next(ready)
            cpu, started = _cpu_seconds(), time.perf_counter()
            gave = work()
            device.synchronise()
            seconds = time.perf_counter() - started
            found[name].append((seconds, max(0.0, _cpu_seconds() - cpu), gave))
    return found


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
    rounds: int
    images: int | None
    workers: int | None
    against: tuple[str, ...]
    compile: bool

    def __post_init__(self) -> None:
        self.n_workers = min(4, joblib.cpu_count()) if self.workers is None else self.workers
        pixels, place = self.faces.pixels(), self.device.torch_device
        self._on_device = FaceBatches.on_device(pixels, self.faces.table, place)
        self.loops: dict[str, str] = {}
        """Versions of the packages whose loops are measured too."""
        for name in self.against:
            with contextlib.suppress(PackageNotFoundError):
                self.loops[name] = version(PACKAGES[name])

    def machine(self) -> dict[str, Any]:
        """Say as plain values where it is measured."""
        device, faces = self.device, self.faces
        return {
            "device": device.description, "kind": device.kind, "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "torch": torch.__version__,
            "python": platform.python_version(), "loops": self.loops, "dataset": faces.name,
            "drawn": faces.drawn, "image_px": faces.image_px, "workers": self.n_workers,
            "compiled": self.compile,
        }  # fmt: skip

    def measured(self, row: SpeedRow) -> dict[str, Any]:
        """Measure one row; files are written in a temporary folder, which is removed."""
        on_gpu = self.device.kind == "cuda"
        most = self.images or row.images * (ON_GPU if on_gpu else 1)
        epochs = (30 if on_gpu else 10) if row.kind == "run" else 1
        with tempfile.TemporaryDirectory(prefix="facebench-speed-") as folder:
            job = Job(
                row.experiment(self.faces.image_px, epochs), self._on_device,
                *rows_that_train(self.faces, most), Path(folder), self.device, self.n_workers,
                epochs, self.compile,
            )  # fmt: skip
            try:
                return self._measured(row, job)
            except RuntimeError as error:
                raise device_trouble(error) or error from error

    def _measured(self, row: SpeedRow, job: Job) -> dict[str, Any]:
        of, is_run = (self.device, job.network(), job.faces, job.experiment), row.kind == "run"
        chosen, _ = resolve_precision(*of, cached=is_run)
        job = replace(job, device=chosen)
        names = ("plain", "ours", *(self.loops if row.others else ()))
        candidates = {name: LOOPS[row.kind][name](job) for name in names}
        measured = in_turns(candidates, self.rounds, chosen)
        del candidates
        gc.collect()  # workers end when nobody holds their loader
        our_rounds = measured["ours"][1:]
        by_loop: dict[str, dict[str, Any]] = {
            name: {
                "seconds": median(one for one, _, _ in rounds),
                "cpu_seconds": median(cpu for _, cpu, _ in rounds),
                "warm_up_seconds": warm_up[0],
                "rounds": [{"seconds": one, "cpu_seconds": cpu} for one, cpu, _ in rounds],
                "ours_is_faster": None if name == "ours" else ratio_of(rounds, our_rounds),
            }
            for name, (warm_up, *rounds) in measured.items()
        }
        plain, ours = (by_loop[name]["cpu_seconds"] for name in ("plain", "ours"))
        origin = our_rounds[-1][2] if is_run else "built"
        return {
            "name": row.name, "title": row.title, "images": len(job.train), "epochs": job.epochs,
            "ratio": by_loop["plain"]["ours_is_faster"], "cpu_ratio": plain / max(1e-9, ours),
            "precision": chosen.precision, "channels_last": chosen.channels_last, "ways": by_loop,
            "notes": [] if origin == "built" else [f"the cache was not built, but {origin}"],
        }  # fmt: skip
