"""Does speed buy other numbers? The same trainings twice, the fast way and the plain one.

Over several seeds, on validation faces: paired differences in accuracy with their intervals, and
whether the weights came out equal to the last bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from benchmark.errors import RunError
from benchmark.experiment import Experiment
from benchmark.faces.batches import FaceBatches
from benchmark.faces.store import FaceSet
from benchmark.models.network import Network, build_network
from benchmark.models.weights import LoadedWeights
from benchmark.results.paired import Difference, Pair, paired_difference
from benchmark.tasks import TaskName
from benchmark.training.device import Device, cpu_has_bf16
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.probabilities import probabilities
from benchmark.training.steps import SpeedSettings
from benchmark.training.trainer import EpochResult, TrainingFaces, fit, start


@dataclass(frozen=True)
class Manner:
    """How a training is computed."""

    name: str
    device: Device
    cached: bool = False
    graph: bool = False
    compile: bool = False

    @property
    def unnamed(self) -> "Manner":
        """What it does, whatever it is called: bf16 here is eager there."""
        return replace(self, name="")


@dataclass(frozen=True)
class Meeting:
    """Two manners that are to end alike."""

    plain: Manner
    fast: Manner

    @property
    def name(self) -> str:
        """Both in words: `cached against live`."""
        return f"{self.fast.name} against {self.plain.name}"


@dataclass(frozen=True)
class Trained:
    """What one training came to: its weights, and what it says of the validation faces."""

    weights: Mapping[str, torch.Tensor]
    predicted: Mapping[TaskName, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Advanced:
    """A training ended an epoch; for the display alone."""

    manner: Manner
    seed: int
    epoch: int


@dataclass(frozen=True)
class Agreement:
    """How two manners compare over the seeds."""

    meeting: Meeting
    n_seeds: int
    n_faces: int
    n_equal: int
    """Seeds whose weights are equal to the last bit."""
    accuracy: Mapping[TaskName, float]
    """Of the plain manner, mean over seeds."""
    differences: Mapping[TaskName, Difference]
    """Of the fast manner minus the plain one."""

    def holds(self, task: TaskName) -> bool:
        """Tell whether the interval of the difference contains 0."""
        difference = self.differences[task]
        return difference.low <= 0 <= difference.high

    @property
    def agrees(self) -> bool:
        """Tell whether every task's interval contains 0."""
        return all(self.holds(task) for task in self.differences)


def meetings_for(device: Device, *, compiled: bool = False) -> list[Meeting]:
    """Give what can be compared here: bf16 where it is native, graphs where there is CUDA.

    A cache is compared in deterministic fp32, where it must change no bit on a CPU. `compiled`:
    what torch.compile makes of a step, too, in the arithmetic that is the fastest here.
    """
    exact = Device(device.torch_device, "fp32", exact=True)
    fp32 = Device(device.torch_device, "fp32")
    live = Manner("live", exact)
    found = [Meeting(live, replace(live, name="cached", cached=True))]
    on_cuda = device.kind == "cuda"
    has_bf16 = on_cuda or (device.kind == "cpu" and cpu_has_bf16())
    fastest = replace(fp32, precision="bf16") if has_bf16 else fp32
    eager = Manner("eager", fastest)
    if has_bf16:
        found.append(Meeting(Manner("fp32", fp32), replace(eager, name="bf16")))
    if on_cuda:
        found.append(Meeting(eager, replace(eager, name="graph", graph=True)))
    if compiled:
        found.append(Meeting(eager, replace(eager, name="compiled", compile=True)))
    return found


def agreements(
    experiment: Experiment,
    loaded: LoadedWeights | None,
    seeds: tuple[int, ...],
    faces: FaceSet,
    meetings: Sequence[Meeting],
) -> Iterator[Advanced | Agreement]:
    """Train every meeting's two manners with every seed, and compare them.

    Raise RunError where a step was to be compiled and could not be.
    """
    course = _Course(experiment, loaded, faces, meetings[0].plain.device)
    done: dict[tuple[Manner, int], Trained] = {}
    for meeting in meetings:
        for manner in (meeting.plain, meeting.fast):
            for seed in seeds:
                if (manner.unnamed, seed) not in done:
                    done[manner.unnamed, seed] = yield from course.train(manner, seed)
        sides = [
            [done[manner.unnamed, seed] for seed in seeds]
            for manner in (meeting.plain, meeting.fast)
        ]
        yield course.compared(meeting, *sides)


class _Course:
    """The faces and the definition that all trainings share."""

    def __init__(
        self, experiment: Experiment, loaded: LoadedWeights | None, faces: FaceSet, device: Device
    ) -> None:
        self._experiment, self._loaded, self._faces = experiment, loaded, faces
        part = faces.table["part"].to_numpy()
        self._train, self._val = (
            torch.from_numpy(np.flatnonzero(part == name)) for name in ("train", "val")
        )
        self._on_device = FaceBatches.on_device(faces.pixels(), faces.table, device.torch_device)

    def train(self, manner: Manner, seed: int) -> Any:
        """Train once in a manner; a generator that yields Advanced and returns Trained."""
        network = build_network(self._experiment, self._loaded, seed)
        device = manner.device
        rows = [part.to(device.torch_device) for part in (self._train, self._val)]
        with device.arithmetic():
            state = start(network, self._experiment.recipe, device)
            prefix = self._prefix(network, device) if manner.cached else None
            data = TrainingFaces(self._on_device, rows[0], rows[1], prefix)
            speed = SpeedSettings(graph=manner.graph, compile=manner.compile)
            for step in fit(state, data, self._experiment, seed, device, speed):
                if isinstance(step, EpochResult):
                    yield Advanced(manner, seed, step.epoch)
            if manner.compile and not state.speed_report["compiled"]:
                raise RunError(
                    "torch.compile does not work here, and cannot be compared",
                    fix="Leave --compile out; `facebench doctor` says what this machine has",
                )
            replace(device, precision="fp32").place(network)
            shares = probabilities(network, self._on_device, rows[1])
        weights = {name: value.cpu() for name, value in network.state_dict().items()}
        return Trained(weights, {task: values.argmax(1) for task, values in shares.items()})

    def _prefix(self, network: Network, device: Device) -> Any:
        request = PrefixRequest(self._faces.pixel_digest, self._experiment.recipe.augmentation)
        return open_prefix(network, self._on_device, device, CacheSettings(None), request)

    def compared(self, meeting: Meeting, plain: list[Trained], fast: list[Trained]) -> Agreement:
        """Compare what both manners say of the validation faces, task by task."""
        table = self._faces.table.iloc[self._val.numpy()]
        clusters = np.unique(table["cluster"].to_numpy(), return_inverse=True)[1]
        accuracy, differences = {}, {}
        for task in self._experiment.head.tasks:
            truth = table[task].to_numpy(np.int64)
            sides = [
                np.stack([one.predicted[task] for one in trained]) for trained in (plain, fast)
            ]
            accuracy[task] = float((sides[0] == truth).mean())
            differences[task] = paired_difference(Pair(truth, clusters, sides[0], sides[1]))
        pairs = zip(plain, fast, strict=True)
        n_equal = sum(_equal(one.weights, other.weights) for one, other in pairs)
        return Agreement(meeting, len(plain), len(table), n_equal, accuracy, differences)


def _equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


HEADS: Final = ("fast against plain", "task", "plain", "difference, points (95 %)", "0 within",
                "equal weights")  # fmt: skip


def cells_of(found: Agreement) -> list[tuple[str, ...]]:
    """Give a table's rows under HEADS, a task each."""
    rows: list[tuple[str, ...]] = []
    for task, difference in found.differences.items():
        low, high = 100 * difference.low, 100 * difference.high
        rows.append(
            (
                found.meeting.name,
                task.replace("_", " "),
                f"{100 * found.accuracy[task]:.1f} %",
                f"{100 * difference.accuracy:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−"),
                "yes" if found.holds(task) else "NO",
                f"{found.n_equal} of {found.n_seeds} seeds",
            )
        )
    return rows


def as_data(found: Agreement) -> dict[str, Any]:
    """Give an agreement as plain values."""
    return {
        "fast": found.meeting.fast.name,
        "plain": found.meeting.plain.name,
        "seeds": found.n_seeds,
        "faces": found.n_faces,
        "equal_weights": found.n_equal,
        "agrees": found.agrees,
        "tasks": {
            task: {
                "plain": found.accuracy[task],
                "difference": difference.accuracy,
                "low": difference.low,
                "high": difference.high,
                "contains_zero": found.holds(task),
            }
            for task, difference in found.differences.items()
        },
    }
