"""The bf16 weights that a trunk multiplies by, copied from the fp32 ones in one go.

Autocast rounds every weight by itself in every step, a kernel each, and every gradient back again;
hundreds of kernels that each take longer to start than to run. Here all are rounded at once, to
the same numbers.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.models.network import Network
from benchmark.training.layout import Layout

READERS: Final = (nn.Conv2d, nn.Linear)
"""Layers whose weights autocast rounds. Exactly these: what is derived of them may do something
else with its weights first (standardise them, say), and rounds for itself as before."""


class WorkingWeights:
    """Rounded copies of the weights of a trunk's convolutions and products."""

    def __init__(self, network: Network, trained: Sequence[nn.Parameter], layout: Layout) -> None:
        """Make copies of `trained`, which lie as `layout` says, and of all frozen ones."""
        self._rounded = layout.buffer(torch.bfloat16)
        places = dict(zip(trained, layout.views(self._rounded), strict=True))
        self._copies: dict[nn.Parameter, nn.Parameter] = {}
        self._places = list(_places(network))
        for _, _, parameter in self._places:
            rounded = places.get(parameter)
            if rounded is None:
                rounded = parameter.detach().to(torch.bfloat16)
            self._copies[parameter] = nn.Parameter(rounded, parameter.requires_grad)

    def source_of(self, parameter: nn.Parameter) -> nn.Parameter:
        """Give the tensor whose gradient is a parameter's: its copy, or itself without one."""
        return self._copies.get(parameter, parameter)

    def refresh(self, values: Tensor) -> None:
        """Round the trained weights as they are now: a buffer of the layout."""
        self._rounded.copy_(values)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the trunk read the copies; its own weights are back afterwards, whatever happens."""
        try:
            for module, name, parameter in self._places:
                setattr(module, name, self._copies[parameter])
            yield
        finally:
            for module, name, parameter in self._places:
                setattr(module, name, parameter)


def _places(network: Network) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Name the weights that only such layers of the trunk read, and where each is."""
    others = {
        id(parameter)
        for module in network.modules()
        if type(module) not in READERS
        for parameter in module.parameters(recurse=False)
    }
    for module in network.trunk.modules():
        if type(module) in READERS:
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in others:
                    yield module, name, parameter
