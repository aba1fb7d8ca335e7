"""What every backbone is: pictures in, a feature map out, stages that can be frozen one by one.

Our own architectures are chains of stages (benchmark.models.chains), models of timm are taken whole
(benchmark.models.timm_backbone).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from benchmark.models.timm_backbone import TimmStage


class FeatureExtractor(nn.Module):
    """Maps scaled pictures (n, 3, h, w) to a feature map (n, n_features, h', w')."""

    stages: nn.ModuleDict | Mapping[str, TimmStage]
    """By name, shallow to deep. They share nothing, and together hold every parameter."""

    draws_first_values = False
    """Whether its constructor draws the values to start from; else initialise_backbone does."""

    def __init__(self, architecture: str, n_features: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.options: dict[str, str] = {}
        """What it was built with; set by build_backbone."""
        self.n_features = n_features


class StageChain(FeatureExtractor):
    """Stages one after another: the output of one is the input of the next, and all there is.

    Any prefix can be cut. Down-sampling closes a stage: what is handed on is as small as it gets.
    """

    stages: nn.ModuleDict

    def __init__(self, architecture: str, stages: Mapping[str, nn.Module], n_features: int) -> None:
        super().__init__(architecture, n_features)
        self.stages = nn.ModuleDict(dict(stages))

    def forward(self, x: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to the last feature map (n, n_features, h', w').

        first, end: the stages to go through, as of a slice, where it is not all of them.
        """
        for stage in list(self.stages.values())[first:end]:
            x = stage(x)
        return x


def sequence(**modules: nn.Module) -> nn.Sequential:
    """Chain modules in the order given, under the names given."""
    chained = nn.Sequential()
    for name, module in modules.items():
        chained.add_module(name, module)
    return chained
