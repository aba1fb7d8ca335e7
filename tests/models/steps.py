"""Small definitions, one training step as the trainer takes it, and what it did to the stages; a
pickle with code."""

import dataclasses
import os
from pathlib import Path

import torch
from torch import Tensor

from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.models.backbone import FeatureExtractor
from benchmark.models.network import Network
from benchmark.training.device import Device
from benchmark.training.steps import clip_gradients
from benchmark.training.trainer import start
from tests.training.small import weighted_cross_entropy

RECIPE = Recipe(learning_rate=1e-2)
OTHERS_OF_TIMM = {
    "resnet18": 32,
    "vgg16_bn": 32,
    "mobilenetv3_small_100": 32,
    "regnety_002": 32,
    "swin_tiny_patch4_window7_224": 224,
    "deit_tiny_distilled_patch16_224": 32,
}
"""Named in no definition of ours, each a family of its own; and a size that it takes, in pixels."""


def experiment(
    architecture: str = "cnn",
    depth: int | str = "all",
    *,
    head: Head | None = None,
    **backbone: object,
) -> Experiment:
    return Experiment(
        name="any",
        asks="Does it work?",
        backbone=Backbone(architecture, trainable_stages=depth, **backbone),  # type: ignore[arg-type]
        head=head or Head(hidden_units=8),
        recipe=RECIPE,
        ad_hoc=True,
    )


def without_weights(experiment: Experiment) -> Experiment:
    backbone = dataclasses.replace(experiment.backbone, weights="none")
    return dataclasses.replace(experiment, backbone=backbone, ad_hoc=True)


def faces(n: int = 2, image_px: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, image_px, image_px), generator=generator, dtype=torch.uint8)


def train_a_step(network: Network, images: Tensor) -> None:
    """Do what the trainer does with a batch, with its own optimiser and clipping."""
    state = start(network, RECIPE, Device(torch.device("cpu"), "fp32"))
    network.train()
    logits = network(images)
    truths = {task: torch.arange(len(images)) % 2 for task in logits}
    weighted_cross_entropy(logits, truths, RECIPE.loss_weights).backward()  # type: ignore[no-untyped-call]
    clip_gradients([item for item in network.parameters() if item.requires_grad], RECIPE)
    state.optimiser.step()


def stages_that_require_gradients(backbone: FeatureExtractor) -> set[str]:
    """Name the stages whose parameters are trained; a stage must train all of them or none."""
    found = set()
    for name in backbone.stages:
        flags = {parameter.requires_grad for parameter in backbone.stages[name].parameters()}
        assert len(flags) < 2, f"{name} is trained in part"
        found |= {name} if True in flags else set()
    return found


def snapshot(backbone: FeatureExtractor) -> dict[str, dict[str, Tensor]]:
    """Copy every stage's parameters and running statistics."""
    return {
        name: {key: value.clone() for key, value in backbone.stages[name].state_dict().items()}
        for name in backbone.stages
    }


def changed_stages(backbone: FeatureExtractor, before: dict[str, dict[str, Tensor]]) -> set[str]:
    """Name the stages of which a parameter or a running statistic differs in any bit."""
    here = {name: backbone.stages[name].state_dict() for name in backbone.stages}
    return {
        name
        for name, values in before.items()
        if any(not torch.equal(here[name][key], value) for key, value in values.items())
    }


class Evil:
    """Makes a folder when it is unpickled by a loader that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)
