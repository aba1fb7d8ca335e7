"""Small networks and faces that they can learn, on the CPU, for tests of training."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmark.data.batches import FaceBatches
from benchmark.experiment import Augmentation, Backbone, Experiment, Head, Protocol, Recipe
from benchmark.models.network import Network, build_network
from benchmark.tasks import TASKS
from benchmark.training.device import Device
from benchmark.training.trainer import EpochResult, Progress, TrainingFaces

CPU = Device(torch.device("cpu"), "fp32")
N_FACES = 64
_pixels = np.random.default_rng(0).integers(0, 100, (N_FACES, 32, 32, 3), dtype=np.uint8)
_pixels[1::2, ..., 0] += 150
_labels = pd.DataFrame({task: np.arange(N_FACES) % 2 for task in TASKS})
FACES = FaceBatches.on_device(_pixels, _labels, CPU.torch_device)
"""Of noise whose red channel tells every label; nobody writes into them."""


def an_experiment(
    architecture: str = "cnn", trained: int | str = 2, augmentation: Augmentation | None = None,
    features: str = "pooled", selection: str = "last_epoch", **recipe: Any,
) -> Experiment:  # fmt: skip
    values = {"learning_rate": 1e-3, "batch_size": 8, "max_epochs": 2} | recipe
    return Experiment(
        "small", "Does it work?", Backbone(architecture, trainable_stages=trained, input_px=32),  # type: ignore[arg-type]
        Head(hidden_units=8, features=features),  # type: ignore[arg-type]
        Recipe(**values, augmentation=augmentation or Augmentation()),
        # The last epoch's weights: the best one's may be the first's, and hide what came after.
        Protocol(selection=selection), ad_hoc=True,  # type: ignore[arg-type]
    )  # fmt: skip


def some_data() -> TrainingFaces:
    """43 faces train: in batches of 8 the last one has 3."""
    return TrainingFaces(FACES, torch.arange(43), torch.arange(43, N_FACES))


def a_network(experiment: Experiment, seed: int = 0) -> Network:
    network = build_network(experiment, None, seed)
    CPU.place(network)
    return network


def epochs(steps: Iterable[Progress | EpochResult]) -> list[EpochResult]:
    return [step for step in steps if isinstance(step, EpochResult)]


def same_weights(first: Network, second: Network) -> bool:
    others = second.state_dict()
    return all(torch.equal(value, others[name]) for name, value in first.state_dict().items())
