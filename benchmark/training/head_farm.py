"""The head farm: many heads trained at once on one table of frozen features.

Each head ends where the trainer would have taken it alone, up to rounding: the same first values,
batches, loss, clipping, rates, and choice of the best epoch. Heads of one shape go through each
step together (benchmark.training.stacked_heads). Like the trainer, it yields what happened.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.errors import ExperimentError, RunError
from benchmark.experiment import Augmentation, Experiment, Recipe
from benchmark.faces.batches import (
    generator_for,
    random_order,
    random_passes,
    split_into_batches,
)
from benchmark.models.heads import build_head
from benchmark.models.initialisation import initialise_head, seeded
from benchmark.tasks import TaskName, combined
from benchmark.training.device import Device
from benchmark.training.farm_steps import FarmFaces as FarmFaces
from benchmark.training.farm_steps import FarmSteps, Recorder
from benchmark.training.stacked_adam import StackedAdamW
from benchmark.training.stacked_heads import StackedHeads
from benchmark.training.steps import CudaCapture, SpeedSettings
from benchmark.training.trainer import PROGRESS_SECONDS, EpochResult

STATE_COPIES: Final = 5
"""A head's parameters are held so many times: they, their gradients, Adam's two, the selected."""
CPU_STATE_BYTES: Final = 24 * 2**20
"""Heads that share a step on a CPU hold no more than this: it has to stay in the last cache.

Measured for 1 to 28 heads of 200,000 parameters in a step: docs/FARM.md."""
GPU_STATE_FRACTION: Final = 0.5
"""Of a GPU's free memory; the rest is for a step's intermediate values and the features."""


@dataclass(frozen=True)
class FarmedHead:
    """One head of a farm: its definition, the seed of its first values and orders, its faces.

    train, val: rows of the activations, int64, on any device.
    """

    experiment: Experiment
    seed: int
    train: Tensor
    val: Tensor


@dataclass(frozen=True)
class FarmProgress:
    """How far the heads at `places` are in an epoch; yielded at most once a second."""

    places: tuple[int, ...]
    epoch: int
    images_done: int
    images_total: int


@dataclass(frozen=True)
class HeadEpoch:
    """What one epoch did to the head at `place`; its seconds are its share of the stack's."""

    place: int
    result: EpochResult


@dataclass(frozen=True)
class HeadTrained:
    """The head at `place` came to its end. parameters: the selected ones, by the head's names."""

    place: int
    parameters: dict[str, Tensor]
    best_epoch: int
    """Counted from 0."""
    epochs: int


@dataclass(frozen=True)
class HeadFailed:
    """The head at `place` cannot go on; the others do."""

    place: int
    error: RunError


FarmStep = FarmProgress | HeadEpoch | HeadTrained | HeadFailed


def refuse_unfit(experiment: Experiment) -> None:
    """Raise ExperimentError for an experiment that is more than a head on fixed features."""
    backbone, changes = experiment.backbone, experiment.recipe.augmentation
    if backbone.trained_stages:
        raise ExperimentError(
            f"{experiment.name!r} trains more than its head: {', '.join(backbone.trained_stages)}",
            allowed="experiments with a frozen trunk, backbone.trainable_stages=0",
            fix="`facebench run` trains it",
        )
    if changes != Augmentation(flip=changes.flip):
        raise ExperimentError(
            f"{experiment.name!r} changes its faces in endless ways (recipe.augmentation)",
            allowed="no augmentation, or flipping alone: what is read once has to be all there is",
            fix="`facebench run` trains it",
        )


def bad_loss(loss: float, epoch: int, rate: float) -> RunError:
    """Say, as the trainer does, that a loss is not finite."""
    return RunError(
        f"the training loss of epoch {epoch + 1} is {loss} at learning rate {rate:g}",
        allowed="a finite loss",
        fix="Lower recipe.learning_rate or recipe.clip_norm",
    )


def first_head(experiment: Experiment, n_features: int, seed: int) -> nn.Module:
    """Build an experiment's head with the values that build_network gives it."""
    with seeded(seed, "construction"):
        head = build_head(experiment.head, n_features)
    initialise_head(head, experiment.recipe.head_initialisation, seed)
    return head


def train_farm(
    heads: Sequence[FarmedHead],
    faces: FarmFaces,
    device: Device,
    at_once: int | None = None,
    recorder: Recorder | None = None,
) -> Iterator[FarmStep]:
    """Train every head to its end, those of one shape together; `at_once` bounds how many.

    recorder: by default, what this device and the place of the features allow (`recorder_for`).

    Places in what is yielded are those in `heads`. Raise ExperimentError where one is no frozen
    experiment's. Heads whose loss is not finite are yielded as HeadFailed.
    """
    for head in heads:
        refuse_unfit(head.experiment)
        if head.experiment.recipe.augmentation.flip and faces.mirrored is None:
            raise ExperimentError(
                f"{head.experiment.name!r} flips faces, whose mirror images have not been read",
                allowed="activations of every face and of its mirror image",
            )
    for places in stacks_of(heads, faces.n_features, device, at_once):
        here = {place: heads[place] for place in places}
        yield from _Stack(here, faces, device, recorder or recorder_for(faces, device)).train()


def recorder_for(faces: FarmFaces, device: Device, speed: SpeedSettings | None = None) -> Recorder:
    """Give what records steps: CUDA graphs, unless the host has to fetch the features."""
    speed = speed or SpeedSettings()
    records = device.kind == "cuda" and speed.graph and faces.activations.is_cuda
    return Recorder(CudaCapture() if records else None, speed.say)


def stacks_of(
    heads: Sequence[FarmedHead], n_features: int, device: Device, at_once: int | None = None
) -> list[list[int]]:
    """Divide heads into those that go through each step together, by their places.

    Together go heads of one shape and rhythm, as many as memory allows, in stacks of about one
    size: padding a narrow head to the width of a wide one would cost what the wide one costs.
    """
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, head in enumerate(heads):
        alike.setdefault(_shape(head), []).append(place)
    stacks = []
    for places in alike.values():
        most = at_once or heads_at_once(heads[places[0]].experiment, n_features, device)
        n_stacks = math.ceil(len(places) / most)
        bounds = [round(number * len(places) / n_stacks) for number in range(n_stacks + 1)]
        stacks += [places[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    return stacks


def _shape(head: FarmedHead) -> tuple[object, ...]:
    """What heads must share to go through a step together."""
    recipe = head.experiment.recipe
    return (
        head.experiment.head,
        recipe.clipping,
        recipe.batch_size,
        recipe.steps_per_epoch,
        len(head.train),
        head.val.cpu().numpy().tobytes(),
    )


def heads_at_once(experiment: Experiment, n_features: int, device: Device) -> int:
    """Say how many such heads may share a step: one or more, within the memory stated above."""
    with torch.device("meta"):
        head = build_head(experiment.head, n_features)
    n_bytes = 4 * sum(parameter.numel() for parameter in head.parameters())
    if device.kind == "cuda":
        free, _ = torch.cuda.mem_get_info(device.torch_device)
        # A step's inputs and hidden layers, and the gradients by them.
        passing = 4 * 4 * experiment.recipe.batch_size * (n_features + n_bytes // (4 * n_features))
        return max(1, int(GPU_STATE_FRACTION * free) // (STATE_COPIES * n_bytes + passing))
    # Selecting happens once an epoch: a step itself touches one copy less.
    return max(1, CPU_STATE_BYTES // ((STATE_COPIES - 1) * n_bytes))


@dataclass
class _Course:
    """How far one head has come."""

    place: int
    head: FarmedHead
    epochs_done: int = 0
    best_epoch: int = -1
    best_score: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    has_learnt_all: bool = False

    @property
    def recipe(self) -> Recipe:
        return self.head.experiment.recipe

    def rows(self, epoch: int, n_faces: int) -> Tensor:
        """Give the rows of an epoch in the order of training, as the trainer does.

        A face that the trainer would flip is its mirror image, `n_faces` rows further on.
        """
        recipe, seed, n = self.recipe, self.head.seed, len(self.head.train)
        shuffled = self.head.experiment.protocol.shuffling == "every_epoch"
        order_epoch = epoch if shuffled else 0
        if recipe.steps_per_epoch is None:
            order = random_order(n, seed=seed, epoch=order_epoch)
        else:
            n_wanted = recipe.steps_per_epoch * recipe.batch_size
            order = random_passes(n, n_wanted, seed=seed, epoch=order_epoch)
        rows = self.head.train.cpu()[order]
        if not recipe.augmentation.flip:
            return rows
        changes = generator_for(seed, epoch, purpose=1)
        flipped = [
            torch.rand(len(batch), generator=changes) < 0.5  # as benchmark.faces.augment draws
            for batch in split_into_batches(rows, recipe.batch_size)
        ]
        return rows + n_faces * torch.cat(flipped)

    def is_over(self) -> bool:
        patience = self.recipe.early_stopping_epochs
        waited = self.epochs_done - self.best_epoch
        return (
            self.epochs_done >= self.recipe.max_epochs
            or self.has_learnt_all
            or (patience is not None and waited > patience)
        )

    def is_best(self, epoch: int, score: float) -> bool:
        """Take in an epoch's score; strictly greater than any before is best (study's rule)."""
        selection = self.head.experiment.protocol.selection
        chosen = score if selection == "best_validation_combined" else float(epoch)
        self.epochs_done = epoch + 1
        if not chosen > self.best_score:
            return False
        self.best_epoch, self.best_score = epoch, chosen
        return True


class _Stack:
    """Heads that go through each step together, until the last of them is at its end."""

    def __init__(
        self,
        heads: Mapping[int, FarmedHead],
        faces: FarmFaces,
        device: Device,
        recorder: Recorder,
    ) -> None:
        self._faces, self._device, self._recorder = faces, device, recorder
        self._courses = [_Course(place, head) for place, head in heads.items()]
        definition = self._courses[0].head.experiment.head
        modules = [
            first_head(head.experiment, faces.n_features, head.seed) for head in heads.values()
        ]
        self._learners = StackedHeads.stacked(modules, definition, device.torch_device)
        self._adam = StackedAdamW(self._learners, self._recipes())
        self._steps = self._new_steps()
        self._val = self._courses[0].head.val.to(device.torch_device)

    def _recipes(self) -> list[Recipe]:
        return [course.recipe for course in self._courses]

    def _new_steps(self) -> FarmSteps:
        return FarmSteps(self._learners, self._adam, self._faces, self._recipes(), self._recorder)

    def train(self) -> Iterator[FarmStep]:
        """Train epoch by epoch; a head that is at its end leaves the stack."""
        epoch = 0
        while self._courses:
            failed: set[int] = set()
            for step in self._epoch(epoch):
                if isinstance(step, HeadFailed):
                    failed.add(step.place)
                yield step
            yield from self._leave(failed)
            epoch += 1

    def _epoch(self, epoch: int) -> Iterator[FarmStep]:
        courses, places = self._courses, tuple(course.place for course in self._courses)
        orders = torch.stack([course.rows(epoch, len(self._faces)) for course in courses])
        rates = [course.recipe.rate_at(epoch) for course in courses]
        n_seen = orders.shape[1]
        self._device.synchronise()
        started = last_report = time.perf_counter()
        for n_done in self._steps.train(orders, rates):
            if time.perf_counter() - last_report >= PROGRESS_SECONDS:
                last_report = time.perf_counter()
                yield FarmProgress(places, epoch, n_done, n_seen)
        losses, hits = self._steps.mean_losses(n_seen), self._steps.hits()
        trained = time.perf_counter() - started
        right = self._steps.right_answers(self._val)
        fitted = self._fitted()
        seconds = (time.perf_counter() - started) / len(courses)
        for row, course in enumerate(courses):
            if not math.isfinite(losses[row]):
                yield HeadFailed(course.place, bad_loss(losses[row], epoch, rates[row]))
                continue
            accuracies = {task: count[row] / len(self._val) for task, count in right.items()}
            score = combined(accuracies)
            is_best = course.is_best(epoch, score)
            if is_best:
                course.best = self._learners.head(row)
            mine = fitted.get(row, {})
            wanted = course.recipe.until_train_accuracy
            course.has_learnt_all = wanted is not None and min(mine.values()) >= wanted
            result = EpochResult(
                epoch=epoch,
                learning_rate=rates[row],
                train_loss=losses[row],
                train_accuracy={task: count[row] / n_seen for task, count in hits.items()},
                val_accuracy=accuracies,
                val_combined=score,
                is_best=is_best,
                epoch_seconds=seconds,
                images_per_second=n_seen * len(courses) / trained,
                fitted_accuracy=mine,
            )
            yield HeadEpoch(course.place, result)

    def _fitted(self) -> dict[int, dict[TaskName, float]]:
        """Score the training faces for those heads, by row, that end by it."""
        asking = [
            row
            for row, course in enumerate(self._courses)
            if course.recipe.until_train_accuracy is not None
        ]
        if not asking:
            return {}
        rows = torch.stack([course.head.train for course in self._courses])
        right = self._steps.right_answers(rows.to(self._device.torch_device))
        return {
            row: {task: count[row] / rows.shape[1] for task, count in right.items()}
            for row in asking
        }

    def _leave(self, failed: set[int]) -> Iterator[FarmStep]:
        """Hand on the heads that are at their end, and go on with the others."""
        going = []
        for row, course in enumerate(self._courses):
            if course.place in failed:
                continue
            if course.is_over():
                yield HeadTrained(course.place, course.best, course.best_epoch, course.epochs_done)
            else:
                going.append(row)
        if len(going) == len(self._courses):
            return
        self._courses = [self._courses[row] for row in going]
        if going:
            kept = torch.tensor(going, device=self._device.torch_device)
            self._learners = self._learners.only(kept)
            self._adam = self._adam.only(self._learners, kept)
            self._steps = self._new_steps()
