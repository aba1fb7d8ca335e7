"""Which kernels is a training step made of, and what does compiling it cost and save?

On random faces of 100 px, by the steps that `facebench run` makes, from random weights; the
answers are in docs/notes/speed.md. What is frozen is computed once, as for a run. With --compile a
second network of the same program is compiled too:

    python docs/measurements/step_kernels.py vgg16 --device cuda
    python docs/measurements/step_kernels.py mtl-vgg16-imagenet-block5 --device cuda
    python docs/measurements/step_kernels.py vgg16 --device cuda --compile
"""

import argparse
import dataclasses
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmark import registry
from benchmark.data.batches import Batch, FaceBatches, epoch_batches, generator_for
from benchmark.experiment.definition import Experiment
from benchmark.models.network import build_network
from benchmark.tasks import TASKS, n_classes
from benchmark.training.device import Device, choose_device
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.steps import ForwardPass, SpeedSettings, Steps
from benchmark.training.trainer import new_optimiser


def asked_for(name: str) -> Experiment:
    """Give an experiment from random weights; an architecture's name means all of it trained."""
    known = name in registry.experiments()
    experiment = registry.experiment(name if known else f"mtl-{name}-none-full")
    backbone = dataclasses.replace(experiment.backbone, weights="none")
    return dataclasses.replace(experiment, backbone=backbone, ad_hoc=True)


def some_batches(faces: FaceBatches, experiment: Experiment, n_batches: int) -> list[Batch]:
    """Draw whole batches of an experiment's size from random faces."""
    recipe = experiment.recipe
    order = torch.randint(0, len(faces.pixels), (n_batches * recipe.batch_size,))
    changes = generator_for(0, 0, purpose=1)
    there = order.to(faces.device)
    return epoch_batches(there, recipe.augmentation, recipe.batch_size, changes)


def steps_for(
    experiment: Experiment, faces: FaceBatches, device: Device, speed: SpeedSettings
) -> Steps:
    """Make the steps of a fresh network."""
    network = build_network(experiment, None, seed=0)
    device.place(network)
    network.train()
    asked = PrefixRequest("random faces", experiment.recipe.augmentation)
    started = time.perf_counter()
    cache = CacheSettings(Path(tempfile.mkdtemp()), say=print)
    prefix = open_prefix(network, faces, device, cache, asked)
    if prefix is not None:
        print(f"frozen part computed in {time.perf_counter() - started:.2f} s")
    forward = ForwardPass(network, faces, device, prefix)
    optimiser = new_optimiser(network, experiment.recipe, device)
    every = torch.arange(len(faces.pixels), device=faces.device)
    return Steps(forward, optimiser, experiment, every, speed)


def seconds_a_step(steps: Steps, batches: list[Batch], device: Device) -> float:
    """Time all batches, once before that in vain."""
    for number in range(2):
        device.synchronise()
        started = time.perf_counter()
        for batch in batches if number else batches[:2]:
            steps(batch)
        device.synchronise()
    return (time.perf_counter() - started) / len(batches)


def print_kernels(steps: Steps, batches: list[Batch]) -> None:
    """Print the kernels of a CUDA step by the time they take."""
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        for batch in batches:
            steps(batch)
        torch.cuda.synchronize()
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in watched.events() or []:
        if event.device_type.name == "CUDA":
            times[event.name] += event.time_range.elapsed_us()
            counts[event.name] += 1
    n = len(batches)
    print(f"{counts.total() / n:.0f} kernels a step, busy for {times.total() / n:.0f} us")
    for name, micros in times.most_common(28):
        print(f"{micros / n:9.1f} us {counts[name] / n:6.1f} x {name[:120]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", help="its name, or an architecture's")
    parser.add_argument("--device")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    here = choose_device(asked.device)
    random_faces = FaceBatches(
        torch.randint(0, 256, (2_000, 100, 100, 3), dtype=torch.uint8, device=here.torch_device),
        {
            task: torch.randint(0, n_classes(task), (2_000,), device=here.torch_device)
            for task in TASKS
        },
    )
    experiment = asked_for(asked.experiment)
    drawn = some_batches(random_faces, experiment, asked.steps)
    wanted = SpeedSettings(compile=asked.compile, say=print)
    with here.arithmetic():
        for _ in range(2 if asked.compile else 1):
            made = steps_for(experiment, random_faces, here, wanted)
            made.start_epoch(drawn[0])
            print(made.report)
        print(f"{1e3 * seconds_a_step(made, drawn, here):.3f} ms a step")
        if here.kind == "cuda":
            print_kernels(made, drawn[:4])
