"""Every registered experiment builds without downloads, trains a step, and trains what it says.

Really, on small pictures, for the first of those that have architecture, trained stages and head
in common; on the meta device, at the size it says, for the others.
"""

import pytest
import torch

from benchmark import registry
from benchmark.errors import ExperimentError
from benchmark.experiment import Experiment
from benchmark.models.backbones import feature_map_shape
from benchmark.models.network import build_network
from benchmark.models.sources import untrained_start
from benchmark.tasks import n_classes
from tests.models.steps import (
    backward,
    changed_stages,
    faces,
    snapshot,
    train_a_step,
    with_gradients,
    without_weights,
)

SMALL_PX = 32
ALL = list(registry.experiments().values())


def kind_of(experiment: Experiment) -> object:
    backbone = experiment.backbone
    return backbone.architecture, backbone.trainable_stages, experiment.head


def small_px(experiment: Experiment) -> int:
    """32 pixels, or the experiment's own size where the architecture does not take them."""
    architecture = experiment.backbone.architecture
    try:
        feature_map_shape(architecture, untrained_start(architecture).options, SMALL_PX)
    except ExperimentError:
        return experiment.backbone.input_px
    return SMALL_PX


FIRST_OF_KIND = list({kind_of(item): item for item in reversed(ALL)}.values())
OTHERS = [item for item in ALL if item not in FIRST_OF_KIND]


@pytest.mark.parametrize("experiment", FIRST_OF_KIND, ids=lambda item: item.name)
def test_it_trains_a_step_and_exactly_the_declared_stages(experiment: Experiment) -> None:
    network = build_network(without_weights(experiment, small_px(experiment)), None, seed=0)
    before = snapshot(network.trunk)
    train_a_step(network, faces(), experiment.recipe)
    declared = set(experiment.backbone.trained_stages)
    assert changed_stages(network.trunk, before) == with_gradients(network.trunk) == declared
    assert all(parameter.grad is not None for parameter in network.head.parameters())
    backbone = experiment.backbone
    options = untrained_start(backbone.architecture).options
    shape = feature_map_shape(backbone.architecture, options, backbone.input_px)
    assert shape[0] == network.trunk.n_features


@pytest.mark.parametrize("experiment", OTHERS, ids=lambda item: item.name)
def test_it_is_built_and_trained_as_its_kind_on_the_meta_device(experiment: Experiment) -> None:
    with torch.device("meta"):
        network = build_network(without_weights(experiment), None, seed=0)
        logits = backward(network, torch.empty(2, 3, 100, 100), experiment.recipe)
    assert {task: tuple(values.shape) for task, values in logits.items()} == {
        task: (2, n_classes(task)) for task in experiment.head.tasks
    }
    assert with_gradients(network.trunk) == set(experiment.backbone.trained_stages)
    assert all(parameter.grad is not None for parameter in network.head.parameters())
