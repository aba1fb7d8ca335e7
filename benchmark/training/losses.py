"""The training loss, and the clipping of its gradients; both follow the study's Keras settings."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.experiment.definition import LossWeights, Recipe
from benchmark.tasks import TaskName, n_classes


class Answer(NamedTuple):
    """What a batch was answered; of an answer that is `detached` nothing holds activations."""

    loss: Tensor
    """A scalar: the weighted sum of the tasks' mean cross-entropies; a single task counts 1."""
    hits: Tensor
    """(tasks,) int64: right answers per task, in the tasks' order."""
    n_faces: int

    def detached(self) -> "Answer":
        """Give the same numbers without the way to their gradients."""
        return Answer(self.loss.detach(), self.hits, self.n_faces)


class TaskLoss:
    """Weighted cross-entropy of all tasks at once, and how many answers are right.

    The tasks lie side by side in one tensor, with −inf where one has fewer classes than another: a
    GPU takes microseconds for a kernel, whatever it does, and this takes a third of the kernels
    that one task after another takes.
    """

    def __init__(
        self, tasks: tuple[TaskName, ...], labels: Mapping[TaskName, Tensor], weights: LossWeights
    ) -> None:
        """Prepare for faces whose labels are known: per task (n_faces,) int64 on the device."""
        self._tasks = tasks
        self._sizes = [n_classes(task) for task in tasks]
        self._widest = max(self._sizes)
        self._truths = torch.stack([labels[task] for task in tasks], dim=1)
        classes = torch.arange(self._widest, device=self._truths.device)
        self._is_truth = self._truths.unsqueeze(2) == classes
        by_task = [getattr(weights, task) if len(tasks) > 1 else 1.0 for task in tasks]
        self._weights = torch.tensor(by_task, dtype=torch.float32, device=self._truths.device)
        self._padding: dict[tuple[int, int], Tensor] = {}

    def __call__(self, logits: Mapping[TaskName, Tensor], rows: Tensor) -> Answer:
        """Judge logits (n, classes) per task of the faces in `rows`, (n,) int64."""
        n = len(rows)
        shares = self._side_by_side(logits).log_softmax(2)
        told = torch.where(self._is_truth.index_select(0, rows), shares, 0.0).sum((0, 2))
        loss = torch.dot(told, self._weights) * (-1 / n)
        right = shares.detach().argmax(2) == self._truths.index_select(0, rows)
        return Answer(loss, right.sum(0), n)

    def _side_by_side(self, logits: Mapping[TaskName, Tensor]) -> Tensor:
        """Lay the logits of all tasks into (n, tasks, widest) float32."""
        pieces = []
        for task, size in zip(self._tasks, self._sizes, strict=True):
            values = logits[task].float()
            pieces.append(values)
            if size < self._widest:
                pieces.append(self._nothing(len(values), self._widest - size))
        n = len(pieces[0])
        return torch.cat(pieces, dim=1).view(n, len(self._tasks), self._widest)

    def _nothing(self, n: int, width: int) -> Tensor:
        """Give (n, width) of −inf, made once: a recorded step reads it from where it is."""
        if (n, width) not in self._padding:
            self._padding[n, width] = torch.full(
                (n, width), -torch.inf, device=self._weights.device
            )
        return self._padding[n, width]


def weighted_cross_entropy(
    logits: Mapping[TaskName, Tensor], truths: Mapping[TaskName, Tensor], weights: LossWeights
) -> Tensor:
    """Sum the tasks' mean cross-entropies, weighted; a single task counts 1. Returns a scalar.

    The definition, one task after another; `TaskLoss` gives the same number with fewer kernels.
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
    gradients = [item.grad for item in parameters if item.grad is not None]
    if recipe.clipping != "none" and gradients:
        factors = clipping_factors(gradients, recipe)
        torch._foreach_mul_(gradients, list(factors.expand(len(gradients)).unbind()))


def clipping_factors(gradients: list[Tensor], recipe: Recipe) -> Tensor:
    """Give what bounds the gradients' norms, at most 1: (tensors,), or (1,) for all together.

    The form and the 1e-6 are clip_grad_norm_'s.
    """
    norms = torch.stack(torch._foreach_norm(gradients))
    if recipe.clipping == "global":
        norms = torch.linalg.vector_norm(norms).view(1)
    return (recipe.clip_norm / (norms + 1e-6)).clamp(max=1.0)
