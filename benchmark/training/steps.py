"""Optimiser steps, and the totals that an epoch's steps add up to.

One optimiser step after another, and how the host hands them to the device.

Eagerly, operation by operation; or, on CUDA, as a graph that was recorded once and is replayed:
a network of many small kernels is else bound by the host that launches them. What a step computes
is the same.

What an epoch's steps add up to, gathered on the device and read rarely.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import torch
import torch._functorch.config
from torch import Tensor

from benchmark.experiment.definition import Recipe
from benchmark.tasks import TaskName
from benchmark.training.losses import Answer, TaskLoss, clip_gradients
from benchmark.training.micro_batching import PatientStep
from benchmark.training.reading import Apply, Batch, Reader


class Totals:
    """Losses and right answers; reading a number makes the host wait, so that no step does it.

    Everything is added in place, so that a CUDA graph can go on adding to the same tensors.
    """

    def __init__(self, tasks: Sequence[TaskName], device: torch.device) -> None:
        self.tasks = tuple(tasks)
        self.n_images = 0
        self._loss = torch.zeros((), device=device)
        self._hits = torch.zeros(len(tasks), dtype=torch.int64, device=device)

    def reset(self) -> None:
        """Start an epoch anew."""
        self.n_images = 0
        self._loss.zero_()
        self._hits.zero_()

    def add(self, answer: Answer) -> None:
        """Take in a step's answer, on the device; the images are counted apart."""
        self._hits += answer.hits
        self._loss.add_(answer.loss, alpha=answer.n_faces)

    def mean_loss(self) -> float:
        """Read the mean loss of the images counted so far."""
        return float(self._loss) / max(1, self.n_images)

    def accuracies(self) -> dict[TaskName, float]:
        """Read the fraction of right answers per task, in [0, 1]."""
        hits = self._hits.tolist()
        return {task: count / self.n_images for task, count in zip(self.tasks, hits, strict=True)}


WARM_UPS: Final = 3
"""Steps before a recording: libraries choose their kernels and memory in them (torch's notes on
CUDA graphs)."""

PROGRAMS: Final = 64
"""Different steps that one process may compile; torch's own limit of 8 is for one that changes."""


def _say_nothing(_sentence: str) -> None:
    """Stand in for a listener."""


@dataclass(frozen=True)
class SpeedSettings:
    """How steps may be made faster; none of it changes what they compute."""

    graph: bool = True
    """Record the step as a CUDA graph, where there is CUDA."""
    compile: bool | None = False
    """Let torch.compile fuse the network's operations; None: where a run finds it pays."""
    say: Callable[[str], None] = field(default=_say_nothing)
    """Told in a sentence where that does not work."""
    capture: "Capture | None" = None
    """What records steps; None: a CUDA graph, where there is CUDA."""


class TrainStep:
    """Forward, backward, clipping, Adam and the totals of one batch; the host waits for nothing."""

    def __init__(
        self, reader: Reader, optimiser: torch.optim.Optimizer, recipe: Recipe, totals: Totals
    ) -> None:
        self.reader = reader
        self.optimiser = optimiser
        self.recipe = recipe
        self.totals = totals
        self.trained = [item for group in optimiser.param_groups for item in group["params"]]
        self._loss = TaskLoss(totals.tasks, reader.faces.labels, recipe.loss_weights)

    def __call__(self, batch: Batch, apply: Apply | None = None) -> None:
        """Train on a batch, reading it with `apply` if the network itself is not to."""
        self.begin()
        self.update([self.backward(batch, apply or self.reader.apply)])

    def begin(self) -> None:
        """Forget the gradients of the step before, or of one that broke off."""
        self.optimiser.zero_grad(set_to_none=True)

    def backward(self, batch: Batch, apply: Apply, share: float | None = None) -> Answer:
        """Add a batch's gradients to those that are there, counted by its share of a larger one."""
        answer = self.answer(batch, apply)
        counted = answer.loss if share is None or share == 1 else answer.loss * share
        counted.backward()  # type: ignore[no-untyped-call]
        return answer.detached()

    def update(self, answers: Sequence[Answer]) -> None:
        """Clip the gradients, learn from them, and take in what was answered on the way to them."""
        clip_gradients(self.trained, self.recipe)
        self.optimiser.step()
        for answer in answers:
            self.totals.add(answer)

    def answer(self, batch: Batch, apply: Apply) -> Answer:
        """Read a batch, and judge what the network says of it."""
        inputs = self.reader.inputs(batch, self.recipe.augmentation)
        with self.reader.device.autocast():
            logits = apply(inputs)
        return self._loss(logits, batch.rows)


class Capture(Protocol):
    """Records what a function does on a device."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work, as often as a recording needs it done before."""
        ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work, which may do nothing yet; give what does it."""
        ...


class CudaCapture:
    """Records as a CUDA graph; warming up and recording share a stream of their own."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work WARM_UPS times beside the current stream, and wait for it there."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work; none of it is done."""
        # What an earlier run left in cycles must not be freed in the middle of a recording.
        gc.collect()
        before = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                work()
        finally:
            # A recording that breaks off leaves its stream current.
            torch.cuda.set_stream(before)
        return graph.replay


class Snapshot:
    """What steps change, as it is now: put back after steps that were only made to warm up."""

    def __init__(self, step: TrainStep) -> None:
        self._optimiser = step.optimiser
        network = step.reader.network
        kept = [*step.trained, *network.buffers()]
        kept += [value for state in self._states() for value in state]
        self._kept = [(value, value.detach().clone()) for value in kept]
        self._random = _random_state(step.reader.device.torch_device)
        self._device = step.reader.device.torch_device

    def _states(self) -> list[list[Tensor]]:
        return [
            [value for value in state.values() if isinstance(value, Tensor)]
            for state in self._optimiser.state.values()
        ]

    def put_back(self) -> None:
        """Write the old values where they were; what Adam has begun since then becomes zero.

        In place: a recording holds the addresses. Zero is what AdamW begins with.
        """
        known = {id(value) for value, _ in self._kept}
        with torch.no_grad():
            for value, before in self._kept:
                value.copy_(before)
            for state in self._states():
                for value in state:
                    if id(value) not in known:
                        value.zero_()
        self._optimiser.zero_grad(set_to_none=True)
        _set_random_state(self._device, self._random)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_device


def _set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


class Steps:
    """Makes each step the fastest way that works here; `report` says which it was."""

    def __init__(
        self, step: TrainStep, batch_size: int, speed: SpeedSettings, capture: Capture | None
    ) -> None:
        self._step = step
        self._size = batch_size
        self._speed = speed
        self._capture = capture
        self._apply: Apply | None = None
        self._fixed: Batch | None = None
        self._replay: Callable[[], None] | None = None
        self._is_prepared = False
        self.report: dict[str, Any] = {"graph": False, "compiled": False}
        self._patient = PatientStep(step, speed.say, self.report)

    @property
    def totals(self) -> Totals:
        """What the steps of the epoch add up to."""
        return self._step.totals

    def __call__(self, batch: Batch) -> None:
        """Train on one batch. One of another size than the others goes operation by operation."""
        if len(batch) != self._size:
            self._patient(batch)
        elif self._replay is not None and self._fixed is not None:
            _copy(batch, self._fixed)
            self._replay()
        else:
            self._patient(batch, self._apply)
        self._step.totals.n_images += len(batch)

    def prepare(self, batch: Batch) -> None:
        """Compile and record on a first batch, once; nothing is learnt from it."""
        if self._is_prepared or len(batch) != self._size:
            return
        self._is_prepared = True
        if not (self._speed.compile or self._capture):
            return
        before = Snapshot(self._step)
        if self._speed.compile:
            self._compile(batch, before)
        if self._capture is not None:
            self._record(batch, before, self._capture)

    def _compile(self, batch: Batch, before: Snapshot) -> None:
        started = time.perf_counter()
        reader = self._step.reader
        compiled: Apply = torch.compile(_function_of(reader), dynamic=False)
        try:
            with _compiling():
                self._step(batch, compiled)
            reader.device.synchronise()
            _check_finite(self._step.trained)
        except (RuntimeError, OSError, ImportError) as error:
            self._speed.say(f"torch.compile does not work here ({_first_line(error)}): going on "
                            "without it")  # fmt: skip
        else:
            self._apply = compiled
            self.report |= {"compiled": True, "compile_seconds": _seconds_since(started)}
        before.put_back()
        self._step.totals.reset()

    def _record(self, batch: Batch, before: Snapshot, capture: Capture) -> None:
        started = time.perf_counter()
        fixed = _copied(batch)

        def work() -> None:
            self._step(fixed, self._apply)

        try:
            capture.warm_up(work)
            before.put_back()
            self._replay = capture.record(work)
        except RuntimeError as error:
            self._speed.say(_not_recorded(error))
            before.put_back()
        else:
            self._fixed = fixed
            self.report |= {"graph": True, "graph_seconds": _seconds_since(started)}
        self._step.totals.reset()


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """Compile as many programs as there are, and backward passes as autograd computes them.

    Left to itself the compiler rounds a head's gradients to bf16, since its forward pass is called
    under autocast; in the head itself that is off (torch's issue 179804, pull request 177287).
    """
    with (
        torch._dynamo.config.patch(recompile_limit=PROGRAMS),
        torch._functorch.config.patch(backward_pass_autocast="off"),
    ):
        yield


def _check_finite(values: Sequence[Tensor]) -> None:
    """Refuse what a compiler's mistake looks like: weights after one step that are no numbers."""
    if not all(bool(value.isfinite().all()) for value in values):
        raise RuntimeError("a first step leaves weights that are not finite")


def _not_recorded(error: Exception) -> str:
    return (
        f"The step cannot be recorded as a CUDA graph ({_first_line(error)}): going on operation "
        "by operation"
    )


def _function_of(reader: Reader) -> Apply:
    # Not the module itself: its call would be compiled with the hooks' machinery around it.
    return reader.network.forward if reader.prefix is None else reader.network.suffix


def _copied(batch: Batch) -> Batch:
    return Batch(batch.rows.clone(), {name: values.clone() for name, values in batch.draws.items()})


def _copy(source: Batch, target: Batch) -> None:
    target.rows.copy_(source.rows)
    for name, values in source.draws.items():
        target.draws[name].copy_(values)


def _seconds_since(started: float) -> float:
    return round(time.perf_counter() - started, 3)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def capture_for(reader: Reader, speed: SpeedSettings) -> Capture | None:
    """Give what records steps on this device; None where they go operation by operation.

    Faces that stay in main memory are gathered by the host, which no graph can hold.
    """
    if not speed.graph or speed.capture is not None:
        return speed.capture if speed.graph else None
    if reader.device.kind != "cuda":
        return None
    source = reader.faces.pixels if reader.prefix is None else reader.prefix.views[0]
    return CudaCapture() if source.device.type == "cuda" else None
