"""The gradients of a step, from the backward passes to what the optimiser reads.

`Gradients` leaves them where autograd puts them, which suits a CPU. `GatheredGradients` lays them
into one buffer, where a handful of kernels rounds, clips and scales all of them: a GPU takes
microseconds for a kernel however little there is to do. The numbers are the same.
"""

import contextlib
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.experiment import Recipe
from benchmark.training.losses import clip_gradients, clipping_factors
from benchmark.training.reading import Reader
from benchmark.training.working_weights import WorkingWeights

ALIGNMENT: Final = 128
"""Floats to which a gradient's place is rounded up, so that every block of them has one owner."""


class Gradients:
    """Gradients as autograd leaves them, a tensor for each trained parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)

    def begin(self) -> None:
        """Forget those of the step before."""
        for parameter in self._parameters:
            parameter.grad = None

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Surround a forward and backward pass with what it needs."""
        return contextlib.nullcontext()

    def take(self) -> None:
        """Take in the gradients of a backward pass, beside those of earlier ones."""

    def finish(self, recipe: Recipe) -> None:
        """Clip them, and leave each where the optimiser looks: at its parameter."""
        clip_gradients(self._parameters, recipe)


class GatheredGradients(Gradients):
    """Gradients side by side in one float32 buffer; with `working`, of its bf16 copies."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], working: WorkingWeights | None = None
    ) -> None:
        super().__init__(parameters)
        self._working = working
        self._sources = [
            parameter if working is None else working.source_of(parameter)
            for parameter in self._parameters
        ]
        blocks = [-(-parameter.numel() // ALIGNMENT) for parameter in self._parameters]
        device = self._parameters[0].device
        self._blocks = torch.zeros(sum(blocks), ALIGNMENT, device=device)
        self._owners = torch.repeat_interleave(
            torch.arange(len(blocks), device=device), torch.tensor(blocks, device=device)
        )
        starts = [ALIGNMENT * sum(blocks[:place]) for place in range(len(blocks))]
        self._places = [
            _like(parameter, self._blocks, start)
            for parameter, start in zip(self._parameters, starts, strict=True)
        ]
        self._taken: set[int] = set()

    def begin(self) -> None:
        """Forget those of the step before, and read the weights as they are now."""
        super().begin()
        for source in self._sources:
            source.grad = None
        self._taken.clear()
        if self._working is not None:
            self._working.refresh()

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Let the trunk read its working weights, if there are any."""
        return contextlib.nullcontext() if self._working is None else self._working.in_place()

    def take(self) -> None:
        """Move the gradients of a backward pass into the buffer, beside those of earlier ones."""
        for dtype in {source.dtype for source in self._sources}:
            fresh = [
                (place, source.grad)
                for place, source in enumerate(self._sources)
                if source.grad is not None and source.dtype == dtype
            ]
            first = [pair for pair in fresh if pair[0] not in self._taken]
            again = [pair for pair in fresh if pair[0] in self._taken]
            if first:
                targets = [self._places[place] for place, _ in first]
                torch._foreach_copy_(targets, [values for _, values in first])
            if again:
                targets = [self._places[place] for place, _ in again]
                torch._foreach_add_(targets, [values.float() for _, values in again])
            self._taken.update(place for place, _ in fresh)
        for source in self._sources:
            source.grad = None

    def finish(self, recipe: Recipe) -> None:
        """Clip all at once, and show each parameter its own; one without a gradient has none."""
        self._clip(recipe)
        for place in self._taken:
            self._parameters[place].grad = self._places[place]

    def _clip(self, recipe: Recipe) -> None:
        if recipe.clipping == "none" or not self._taken:
            return
        # What nobody gave a gradient is zero: it adds nothing, and is handed to nobody.
        factors = clipping_factors(self._places, recipe)
        if len(factors) > 1:
            factors = factors.index_select(0, self._owners)
        self._blocks *= factors.unsqueeze(1)


def _like(parameter: Tensor, blocks: Tensor, start: int) -> Tensor:
    """Give a view of the buffer that lies as a parameter does: its shape, in its order."""
    # As torch would lay out a copy, which is how Adam's own state lies.
    strides = torch.empty_like(parameter, device="meta").stride()
    return blocks.view(-1).as_strided(parameter.shape, strides, start)


def gradients_for(reader: Reader, trained: Sequence[nn.Parameter]) -> Gradients:
    """Give what suits the device: on a GPU kernels are few, on a CPU copies are."""
    if reader.device.kind != "cuda" or not trained:
        return Gradients(trained)
    return GatheredGradients(trained, working_weights_for(reader))


def working_weights_for(reader: Reader) -> WorkingWeights | None:
    """Give rounded copies of what a step reads; None where nothing is rounded."""
    if reader.device.precision != "bf16":
        return None
    return WorkingWeights(reader.network, trained_alone=reader.prefix is not None)
