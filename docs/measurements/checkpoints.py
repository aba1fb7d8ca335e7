"""What does keeping a run cost? Size and seconds of a checkpoint, for networks of the study.

Weights are random and the optimiser has made one step; each is written twice, and the second
time counts. The answers are in docs/notes/speed.md:

    python docs/measurements/checkpoints.py
"""

import tempfile
import time
from pathlib import Path

import torch

from benchmark import registry
from benchmark.models.network import build_network
from benchmark.runs.folder import CHECKPOINT_FILE, save_checkpoint
from benchmark.training.device import choose_device
from benchmark.training.trainer import TrainingState, start

NAMES = (
    "mtl-vgg16-imagenet-frozen",
    "mtl-vgg16-imagenet-block5",
    "mtl-vgg16-none-full",
    "mtl-resnet50-none-full",
    "mtl-densenet121-none-full",
    "mtl-cnn-none-full",
)


def after_an_epoch(name: str) -> TrainingState:
    """Give a training with all that it keeps: weights, Adam's state, the best weights."""
    experiment = registry.experiment(name).adjusted({"backbone.weights": "none"})
    network = build_network(experiment, None, seed=0)
    state = start(network, experiment.recipe, choose_device("cpu", "fp32"))
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    state.optimiser.step()
    state.keep_if_best(0, 0.5)
    return state


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CHECKPOINT_FILE
        for experiment_name in NAMES:
            trained = after_an_epoch(experiment_name)
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                save_checkpoint(path, trained.checkpoint())
                seconds.append(time.perf_counter() - started)
            mib = path.stat().st_size / 2**20
            print(f"{experiment_name:28}{mib:6.0f} MiB{seconds[1]:7.2f} s")
