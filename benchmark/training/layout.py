"""Where each of many tensors lies in one buffer, so that one kernel reads them all.

A GPU takes microseconds to start a kernel, however little there is to do; of tensors that lie
side by side, all are rounded, scaled or stepped at once.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

ALIGNMENT: Final = 1024
"""Numbers to which a tensor's place is rounded up, so that every block of them has one owner, and
whole vectors of them are read at once."""


class Layout:
    """Places for tensors of certain shapes, one after another, each with its own strides."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._likes = [(tensor.shape, _strides(tensor)) for tensor in tensors]
        self._device = tensors[0].device
        self._blocks = [-(-tensor.numel() // ALIGNMENT) for tensor in tensors]
        self._starts = [ALIGNMENT * sum(self._blocks[:place]) for place in range(len(tensors))]

    def buffer(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Make room for all: zeros, (numbers,)."""
        return torch.zeros(ALIGNMENT * sum(self._blocks), dtype=dtype, device=self._device)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """Give the tensors that lie in a buffer, in order."""
        return [
            buffer.as_strided(shape, strides, start)
            for (shape, strides), start in zip(self._likes, self._starts, strict=True)
        ]

    def span(self, first: int, n: int) -> slice:
        """Give the part of a buffer that holds `n` tensors from `first` on, and nothing else."""
        start = ALIGNMENT * sum(self._blocks[:first])
        return slice(start, start + ALIGNMENT * sum(self._blocks[first : first + n]))

    def starts(self) -> Tensor:
        """Give the first block of each tensor, and the end of the last: (tensors + 1,) int64."""
        first = [start // ALIGNMENT for start in self._starts]
        return torch.tensor([*first, sum(self._blocks)], device=self._device)

    def owners(self) -> Tensor:
        """Say of each block of a buffer whose it is: (numbers / ALIGNMENT,) int64."""
        places = torch.arange(len(self._blocks), device=self._device)
        return places.repeat_interleave(torch.tensor(self._blocks, device=self._device))


def _strides(tensor: Tensor) -> tuple[int, ...]:
    # As torch would lay out a copy, which is how Adam's own state lies.
    return torch.empty_like(tensor, device="meta").stride()
