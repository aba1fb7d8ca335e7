"""VGG-16 and VGG-19 (Simonyan & Zisserman 2015, arXiv 1409.1556, table 1), cut after pool5."""

from typing import Final

from torch import nn

from benchmark.models.trunk import ChainTrunk, sequence

CHANNELS: Final = (64, 128, 256, 512, 512)
CONVOLUTIONS: Final = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Of each block: configurations D and E."""


def vgg(architecture: str) -> ChainTrunk:
    """Build five blocks of 3x3 convolutions (padding 1), each with a ReLU; 2x2 maxima end them.

    100 px end as 3x3x512. Layout: torchvision's `vgg16().features`, equal to Keras's without top.
    """
    stages: dict[str, nn.Module] = {}
    n_inputs = 3
    for number, (width, n_convolutions) in enumerate(
        zip(CHANNELS, CONVOLUTIONS[architecture], strict=True), start=1
    ):
        layers: dict[str, nn.Module] = {}
        for place in range(1, n_convolutions + 1):
            layers[f"conv{place}"] = nn.Conv2d(n_inputs, width, 3, padding=1)
            layers[f"relu{place}"] = nn.ReLU(inplace=True)
            n_inputs = width
        stages[f"block{number}"] = sequence(**layers, pool=nn.MaxPool2d(2))
    return ChainTrunk(architecture, stages, CHANNELS[-1])
