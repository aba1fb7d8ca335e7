"""One training step as the trainer takes it, and what it did to the stages of a backbone."""

import dataclasses

import torch
from torch import Tensor

from benchmark.experiment.definition import Experiment, Recipe
from benchmark.models.backbone import FeatureExtractor
from benchmark.models.network import Network
from benchmark.training.device import Device
from benchmark.training.steps import clip_gradients
from benchmark.training.trainer import start
from tests.training.small import weighted_cross_entropy

CPU = Device(torch.device("cpu"), "fp32")
RECIPE = Recipe(learning_rate=1e-2)


def without_weights(experiment: Experiment, input_px: int | None = None) -> Experiment:
    backbone = experiment.backbone
    changed = dataclasses.replace(backbone, weights="none", input_px=input_px or backbone.input_px)
    return dataclasses.replace(experiment, backbone=changed, ad_hoc=True)


def with_depth(network: Network, experiment: Experiment) -> Network:
    """Put the same modules together again, frozen as another definition says."""
    network.requires_grad_(True)
    network.zero_grad()
    return Network(
        network.scaling,
        network.backbone,
        network.head,
        trained_stages=experiment.backbone.trained_stages,
        flattened=network.flattened,
    )


def faces(n: int = 2, image_px: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, image_px, image_px), generator=generator, dtype=torch.uint8)


def backward(network: Network, images: Tensor, recipe: Recipe = RECIPE) -> dict[str, Tensor]:
    """Take the gradients of a batch in training mode, on whatever device the images are."""
    network.train()
    logits = network(images)
    truths = {task: torch.arange(len(images), device=images.device) % 2 for task in logits}
    weighted_cross_entropy(logits, truths, recipe.loss_weights).backward()  # type: ignore[no-untyped-call]
    return logits


def train_a_step(network: Network, images: Tensor, recipe: Recipe = RECIPE) -> None:
    """Do what the trainer does with a batch, with its own optimiser and clipping."""
    state = start(network, recipe, CPU)
    backward(network, images, recipe)
    clip_gradients([item for item in network.parameters() if item.requires_grad], recipe)
    state.optimiser.step()


def stages_that_require_gradients(backbone: FeatureExtractor) -> set[str]:
    """Name the stages whose parameters are trained; a stage must train all of them or none."""
    found = set()
    for name in backbone.stages:
        flags = {parameter.requires_grad for parameter in backbone.stages[name].parameters()}
        assert len(flags) < 2, f"{name} is trained in part"
        found |= {name} if True in flags else set()
    return found


def with_gradients(backbone: FeatureExtractor) -> set[str]:
    """Name the stages in which every parameter has a gradient; a stage must have all or none."""
    found = set()
    for name in backbone.stages:
        has_one = [parameter.grad is not None for parameter in backbone.stages[name].parameters()]
        assert all(has_one) or not any(has_one), f"{name}: {sum(has_one)} of {len(has_one)}"
        found |= {name} if any(has_one) else set()
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
