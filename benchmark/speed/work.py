"""What a row's ways have to compute, and how near each came to what the machine could do."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.speed.measuring import Timings
from benchmark.speed.roofline import Bound, Peaks, Work, cut_layers, layers_of
from benchmark.speed.rows import Kind
from benchmark.speed.ways import LOOPS, Job


@dataclass(frozen=True)
class Efficiency:
    """How near a way comes to what the machine could do."""

    tflops: float | None
    """None where nothing is multiplied."""
    of_roofline: float
    """Least possible seconds over measured ones."""


def efficiencies(
    kind: Kind, job: Job, timings: Mapping[str, Timings], peaks: Peaks
) -> dict[str, Efficiency]:
    """Relate what was computed to the seconds that it took, and to the least possible."""
    done = work_of(kind, job, peaks)
    found = {}
    for name, timing in timings.items():
        work = done[_as_way(name, job)] if name in LOOPS else done[name]
        tflops = work.flops / timing.seconds / 1e12 if work.flops else None
        found[name] = Efficiency(tflops, work.seconds / timing.seconds)
    return found


def _as_way(loop: str, job: Job) -> str:
    """Say whose precision another's loop shares: timm's takes bf16 on CUDA."""
    return "ours" if loop == "timm" and job.device.kind == "cuda" else "plain"


def work_of(kind: Kind, job: Job, peaks: Peaks) -> dict[str, Work]:
    """Say what each way has to do at the least: the plain one in fp32, ours in its precision."""
    if kind == "data":
        least = _reading(job, peaks)
        return {"plain": least, "ours": least}
    if kind == "run":
        return _running(job, peaks)
    plain, ours = (
        _epoch(job, Bound(peaks, "fp32", job.config.batch_size)),
        _epoch(job, _own(job, peaks)),
    )
    names = ("deterministic", "fast") if kind == "cost" else ("plain", "ours")
    return dict(zip(names, (plain, ours), strict=True))


def _own(job: Job, peaks: Peaks) -> Bound:
    return Bound(peaks, job.device.precision, job.config.batch_size)


def _batches(job: Job) -> tuple[float, float]:
    size = job.config.batch_size
    return len(job.sample.train) / size, len(job.sample.val) / size


def _reading(job: Job, peaks: Peaks) -> Work:
    """A byte of every pixel and colour is read, and four are written."""
    n_values = len(job.sample.train) * job.sample.image_px**2 * 3
    return Work(0, n_values * (1 + 4) / peaks.copy_bytes)


def _n_trained(job: Job) -> int:
    return job.network(seed=0).parameter_counts()[1]


def _epoch(job: Job, bound: Bound) -> Work:
    """One pass of training, one of validation, the whole network each."""
    layers = layers_of(job.network(seed=0), job.sample.image_px)
    n, n_val = _batches(job)
    training = bound.training(layers, _n_trained(job))
    return training.times(n) + bound.forward(layers).times(n_val)


def _running(job: Job, peaks: Peaks) -> dict[str, Work]:
    """A whole run: the user's goes through the frozen part every epoch, ours once."""
    network = job.network(seed=0)
    layers = layers_of(network, job.sample.image_px)
    before, behind = cut_layers(network, layers)
    n, n_val = _batches(job)
    plain, ours = Bound(peaks, "fp32", job.config.batch_size), _own(job, peaks)
    n_trained = _n_trained(job)
    each = plain.training(behind, n_trained) + plain.forward(before)
    user = each.times(n) + plain.forward(layers).times(n_val)
    epoch = ours.training(behind, n_trained).times(n) + ours.forward(behind).times(n_val)
    return {
        "plain": user.times(job.epochs),
        "ours": ours.forward(before).times(n + n_val) + epoch.times(job.epochs),
    }
