"""How a CPU left to itself computes: a few steps decide on bf16 and on the layout in memory.

What is faster depends on the processor, the network and the size of its maps: on one with
avx512_bf16, bf16 is twice as fast in VGG-16 and slower in a small head. What a step computes stays
the same up to rounding.
"""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from benchmark.data.batches import FaceBatches
from benchmark.experiment.definition import Experiment
from benchmark.models.network import Network
from benchmark.training.device import Device, Precision, cpu_has_bf16
from benchmark.training.losses import weighted_cross_entropy
from benchmark.training.reading import Reader

ROUNDS: Final = 5
"""Every way makes a step in each; the least of its times is what it takes undisturbed."""
LEAST_ROUNDS: Final = 2
ENOUGH_SECONDS: Final = 15.0
"""After so long no further round follows, once there were LEAST_ROUNDS."""
CLEARLY: Final = 1.25
"""Where a processor multiplies bf16 by itself, fp32 is taken only if bf16 takes so many times as
long. On a busy machine three steps once found bf16 1.6 times as slow, for a run of an hour that is
1.75 times as fast in it; in a network whose steps are mostly a small head it is indeed slower."""
FEW_FACES: Final = 8
"""So many stand for a batch where a frozen part is timed that a run computes once; whole batches
of it in every round can take longer than all epochs of the run."""


@dataclass(frozen=True)
class Verdict:
    """What the steps showed."""

    precision: Precision
    channels_last: bool
    step_seconds: dict[str, float]
    """Least seconds of a step by way of computing, as `bf16 channels_last`."""

    def as_dict(self) -> dict[str, Any]:
        """Say it as plain values for a run's record."""
        return {name: round(seconds, 5) for name, seconds in self.step_seconds.items()}


_verdicts: dict[tuple[Any, ...], Verdict] = {}


def settled(
    device: Device, network: Network, faces: FaceBatches, experiment: Experiment, *, cached: bool
) -> tuple[Device, Verdict | None]:
    """Give the device with the precision and layout that are fastest here for this training.

    One that is told how to compute is given back as it is. cached: whether the frozen part is
    computed once, and counts little. A verdict holds for the process: architecture, cut, sizes.
    """
    if not device.probes:
        return device, None
    backbone, recipe = experiment.backbone, experiment.recipe
    key = (
        backbone.architecture, network.cut, cached, backbone.input_px, faces.pixels.shape[1],
        recipe.batch_size, recipe.max_epochs, network.flattened, torch.get_num_threads(),
    )  # fmt: skip
    if key not in _verdicts:
        _verdicts[key] = _probed(device, network, faces, experiment, cached=cached)
    verdict = _verdicts[key]
    return as_recorded(device, verdict.precision, channels_last=verdict.channels_last), verdict


def as_recorded(device: Device, precision: Precision, *, channels_last: bool) -> Device:
    """Give a device that computes as was decided before, and asks no more."""
    return replace(device, precision=precision, channels_last=channels_last, probes=False)


def _probed(
    device: Device, network: Network, faces: FaceBatches, experiment: Experiment, *, cached: bool
) -> Verdict:
    ways: list[tuple[bool, Precision]] = [(False, "fp32"), (True, "fp32")]
    if cpu_has_bf16():
        ways.append((True, "bf16"))
    candidates = {
        _name(precision, channels_last=last): replace(
            device, precision=precision, channels_last=last, probes=False
        )
        for last, precision in ways
    }
    trial = _Trial(copy.deepcopy(network), faces, experiment, cached=cached)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    started = time.perf_counter()
    # In turns, so that a busy moment hits all alike; the first round warms up, and is no least.
    for n_rounds in range(1, 1 + ROUNDS):
        for name, candidate in candidates.items():
            seconds[name].append(trial.step(candidate))
        if n_rounds >= LEAST_ROUNDS and time.perf_counter() - started > ENOUGH_SECONDS:
            break
    least = {name: min(values) for name, values in seconds.items()}
    fastest = candidates[chosen(least)]
    return Verdict(fastest.precision, fastest.channels_last, least)


def _name(precision: Precision, *, channels_last: bool) -> str:
    return f"{precision} {'channels_last' if channels_last else 'channels_first'}"


def chosen(step_seconds: Mapping[str, float]) -> str:
    """Choose a way of computing by the seconds of its steps: bf16 unless it is clearly slower.

    It is only among them where the processor multiplies it by itself.
    """
    fastest = min(step_seconds, key=lambda name: step_seconds[name])
    in_bf16 = _name("bf16", channels_last=True)
    if step_seconds.get(in_bf16, math.inf) <= CLEARLY * step_seconds[fastest]:
        return in_bf16
    return fastest


class _Trial:
    """A copy of the network that makes steps without learning anything."""

    def __init__(
        self, network: Network, faces: FaceBatches, experiment: Experiment, *, cached: bool
    ) -> None:
        self._network = network
        self._faces = faces
        self._experiment = experiment
        self._cached = cached
        n = min(experiment.recipe.batch_size, len(faces.pixels))
        self._rows = torch.arange(n, device=faces.device)
        self._frozen: dict[Device, list[tuple[float, Tensor]]] = {}

    def step(self, device: Device) -> float:
        """Give the seconds of a step; of a frozen part that is cached, its share per epoch."""
        network, recipe = self._network, self._experiment.recipe
        device.place(network)
        network.train()
        network.zero_grad(set_to_none=True)
        reader = Reader(network, self._faces, device)
        truths = self._faces.truths(self._rows)
        before, features = self._of_the_frozen_part(reader) if self._cached else (0.0, None)
        started = time.perf_counter()
        with device.autocast():
            if features is not None:
                logits = network.suffix(features)
            else:
                logits = network(reader.unchanged(self._rows))
        weighted_cross_entropy(logits, truths, recipe.loss_weights).backward()  # type: ignore[no-untyped-call]
        return before / recipe.max_epochs + time.perf_counter() - started

    def _of_the_frozen_part(self, reader: Reader) -> tuple[float, Tensor]:
        """Give the seconds that a batch's cached features take to compute, and such features.

        A few faces stand for all, and two times for every round: the first warms up.
        """
        known = self._frozen.setdefault(reader.device, [])
        if len(known) < 2:
            few = self._rows[:FEW_FACES]
            started = time.perf_counter()
            with reader.device.autocast():
                some = reader.network.prefix(reader.unchanged(few))
            seconds = (time.perf_counter() - started) * len(self._rows) / len(few)
            features = some[self._rows % len(few)]
            if features.ndim == 4:
                features = features.contiguous(memory_format=reader.device.memory_format)
            known.append((seconds, features))
        return known[-1]
