"""Every architecture from each of its published starts, for three tasks at once and for each alone.

Generated: trained whole, and where there are pretrained weights with the deepest stage alone. Rows
that an architecture's file defines are taken from there, with their recipe for the counterparts;
those that start from nothing come from the table below. Frozen rows get their counterparts here
too, so that every multi-task row on the study's recipe can be set against single tasks.

Cost    not measured yet
Expect  not measured yet
"""

from collections.abc import Iterator
from typing import NamedTuple

from benchmark.experiment import TASKS, Backbone, Experiment, Head, Recipe
from experiments import cnn, densenet121, modern, resnet50, squeezenet, vgg16, vgg16_stl, vgg19
from experiments.variations import alone

MODULES = (cnn, vgg16, vgg16_stl, vgg19, resnet50, densenet121, squeezenet, modern)
WRITTEN = {item.name: item for module in MODULES for item in module.EXPERIMENTS}


class FromNothing(NamedTuple):
    """How an architecture is trained whole without pretrained weights, and why so."""

    architecture: str
    learning_rate: float
    why: str
    batch_size: int = 32
    input_px: int = 100


STARTS = (
    FromNothing("vgg16", 1e-4, "without batch norm no more; the rate of its pretrained rows"),
    FromNothing("vgg19", 1e-4, "without batch norm no more; the rate of its pretrained rows"),
    FromNothing("resnet50", 1e-3, "batch norm throughout: the rate of the CNN", batch_size=16),
    FromNothing("densenet121", 1e-3, "batch norm throughout: the rate of the CNN"),
    FromNothing("squeezenet1_1", 5e-4, "the rate of its pretrained rows"),
    FromNothing("mobilenet_v2", 1e-3, "batch norm throughout: the rate of the CNN"),
    FromNothing("convnext_tiny", 3e-4, "4e-3 at 4,096 (Liu et al. 2022) x sqrt(32 / 4,096)"),
    FromNothing("efficientnet_b0", 1e-3, "batch norm throughout: the rate of the CNN"),
    FromNothing("mobilenetv4_conv_small", 1e-3, "batch norm throughout: the rate of the CNN"),
    FromNothing(
        "vit_small_patch16_224",
        1e-4,
        "1e-3 at 4,096 (Steiner et al. 2022) x sqrt(32 / 4,096)",
        input_px=112,
    ),
)
"""All were chosen before any run. The CNN, which has no pretrained weights, is in its own file."""


def untrained(start: FromNothing) -> Experiment:
    """Define the row from nothing; it is compared with ImageNet's where the recipe is the same."""
    pretrained = WRITTEN[f"mtl-{start.architecture}-imagenet-full"]
    recipe = Recipe(start.learning_rate, batch_size=start.batch_size)
    same_recipe = recipe == pretrained.recipe
    asks = f"How accurate is {start.architecture} when it starts from nothing?"
    if same_recipe:
        asks = f"What does {start.architecture} lose without pretrained weights?"
    return Experiment(
        name=f"mtl-{start.architecture}-none-full",
        asks=asks,
        backbone=Backbone(start.architecture, input_px=start.input_px),
        head=Head(),
        recipe=recipe,
        compare_with=pretrained.name if same_recipe else None,
    )


def has_counterparts(item: Experiment) -> bool:
    """Tell whether a row is multi-task and without conditioning or variant."""
    return item.task_label == "mtl" and item.name == item.stem and item.head.conditioning == "none"


def is_cell(item: Experiment) -> bool:
    """Tell whether a multi-task row is the matrix's: full, or pretrained with its last stage."""
    depth = item.backbone.trainable_stages
    return depth == "all" or (depth == 1 and item.backbone.weights != "none")


UNTRAINED = tuple(untrained(start) for start in STARTS)
MULTI_TASK = (*filter(has_counterparts, WRITTEN.values()), *UNTRAINED)
COUNTERPARTS = tuple(
    counterpart
    for item in MULTI_TASK
    for counterpart in alone(item)
    if counterpart.name not in WRITTEN
)

EXPERIMENTS = (*UNTRAINED, *COUNTERPARTS)


def cells() -> Iterator[str]:
    """Yield the names of all cells by architecture, each multi-task one before its counterparts."""
    order = list(dict.fromkeys(item.backbone.architecture for item in MULTI_TASK))
    for item in sorted(MULTI_TASK, key=lambda item: order.index(item.backbone.architecture)):
        if is_cell(item):
            yield item.name
            yield from map(item.counterpart_name, TASKS)
