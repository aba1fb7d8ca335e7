"""The clocks: every loop of a row, in turns, so that a busy moment hits all alike."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import torch

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.speed import loops
from benchmark.speed.loops import FaceSample, Job, Loop
from benchmark.speed.roofline import least_work, measured_peaks
from benchmark.speed.rows import MOST_ON_CPU, ROWS, SpeedRow, images_for, why_not_judged
from benchmark.training.device import Device, device_trouble
from benchmark.training.precision import resolve_precision

CALIBRATION: Final = 64
"""Faces whose plain training tells how many fit into the time."""
Round = tuple[float, float]
"""Seconds of the clock, and of the processor for this process and its workers: the sturdier number
where cores are shared."""


def in_turns(
    candidates: Mapping[str, Loop],
    rounds: int,
    deadline: float,
    on_round: Callable[[], None] = lambda: None,
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
        on_round()
    return warm_ups, found


def _measured(work: Callable[[], None]) -> Round:
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


@dataclass(frozen=True)
class SpeedOptions:
    """What is measured, and for how long.

    images: faces that every row trains on; None: as many as fit into the time. epochs: of a whole
    run; None: 10 on a CPU, 30 on a GPU. workers: of everybody's DataLoader; None: one per core,
    four at most. compile: whether torch.compile fuses our operations.
    """

    rows: tuple[SpeedRow, ...] = ROWS
    budget_minutes: float = 20.0
    rounds: int = 3
    images: int | None = None
    epochs: int | None = None
    workers: int | None = None
    loops: tuple[str, ...] = tuple(loops.OTHER_LOOPS)
    compile: bool = False


class SpeedSession:
    """Measures the rows of `options` on one machine."""

    def __init__(self, faces: FaceSet, device: Device, options: SpeedOptions) -> None:
        self.faces, self.device, self.options = faces, device, options
        if device.kind == "cuda":
            # What --deterministic asks of cuBLAS is read at the first matrix product of a process.
            # It is the size that Hopper takes by itself.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self.workers = min(4, cores) if options.workers is None else options.workers
        self.loops = {name: said for name in options.loops if (said := loops.version_of(name))}
        """Versions of the packages whose loops are measured too."""
        self.peaks = measured_peaks(device)
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
            "plain": loops.plain_sentence(self.device, self.workers),
            "compiled": self.options.compile,
            "peak_tflops": {name: value / 1e12 for name, value in self.peaks.flops.items()},
            "copy_gb_per_second": self.peaks.copy_bytes / 1e9,
            "load_before": self.load_before,
        }

    def measure(self) -> Generator[tuple[SpeedRow, int | dict[str, Any]]]:
        """Measure row by row: yield each with its number of faces, then with all that was measured.

        Files are written in a temporary folder, which is removed.
        """
        options, device = self.options, self.device
        most = options.images or (None if device.kind == "cuda" else MOST_ON_CPU)
        seconds = 60 * options.budget_minutes / sum(row.share for row in options.rows)
        with tempfile.TemporaryDirectory(prefix="facebench-speed-") as folder:
            sample = FaceSample.of(self.faces, device.torch_device, Path(folder), most)
            for row in options.rows:
                try:
                    yield from self._measure(row, sample, seconds * row.share)
                except RuntimeError as error:
                    raise explained(error) from error

    def _measure(
        self, row: SpeedRow, sample: FaceSample, seconds: float
    ) -> Generator[tuple[SpeedRow, int | dict[str, Any]]]:
        deadline, options = time.perf_counter() + 1.25 * seconds, self.options
        on_cuda = self.device.kind == "cuda"
        epochs = (options.epochs or (30 if on_cuda else 10)) if row.kind == "run" else 1
        experiment = row.experiment(sample.image_px, epochs)
        job = Job(experiment, sample, epochs, self.device, self.workers, options.compile)
        n = images_for(self.device, seconds, self._seconds_per_image(row, job), len(sample.train))
        yield row, n
        chosen, _ = resolve_precision(
            self.device, job.network(), sample.faces, experiment, cached=row.kind == "run"
        )
        job = replace(job, sample=sample.first(n), device=chosen)
        candidates = self._candidates(row, job)

        def note_peaks() -> None:
            self.peaks = self.peaks.better(measured_peaks(self.device))

        try:
            warm_ups, measured = in_turns(candidates, options.rounds, deadline, note_peaks)
            origin = getattr(candidates.get("ours"), "origin", "built")
        finally:
            for loop in candidates.values():
                loop.close()
        notes = [] if origin == "built" else [f"the cache was not built on the disk: {origin}"]
        yield row, self._row_data(row, job, warm_ups, measured) | {"notes": notes}

    def _row_data(
        self,
        row: SpeedRow,
        job: Job,
        warm_ups: Mapping[str, float],
        measured: Mapping[str, Sequence[Round]],
    ) -> dict[str, Any]:
        """Give all that was measured of a row as plain values, as speed.json has it."""
        (reference, ours), n_rounds = row.compared, len(next(iter(measured.values())))
        least = least_work(row.kind, job, self.peaks)
        by_loop: dict[str, dict[str, Any]] = {}
        for name, rounds in measured.items():
            # timm's loop shares our precision where it takes bf16, on CUDA.
            is_fast = name == ours or (name == "timm" and job.is_pinned)
            flops, least_seconds = (float(value) for value in least[is_fast])
            seconds = median(one for one, _ in rounds)
            by_loop[name] = {
                "seconds": seconds,
                "cpu_seconds": median(cpu for _, cpu in rounds),
                "warm_up_seconds": warm_ups[name],
                "rounds": [{"seconds": one, "cpu_seconds": cpu} for one, cpu in rounds],
                "tflops": flops / seconds / 1e12 if flops else None,
                "of_roofline": least_seconds / seconds,
                "ours_is_faster": None if name == ours else ratio_of(rounds, measured[ours]),
            }
        ratio = ratio_of(measured[reference], measured[ours])
        goal = row.on_gpu if job.is_pinned else row.on_cpu
        is_judged = goal is not None and why_not_judged(job.device) is None
        return {
            "name": row.name,
            "title": row.title,
            "images": len(job.sample.train),
            "validation_images": len(job.sample.val),
            "epochs": job.epochs,
            "rounds": n_rounds,
            "reference": reference,
            "ours": ours,
            "ratio": ratio,
            "cpu_ratio": by_loop[reference]["cpu_seconds"]
            / max(1e-9, by_loop[ours]["cpu_seconds"]),
            "goal": None if goal is None else asdict(goal),
            "verdict": goal.verdict(ratio["middle"]) if goal and is_judged else None,
            "precision": job.device.precision,
            "channels_last": job.device.channels_last,
            "ways": by_loop,
        }

    def _seconds_per_image(self, row: SpeedRow, job: Job) -> float:
        """Say what all rounds of all loops take for a face, by the plain loop on a few, generously.

        0 where the data path alone is measured, or the number of faces is given.
        """
        if row.kind == "data" or self.options.images:
            return 0.0
        few = job.sample.first(min(CALIBRATION, len(job.sample.train)))
        plain = loops.PlainTraining(replace(job, sample=few, epochs=1))
        plain.warm_up()
        seconds, _ = _measured(plain.measure)
        plain.close()
        rounds = self.options.rounds + (row.kind != "run" and job.is_pinned)
        ours, validation = (0.25 if row.kind == "run" else 0.8), 1.05
        n_others = sum(name in self.loops for name in row.loops)
        return seconds / len(few.train) * job.epochs * validation * (1 + ours + n_others) * rounds

    def _candidates(self, row: SpeedRow, job: Job) -> dict[str, Loop]:
        if row.kind == "data":
            return {"plain": loops.PlainPass(job), "ours": loops.OurPass(job)}
        if row.kind == "cost":
            plainly = Device(job.device.torch_device, "fp32", exact=True, channels_last=True)
            exact = replace(job, device=plainly, compile=False)
            return {"deterministic": loops.OurEpochs(exact), "fast": loops.OurEpochs(job)}
        ours = loops.OurRun(job) if row.kind == "run" else loops.OurEpochs(job)
        others = {n: loops.OTHER_LOOPS[n][1](job) for n in row.loops if n in self.loops}
        return {"plain": loops.PlainTraining(job), "ours": ours, **others}


def explained(error: RuntimeError) -> Exception:
    """Say in a sentence what happened to the device or to a worker of a loader, if that is it."""
    if "DataLoader worker" in str(error):
        return RunError(
            f"a worker of a loader that is measured ended ({str(error).splitlines()[0]})",
            fix="If it was for memory, take --workers 0, or fewer faces with --images",
        )
    return device_trouble(error) or error
