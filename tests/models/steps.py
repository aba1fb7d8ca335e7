"""Small definitions, what a training did to the stages of a backbone; a pickle with code."""

import os
from pathlib import Path

import torch
from torch import Tensor

from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.models.backbone import FeatureExtractor

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
        recipe=Recipe(learning_rate=1e-2, max_epochs=2, steps_per_epoch=1),
        ad_hoc=True,
    )


def faces(n: int = 2, image_px: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, image_px, image_px), generator=generator, dtype=torch.uint8)


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
