"""The clocks: every loop of a row, in turns, so that a busy moment hits all alike; the roofline.

The roofline is what the machine could do at best: peaks, measured, and the least time that a row
takes. The bound of a layer is the larger of two times: its multiply-adds at the peak of a matrix
product, and its inputs, outputs and weights at the speed of a copy. Layers follow one another.
Pointwise layers count as fused into the one before, as a perfect compiler would; norms and poolings
do not. Operations are counted from the layers' shapes and not by torch's FlopCounterMode, which
counts a depthwise convolution's backward pass as if it were a dense one.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.models.network import Network
from benchmark.speed import loops
from benchmark.speed.loops import FaceSample, Job, Loop
from benchmark.speed.rows import MOST_ON_CPU, ROWS, SpeedRow, images_for, why_not_judged
from benchmark.training.device import Device, cpu_has_bf16, device_trouble
from benchmark.training.precision import resolve_precision

CALIBRATION: Final = 64
"""Faces whose plain training tells how many fit into the time."""
Round = tuple[float, float]
"""Seconds of the clock, and of the processor for this process and its workers: the sturdier number
where cores are shared."""

ADAM_BYTES: Final = 28
"""A parameter in a step of Adam in fp32: value, gradient and two averages are read, all but the
gradient written."""
COUNTED: Final = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm,
                  nn.MaxPool2d, nn.AvgPool2d)  # fmt: skip
Work = npt.NDArray[np.float64]
"""(operations, the least seconds that they take at the peaks)."""


@dataclass(frozen=True)
class Peaks:
    """The best this machine was seen to do: operations a second in a matrix product, by precision,
    and bytes a second, read and written, of a copy in the device's memory."""

    flops: dict[str, float]
    copy_bytes: float

    def better(self, other: "Peaks") -> "Peaks":
        """Keep the best of two measurements: a busy moment lowers a peak, nothing raises it."""
        flops = {name: max(value, other.flops[name]) for name, value in self.flops.items()}
        return Peaks(flops, max(self.copy_bytes, other.copy_bytes))

    def forward(self, layers: Iterable["LayerShape"], precision: str, batch_size: int) -> Work:
        """One batch through some layers."""
        total, rate = np.zeros(2), self.flops.get(precision, self.flops["fp32"])
        for layer in layers:
            flops = 2 * layer.multiply_adds * batch_size
            moved = (layer.n_inputs + layer.n_outputs) * batch_size + layer.n_weights
            n_bytes = moved * (2 if precision == "bf16" else 4)
            total += [flops, max(flops / rate, n_bytes / self.copy_bytes)]
        return total

    def training(
        self, layers: Iterable["LayerShape"], precision: str, batch_size: int, n_trained: int
    ) -> Work:
        """One batch forward, backward by inputs and by weights, and Adam's step."""
        adam = [0, n_trained * ADAM_BYTES / self.copy_bytes]
        return 3 * self.forward(layers, precision, batch_size) + adam


def measured_peaks(device: Device) -> Peaks:
    """Measure a matrix product in every precision that is native here, and a copy."""
    on_cuda, where = device.kind == "cuda", device.torch_device
    kinds = {"fp32": torch.float32}
    kinds |= {"bf16": torch.bfloat16} if on_cuda or cpu_has_bf16() else {}
    side, flops = (8192 if on_cuda else 512), {}

    def least_seconds(work: Callable[[], Tensor]) -> float:
        best = float("inf")
        for _ in range(6 if on_cuda else 31):
            device.synchronise()
            started = time.perf_counter()
            work()
            device.synchronise()
            best = min(best, time.perf_counter() - started)
        return best

    # CUDA rounds fp32 products as torch lets it in convolutions: else they outrun the peak.
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, dtype in kinds.items():
        # Random and not zero: a GPU was seen to be faster on zeros.
        left = torch.randn(side, side, device=where).to(dtype)
        out = torch.empty_like(left)
        flops[name] = 2 * side**3 / least_seconds(lambda a=left, b=out: torch.mm(a, a, out=b))  # type: ignore[misc]
    torch.backends.cuda.matmul.allow_tf32 = before
    values = torch.randn((1 << 29) if on_cuda else (1 << 23), device=where)
    target = torch.empty_like(values)
    n_bytes = 2 * values.numel() * values.element_size()
    return Peaks(flops, n_bytes / least_seconds(lambda: target.copy_(values)))


@dataclass(frozen=True)
class LayerShape:
    """A layer's sizes for one face; stage: of the backbone that it belongs to, or `head`."""

    stage: str
    multiply_adds: int
    n_inputs: int
    n_outputs: int
    n_weights: int


def layers_of(network: Network, image_px: int) -> list[LayerShape]:
    """Read the layers that count off a forward pass on the meta device, which holds no values."""
    found: list[LayerShape] = []
    stages = {"head": network.head, **dict(network.backbone.stages)}
    stage_of = {
        id(module): name
        for name, stage in stages.items()
        if isinstance(stage, nn.Module)
        for module in stage.modules()
    }

    def note(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        n_weights = sum(value.numel() for value in module.parameters())
        stage, n_products = stage_of.get(id(module), "backbone"), multiply_adds(module, made)
        found.append(LayerShape(stage, n_products, given[0].numel(), made.numel(), n_weights))

    counted = [module for module in network.modules() if isinstance(module, COUNTED)]
    hooks = [module.register_forward_hook(note) for module in counted]
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            faces = torch.empty(1, 3, image_px, image_px, device="meta")
            functional_call(network, shapes, (faces,))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return found


def multiply_adds(module: nn.Module, made: Tensor) -> int:
    """Count a layer's products for what it made; 0 for one without."""
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        return made.numel() * height * width * module.in_channels // module.groups
    return made.numel() * module.in_features if isinstance(module, nn.Linear) else 0


def least_work(kind: str, job: Job, peaks: Peaks) -> list[Work]:
    """Say what a row of a kind does at the least: the plain loop in fp32, then ours in its own."""
    sample, size = job.sample, job.batch_size
    n, n_val = len(sample.train) / size, len(sample.val) / size
    if kind == "data":  # A byte of every pixel and colour is read, and four are written.
        n_values = len(sample.train) * sample.image_px**2 * 3
        return [np.array([0, n_values * 5 / peaks.copy_bytes])] * 2
    network = job.network()
    layers, n_trained = layers_of(network, sample.image_px), network.parameter_counts()[1]
    # Behind the cut of a run that caches; all of a network that is trained whole.
    trained = {*network.trained_stages, "head"}
    is_cut = kind == "run" and network.cut is not None
    behind = [layer for layer in layers if not is_cut or layer.stage in trained]
    before = [layer for layer in layers if is_cut and layer.stage not in trained]
    plain, ours = (
        peaks.training(behind, kind_, size, n_trained) * n
        + peaks.forward(behind, kind_, size) * n_val
        for kind_ in ("fp32", job.device.precision)
    )
    # The plain loop goes through the frozen part every epoch, ours once.
    plain += peaks.forward(before, "fp32", size) * (n + n_val)
    once = peaks.forward(before, job.device.precision, size) * (n + n_val)
    return [plain * job.epochs, once + ours * job.epochs]


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
