"""The bf16 weights that a trunk multiplies by, copied from the fp32 ones in one go.

Autocast rounds every weight by itself in every step, a kernel each, and every gradient back again;
hundreds of kernels that each take longer to start than to run. Here all are rounded at once, to
the same numbers.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.models.network import Network

READERS: Final = (nn.Conv2d, nn.Linear)
"""Layers whose weights autocast rounds. Exactly these: what is derived of them may do something
else with its weights first (standardise them, say), and rounds for itself as before."""


class WorkingWeights:
    """Rounded copies of the weights of a trunk's convolutions and products."""

    def __init__(self, network: Network, *, trained_alone: bool) -> None:
        """Copy the weights; trained_alone: where the frozen ones are not read in a step."""
        self._copies: dict[nn.Parameter, nn.Parameter] = {}
        self._places: list[tuple[nn.Module, str, nn.Parameter]] = []
        elsewhere = {
            id(parameter)
            for module in network.modules()
            if type(module) not in READERS
            for parameter in module.parameters(recurse=False)
        }
        for module in network.trunk.modules():
            if type(module) not in READERS:
                continue
            for name, parameter in module.named_parameters(recurse=False):
                is_read = parameter.requires_grad or not trained_alone
                if is_read and id(parameter) not in elsewhere:
                    self._places.append((module, name, parameter))
                    self._copy_of(parameter)
        self._trained: list[Tensor] = [item for item in self._copies if item.requires_grad]
        self._rounded: list[Tensor] = [
            copy for item, copy in self._copies.items() if item.requires_grad
        ]

    def _copy_of(self, parameter: nn.Parameter) -> None:
        rounded = parameter.detach().to(torch.bfloat16)
        self._copies[parameter] = nn.Parameter(rounded, requires_grad=parameter.requires_grad)

    def source_of(self, parameter: nn.Parameter) -> nn.Parameter:
        """Give the tensor whose gradient is a parameter's: its copy, or itself without one."""
        return self._copies.get(parameter, parameter)

    def refresh(self) -> None:
        """Round the trained weights as they are now."""
        if self._trained:
            with torch.no_grad():
                torch._foreach_copy_(self._rounded, self._trained)

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
