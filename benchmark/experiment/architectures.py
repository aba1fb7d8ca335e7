"""What a definition must know of an architecture without loading torch: stages, sources, input.

The modules themselves are in benchmark.models.backbone; a test compares the two, stage by stage.
Any other architecture that timm has goes by its timm name: only then is timm asked, and loaded.
"""

import difflib
import functools
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
    from_timm: bool = False
    """Built by timm under its own name, and read by timm's own pooling: there is no feature map."""
    mega_macs: tuple[float, ...] = ()
    """Millions of multiply-adds of each stage's forward pass on one face of 100 px, or the sum
    alone where the stages are timm's; empty where they were not counted."""
    input_multiple: int = 1
    """The side of the input in pixels must be a multiple of this: the patch of a transformer."""


def _numbered(name: str, n: int, first: int = 1) -> tuple[str, ...]:
    return tuple(f"{name}{number}" for number in range(first, first + n))


_IMAGENET: Final = ("none", "imagenet")

OURS: Final = (
    # Five blocks of 3x3 convolution, batch norm, ReLU, max pooling: 24-48-96-192-256 channels
    # (ours; the study's own CNN is lost).
    Architecture("cnn", _numbered("block", 5), ("none",), mega_macs=(6.5, 25.9, 25.9, 23.9, 15.9)),
    # Simonyan & Zisserman 2015, configuration D: 14,714,688 parameters; E: 20,024,384.
    Architecture("vgg16", _numbered("block", 5), (*_IMAGENET, "vggface"),
                 mega_macs=(385.9, 553.0, 921.6, 849.3, 254.8)),
    Architecture("vgg19", _numbered("block", 5), _IMAGENET,
                 mega_macs=(385.9, 553.0, 1290.2, 1189.1, 339.7)),
    # ResNet-50 v1.5 (He et al. 2016; stride on the 3x3): 23,508,032 parameters.
    Architecture("resnet50", _numbered("conv", 5), _IMAGENET,
                 mega_macs=(23.5, 133.1, 219.8, 362.5, 256.4)),
    # Huang et al. 2017: 6,953,856 parameters.
    Architecture("densenet121", ("conv1", *_numbered("denseblock", 4)), _IMAGENET,
                 mega_macs=(23.5, 227.8, 149.8, 119.7, 19.2)),
    # Sandler et al. 2018, a stage for each size: 2,223,872 parameters.
    Architecture("mobilenet_v2", _numbered("stage", 5), _IMAGENET,
                 mega_macs=(4.2, 10.9, 7.9, 24.0, 28.4)),
    # Iandola et al. 2016, fire modules: 722,496 parameters.
    Architecture("squeezenet1_1", ("conv1", "fire2_3", "fire4_5", "fire6_9"), _IMAGENET,
                 mega_macs=(4.1, 13.6, 11.4, 15.0)),
)  # fmt: skip

# Those of timm that definitions of ours use: written down, so that reading them loads no torch.
FROM_TIMM: Final = tuple(
    Architecture(name, ("stem", *stages), _IMAGENET, True, (mega_macs,), multiple)
    for name, stages, mega_macs, multiple in (
        ("convnext_tiny", _numbered("stages_", 4, 0), 830, 1),  # Liu et al. 2022
        ("efficientnet_b0", _numbered("blocks_", 7, 0), 101, 1),  # Tan & Le 2019
        # Qin et al. 2024
        ("mobilenetv4_conv_small", (*_numbered("blocks_", 5, 0), "conv_head"), 47, 1),
        # Dosovitskiy et al. 2021; Touvron et al. 2021; 112 px in our definitions
        ("vit_small_patch16_224", _numbered("blocks_", 12, 0), 865, 16),
    )
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
    from benchmark.experiment import timm_models

    if name not in timm_models.names():
        near = difflib.get_close_matches(name, timm_models.names(), n=3)
        raise ExperimentError(
            f"unknown architecture {name!r}",
            allowed=", ".join(dict.fromkeys([*sorted(ARCHITECTURES), *near])),
            fix="Choose one of these, or the name of any other model of timm, without its tag",
        )
    sources = _IMAGENET if timm_models.pretrained(name) else ("none",)
    return Architecture(name, tuple(timm_models.stages_of(name)), sources, from_timm=True)
