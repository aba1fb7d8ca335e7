"""Every registered experiment builds without downloads, trains a step, and trains what it says."""

import dataclasses

import pytest
import torch

from benchmark import registry
from benchmark.architectures import ARCHITECTURES
from benchmark.experiment import Experiment
from benchmark.models.backbones import build_trunk
from benchmark.models.network import build_network
from benchmark.models.sources import UNTRAINED
from benchmark.tasks import n_classes
from benchmark.training.losses import weighted_cross_entropy

ALL = list(registry.experiments().values())


def without_weights(experiment: Experiment) -> Experiment:
    backbone = dataclasses.replace(experiment.backbone, weights="none")
    return dataclasses.replace(experiment, backbone=backbone, ad_hoc=True)


@pytest.mark.parametrize("experiment", ALL, ids=lambda item: item.name)
def test_it_trains_a_step_and_exactly_the_declared_stages(experiment: Experiment) -> None:
    network = build_network(without_weights(experiment), None, seed=0)
    images = torch.randint(0, 256, (2, 3, 100, 100), dtype=torch.uint8)
    logits = network(images)
    assert {task: tuple(values.shape) for task, values in logits.items()} == {
        task: (2, n_classes(task)) for task in experiment.head.tasks
    }
    truths = {task: torch.tensor([0, 1]) for task in experiment.head.tasks}
    weighted_cross_entropy(logits, truths, experiment.recipe.loss_weights).backward()  # type: ignore[no-untyped-call]
    with_gradients = {
        name
        for name, stage in network.trunk.stages.items()
        if any(parameter.grad is not None for parameter in stage.parameters())
    }
    assert with_gradients == set(experiment.backbone.trained_stages)
    assert all(parameter.grad is not None for parameter in network.head.parameters())


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_stages_a_definition_knows_are_the_trunks(name: str) -> None:
    trunk = build_trunk(name, **UNTRAINED[name].options)
    assert tuple(trunk.stages) == ARCHITECTURES[name].stages
