"""Every registered experiment builds without downloads, and trains what it says.

On the meta device, at the size it says, for the first of those that have architecture, trained
stages, size and kind of head in common. `test_network.py` takes real steps at every depth.
"""

import dataclasses

import torch

from benchmark import registry
from benchmark.experiment.definition import Experiment
from benchmark.models.backbone import feature_map_shape
from benchmark.models.network import build_network
from benchmark.models.weight_manifest import untrained_start
from benchmark.tasks import TASKS, n_classes
from tests.models.steps import stages_that_require_gradients, without_weights


def kind_of(experiment: Experiment) -> object:
    backbone, head = experiment.backbone, dataclasses.replace(experiment.head, tasks=TASKS)
    return backbone.architecture, backbone.trainable_stages, backbone.input_px, head


FIRST_OF_KIND = {kind_of(item): item for item in reversed(registry.experiments().values())}


def test_every_registered_network_trains_its_declared_stages_and_answers_its_tasks() -> None:
    for experiment in FIRST_OF_KIND.values():
        name, backbone = experiment.name, experiment.backbone
        with torch.device("meta"):
            network = build_network(without_weights(experiment), None, seed=0)
            logits = network(torch.empty(2, 3, 100, 100))
        assert {task: tuple(values.shape) for task, values in logits.items()} == {
            task: (2, n_classes(task)) for task in experiment.head.tasks
        }, name
        assert stages_that_require_gradients(network.backbone) == set(backbone.trained_stages), name
        assert all(parameter.requires_grad for parameter in network.head.parameters()), name
        _, options = untrained_start(backbone.architecture)
        shape = feature_map_shape(backbone.architecture, options, backbone.input_px)
        assert shape[0] == network.backbone.n_features, name
