"""AdamW and clipping for stacked heads, each with a rate, a decay, an epsilon and norms of its own.

The same steps as torch.optim.AdamW and clip_grad_norm_ on every head by itself (tests compare
them), without asking the device for a number: a step can be recorded as a CUDA graph.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from benchmark.experiment import Recipe
from benchmark.training.stacked_heads import StackedHeads

BETAS: Final = (0.9, 0.999)
"""torch's and Keras's defaults, which the trainer keeps."""


class StackedAdamW:
    """Adam's state for every parameter of `heads`, and the update; rates are set epoch by epoch.

    fused: torch's fused kernel on one head after another, where the device is a CPU: it reads
    every number once. Elsewhere a formula over all heads, in which settings are vectors.
    """

    def __init__(
        self, heads: StackedHeads, recipes: Sequence[Recipe], *, fused: bool | None = None
    ) -> None:
        self._heads = heads
        self._recipes = tuple(recipes)
        device = next(iter(heads.values.values())).device
        self._averages = {name: torch.zeros_like(value) for name, value in heads.values.items()}
        self._squares = {name: torch.zeros_like(value) for name, value in heads.values.items()}
        self._fused = device.type == "cpu" if fused is None else fused
        self._steps_done = 0
        self._rates: list[float] = []
        self._limits = _vector([recipe.clip_norm for recipe in recipes], device)
        self._epsilons = _vector([recipe.adam_epsilon for recipe in recipes], device)
        self._decays = any(recipe.weight_decay for recipe in recipes)
        # Of an epoch, a row per step: what depends on the step is worked out before it begins.
        self._step_sizes = self._roots = self._shrinkage = torch.empty(0, device=device)
        if self._fused:
            self._count = torch.zeros(())
            self._rows = [self._row(place) for place in range(len(recipes))]

    def only(self, heads: StackedHeads, rows: Tensor) -> "StackedAdamW":
        """Go on with `heads`, which are those at `rows`, (n,) int64 on the device."""
        recipes = [self._recipes[row] for row in rows.tolist()]
        chosen = StackedAdamW(heads, recipes, fused=self._fused)
        for kind in ("_averages", "_squares"):
            for name, value in getattr(self, kind).items():
                getattr(chosen, kind)[name].copy_(value.index_select(0, rows))
        chosen._steps_done = self._steps_done
        return chosen

    def begin_epoch(self, rates: Sequence[float], n_steps: int) -> None:
        """Set each head's learning rate for the next `n_steps` steps."""
        self._rates = list(rates)
        device = self._limits.device
        steps = torch.arange(1, n_steps + 1, dtype=torch.float64) + self._steps_done
        by_head = torch.tensor(self._rates, dtype=torch.float64)
        sizes = by_head / (1 - BETAS[0] ** steps).unsqueeze(1)
        decays = torch.tensor([recipe.weight_decay for recipe in self._recipes])
        self._step_sizes = _kept(self._step_sizes, sizes.float().to(device))
        self._roots = _kept(self._roots, (1 - BETAS[1] ** steps).sqrt().float().to(device))
        self._shrinkage = _kept(self._shrinkage, (1 - by_head * decays).float().to(device))
        self._steps_done += n_steps
        if self._fused:
            self._count.fill_(self._steps_done - n_steps)

    def step(self, at: Tensor) -> None:
        """Clip the gradients, and update every parameter once.

        at: (1,) int64 on the device, the step's number within the epoch, from 0.
        """
        self._clip()
        if self._fused:
            self._step_rows()
        else:
            self._step_all(at)

    def _clip(self) -> None:
        """Bound each head's gradients: every tensor by itself, or all of a head together."""
        clipping = self._recipes[0].clipping
        if clipping == "none":
            return
        gradients = self._heads.gradients
        norms = {
            name: torch.linalg.vector_norm(gradient.flatten(1), dim=1)
            for name, gradient in gradients.items()
        }
        if clipping == "global":
            whole = torch.linalg.vector_norm(torch.stack(list(norms.values())), dim=0)
            norms = dict.fromkeys(norms, whole)
        for name, gradient in gradients.items():
            # The form and the 1e-6 are clip_grad_norm_'s.
            factors = (self._limits / (norms[name] + 1e-6)).clamp_(max=1.0)
            gradient *= _shaped(factors, gradient)

    def _row(self, place: int) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Give views of one head's parameters, gradients and state, as the fused kernel asks."""
        kinds = (self._heads.values, self._heads.gradients, self._averages, self._squares)
        values, gradients, averages, squares = (
            [tensor[place] for tensor in kind.values()] for kind in kinds
        )
        return values, gradients, averages, squares

    def _step_rows(self) -> None:
        self._count += 1
        steps = [self._count] * len(self._heads.values)
        for recipe, rate, row in zip(self._recipes, self._rates, self._rows, strict=True):
            torch._fused_adamw_(
                *row,
                [],
                steps,
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=recipe.weight_decay,
                eps=recipe.adam_epsilon,
                amsgrad=False,
                maximize=False,
            )

    def _step_all(self, at: Tensor) -> None:
        """Update all heads with one call per operation: what differs by head is in one of them."""
        values, gradients = list(self._heads.values.values()), list(self._heads.gradients.values())
        averages, squares = list(self._averages.values()), list(self._squares.values())
        if self._decays:
            for value in values:
                value *= _shaped(self._shrinkage, value)
        torch._foreach_lerp_(averages, gradients, 1 - BETAS[0])
        torch._foreach_mul_(squares, BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - BETAS[1])
        scales = torch._foreach_sqrt(squares)
        # size * average / (root of square / bias + epsilon), the size moved below the line.
        sizes = self._step_sizes.index_select(0, at)[0]
        slopes = 1 / (sizes * self._roots.index_select(0, at))
        offsets = self._epsilons / sizes
        for scale in scales:
            scale *= _shaped(slopes, scale)
            scale += _shaped(offsets, scale)
        torch._foreach_addcdiv_(values, averages, scales, -1.0)


def _vector(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _shaped(by_head: Tensor, like: Tensor) -> Tensor:
    """View (k,) so that it multiplies (k, …)."""
    return by_head.view(-1, *[1] * (like.ndim - 1))


def _kept(old: Tensor, new: Tensor) -> Tensor:
    """Put new numbers where the old ones are: a recorded step reads from there."""
    return old.copy_(new) if old.shape == new.shape else new
