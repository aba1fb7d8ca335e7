"""What an epoch's steps add up to, gathered on the device and read rarely."""

from collections.abc import Sequence

import torch

from benchmark.tasks import TaskName
from benchmark.training.losses import Answer


class Totals:
    """Losses and right answers; reading a number makes the host wait, so that no step does it.

    Everything is added in place, so that a CUDA graph can go on adding to the same tensors.
    """

    def __init__(self, tasks: Sequence[TaskName], device: torch.device) -> None:
        self.tasks = tuple(tasks)
        self.n_images = 0
        self._loss = torch.zeros((), device=device)
        self._hits = torch.zeros(len(tasks), dtype=torch.int64, device=device)

    def reset(self) -> None:
        """Start an epoch anew."""
        self.n_images = 0
        self._loss.zero_()
        self._hits.zero_()

    def add(self, answer: Answer) -> None:
        """Take in a step's answer, on the device; the images are counted apart."""
        self._hits += answer.hits
        self._loss.add_(answer.loss, alpha=answer.n_faces)

    def mean_loss(self) -> float:
        """Read the mean loss of the images counted so far."""
        return float(self._loss) / max(1, self.n_images)

    def accuracies(self) -> dict[TaskName, float]:
        """Read the fraction of right answers per task, in [0, 1]."""
        hits = self._hits.tolist()
        return {task: count / self.n_images for task, count in zip(self.tasks, hits, strict=True)}
