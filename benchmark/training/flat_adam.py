"""AdamW's update of all parameters as if they were one; its state is torch's own.

torch's fused kernel is started once for every 30 tensors, and gives a block of threads 65,536
numbers: of a head with 200,000, four multiprocessors work and 128 look on. Cut into equal pieces,
all parameters of a rate are stepped at once, by the same kernel, to the same numbers.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor

from benchmark.training.layout import ALIGNMENT, Layout

PIECES: Final = 30
"""Tensors that one start of the fused kernel takes (DEPTH 5 in torch's MultiTensorApply.cuh)."""
STATE: Final = ("exp_avg", "exp_avg_sq")


class FlatAdamW:
    """Steps parameters that lie in one buffer; their state, wherever it was, moves into others.

    The optimiser itself goes on working: it looks at the same tensors.
    """

    is_even: bool
    """Whether all have been stepped equally often: only then can they be stepped as one."""

    def __init__(
        self, optimiser: torch.optim.Optimizer, layout: Layout, values: Tensor, gradients: Tensor
    ) -> None:
        """values, gradients: buffers of the layout, in the order of the optimiser's groups."""
        groups = optimiser.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        self._steps = torch.zeros(len(parameters), device=values.device)
        state = {name: layout.buffer() for name in STATE}
        places = {name: layout.views(buffer) for name, buffer in state.items()}
        for place, parameter in enumerate(parameters):
            mine = {name: views[place] for name, views in places.items()}
            mine["step"] = self._steps[place]
            for name, before in optimiser.state.get(parameter, {}).items():
                mine[name].copy_(before)
            optimiser.state[parameter] = mine
        self.is_even = bool((self._steps == self._steps[0]).all())
        self._groups: list[tuple[dict[str, Any], slice, int]] = []
        self._buffers = (values, gradients, *state.values())
        first = 0
        for group in groups:
            n = len(group["params"])
            self._groups.append((group, layout.span(first, n), first))
            first += n
        self._pieces = [
            [list(_in_pieces(buffer[here])) for buffer in self._buffers]
            for _, here, _ in self._groups
        ]

    def step(self) -> None:
        """Update every parameter once, by the gradients in the buffer."""
        self._steps += 1
        for (group, _, first), pieces in zip(self._groups, self._pieces, strict=True):
            values, gradients, averages, squares = pieces
            torch._fused_adamw_(
                values,
                gradients,
                averages,
                squares,
                [],
                [self._steps[first]] * len(values),
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def step_with(self, kernels: ModuleType, owners: Tensor, factors: Tensor | None) -> None:
        """Do the same by a kernel of ours, each gradient scaled by its factor on the way.

        owners: of each block the place of its factor, (blocks,) int64; factors: float32, or None.
        """
        self._steps += 1
        for group, here, first in self._groups:
            blocks = slice(here.start // ALIGNMENT, here.stop // ALIGNMENT)
            mine = tuple(buffer[here] for buffer in self._buffers)
            rate = torch.as_tensor(group["lr"], device=owners.device)
            kernels.adamw(mine, owners[blocks], factors, self._steps[first], rate, group)


def _in_pieces(numbers: Tensor) -> Iterator[Tensor]:
    """Cut a buffer's part into at most PIECES, in whole blocks."""
    n_blocks = len(numbers) // ALIGNMENT
    yield from torch.split(numbers, ALIGNMENT * max(1, -(-n_blocks // PIECES)))
