"""What an epoch's steps add up to, gathered on the device and read rarely."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from benchmark.tasks import TaskName


class Totals:
    """Losses and right answers; reading a number makes the host wait, so that no step does it.

    Everything is added in place, so that a CUDA graph can go on adding to the same tensors.
    """

    def __init__(self, tasks: Sequence[TaskName], device: torch.device) -> None:
        self.n_images = 0
        self._loss = torch.zeros((), device=device)
        self._hits = {task: torch.zeros((), dtype=torch.int64, device=device) for task in tasks}

    def reset(self) -> None:
        """Start an epoch anew."""
        self.n_images = 0
        for total in (self._loss, *self._hits.values()):
            total.zero_()

    def add(
        self, loss: Tensor, logits: Mapping[TaskName, Tensor], truths: Mapping[TaskName, Tensor]
    ) -> None:
        """Take in a step's mean loss and answers, on the device; the images are counted apart."""
        for task, values in logits.items():
            self._hits[task] += (values.detach().argmax(1) == truths[task]).sum()
        self._loss += loss.detach() * len(next(iter(truths.values())))

    def mean_loss(self) -> float:
        """Read the mean loss of the images counted so far."""
        return float(self._loss) / max(1, self.n_images)

    def accuracies(self) -> dict[TaskName, float]:
        """Read the fraction of right answers per task, in [0, 1]."""
        return {task: int(hits) / self.n_images for task, hits in self._hits.items()}
