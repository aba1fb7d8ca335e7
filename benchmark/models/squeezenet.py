"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv 1602.07360), cut after its last fire module."""

import torch
from torch import Tensor, nn

from benchmark.models.trunk import ChainTrunk, sequence


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


def squeezenet1_1(pooling: str) -> ChainTrunk:
    """Build it up to its last fire module: 722,496 parameters.

    `pooling` rounds the size of each 3x3/2 maximum: `floor` as Keras, `ceil` as Caffe and
    torchvision do. 100 px end as 5x5x512 or 6x6x512. Layout: rcmalli/keras-squeezenet
    squeezenet.py, equal to torchvision's `squeezenet1_1().features` (tested against both).
    """

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=pooling == "ceil")

    stages = {
        "conv1": sequence(
            conv=nn.Conv2d(3, 64, 3, stride=2), pool=pool(), relu=nn.ReLU(inplace=True)
        ),
        "fire2_3": sequence(fire2=Fire(64, 16, 64), fire3=Fire(128, 16, 64), pool=pool()),
        "fire4_5": sequence(fire4=Fire(128, 32, 128), fire5=Fire(256, 32, 128), pool=pool()),
        "fire6_9": sequence(
            fire6=Fire(256, 48, 192),
            fire7=Fire(384, 48, 192),
            fire8=Fire(384, 64, 256),
            fire9=Fire(512, 64, 256),
        ),
    }
    return ChainTrunk("squeezenet1_1", stages, 512)
