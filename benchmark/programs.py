"""Which runs of a command compute the same steps, and whether it pays to compile them.

torch.compile fuses a network's pointwise operations. That takes a time of its own, once a process:
a second run of the same program, from other weights or seeds, is up again at once.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from benchmark.experiment import Backbone, Experiment, Head
from benchmark.faces.store import FaceSet
from benchmark.plans import Settings
from benchmark.training.device import Device

PAYS_FROM_STEPS: Final = 40_000
"""Compiling took 16 to 39 s on an H200 and saved 0.4 to 1.1 ms a step (docs/PERFORMANCE.md)."""


@dataclass(frozen=True)
class Program:
    """All that decides which operations a training step is made of."""

    backbone: Backbone
    """Without its weights: other numbers, the same operations."""
    head: Head
    batch_size: int
    input_scaling: str


def program_of(experiment: Experiment) -> Program:
    """Give what an experiment's steps are made of."""
    return Program(
        replace(experiment.backbone, weights="none"),
        experiment.head,
        experiment.recipe.batch_size,
        experiment.protocol.input_scaling,
    )


def steps_of(experiment: Experiment, n_train: int) -> int:
    """Count the steps that an experiment takes at most, on so many training faces."""
    recipe = experiment.recipe
    return recipe.max_epochs * (recipe.steps_per_epoch or -(-n_train // recipe.batch_size))


def worth_compiling(
    experiments: Iterable[Experiment], n_seeds: int, faces: FaceSet, device: Device
) -> frozenset[Program]:
    """Give the programs that take so many steps, all runs together, that compiling them pays.

    Counted as if every run trained on all training faces and none was finished. None on a CPU,
    where a step is arithmetic, and none where two runs must end in equal weights.
    """
    if device.kind != "cuda" or device.exact:
        return frozenset()
    n_train = int((faces.table["part"] == "train").sum())
    ahead: Counter[Program] = Counter()
    for experiment in experiments:
        ahead[program_of(experiment)] += n_seeds * steps_of(experiment, n_train)
    return frozenset(program for program, steps in ahead.items() if steps >= PAYS_FROM_STEPS)


def decided(settings: Settings, experiment: Experiment, worth: frozenset[Program]) -> Settings:
    """Decide on compiling for an experiment, where that is left to us."""
    speed = settings.speed
    if speed.compile is not None:
        return settings
    return replace(settings, speed=replace(speed, compile=program_of(experiment) in worth))
