"""The clocks: every way of doing one thing, in turns, so that a busy moment hits all alike."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import torch

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.speed import loops
from benchmark.speed.loops import Job, Loop, PlainConfig, Sample
from benchmark.speed.roofline import Peaks, least_work, measured_peaks
from benchmark.speed.rows import (
    MOST_ON_CPU,
    ROWS,
    Goal,
    Row,
    images_for,
    relative_cost,
    why_not_judged,
)
from benchmark.training.device import Device, device_trouble
from benchmark.training.probe import settled

ROUNDS: Final = 3
CALIBRATION: Final = 64
"""Faces whose plain training tells how many fit into the time."""


@dataclass(frozen=True)
class Measured:
    """What one measurement took."""

    seconds: float
    cpu_seconds: float
    """Of this process and its workers: the sturdier number where cores are shared."""


@dataclass(frozen=True)
class Timings:
    """What a way took, a measurement a round."""

    warm_up_seconds: float
    measured: tuple[Measured, ...]

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return median(one.seconds for one in self.measured)

    @property
    def cpu_seconds(self) -> float:
        """The median of the rounds."""
        return median(one.cpu_seconds for one in self.measured)


@dataclass(frozen=True)
class Ratio:
    """How many times faster one way is than another: median, least and most over the rounds."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, slow: Timings, fast: Timings) -> "Ratio":
        """Compare within rounds, where both met the same machine."""
        pairs = zip(slow.measured, fast.measured, strict=True)
        values = [one.seconds / other.seconds for one, other in pairs]
        return cls(median(values), min(values), max(values))


def in_turns(
    ways: Mapping[str, Loop],
    rounds: int,
    deadline: float,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Timings]:
    """Warm every way up, then measure all of them `rounds` times, in turns.

    deadline: of time.perf_counter; after it no further round begins, though one is always made.
    """
    warm_ups = {name: _measured(way.warm_up).seconds for name, way in ways.items()}
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    longest = 0.0
    for number in range(rounds):
        started = time.perf_counter()
        if number and started + longest > deadline:
            break
        for name, way in ways.items():
            way.prepare()
            found[name].append(_measured(way.measure))
        longest = max(longest, sum(values[-1].seconds for values in found.values()))
        on_round()
    return {name: Timings(warm_ups[name], tuple(values)) for name, values in found.items()}


def _measured(work: Callable[[], None]) -> Measured:
    cpu, started = _cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return Measured(seconds, max(0.0, _cpu_seconds() - cpu))


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
    loops: tuple[str, ...] = tuple(loops.OTHER_LOOPS)
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
    efficiency: Mapping[str, Mapping[str, float | None]]
    """Of every way `tflops`, None where nothing is multiplied, and its share `of_roofline`."""
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


class Session:
    """Measures the rows of `options` on one machine."""

    def __init__(self, faces: FaceSet, device: Device, options: SpeedOptions) -> None:
        self.faces, self.device, self.options = faces, device, options
        if device.kind == "cuda":
            # What --deterministic asks of cuBLAS is read at the first matrix product of a process.
            # It is the size that Hopper takes by itself.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        workers = min(4, cores) if options.workers is None else options.workers
        self.config = PlainConfig(workers=workers, pinned=device.kind == "cuda")
        self.loops = {name: said for name in options.loops if (said := loops.version_of(name))}
        """Versions of the packages whose loops are measured too."""
        self.peaks: Peaks = measured_peaks(device)
        self.load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None

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
            "plain": self.config.sentence(),
            "compiled": self.options.compile,
            "peak_tflops": {name: value / 1e12 for name, value in self.peaks.flops.items()},
            "copy_gb_per_second": self.peaks.copy_bytes / 1e9,
            "load_before": self.load_before,
        }

    def measure(self) -> Generator[RowStarted | RowMeasured]:
        """Measure row by row; files are written in a temporary folder, which is removed."""
        options, device = self.options, self.device
        most = options.images or (None if device.kind == "cuda" else MOST_ON_CPU)
        seconds = 60 * options.budget_minutes / sum(row.share for row in options.rows)
        with tempfile.TemporaryDirectory(prefix="facebench-speed-") as folder:
            sample = Sample.of(self.faces, device.torch_device, Path(folder), most)
            for row in options.rows:
                try:
                    yield from self._measure(row, sample, seconds * row.share)
                except RuntimeError as error:
                    raise explained(error) from error

    def _measure(
        self, row: Row, sample: Sample, seconds: float
    ) -> Generator[RowStarted | RowMeasured]:
        deadline = time.perf_counter() + 1.25 * seconds
        epochs = row.epochs(self.device, self.options.epochs)
        experiment = row.experiment(sample.image_px, epochs)
        job = Job(experiment, sample, epochs, self.device, self.config, self.options.compile)
        n = images_for(self.device, seconds, self._seconds_per_image(row, job), len(sample.train))
        yield RowStarted(row, n)
        decided, _ = settled(
            self.device, job.network(), sample.faces, experiment, cached=row.kind == "run"
        )
        job = replace(job, sample=sample.first(n), device=decided)
        ways = self._ways(row, job)
        try:
            timings = in_turns(ways, self.options.rounds, deadline, self._note_peaks)
            ours, notes = ways.get("ours"), tuple[str, ...]()
            if isinstance(ours, loops.OurRun) and ours.origin != "built":
                notes = (f"the cache was not built on the disk: {ours.origin}",)
        finally:
            for way in ways.values():
                way.close()
        yield RowMeasured(
            row, n, len(job.sample.val), epochs, timings, decided.precision,
            decided.channels_last, row.goal(decided), why_not_judged(decided) is None,
            efficiencies(row, job, timings, self.peaks), notes,
        )  # fmt: skip

    def _note_peaks(self) -> None:
        self.peaks = self.peaks.better(measured_peaks(self.device))

    def _seconds_per_image(self, row: Row, job: Job) -> float:
        """Time the plain loop on a few faces; 0 where the data path alone is measured."""
        if row.kind == "data" or self.options.images:
            return 0.0
        few = job.sample.first(min(CALIBRATION, len(job.sample.train)))
        plain = loops.PlainTraining(replace(job, sample=few, epochs=1))
        plain.warm_up()
        seconds = _measured(plain.measure).seconds
        plain.close()
        rounds = self.options.rounds + (row.kind != "run" and self.device.kind == "cuda")
        n_loops = sum(name in self.loops for name in row.loops)
        return seconds / len(few.train) * relative_cost(row, n_loops, job.epochs) * rounds

    def _ways(self, row: Row, job: Job) -> dict[str, Loop]:
        if row.kind == "data":
            return {"plain": loops.PlainPass(job), "ours": loops.OurPass(job)}
        if row.kind == "cost":
            plainly = Device(job.hardware, "fp32", exact=True, channels_last=True)
            exact = replace(job, device=plainly, compile=False)
            return {"deterministic": loops.OurEpochs(exact), "fast": loops.OurEpochs(job)}
        ours = loops.OurRun(job) if row.kind == "run" else loops.OurEpochs(job)
        others = {n: loops.OTHER_LOOPS[n][1](job) for n in row.loops if n in self.loops}
        return {"plain": loops.PlainTraining(job), "ours": ours, **others}


def efficiencies(
    row: Row, job: Job, timings: Mapping[str, Timings], peaks: Peaks
) -> dict[str, dict[str, float | None]]:
    """Relate what was computed to the seconds that it took, and to the least possible."""
    plain, ours = least_work(row.kind, job, peaks)
    found: dict[str, dict[str, float | None]] = {}
    for name, timing in timings.items():
        # timm's loop shares our precision where it takes bf16, on CUDA.
        is_fast = name == row.ways[1] or (name == "timm" and job.device.kind == "cuda")
        flops, seconds = (float(value) for value in (ours if is_fast else plain))
        tflops = flops / timing.seconds / 1e12 if flops else None
        found[name] = {"tflops": tflops, "of_roofline": seconds / timing.seconds}
    return found


def explained(error: RuntimeError) -> Exception:
    """Say in a sentence what befell the device or a worker of a loader, if that is it."""
    if "DataLoader worker" in str(error):
        return RunError(
            f"a worker of a loader that is measured ended ({str(error).splitlines()[0]})",
            fix="Were it for memory, take --workers 0, or fewer faces with --images",
        )
    return device_trouble(error) or error
