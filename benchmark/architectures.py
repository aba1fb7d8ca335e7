"""What a definition must know of an architecture without loading torch: stages, sources, input.

The modules themselves are in benchmark.models.backbones; a test compares the two, stage by stage.
Any other architecture that timm has goes by its timm name: only then is timm asked, and loaded.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmark.errors import ExperimentError


@dataclass(frozen=True)
class Architecture:
    """An architecture by name, its stages shallow to deep, and its weight sources."""

    name: str
    stages: tuple[str, ...]
    weight_sources: tuple[str, ...]
    """Published ones; `local:LABEL` and `run:ID` may stand beside them for any architecture."""
    description: str
    from_timm: bool = False
    """Built by timm under its own name, and read by timm's own pooling: there is no feature map."""
    input_multiple: int = 1
    """The side of the input in pixels must be a multiple of this: the patch of a transformer."""


def _blocks(name: str, n: int, first: int = 1) -> tuple[str, ...]:
    return tuple(f"{name}{number}" for number in range(first, first + n))


OURS: Final = (
    Architecture(
        name="cnn",
        stages=_blocks("block", 5),
        weight_sources=("none",),
        description="five blocks of 3x3 convolution, batch norm, ReLU, max pooling: "
        "24-48-96-192-256 channels (ours; the study's own CNN is lost)",
    ),
    Architecture(
        name="vgg16",
        stages=_blocks("block", 5),
        weight_sources=("none", "imagenet", "vggface"),
        description="VGG-16, configuration D (Simonyan & Zisserman 2015): 14,714,688 parameters",
    ),
    Architecture(
        name="vgg19",
        stages=_blocks("block", 5),
        weight_sources=("none", "imagenet"),
        description="VGG-19, configuration E (Simonyan & Zisserman 2015): 20,024,384 parameters",
    ),
    Architecture(
        name="resnet50",
        stages=_blocks("conv", 5),
        weight_sources=("none", "imagenet"),
        description="ResNet-50 v1.5 (He et al. 2016; stride on the 3x3): 23,508,032 parameters",
    ),
    Architecture(
        name="densenet121",
        stages=("conv1", *_blocks("denseblock", 4)),
        weight_sources=("none", "imagenet"),
        description="DenseNet-121 (Huang et al. 2017): 6,953,856 parameters",
    ),
    Architecture(
        name="mobilenet_v2",
        stages=_blocks("stage", 5),
        weight_sources=("none", "imagenet"),
        description="MobileNetV2 (Sandler et al. 2018), a stage for each size: "
        "2,223,872 parameters",
    ),
    Architecture(
        name="squeezenet1_1",
        stages=("conv1", "fire2_3", "fire4_5", "fire6_9"),
        weight_sources=("none", "imagenet"),
        description="SqueezeNet 1.1 (Iandola et al. 2016), fire modules, 722,496 parameters",
    ),
)

# Those of timm that definitions of ours use: written down, so that reading them loads no torch.
FROM_TIMM: Final = (
    Architecture(
        name="convnext_tiny",
        stages=("stem", *_blocks("stages_", 4, first=0)),
        weight_sources=("none", "imagenet"),
        description="ConvNeXt-T (Liu et al. 2022)",
        from_timm=True,
    ),
    Architecture(
        name="efficientnet_b0",
        stages=("stem", *_blocks("blocks_", 7, first=0)),
        weight_sources=("none", "imagenet"),
        description="EfficientNet-B0 (Tan & Le 2019)",
        from_timm=True,
    ),
    Architecture(
        name="mobilenetv4_conv_small",
        stages=("stem", *_blocks("blocks_", 5, first=0), "conv_head"),
        weight_sources=("none", "imagenet"),
        description="MobileNetV4-Conv-S (Qin et al. 2024)",
        from_timm=True,
    ),
    Architecture(
        name="vit_small_patch16_224",
        stages=("stem", *_blocks("blocks_", 12, first=0)),
        weight_sources=("none", "imagenet"),
        description="ViT-S/16 (Dosovitskiy et al. 2021; Touvron et al. 2021); any multiple of 16 "
        "pixels, 112 in our definitions",
        from_timm=True,
        input_multiple=16,
    ),
)

ARCHITECTURES: Final[dict[str, Architecture]] = {item.name: item for item in (*OURS, *FROM_TIMM)}


NOT_OFFERED: Final = {
    "vggface2": "no published file of it can be trusted: they are pickled programs, or hold "
    "Caffe's ResNet-50, whose strides and pooling are not this one's (docs/EXPERIMENTS.md)"
}
"""Weight sources that a person may look for, and why no architecture has them."""


def architecture_named(name: str) -> Architecture:
    """Look an architecture up, here and then in timm; raise ExperimentError for an unknown one."""
    return ARCHITECTURES[name] if name in ARCHITECTURES else _from_timm(name)


@functools.cache
def _from_timm(name: str) -> Architecture:
    # Imported here: most definitions name an architecture of the table, and load no torch.
    from benchmark import timm_models

    if not timm_models.is_known(name):
        raise ExperimentError(
            f"unknown architecture {name!r}",
            allowed=", ".join(_near(name, timm_models.names())),
            fix="Choose one of these, or the name of any other model of timm, without its tag",
        )
    found = timm_models.stages_of(name)
    return Architecture(
        name=name,
        stages=tuple(stage.name for stage in found),
        weight_sources=("none", *(("imagenet",) if timm_models.imagenet_tag(name) else ())),
        description=f"timm's {name}",
        from_timm=True,
    )


def _near(name: str, timm_names: list[str]) -> Iterator[str]:
    import difflib

    yield from sorted(ARCHITECTURES)
    near = difflib.get_close_matches(name, timm_names, n=3)
    yield from (item for item in near if item not in ARCHITECTURES)
