"""The training loss, and the clipping of its gradients; both follow the study's Keras settings."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from benchmark.experiment.definition import LossWeights, Recipe
from benchmark.tasks import MISSING, TaskName, n_classes


class BatchLoss(NamedTuple):
    """Loss and hits of one batch."""

    loss: Tensor
    """A scalar: the weighted sum of the tasks' cross entropies; a single task counts 1."""
    hits: Tensor
    """(tasks,) int64: correct predictions per task, in the tasks' order."""
    n_faces: int


class TaskLoss:
    """Weighted cross entropy of all tasks at once, and how many predictions are correct.

    The tasks lie side by side in one tensor, with −inf where one has fewer classes than another:
    this takes a third of the GPU kernels that one task after another takes.
    """

    def __init__(
        self, tasks: tuple[TaskName, ...], labels: Mapping[TaskName, Tensor],
        weights: LossWeights, rows: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Prepare for faces with labels, per task (n_faces,) int64 on the device.

        A label that is MISSING counts for nothing. rows: those that are trained on, (n,) int64. A
        task's loss is divided by the share of them that has its label: over an epoch it is the mean
        cross entropy of the labelled faces, and every one of them counts alike.
        """
        self._tasks = tasks
        self._sizes = [n_classes(task) for task in tasks]
        self._widest = max(self._sizes)
        self._truths = torch.stack([labels[task] for task in tasks], dim=1)
        device = self._truths.device
        self._is_truth = self._truths.unsqueeze(2) == torch.arange(self._widest, device=device)
        n_faces = len(self._truths) if rows is None else len(rows)
        by_task = [
            (getattr(weights, task) if len(tasks) > 1 else 1.0) / (max(1, count) / n_faces)
            for task, count in label_counts(tasks, labels, rows).items()
        ]
        self._weights = torch.tensor(by_task, dtype=torch.float32, device=device)
        self._padding: dict[tuple[int, int], Tensor] = {}

    def __call__(self, logits: Mapping[TaskName, Tensor], rows: Tensor) -> BatchLoss:
        """Compute the loss of logits (n, classes) per task of the faces in `rows`, (n,) int64."""
        n, pieces = len(rows), []
        for task, size in zip(self._tasks, self._sizes, strict=True):
            pieces.append(logits[task].float())
            if size < self._widest:
                pieces.append(self._minus_infinity(n, self._widest - size))
        side_by_side = torch.cat(pieces, dim=1).view(n, len(self._tasks), self._widest)
        log_p = side_by_side.log_softmax(2)
        truth_log_p = torch.where(self._is_truth.index_select(0, rows), log_p, 0.0).sum((0, 2))
        loss = torch.dot(truth_log_p, self._weights) * (-1 / n)
        correct = log_p.detach().argmax(2) == self._truths.index_select(0, rows)
        return BatchLoss(loss, correct.sum(0), n)

    def _minus_infinity(self, n: int, width: int) -> Tensor:
        """Give (n, width) of −inf, made once: a CUDA graph reads it from where it is."""
        if (n, width) not in self._padding:
            device = self._weights.device
            self._padding[n, width] = torch.full((n, width), -torch.inf, device=device)
        return self._padding[n, width]


def label_counts(
    tasks: tuple[TaskName, ...], labels: Mapping[TaskName, Tensor], rows: Tensor | None = None
) -> dict[TaskName, int]:
    """Count per task the faces that have its label; rows: among these alone, (n,) int64."""
    chosen = {task: labels[task] if rows is None else labels[task][rows] for task in tasks}
    return {task: int((values != MISSING).sum()) for task, values in chosen.items()}


def clip_gradients(parameters: Iterable[Tensor], recipe: Recipe) -> None:
    """Bound the gradients' L2 norm in place, to the numbers of torch's `clip_grad_norm_`.

    `per_variable` is what Keras calls `clipnorm`: every tensor by itself, not all together.
    """
    gradients = [item.grad for item in parameters if item.grad is not None]
    if recipe.clipping == "none" or not gradients:
        return
    norms = torch.stack(torch._foreach_norm(gradients))
    if recipe.clipping == "global":
        norms = torch.linalg.vector_norm(norms).view(1)
    factors = (recipe.clip_norm / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.expand(len(gradients)).unbind()))
