"""The training loss, and the clipping of its gradients; both follow the study's Keras settings."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from benchmark.experiment import LossWeights, Recipe
from benchmark.tasks import TaskName


def weighted_cross_entropy(
    logits: Mapping[TaskName, Tensor], truths: Mapping[TaskName, Tensor], weights: LossWeights
) -> Tensor:
    """Sum the tasks' mean cross-entropies, weighted; a single task counts 1. Returns a scalar.

    logits: per task (n, classes) float32; truths: per task (n,) int64.
    """
    losses = {
        task: functional.cross_entropy(values.float(), truths[task])
        for task, values in logits.items()
    }
    if len(losses) == 1:
        return next(iter(losses.values()))
    terms = [getattr(weights, task) * loss for task, loss in losses.items()]
    return torch.stack(terms).sum()


def clip_gradients(parameters: Iterable[Tensor], recipe: Recipe) -> None:
    """Bound the gradients' L2 norm in place.

    `per_variable` is what Keras calls `clipnorm`: every tensor by itself, not all together. The
    numbers are those of torch's `clip_grad_norm_` called for one tensor after another; all at
    once, they take a handful of calls instead of ten per tensor.
    """
    if recipe.clipping == "per_variable":
        gradients = [item.grad for item in parameters if item.grad is not None]
        if gradients:
            norms = torch.stack(torch._foreach_norm(gradients))
            factors = (recipe.clip_norm / (norms + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, list(factors.unbind()))
    elif recipe.clipping == "global":
        clip_grad_norm_(parameters, recipe.clip_norm)
