"""From a backward pass to changed weights: gradients are gathered, clipped and learnt from.

`Update` goes tensor by tensor, which suits a CPU. `FlatUpdate` lets weights, gradients and Adam's
state lie side by side, so that a step needs a dozen kernels for that and not several for every
tensor. What is learnt is the same.
"""

import contextlib
from types import ModuleType

import torch
from torch import nn

from benchmark.experiment import Recipe
from benchmark.training.flat_adam import FlatAdamW
from benchmark.training.layout import ALIGNMENT, Layout
from benchmark.training.losses import clip_gradients, clipping_factors
from benchmark.training.own_kernels import own_kernels
from benchmark.training.reading import Reader
from benchmark.training.working_weights import WorkingWeights


class Update:
    """Updates each trained parameter by its own gradient, where autograd leaves it."""

    def __init__(self, optimiser: torch.optim.Optimizer, recipe: Recipe) -> None:
        self._optimiser, self._recipe = optimiser, recipe
        self._parameters: list[nn.Parameter] = [
            parameter for group in optimiser.param_groups for parameter in group["params"]
        ]

    def begin(self) -> None:
        """Forget the gradients of the step before."""
        self._optimiser.zero_grad(set_to_none=True)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Surround a forward and backward pass with what it needs."""
        return contextlib.nullcontext()

    def take(self) -> None:
        """Take in the gradients of a backward pass, beside those of earlier ones."""

    def finish(self) -> None:
        """Clip what was taken in, and learn from it."""
        clip_gradients(self._parameters, self._recipe)
        self._optimiser.step()


class FlatUpdate(Update):
    """Updates parameters that lie in one buffer; they are moved there, and stay."""

    def __init__(self, optimiser: torch.optim.Optimizer, recipe: Recipe, reader: Reader) -> None:
        super().__init__(optimiser, recipe)
        layout = Layout(self._parameters)
        self._values, self._gradients = layout.buffer(), layout.buffer()
        for parameter, place in zip(self._parameters, layout.views(self._values), strict=True):
            parameter.data = place.copy_(parameter.data)
        self._adam = FlatAdamW(optimiser, layout, self._values, self._gradients)
        self._places = layout.views(self._gradients)
        self._blocks = self._gradients.view(-1, ALIGNMENT)
        self._owners, self._starts = layout.owners(), layout.starts()
        if recipe.clipping == "global":
            self._owners, self._starts = self._owners * 0, self._starts[[0, -1]]
        self._factors = torch.ones(len(self._starts) - 1, device=self._values.device)
        self._sums = torch.zeros(len(self._blocks), device=self._values.device)
        self._kernels = own_kernels(self._values.device)
        self._working: WorkingWeights | None = None
        if reader.device.precision == "bf16":
            self._working = WorkingWeights(reader.network, self._parameters, layout)
        self._sources = [
            parameter if self._working is None else self._working.source_of(parameter)
            for parameter in self._parameters
        ]
        self._taken: set[int] = set()

    def begin(self) -> None:
        """Forget the gradients of the step before; round the weights as they are now."""
        super().begin()
        for source in self._sources:
            source.grad = None
        self._taken.clear()
        if self._working is not None:
            self._working.refresh(self._values)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Let the trunk read rounded weights, where the arithmetic is in bf16."""
        return contextlib.nullcontext() if self._working is None else self._working.in_place()

    def take(self) -> None:
        """Move the gradients of a backward pass into the buffer, or add them to what is there."""
        found = [
            (place, source.grad)
            for place, source in enumerate(self._sources)
            if source.grad is not None
        ]
        again = [(place, values) for place, values in found if place in self._taken]
        first = [(place, values) for place, values in found if place not in self._taken]
        for place, values in again:
            # In float32, as autograd adds what autocast has rounded.
            self._places[place] += values
        for dtype in (torch.bfloat16, torch.float32):
            alike = [(place, values) for place, values in first if values.dtype == dtype]
            if alike:
                targets = [self._places[place] for place, _ in alike]
                torch._foreach_copy_(targets, [values for _, values in alike])
        self._taken.update(place for place, _ in first)
        for source in self._sources:
            source.grad = None

    def finish(self) -> None:
        """Clip all at once, and learn from all at once, unless some have no gradient."""
        is_whole = len(self._taken) == len(self._parameters) and self._adam.is_even
        if is_whole and self._kernels is not None:
            self._finish_with(self._kernels)
            return
        for place in set(range(len(self._places))) - self._taken:
            # A gradient of an earlier step is none of this one's, and adds nothing to its norm.
            self._places[place].zero_()
        if self._recipe.clipping != "none" and self._taken:
            factors = clipping_factors(self._places, self._recipe)
            self._blocks *= factors.index_select(0, self._owners).unsqueeze(1)
        if is_whole:
            self._adam.step()
            return
        self._adam.is_even = False
        for place in self._taken:
            self._parameters[place].grad = self._places[place]
        self._optimiser.step()

    def _finish_with(self, kernels: ModuleType) -> None:
        if self._recipe.clipping == "none":
            self._adam.step_with(kernels, self._owners, None)
            return
        kernels.clipping_factors(
            self._gradients, self._starts, self._recipe.clip_norm, self._sums, self._factors
        )
        self._adam.step_with(kernels, self._owners, self._factors)


def update_for(optimiser: torch.optim.Optimizer, recipe: Recipe, reader: Reader) -> Update:
    """Give what suits the device: on a GPU kernels are to be few, on a CPU copies are."""
    is_flat = reader.device.kind == "cuda"
    return FlatUpdate(optimiser, recipe, reader) if is_flat else Update(optimiser, recipe)
