"""All rows, one after another, within the time that there is; it yields what it found."""

import contextlib
import importlib.util
import os
import platform
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from benchmark.errors import RunError
from benchmark.faces.store import FaceSet
from benchmark.speed import ways
from benchmark.speed.measuring import ROUNDS, Ratio, Timings, Way, in_turns
from benchmark.speed.plain_loop import PlainConfig, PlainNetwork, adam
from benchmark.speed.roofline import Peaks, measured_peaks
from benchmark.speed.rows import (
    MOST_ON_CPU,
    ROWS,
    Goal,
    Row,
    images_for,
    is_judged,
    relative_cost,
)
from benchmark.speed.sample import Sample, sample_of
from benchmark.speed.work import Efficiency, efficiencies
from benchmark.training.device import Device, device_trouble
from benchmark.training.probe import settled


@dataclass(frozen=True)
class SpeedOptions:
    """What is measured, and for how long."""

    rows: tuple[Row, ...] = ROWS
    budget_minutes: float = 20.0
    rounds: int = ROUNDS
    images: int | None = None
    """Faces that every row trains on; None: as many as fit into the time."""
    epochs: int | None = None
    """Of a whole run; None: 10 on a CPU, 30 on a GPU."""
    workers: int | None = None
    """Of everybody's DataLoader; None: one per core, four at most."""
    loops: tuple[str, ...] = ("timm", "lightning")
    compile: bool = False
    """Whether torch.compile fuses our operations."""


@dataclass(frozen=True)
class RowStarted:
    """A row is about to be measured."""

    row: Row
    n_images: int


@dataclass(frozen=True)
class RowMeasured:
    """What a row's ways took."""

    row: Row
    n_images: int
    n_val: int
    epochs: int
    timings: Mapping[str, Timings]
    ours_precision: str
    ours_channels_last: bool
    goal: Goal | None
    judged: bool
    efficiency: Mapping[str, Efficiency]
    notes: tuple[str, ...] = ()

    @property
    def rounds(self) -> int:
        """How many rounds there was time for."""
        return len(next(iter(self.timings.values())).measured)

    def ratio(self, slow: str | None = None) -> Ratio:
        """How many times faster ours is than the row's reference, or than `slow`."""
        reference, ours = self.row.ways
        return Ratio.of(self.timings[slow or reference], self.timings[ours])

    @property
    def cpu_ratio(self) -> float:
        """The same in processor seconds, workers included."""
        reference, ours = self.row.ways
        return self.timings[reference].cpu_seconds / max(1e-9, self.timings[ours].cpu_seconds)

    @property
    def verdict(self) -> str | None:
        """`met`, `aim met` or `missed`; None where it is not judged."""
        if self.goal is None or not self.judged:
            return None
        ratio = self.ratio().middle
        if self.goal.aim is not None and ratio >= self.goal.aim:
            return "aim met"
        return "met" if ratio >= self.goal.at_least else "missed"


@dataclass
class Machine:
    """Where it was measured, and how busy that was."""

    device: Device
    config: PlainConfig
    dataset: str
    drawn: bool
    image_px: int
    loops: dict[str, str]
    """Versions of the packages whose loops were measured too."""
    peaks: Peaks
    compiled: bool = False
    """Whether torch.compile fused our operations."""
    load_before: tuple[float, ...] = field(default_factory=lambda: _load())
    load_after: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Say it as plain values."""
        return {
            "device": self.device.description,
            "kind": self.device.kind,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "loops": self.loops,
            "dataset": self.dataset,
            "drawn": self.drawn,
            "image_px": self.image_px,
            "plain": self.config.sentence(),
            "compiled": self.compiled,
            "peak_tflops": {name: value / 1e12 for name, value in self.peaks.flops.items()},
            "copy_gb_per_second": self.peaks.copy_bytes / 1e9,
            "load_before": self.load_before,
            "load_after": self.load_after,
        }


def _load() -> tuple[float, ...]:
    with contextlib.suppress(OSError, AttributeError):
        return tuple(round(value, 1) for value in os.getloadavg())
    return ()


SpeedEvent = RowStarted | RowMeasured


class Session:
    """Measures the rows of `options` on one machine; `machine` says on which."""

    def __init__(self, faces: FaceSet, device: Device, options: SpeedOptions) -> None:
        self._faces, self._options = faces, options
        self._device = device
        self._load_seconds: float | None = None
        """Of the plain loader for a picture; measured once."""
        if device.kind == "cuda":
            # What --deterministic asks of cuBLAS is read at the first matrix product of a process.
            # It is the size that Hopper takes by itself.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        config = PlainConfig(
            workers=min(4, cores) if options.workers is None else options.workers,
            pinned=device.kind == "cuda",
        )
        present = {name: version for name in options.loops if (version := version_of(name))}
        self.machine = Machine(
            device, config, faces.name, faces.drawn, faces.image_px, present,
            measured_peaks(device), options.compile,
        )  # fmt: skip

    def measure(self) -> Generator[SpeedEvent]:
        """Measure row by row; files are written in a temporary folder, which is removed."""
        options = self._options
        on_gpu = self._device.kind == "cuda"
        most = options.images or (None if on_gpu else MOST_ON_CPU)
        shares = sum(row.share for row in options.rows)
        with tempfile.TemporaryDirectory(prefix="facebench-speed-") as folder:
            sample = sample_of(self._faces, self._device.torch_device, Path(folder), most)
            for row in options.rows:
                seconds = 60 * options.budget_minutes * row.share / shares
                try:
                    yield from self._measure(row, sample, seconds)
                except RuntimeError as error:
                    raise _explained(error) from error
        self.machine.load_after = _load()

    def _measure(self, row: Row, sample: Sample, seconds: float) -> Generator[SpeedEvent]:
        started = time.perf_counter()
        epochs = row.epochs(self._device, self._options.epochs)
        experiment = row.experiment(sample.image_px, epochs)
        job = ways.Job(
            experiment, sample, epochs, self._device, self.machine.config, self._options.compile
        )
        n = self._images(row, job, seconds)
        job = replace(job, sample=sample.first(n))
        yield RowStarted(row, n)
        job, ours = self._settled(row, job)
        deadline = started + 1.25 * seconds
        try:
            timings = in_turns(ours, self._options.rounds, deadline, self._note_peaks)
            notes = _notes(ours)
        finally:
            for way in ours.values():
                way.close()
        yield RowMeasured(
            row, n, len(job.sample.val), epochs, timings, job.device.precision,
            job.device.channels_last, row.goal(self._device), is_judged(self._device),
            efficiencies(row.kind, job, timings, self.machine.peaks), notes,
        )  # fmt: skip

    def _note_peaks(self, _round: int) -> None:
        self.machine.peaks = self.machine.peaks.better(measured_peaks(self._device))

    def _images(self, row: Row, job: ways.Job, seconds: float) -> int:
        """Choose how many faces fit, by a plain step; what the data take is little."""
        n_loops = sum(name in self.machine.loops for name in row.loops)
        if row.kind == "data" or self._options.images:
            per_image = 0.0
        else:
            rounds = self._options.rounds + (row.kind != "run" and self._device.kind == "cuda")
            step = plain_step_seconds(job)
            cost = relative_cost(row, n_loops, row.epochs(self._device, self._options.epochs))
            if self._load_seconds is None:
                self._load_seconds = plain_load_seconds(job)
            per_image = (step / job.config.batch_size + self._load_seconds) * cost * rounds
        return images_for(row, self._device, seconds, per_image, len(job.sample.train))

    def _settled(self, row: Row, job: ways.Job) -> tuple[ways.Job, dict[str, Way]]:
        """Let our way decide on precision and layout, and make all ways."""
        device, _ = settled(
            self._device, job.network(seed=0), job.sample.faces, job.experiment,
            cached=row.kind == "run",
        )  # fmt: skip
        job = replace(job, device=device)
        made: dict[str, Way]
        if row.kind == "data":
            made = {"plain": ways.PlainPass(job), "ours": ways.OurPass(job)}
        elif row.kind == "cost":
            plainly = Device(device.torch_device, "fp32", exact=True, channels_last=True)
            exact = replace(job, device=plainly, compile=False)
            made = {"deterministic": ways.OurEpochs(exact), "fast": ways.OurEpochs(job)}
        else:
            others = [name for name in row.loops if name in self.machine.loops]
            ours = ways.OurRun(job) if row.kind == "run" else ways.OurEpochs(job)
            made = {"plain": ways.PlainTraining(job), "ours": ours}
            made |= {name: ways.LOOPS[name](job) for name in others}
        return job, made


def _explained(error: RuntimeError) -> Exception:
    """Say in a sentence what befell the device or a worker of a loader, if that is it."""
    if "DataLoader worker" in str(error):
        return RunError(
            f"a worker of a loader that is measured ended ({str(error).splitlines()[0]})",
            fix="Were it for memory, take --workers 0, or fewer faces with --images",
        )
    return device_trouble(error) or error


def _notes(made: Mapping[str, Way]) -> tuple[str, ...]:
    run = made.get("ours")
    if isinstance(run, ways.OurRun) and run.origin != "built":
        return (f"the cache was not built on the disk: {run.origin}",)
    return ()


def version_of(loop: str) -> str | None:
    """Give the version of a loop's package; None where it is not installed."""
    package = {"timm": "timm", "lightning": "pytorch_lightning"}[loop]
    if importlib.util.find_spec(package) is None:
        return None
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return "unknown"


def plain_step_seconds(job: ways.Job) -> float:
    """Time one plain step on noise; the first, in which kernels are chosen, does not count."""
    network = job.network(seed=0)
    plain = PlainNetwork(network.trunk, network.head).to(job.hardware)
    optimiser = adam(plain, job.config)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        ways.step_once(plain, optimiser, job)
        seconds.append(time.perf_counter() - started)
    return seconds[-1]


CALIBRATION: Final = 256
"""Pictures that tell how fast the plain loader is."""


def plain_load_seconds(job: ways.Job) -> float:
    """Time the plain loader for a picture, its workers at work already."""
    few = job.sample.first(min(CALIBRATION, len(job.sample.train)))
    loading = ways.PlainPass(replace(job, sample=few))
    loading.warm_up()
    started = time.perf_counter()
    loading.measure()
    seconds = time.perf_counter() - started
    loading.close()
    return seconds / len(few.train)
