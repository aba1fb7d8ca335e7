"""The trunks: every architecture as named stages, applied one after another.

What weights a trunk starts from, what scales its input and what reads its features are left to
weights, preprocessing and heads. Names of the stages are those of benchmark.architectures.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.architectures import architecture_named
from benchmark.errors import WeightsError


class Trunk(nn.Module):
    """Stages shallow to deep; the output of one is the input of the next, so any prefix can be cut.

    Down-sampling closes a stage: what is handed on is as small as it gets.
    """

    stages: nn.ModuleDict

    def __init__(self, architecture: str, stages: Mapping[str, nn.Module], n_features: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.options: dict[str, str] = {}
        """What it was built with; set by build_trunk."""
        self.stages = nn.ModuleDict(dict(stages))
        self.n_features = n_features

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to the last feature map (n, n_features, h', w')."""
        for stage in self.stages.values():
            x = stage(x)
        return x


def _named(**modules: nn.Module) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, module in modules.items():
        sequence.add_module(name, module)
    return sequence


CNN_CHANNELS: Final = (24, 48, 96, 192, 256)


def _cnn() -> Trunk:
    """Five blocks, 661,976 parameters, 98 million multiply-adds at 100 px.

    Each block: 3x3 convolution (padding 1, no bias), batch norm, ReLU, 2x2 maximum; 100 px end as
    3x3x256. Ours: the study's own CNN is lost (notebooks, §1, row 4.1).
    """
    stages: dict[str, nn.Module] = {}
    for number, width in enumerate(CNN_CHANNELS, start=1):
        n_inputs = 3 if number == 1 else CNN_CHANNELS[number - 2]
        # ReLU after the maximum gives the same numbers as before it, on a quarter of the cells:
        # 401 to 409 images/s against 354 to 390 (forward and backward, 2 CPU cores, batch 32).
        stages[f"block{number}"] = _named(
            conv=nn.Conv2d(n_inputs, width, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(width),
            pool=nn.MaxPool2d(2),
            relu=nn.ReLU(inplace=True),
        )
    return Trunk("cnn", stages, CNN_CHANNELS[-1])


class Fire(nn.Module):
    """Squeeze to few channels by 1x1, expand by 1x1 and 3x3 side by side (arXiv 1602.07360, §3)."""

    def __init__(self, n_inputs: int, n_squeezed: int, n_expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(n_inputs, n_squeezed, 1)
        self.expand1x1 = nn.Conv2d(n_squeezed, n_expanded, 1)
        self.expand3x3 = nn.Conv2d(n_squeezed, n_expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_inputs, h, w) to (n, 2 * n_expanded, h, w); the 1x1 half comes first."""
        squeezed = self.squeeze(x).relu_()
        return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], 1).relu_()


def _squeezenet1_1(pooling: str) -> Trunk:
    """SqueezeNet 1.1 up to its last fire module: 722,496 parameters.

    `pooling` rounds the size of each 3x3/2 maximum: `floor` as Keras, `ceil` as Caffe and
    torchvision do. 100 px end as 5x5x512 or 6x6x512. Layout: rcmalli/keras-squeezenet
    squeezenet.py, equal to torchvision's `squeezenet1_1().features` (tested against both).
    """

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=pooling == "ceil")

    stages = {
        "conv1": _named(
            conv=nn.Conv2d(3, 64, 3, stride=2), pool=pool(), relu=nn.ReLU(inplace=True)
        ),
        "fire2_3": _named(fire2=Fire(64, 16, 64), fire3=Fire(128, 16, 64), pool=pool()),
        "fire4_5": _named(fire4=Fire(128, 32, 128), fire5=Fire(256, 32, 128), pool=pool()),
        "fire6_9": _named(
            fire6=Fire(256, 48, 192),
            fire7=Fire(384, 48, 192),
            fire8=Fire(384, 64, 256),
            fire9=Fire(512, 64, 256),
        ),
    }
    return Trunk("squeezenet1_1", stages, 512)


BUILDERS: Final[dict[str, Callable[..., Trunk]]] = {
    "cnn": _cnn,
    "squeezenet1_1": _squeezenet1_1,
}

OPTIONS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "cnn": {},
    "squeezenet1_1": {"pooling": ("floor", "ceil")},
}
"""What weights may decide about a trunk's layout, by architecture, with the values allowed."""


def build_trunk(architecture: str, **options: str) -> Trunk:
    """Build a trunk with torch's own initialisation; every option of the architecture is due.

    Raise ExperimentError for an unknown architecture, WeightsError for options it does not have.
    """
    architecture_named(architecture)
    known = OPTIONS[architecture]
    fits = options.keys() == known.keys() and all(options[key] in known[key] for key in known)
    if not fits:
        allowed = "; ".join(f"{key}: {' or '.join(values)}" for key, values in known.items())
        raise WeightsError(
            f"options of the {architecture} trunk are {options}", allowed=allowed or "none"
        )
    trunk = BUILDERS[architecture](**options)
    trunk.options = dict(options)
    return trunk


def feature_map_shape(
    architecture: str, options: Mapping[str, str], input_px: int
) -> tuple[int, int, int]:
    """Give (n_features, height, width) of the last feature map, without computing anything."""
    with torch.device("meta"):
        trunk = build_trunk(architecture, **options).eval()
        shape = trunk(torch.empty(1, 3, input_px, input_px)).shape
    return int(shape[1]), int(shape[2]), int(shape[3])
