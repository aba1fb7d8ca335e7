"""Every network of the study has its parameters, to the last one, in all and trained.

What the study printed: thesis notebooks, §1. Where Keras counts what torch does not have, the test
says so. Networks are built by their definitions on the meta device, which holds no values.
"""

import dataclasses

import pytest
import torch

from benchmark import registry
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.models.network import Network, build_network
from benchmark.tasks import TaskName
from tests.models.steps import without_weights

PRINTED = {
    # VGG16, ImageNet: frozen, block 5, with embedding, gate, attention, full
    "2.1": (14_913_228, 198_540),
    "2.2": (14_913_228, 7_277_964),
    "2.3": (14_945_996, 7_310_732),
    "2.4": (14_979_278, 7_344_014),
    "2.5": (15_012_044, 7_376_780),
    "2.6": (14_913_228, 14_913_228),
    # the same from VGGFace
    "3.1": (14_913_228, 198_540),
    "3.2": (14_913_228, 7_277_964),
    "3.3": (14_945_996, 7_310_732),
    "3.4": (14_979_278, 7_344_014),
    "3.5": (15_012_044, 7_376_780),
    "3.6": (14_913_228, 14_913_228),
    # one task: gender, age group, race; block 5 and full
    "5.1a": (14_780_610, 7_145_346),
    "5.1b": (14_780_610, 14_780_610),
    "5.2a": (14_780_997, 7_145_733),
    "5.2b": (14_780_997, 14_780_997),
    "5.3a": (14_780_997, 7_145_733),
    "5.3b": (14_780_997, 14_780_997),
    # VGG19: block 5, full
    "6.1": (20_222_924, 9_637_772),
    "6.2": (20_222_924, 20_222_924),
    # ResNet50: 24,376,076 in Keras, which has 26,560 biases that torch's has not, and counts the
    # 53,120 running statistics of batch norm; frozen, full
    "7.1": (24_296_396, 788_364),
    "7.3": (24_296_396, 24_296_396),
    # DenseNet121: 7,432,652 in Keras with 83,648 running statistics; frozen, full
    "8.1": (7_349_004, 395_148),
    "8.2": (7_349_004, 7_349_004),
    # flattened features: plain, embedding, gate; age group, gender, race alone
    "R1": (16_486_092, 8_850_828),
    "R2": (16_518_860, 8_883_596),
    "R3": (16_552_142, 8_916_878),
    "R4": (15_305_285, 7_670_021),
    "R5": (15_304_898, 7_669_634),
    "R6": (15_305_285, 7_670_021),
}
"""Row of the study → parameters in all, and those trained."""

MTL, FLAT = Head(), Head(features="flattened")


def alone(task: TaskName, head: Head = MTL) -> Head:
    return dataclasses.replace(head, tasks=(task,))


def seeing(conditioning: str, head: Head = MTL) -> Head:
    return dataclasses.replace(head, conditioning=conditioning)


DEFINITIONS: dict[str, tuple[str, int | str, Head]] = {
    **dict.fromkeys(("2.1", "3.1"), ("vgg16", 0, MTL)),
    **dict.fromkeys(("2.2", "3.2"), ("vgg16", 1, MTL)),
    **dict.fromkeys(("2.3", "3.3"), ("vgg16", 1, seeing("embedding"))),
    **dict.fromkeys(("2.4", "3.4"), ("vgg16", 1, seeing("gate"))),
    **dict.fromkeys(("2.5", "3.5"), ("vgg16", 1, seeing("attention"))),
    **dict.fromkeys(("2.6", "3.6"), ("vgg16", "all", MTL)),
    "5.1a": ("vgg16", 1, alone("gender")),
    "5.1b": ("vgg16", "all", alone("gender")),
    "5.2a": ("vgg16", 1, alone("age_group")),
    "5.2b": ("vgg16", "all", alone("age_group")),
    "5.3a": ("vgg16", 1, alone("race")),
    "5.3b": ("vgg16", "all", alone("race")),
    "6.1": ("vgg19", 1, MTL),
    "6.2": ("vgg19", "all", MTL),
    "7.1": ("resnet50", 0, MTL),
    "7.3": ("resnet50", "all", MTL),
    "8.1": ("densenet121", 0, MTL),
    "8.2": ("densenet121", "all", MTL),
    "R1": ("vgg16", 1, FLAT),
    "R2": ("vgg16", 1, seeing("embedding", FLAT)),
    "R3": ("vgg16", 1, seeing("gate", FLAT)),
    "R4": ("vgg16", 1, alone("age_group", FLAT)),
    "R5": ("vgg16", 1, alone("gender", FLAT)),
    "R6": ("vgg16", 1, alone("race", FLAT)),
}
"""Row of the study → architecture, trained stages and head, as its notebook has them."""


def network_of(architecture: str, depth: int | str, head: Head) -> Network:
    experiment = Experiment(
        name="any",
        asks="How large?",
        backbone=Backbone(architecture, trainable_stages=depth),  # type: ignore[arg-type]
        head=head,
        recipe=Recipe(learning_rate=1e-4),
        ad_hoc=True,
    )
    with torch.device("meta"):
        return build_network(experiment, None, seed=0)


def test_a_row_of_the_study_has_the_parameters_that_it_printed() -> None:
    found = {row: network_of(*defined).parameter_counts() for row, defined in DEFINITIONS.items()}
    assert found == PRINTED


@pytest.mark.parametrize(
    ("architecture", "n_statistics", "keras"),
    [("resnet50", 53_120, 24_376_076 - 26_560), ("densenet121", 83_648, 7_432_652)],
)
def test_keras_counts_running_statistics_as_parameters(
    architecture: str, n_statistics: int, keras: int
) -> None:
    network = network_of(architecture, "all", MTL)
    running = [
        value.numel() for name, value in network.backbone.named_buffers() if ".running_" in name
    ]
    assert sum(running) == n_statistics
    assert network.parameter_counts()[0] + n_statistics == keras


def test_a_registered_row_of_the_study_is_the_network_that_it_names() -> None:
    for experiment in registry.experiments().values():
        if experiment.study is not None and experiment.study.row in PRINTED:
            with torch.device("meta"):
                network = build_network(without_weights(experiment), None, seed=0)
            assert network.parameter_counts() == PRINTED[experiment.study.row], experiment.name
