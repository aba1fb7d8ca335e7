"""The steps of stacked heads through an epoch: gathered features in, updated heads out.

No number is read from the device within an epoch. On a GPU a step is a few dozen short kernels, so
that it is recorded once as a CUDA graph and replayed; a CPU runs the very same lines.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.experiment import Recipe
from benchmark.faces.batches import gathered, split_into_batches
from benchmark.tasks import TaskName, n_classes
from benchmark.training.probabilities import EVALUATION_BATCH
from benchmark.training.stacked_adam import StackedAdamW
from benchmark.training.stacked_heads import StackedHeads
from benchmark.training.steps import WARM_UPS, Capture


@dataclass(frozen=True, eq=False)
class FarmFaces:
    """What all heads read: the faces' features, and their labels.

    activations: (n_faces, …), on the device or in the host's memory. labels: per task (n_faces,)
    int64 on the device. mirrored: as activations, of the mirror images, where heads flip faces;
    row n_faces + i means the mirror image of face i.
    """

    activations: Tensor
    labels: Mapping[TaskName, Tensor]
    mirrored: Tensor | None = None

    def __len__(self) -> int:
        return len(self.activations)

    @property
    def n_features(self) -> int:
        """The length of a face's features."""
        return self.activations[0].numel()

    def features(self, rows: Tensor) -> Tensor:
        """Gather (…, n_features) float32 for rows (…) on the device of `rows`."""
        wanted = rows.reshape(-1)
        found = gathered(self.activations.flatten(1), wanted % len(self), rows.device)
        if self.mirrored is not None:
            other = gathered(self.mirrored.flatten(1), wanted % len(self), rows.device)
            found = torch.where((wanted >= len(self)).unsqueeze(1), other, found)
        return found.float().view(*rows.shape, -1)


def _say_nothing(_sentence: str) -> None:
    """Stand in for a listener."""


@dataclass(frozen=True)
class Recorder:
    """What records a farm's steps, if anything does, and who is told where that does not work."""

    capture: Capture | None = None
    say: Callable[[str], None] = _say_nothing


class FarmSteps:
    """One epoch after another for heads of one shape and rhythm."""

    def __init__(
        self,
        learners: StackedHeads,
        adam: StackedAdamW,
        faces: FarmFaces,
        recipes: Sequence[Recipe],
        recorder: Recorder,
    ) -> None:
        self._learners, self._adam, self._faces = learners, adam, faces
        self._batch_size = recipes[0].batch_size
        tasks = learners.definition.tasks
        device = next(iter(learners.values.values())).device
        weights = [[_weight(recipe, task, tasks) for recipe in recipes] for task in tasks]
        self._weights = dict(zip(tasks, torch.tensor(weights, device=device), strict=True))
        self._truths = {
            task: functional.one_hot(faces.labels[task], n_classes(task)).float() for task in tasks
        }
        self._losses = torch.zeros(len(recipes), device=device)
        self._hits = {
            task: torch.zeros(len(recipes), dtype=torch.int64, device=device) for task in tasks
        }
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._batches = torch.empty(0, dtype=torch.int64, device=device)
        self._capture, self._say = recorder.capture, recorder.say
        self._replay: Callable[[], None] | None = None

    def train(self, orders: Tensor, rates: Sequence[float]) -> Iterator[int]:
        """Train one epoch, yielding after each step how many faces a head has seen.

        orders: (k, n) rows for each head on the CPU. rates: each head's learning rate.
        """
        spans = [len(span) for span in split_into_batches(orders[0], self._batch_size)]
        n_full = spans.count(self._batch_size)
        whole = orders[:, : n_full * self._batch_size]
        batches = whole.view(len(orders), n_full, self._batch_size).transpose(0, 1).contiguous()
        self._batches = _placed(self._batches, batches, self._at.device)
        self._adam.begin_epoch(rates, len(spans))
        for total in (self._losses, *self._hits.values(), self._at):
            total.zero_()
        for number in range(self._recorded(n_full), n_full):
            (self._replay or self._next_step)()
            yield (number + 1) * self._batch_size
        if n_full < len(spans):
            self._step(orders[:, whole.shape[1] :].to(self._at.device))
            yield orders.shape[1]

    def _recorded(self, n_full: int) -> int:
        """Record a step, if that is wanted and not done; give how many were taken to warm up.

        They are the epoch's own first steps: nothing has to be put back.
        """
        if self._replay is not None or self._capture is None or n_full <= WARM_UPS:
            return 0
        try:
            self._capture.warm_up(self._next_step)
            self._replay = self._capture.record(self._next_step)
        except RuntimeError as error:
            self._capture = None
            self._say(f"The farm's step cannot be recorded as a CUDA graph ({error}): going on "
                      "operation by operation")  # fmt: skip
        return int(self._at)

    def _next_step(self) -> None:
        """Take the epoch's next full step; which one that is, the device counts."""
        self._step(self._batches.index_select(0, self._at)[0])

    def _step(self, rows: Tensor) -> None:
        """Take one step with rows (k, n): forward, backward, clip, update, and count."""
        n = rows.shape[1]
        passed = self._learners.forward(self._faces.features(rows))
        faces = rows.reshape(-1) % len(self._faces)
        errors = {}
        for task, logits in passed.logits.items():
            truths = self._truths[task].index_select(0, faces).view_as(logits)
            weights = self._weights[task]
            log_shares = logits.log_softmax(2)
            self._losses -= (log_shares * truths).sum((1, 2)) * weights
            self._hits[task] += (logits.argmax(2) == truths.argmax(2)).sum(1)
            # The gradient of softmax and cross-entropy, averaged over the batch.
            errors[task] = log_shares.exp_().sub_(truths).mul_((weights / n).view(-1, 1, 1))
        self._learners.backward(passed, errors)
        self._adam.step(self._at)
        self._at += 1

    def mean_losses(self, n_seen: int) -> list[float]:
        """Give each head's loss, averaged over the `n_seen` faces of the epoch; waits for it."""
        return [float(loss) / n_seen for loss in self._losses.tolist()]

    def hits(self) -> dict[TaskName, list[int]]:
        """Give each head's right answers over the epoch, as it was trained on them."""
        return {task: count.tolist() for task, count in self._hits.items()}

    def right_answers(self, rows: Tensor) -> dict[TaskName, list[int]]:
        """Count each head's right answers on rows, (n,) for all heads or (k, n), read once."""
        totals = {task: torch.zeros_like(count) for task, count in self._hits.items()}
        k = len(self._learners)
        for batch in torch.split(rows, EVALUATION_BATCH, dim=-1):
            features = self._faces.features(batch).expand(k, -1, -1)
            for task, logits in self._learners.forward(features).logits.items():
                truths = self._faces.labels[task].index_select(0, batch.reshape(-1))
                totals[task] += (logits.argmax(2) == truths.view(batch.shape)).sum(1)
        return {task: total.tolist() for task, total in totals.items()}


def _weight(recipe: Recipe, task: TaskName, tasks: Sequence[TaskName]) -> float:
    """Weigh a task's loss; a single task counts 1."""
    return float(getattr(recipe.loss_weights, task)) if len(tasks) > 1 else 1.0


def _placed(old: Tensor, new: Tensor, device: torch.device) -> Tensor:
    """Put an epoch's batches where the last epoch's are: a recorded step reads from there."""
    return old.copy_(new) if old.shape == new.shape else new.to(device)
