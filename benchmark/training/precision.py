"""Precision and memory layout of a CPU with nothing specified: a few timed steps choose them.

What is faster depends on the processor, the network and the size of its maps: on one with
avx512_bf16, bf16 is twice as fast in VGG-16 and slower in a small head. What a step computes stays
the same up to rounding.
"""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from benchmark.data.batches import FaceBatches
from benchmark.experiment.definition import Experiment
from benchmark.models.network import Network
from benchmark.training.device import Device, cpu_has_bf16
from benchmark.training.predict import ForwardPass
from benchmark.training.steps import TaskLoss

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
    """
    if not device.probes:
        return device, None
    backbone, recipe = experiment.backbone, experiment.recipe
    key = (
        backbone.architecture, network.cut, cached, backbone.input_px, faces.pixels.shape[1],
        recipe.batch_size, recipe.max_epochs, network.flattened, torch.get_num_threads(),
    )  # fmt: skip
    fp32 = replace(device, precision="fp32", channels_last=True, probes=False)
    candidates = {
        "fp32 channels_first": replace(fp32, channels_last=False), "fp32 channels_last": fp32,
    }  # fmt: skip
    if cpu_has_bf16():
        candidates["bf16 channels_last"] = replace(fp32, precision="bf16")
    if key not in _known:
        trial = _Trial(copy.deepcopy(network), faces, experiment, cached=cached)
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        started = time.perf_counter()
        # In turns, so that a busy moment hits all alike; the first round warms up.
        for n_rounds in range(1, 1 + ROUNDS):
            for name, candidate in candidates.items():
                seconds[name].append(trial.step(candidate))
            if n_rounds >= LEAST_ROUNDS and time.perf_counter() - started > ENOUGH_SECONDS:
                break
        _known[key] = {name: min(values) for name, values in seconds.items()}
    return candidates[fastest(_known[key])], _known[key]


def fastest(step_seconds: StepSeconds) -> str:
    """Choose a candidate by the seconds of its steps: bf16 unless it is clearly slower."""
    least, bf16 = min(step_seconds, key=lambda name: step_seconds[name]), "bf16 channels_last"
    return bf16 if step_seconds.get(bf16, math.inf) <= CLEARLY * step_seconds[least] else least


class _Trial:
    """A copy of the network that makes steps without learning anything."""

    def __init__(
        self, network: Network, faces: FaceBatches, experiment: Experiment, *, cached: bool
    ) -> None:
        self._network, self._faces, self._cached = network, faces, cached
        self._recipe = experiment.recipe
        n = min(experiment.recipe.batch_size, len(faces.pixels))
        self._rows = torch.arange(n, device=faces.device)
        self._loss = TaskLoss(experiment.head.tasks, faces.labels, experiment.recipe.loss_weights)
        self._frozen: dict[Device, list[tuple[float, Tensor]]] = {}

    def step(self, device: Device) -> float:
        """Give the seconds of a step; of a frozen part that is cached, its share per epoch."""
        network = self._network
        device.place(network)
        network.train()
        network.zero_grad(set_to_none=True)
        forward = ForwardPass(network, self._faces, device)
        seconds, features = self._frozen_part(forward) if self._cached else (0.0, None)
        started = time.perf_counter()
        with device.autocast():
            inputs = forward.unchanged(self._rows) if features is None else features
            logits = network(inputs) if features is None else network.suffix(inputs)
        self._loss(logits, self._rows).loss.backward()  # type: ignore[no-untyped-call]
        return seconds / self._recipe.max_epochs + time.perf_counter() - started

    def _frozen_part(self, forward: ForwardPass) -> tuple[float, Tensor]:
        """Give the seconds that a batch's cached features take to compute, and such features.

        A few faces stand for all, and two times for every round: the first warms up.
        """
        known = self._frozen.setdefault(forward.device, [])
        if len(known) < 2:
            few = self._rows[:FEW_FACES]
            started = time.perf_counter()
            with forward.device.autocast():
                some = forward.network.prefix(forward.unchanged(few))
            seconds = (time.perf_counter() - started) * len(self._rows) / len(few)
            features = some[self._rows % len(few)]
            if features.ndim == 4:
                features = features.contiguous(memory_format=forward.device.memory_format)
            known.append((seconds, features))
        return known[-1]
