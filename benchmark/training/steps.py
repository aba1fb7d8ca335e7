"""The one forward pass there is, and optimiser steps on it with their loss.

A network's input is a batch of images, or what its frozen part has made of them (prefix_cache).
Steps are eager, compiled, or recorded once as a CUDA graph and replayed: a network of many small
kernels is otherwise bound by the host that launches them. What a step computes is the same. At the
end: a few timed steps choose precision and layout of a CPU.
"""

import contextlib
import copy
import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch._functorch.config
from torch import Tensor
from torch.nn import functional

from benchmark.data.batches import Batch, FaceBatches, changed, is_mirrored
from benchmark.experiment.definition import Augmentation, Experiment, LossWeights, Recipe
from benchmark.models.network import Network
from benchmark.tasks import MISSING, TaskName, n_classes
from benchmark.training.device import Device, cpu_has_bf16, first_line
from benchmark.training.prefix_cache import CachedFaces

EVALUATION_BATCH: Final = 256
CPU_BATCH: Final = 32
"""With 256 the maps leave a CPU's caches, and it is half as fast (docs/PERFORMANCE.md)."""

Apply = Callable[[Tensor], dict[TaskName, Tensor]]
"""From a network's input to logits: its `forward` or `suffix`, compiled or not."""
OnFaces = Callable[[int, int], None]
"""Called with how many faces are predicted, and of how many."""


@dataclass(frozen=True)
class ForwardPass:
    """A network, and the faces that it predicts from their images or from cached activations."""

    network: Network
    faces: FaceBatches
    device: Device
    prefix: CachedFaces | None = None

    @property
    def apply(self) -> Apply:
        """What makes logits of `inputs`."""
        return self.network.__call__ if self.prefix is None else self.network.suffix

    def inputs(self, batch: Batch, augmentation: Augmentation | None = None) -> Tensor:
        """Gather the network's input of a batch, augmented as it drew."""
        if self.prefix is not None:
            mirrored = is_mirrored(batch.draws) if "flip" in batch.draws else None
            return self.prefix.gather(batch.rows, mirrored)
        images = self.faces.images(batch.rows)
        if augmentation is not None and batch.draws:
            images = changed(images, augmentation, batch.draws)
        return images.contiguous(memory_format=self.device.memory_format)

    def features(self, rows: Tensor) -> Tensor:
        """Give what the head of a frozen backbone receives."""
        inputs = self.inputs(Batch(rows))
        with self.device.autocast():
            return inputs if self.prefix is not None else self.network.prefix(inputs)

    def logits(self, rows: Tensor) -> dict[TaskName, Tensor]:
        """Give the logits of faces, (n, classes) per task, at the device's precision."""
        inputs = self.inputs(Batch(rows))
        with self.device.autocast():
            return self.apply(inputs)

    def batches(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Cut rows into batches that suit the device where nothing is learnt."""
        on_cpu = self.faces.device.type == "cpu"
        return torch.split(indices, CPU_BATCH if on_cpu else EVALUATION_BATCH)

    def probabilities(
        self, indices: Tensor, on_faces: OnFaces | None = None
    ) -> dict[TaskName, npt.NDArray[np.float32]]:
        """Give per task (n, classes) softmax probabilities, rows in the order of `indices`."""
        pieces, n_done = dict[TaskName, list[Tensor]](), 0
        self.network.eval()
        # The same kernels, chosen by heuristics, compute an epoch's score and what is stored.
        with torch.inference_mode(), self.device.without_cudnn_benchmark():
            for rows in self.batches(indices):
                for task, logits in self.logits(rows).items():
                    pieces.setdefault(task, []).append(logits.float().softmax(1).cpu())
                n_done += len(rows)
                if on_faces is not None:
                    on_faces(n_done, len(indices))
        return {task: torch.cat(parts).numpy() for task, parts in pieces.items()}

    def accuracies(self, indices: Tensor) -> dict[TaskName, float]:
        """Give per task the accuracy on the faces that have the task's label."""
        truths = {task: it.cpu().numpy() for task, it in self.faces.truths(indices).items()}
        return {
            task: float((p.argmax(1) == truths[task])[truths[task] != MISSING].mean())
            for task, p in self.probabilities(indices).items()
        }


def in_fp32(network: Network, faces: FaceBatches, prefix: CachedFaces | None = None) -> ForwardPass:
    """Give the forward pass of all numbers that are stored: full fp32 whatever the training's
    precision, so that they do not depend on a speed setting.

    prefix: activations of these faces, if they are float32 and were found bit-equal to a live
    forward pass; others are not used.
    """
    usable = prefix if prefix is not None and prefix.is_exact_fp32 else None
    return ForwardPass(network, faces, Device(faces.device, "fp32"), usable)


WARM_UPS: Final = 3
"""Steps before a recording, in which libraries choose kernels and memory (torch's CUDA notes)."""
PROGRAMS: Final = 64
"""Different steps that one process may compile; torch's own limit of 8 is for one that changes."""


class TaskLoss:
    """Weighted cross entropy of all tasks at once, and how many predictions are correct.

    The tasks lie side by side in one tensor, with −inf where one has fewer classes than another:
    this takes a third of the GPU kernels that one task after another takes.
    """

    def __init__(
        self, tasks: tuple[TaskName, ...], labels: Mapping[TaskName, Tensor],
        weights: LossWeights, rows: Tensor,
    ) -> None:  # fmt: skip
        """labels: per task (n_faces,) int64 on the device. rows: those that are trained on, (n,).

        A label that is MISSING counts for nothing. A task's loss is divided by the share of rows
        that has its label: over an epoch it is the mean cross entropy of the labelled faces.
        """
        self._tasks, widest = tasks, max(n_classes(task) for task in tasks)
        self._truths = torch.stack([labels[task] for task in tasks], dim=1)
        device = self._truths.device
        self._is_truth = self._truths.unsqueeze(2) == torch.arange(widest, device=device)
        by_task = [
            (getattr(weights, task) if len(tasks) > 1 else 1.0) / (max(1, count) / len(rows))
            for task, count in zip(tasks, self.labelled(rows), strict=True)
        ]
        self._weights = torch.tensor(by_task, dtype=torch.float32, device=device)

    def __call__(self, logits: Mapping[TaskName, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute loss and hits of logits (n, classes) per task of the faces in `rows`, (n,) int64.

        The loss is a scalar; hits are the correct predictions per task, (tasks,) int64.
        """
        n, widest = len(rows), self._is_truth.shape[2]
        pieces = []
        for values in (logits[task].float() for task in self._tasks):
            more = (0, widest - values.shape[1])
            pieces.append(functional.pad(values, more, value=-torch.inf) if more[1] else values)
        log_p = torch.stack(pieces, dim=1).log_softmax(2)
        truth_log_p = torch.where(self._is_truth.index_select(0, rows), log_p, 0.0).sum((0, 2))
        loss = torch.dot(truth_log_p, self._weights) * (-1 / n)
        correct = log_p.detach().argmax(2) == self._truths.index_select(0, rows)
        return loss, correct.sum(0)

    def labelled(self, rows: Tensor) -> list[int]:
        """Count per task the faces in `rows`, (n,) int64, that have its label."""
        return [int(n) for n in (self._truths[rows] != MISSING).sum(0)]


def clip_gradients(parameters: Iterable[Tensor], recipe: Recipe) -> None:
    """Bound the gradients' L2 norm in place, to the numbers of torch's `clip_grad_norm_`.

    `per_variable` is what Keras calls `clipnorm`: every tensor by itself, not all together.
    """
    gradients = [item.grad for item in parameters if item.grad is not None]
    if recipe.clipping == "none" or not gradients:
        return
    norms = torch.stack(torch._foreach_norm(gradients))
    if recipe.clipping == "global":
        norms = torch.linalg.vector_norm(norms).view(1)
    factors = (recipe.clip_norm / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.expand(len(gradients)).unbind()))


Capture = Callable[[Callable[[], None], Callable[[], None]], Callable[[], None]]
"""Given work and what undoes it: warms up, undoes, records, and gives what does the work."""


def cuda_graph(work: Callable[[], None], undo: Callable[[], None]) -> Callable[[], None]:
    """Record the work as a CUDA graph; warming up and recording share a stream of their own."""
    stream, before = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    before.wait_stream(stream)
    undo()
    # Cycles left by an earlier run must not be freed in the middle of a recording.
    gc.collect()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            work()
    finally:
        # A recording that breaks off leaves its stream current.
        torch.cuda.set_stream(before)
    return graph.replay


@dataclass(frozen=True)
class SpeedSettings:
    """How steps may be made faster; none of it changes what they compute."""

    graph: bool = True
    """Record the step as a CUDA graph, where there is CUDA."""
    compile: bool | None = False
    """Let torch.compile fuse the network's operations; None: where a run finds it pays."""
    say: Callable[[str], None] = field(default=lambda _sentence: None)
    """Called with a sentence where that does not work."""
    capture: Capture | None = None
    """What records steps; None: a CUDA graph, where there is CUDA."""


class Steps:
    """Trains on one batch after another, each step the fastest way that works here.

    Forward, backward, clipping, Adam, and the epoch's loss and correct predictions: these are added
    up on the device, since reading a number makes the host wait. `report` says how steps were made.
    """

    def __init__(
        self, forward: ForwardPass, optimiser: torch.optim.Optimizer, experiment: Experiment,
        train: Tensor, speed: SpeedSettings,
    ) -> None:  # fmt: skip
        """Prepare; train: the rows of all training faces, (n,), by which TaskLoss weighs tasks."""
        self._forward, self._optimiser, self._speed = forward, optimiser, speed
        self._recipe, self.tasks = experiment.recipe, experiment.head.tasks
        self._trained = [item for group in optimiser.param_groups for item in group["params"]]
        self._loss = TaskLoss(self.tasks, forward.faces.labels, self._recipe.loss_weights, train)
        # Added to in place, so that a CUDA graph can keep adding to the same tensors.
        self.n_images, device = 0, forward.device.torch_device
        self._loss_sum = torch.zeros((), device=device)
        self._hits = torch.zeros(len(self.tasks), dtype=torch.int64, device=device)
        self.report: dict[str, Any] = {"graph": False, "compiled": False}
        self._apply: Apply | None = None
        self._recorded: tuple[Batch, Callable[[], None]] | None = None
        """The batch that a recorded step reads, and what replays it."""
        self._is_prepared = False

    def __call__(self, batch: Batch) -> None:
        """Train on one batch; one of another size than the others is not compiled or recorded."""
        is_whole = len(batch) == self._recipe.batch_size
        if is_whole and self._recorded is not None:
            fixed, replay = self._recorded
            fixed.rows.copy_(batch.rows)
            for name, values in batch.draws.items():
                fixed.draws[name].copy_(values)
            replay()
        else:
            self._step(batch, self._apply if is_whole else None)
        self.n_images += len(batch)

    def mean_loss(self) -> float:
        """Read the mean loss of the epoch's images so far."""
        return float(self._loss_sum) / max(1, self.n_images)

    def accuracies(self, rows: Tensor) -> dict[TaskName, float]:
        """Read per task, in [0, 1], the accuracy on labelled rows of an epoch, (n,); else NaN."""
        numbers = zip(self.tasks, self._hits.tolist(), self._loss.labelled(rows), strict=True)
        return {task: n_hits / n if n else math.nan for task, n_hits, n in numbers}

    def _step(self, batch: Batch, apply: Apply | None) -> None:
        """Make a step; `apply` stands in for the network where it is compiled."""
        self._optimiser.zero_grad(set_to_none=True)
        inputs = self._forward.inputs(batch, self._recipe.augmentation)
        with self._forward.device.autocast():
            logits = (apply or self._forward.apply)(inputs)
        loss, hits = self._loss(logits, batch.rows)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(self._trained, self._recipe)
        self._optimiser.step()
        self._hits += hits
        self._loss_sum.add_(loss.detach(), alpha=len(batch))

    def start_epoch(self, batch: Batch) -> None:
        """Compile and record on a first batch, once; nothing is learnt from it, nothing counted."""
        if not self._is_prepared and len(batch) == self._recipe.batch_size:
            self._is_prepared = True
            self._prepare(batch)
        self.n_images = 0
        self._loss_sum.zero_()
        self._hits.zero_()

    def _prepare(self, batch: Batch) -> None:
        prefix = self._forward.prefix
        # Faces that stay in main memory are gathered by the host, which no graph can hold.
        source = self._forward.faces.pixels if prefix is None else prefix.views[0]
        capture = self._speed.capture or (cuda_graph if source.device.type == "cuda" else None)
        if self._speed.compile:
            with self._attempt("compile", "torch.compile does not work here", "without it") as undo:
                self._compile(batch, undo)
        if capture is not None and self._speed.graph:
            failure = "The step cannot be recorded as a CUDA graph"
            with self._attempt("graph", failure, "operation by operation") as undo:
                self._record(batch, capture, undo)

    @contextlib.contextmanager
    def _attempt(self, name: str, failure: str, instead: str) -> Iterator[Callable[[], None]]:
        """Give what undoes steps to work that makes some; if it fails, undo them, and say why."""
        undo, started = self._undoing(), time.perf_counter()
        try:
            yield undo
        except (RuntimeError, OSError, ImportError) as error:
            undo()
            self._speed.say(f"{failure} ({first_line(error)}): continuing {instead}")
        else:
            self.report[f"{name}_seconds"] = round(time.perf_counter() - started, 3)

    def _undoing(self) -> Callable[[], None]:
        """Give what restores all that steps change, but for random streams, which are seeded later.

        In place: a recording holds the addresses. Moments that AdamW begins meanwhile become zero.
        """

        def changing() -> list[Tensor]:
            states = (value for it in self._optimiser.state.values() for value in it.values())
            moments = filter(torch.is_tensor, states)
            return [*self._trained, *self._forward.network.buffers(), *moments]

        before = {value: value.detach().clone() for value in changing()}

        def undo() -> None:
            with torch.no_grad():
                for value in changing():
                    value.copy_(before[value] if value in before else torch.zeros_like(value))
            self._optimiser.zero_grad(set_to_none=True)

        return undo

    def _compile(self, batch: Batch, undo: Callable[[], None]) -> None:
        """Compile the network, and check it in a step.

        By default the compiler rounds a head's gradients to bf16, since its forward pass is called
        under autocast; in the head itself that is off (torch's issue 179804, pull request 177287).
        """
        # Not the module itself: its call would be compiled with the hooks' machinery around it.
        network = self._forward.network
        function = network.forward if self._forward.prefix is None else network.suffix
        compiled: Apply = torch.compile(function, dynamic=False)
        with (
            torch._dynamo.config.patch(recompile_limit=PROGRAMS),
            torch._functorch.config.patch(backward_pass_autocast="off"),
        ):
            self._step(batch, compiled)
        self._forward.device.synchronise()
        if not all(bool(value.isfinite().all()) for value in self._trained):
            raise RuntimeError("a first step leaves weights that are not finite")
        self._apply, self.report["compiled"] = compiled, True
        undo()

    def _record(self, batch: Batch, capture: Capture, undo: Callable[[], None]) -> None:
        fixed = Batch(batch.rows.clone(), {name: it.clone() for name, it in batch.draws.items()})
        replay = capture(lambda: self._step(fixed, self._apply), undo)
        self._recorded, self.report["graph"] = (fixed, replay), True


ROUNDS: Final = 5
"""Every candidate makes a step in each; its least time is what it takes undisturbed."""
LEAST_ROUNDS: Final = 2
ENOUGH_SECONDS: Final = 15.0
"""After so long no further round follows, once there were LEAST_ROUNDS."""
CLEARLY: Final = 1.25
"""Where a processor multiplies bf16 natively, fp32 is chosen only if bf16 takes so many times as
long. On a busy machine three steps once found bf16 1.6 times as slow, for a run of an hour that is
1.75 times as fast in it; in a network whose steps are mostly a small head it is indeed slower."""
FEW_FACES: Final = 8
"""So many stand for a batch where a frozen part is timed that a run computes once; whole batches
of it in every round can take longer than all epochs of the run."""

StepSeconds = Mapping[str, float]
"""Least seconds of a step by candidate, as `bf16 channels_last`."""
_known: dict[tuple[Any, ...], StepSeconds] = {}


def resolve_precision(
    device: Device, network: Network, faces: FaceBatches, experiment: Experiment, *, cached: bool
) -> tuple[Device, StepSeconds | None]:
    """Give the device with the precision and layout that are fastest here for this training.

    A device that does not probe is given back as it is. cached: whether the frozen part is
    computed once, and counts little. A result holds for the process: architecture, cut, sizes.
    What is faster depends on processor, network and maps: with avx512_bf16, bf16 is twice as fast
    in VGG-16 and slower in a small head.
    """
    if not device.probes:
        return device, None
    backbone, recipe = experiment.backbone, experiment.recipe
    key = (
        backbone.architecture, network.cut, cached, backbone.input_px, faces.pixels.shape[1],
        recipe.batch_size, recipe.max_epochs, network.flattened, torch.get_num_threads(),
    )  # fmt: skip
    last = replace(device, precision="fp32", channels_last=True, probes=False)
    first = replace(last, channels_last=False)
    candidates = {"fp32 channels_first": first, "fp32 channels_last": last}
    if cpu_has_bf16():
        candidates["bf16 channels_last"] = replace(last, precision="bf16")
    if key not in _known:
        _known[key] = _step_seconds(candidates, copy.deepcopy(network), faces, experiment, cached)
    return candidates[fastest(_known[key])], _known[key]


def _step_seconds(
    candidates: Mapping[str, Device], network: Network, faces: FaceBatches, experiment: Experiment,
    cached: bool,
) -> StepSeconds:  # fmt: skip
    recipe, least = experiment.recipe, dict.fromkeys(candidates, math.inf)
    rows = torch.arange(min(recipe.batch_size, len(faces.pixels)), device=faces.device)
    loss_of = TaskLoss(experiment.head.tasks, faces.labels, recipe.loss_weights, rows)
    frozen: dict[str, tuple[float, Tensor]] = {}
    started = time.perf_counter()
    # In turns, so that a busy moment hits all alike; the first round warms up.
    for n_rounds in range(1, 1 + ROUNDS):
        for name, candidate in candidates.items():
            candidate.place(network)
            network.train().zero_grad(set_to_none=True)
            forward = ForwardPass(network, faces, candidate)
            if cached and n_rounds <= LEAST_ROUNDS:
                frozen[name] = _frozen_part(forward, rows)
            step_started = time.perf_counter()
            with candidate.autocast():
                features = frozen[name][1] if cached else forward.inputs(Batch(rows))
                logits = network.suffix(features) if cached else network(features)
            loss_of(logits, rows)[0].backward()  # type: ignore[no-untyped-call]
            once = frozen[name][0] / recipe.max_epochs if cached else 0.0
            least[name] = min(least[name], time.perf_counter() - step_started + once)
        if n_rounds >= LEAST_ROUNDS and time.perf_counter() - started > ENOUGH_SECONDS:
            break
    return least


def fastest(step_seconds: StepSeconds) -> str:
    """Choose a candidate by the seconds of its steps: bf16 unless it is clearly slower."""
    least, bf16 = min(step_seconds, key=lambda name: step_seconds[name]), "bf16 channels_last"
    return bf16 if step_seconds.get(bf16, math.inf) <= CLEARLY * step_seconds[least] else least


def _frozen_part(forward: ForwardPass, rows: Tensor) -> tuple[float, Tensor]:
    """Give the seconds that a batch's cached features take, and those of a few faces for all."""
    few, started = rows[:FEW_FACES], time.perf_counter()
    with forward.device.autocast():
        some = forward.network.prefix(forward.inputs(Batch(few)))
    seconds = (time.perf_counter() - started) * len(rows) / len(few)
    features = some[rows % len(few)]
    if features.ndim == 4:
        features = features.contiguous(memory_format=forward.device.memory_format)
    return seconds, features
