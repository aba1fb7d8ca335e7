"""The epoch loop. It yields what happened; whoever reads it logs, prunes, displays or stops.

No callbacks, no tracking, no printing. Nothing here has a default: recipe and protocol say all.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from benchmark.errors import RunError
from benchmark.experiment import Experiment, Recipe
from benchmark.faces.augment import augment
from benchmark.faces.batches import (
    FaceBatches,
    generator_for,
    random_order,
    random_passes,
    split_into_batches,
)
from benchmark.models.network import Network
from benchmark.tasks import TaskName, combined
from benchmark.training.device import Device
from benchmark.training.losses import clip_gradients, weighted_cross_entropy
from benchmark.training.probabilities import correct_counts

TRAINER_VERSION: Final = 1
"""Part of every run's identity: raised when the same definition would train differently."""

PROGRESS_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Progress:
    """How far the current epoch is; yielded at most once a second, for the display alone."""

    epoch: int
    images_done: int
    images_total: int
    train_loss: float


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did. Rates are fractions in [0, 1]; epochs count from 0."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: dict[TaskName, float]
    """Over the epoch's batches as they were trained on, so it lags behind the weights."""
    val_accuracy: dict[TaskName, float]
    val_combined: float
    is_best: bool
    epoch_seconds: float
    images_per_second: float
    """Training images; validation apart."""
    fitted_accuracy: dict[TaskName, float]
    """Of the training faces in eval mode after the epoch; empty unless the recipe stops by it."""

    def metrics(self) -> dict[str, float]:
        """Give the epoch under the names that MLflow and history.csv use."""
        values = {"train/loss": self.train_loss, "train/learning_rate": self.learning_rate}
        values |= {f"train/{task}/accuracy": rate for task, rate in self.train_accuracy.items()}
        values |= {f"val/{task}/accuracy": rate for task, rate in self.val_accuracy.items()}
        values |= {f"fitted/{task}/accuracy": rate for task, rate in self.fitted_accuracy.items()}
        values["val/combined"] = self.val_combined
        values["epoch_seconds"] = self.epoch_seconds
        values["images_per_second"] = self.images_per_second
        return values


@dataclass
class TrainingState:
    """All that must be kept to go on from the end of an epoch."""

    network: Network
    optimiser: torch.optim.Optimizer
    epochs_done: int = 0
    best_epoch: int = -1
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    has_learnt_all: bool = False
    """Whether the training faces are known as well as the recipe wants them known."""

    def checkpoint(self) -> dict[str, Any]:
        """Give the state as tensors and plain numbers, so that it loads without running code."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epochs_done": self.epochs_done,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
            "has_learnt_all": self.has_learnt_all,
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take the state of a checkpoint; raises RunError when it belongs to another network."""
        try:
            self.network.load_state_dict(checkpoint["network"])
            self.optimiser.load_state_dict(checkpoint["optimiser"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunError(f"the checkpoint does not fit the network: {error}") from error
        self.epochs_done = checkpoint["epochs_done"]
        self.best_epoch = checkpoint["best_epoch"]
        self.best_score = checkpoint["best_score"]
        self.best_weights = checkpoint["best_weights"]
        self.has_learnt_all = checkpoint.get("has_learnt_all", False)

    def keep_if_best(self, epoch: int, score: float) -> bool:
        """Remember the weights when `score` is strictly greater than any before (study's rule)."""
        if not score > self.best_score:
            return False
        self.best_epoch, self.best_score = epoch, score
        self.best_weights = {
            name: value.detach().clone() for name, value in self.network.state_dict().items()
        }
        return True

    def select_best(self) -> None:
        """Put the selected epoch's weights into the network."""
        self.network.load_state_dict(self.best_weights)


@dataclass(frozen=True)
class TrainingFaces:
    """The faces of one training: where they are, and which rows train and select."""

    faces: FaceBatches
    train: Tensor
    val: Tensor


def start(network: Network, recipe: Recipe, device: Device) -> TrainingState:
    """Place the network on the device and make its optimiser.

    AdamW without weight decay is Adam; with it, decay is decoupled from the gradient.
    """
    network.to(device=device.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        trained,
        lr=recipe.learning_rate,
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=device.kind in ("cpu", "cuda"),
    )
    return TrainingState(network, optimiser)


def fit(
    state: TrainingState, data: TrainingFaces, experiment: Experiment, seed: int, device: Device
) -> Iterator[Progress | EpochResult]:
    """Train until the recipe ends, from wherever `state` is; leave the selected weights in it.

    Raises RunError when the loss of an epoch is not finite.
    """
    recipe, protocol = experiment.recipe, experiment.protocol
    while not _is_over(state, recipe):
        epoch = state.epochs_done
        rate = recipe.rate_at(epoch)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        order_epoch = 0 if protocol.shuffling == "fixed_batches" else epoch
        order = data.train[_order(len(data.train), recipe, seed, order_epoch)]
        totals = _Totals(device)
        device.synchronise()
        started = time.perf_counter()
        yield from _train_epoch(state, data.faces, order, experiment, seed, device, totals)
        device.synchronise()
        train_seconds = time.perf_counter() - started
        _refuse_bad_loss(totals.mean_loss(), epoch, rate)
        counts = correct_counts(state.network, data.faces, data.val, device)
        val_accuracy = {task: count / len(data.val) for task, count in counts.items()}
        score = combined(val_accuracy)
        chosen = score if protocol.selection == "best_validation_combined" else float(epoch)
        is_best = state.keep_if_best(epoch, chosen)
        fitted = _fitted_accuracy(state.network, data, recipe, device)
        state.has_learnt_all = _has_learnt_all(fitted, recipe)
        state.epochs_done = epoch + 1
        yield EpochResult(
            epoch=epoch,
            learning_rate=rate,
            train_loss=totals.mean_loss(),
            train_accuracy=totals.accuracies(),
            val_accuracy=val_accuracy,
            val_combined=score,
            is_best=is_best,
            epoch_seconds=time.perf_counter() - started,
            images_per_second=len(order) / train_seconds,
            fitted_accuracy=fitted,
        )
    state.select_best()


def _has_learnt_all(fitted: dict[TaskName, float], recipe: Recipe) -> bool:
    wanted = recipe.until_train_accuracy
    return wanted is not None and min(fitted.values()) >= wanted


def _fitted_accuracy(
    network: Network, data: TrainingFaces, recipe: Recipe, device: Device
) -> dict[TaskName, float]:
    """Score the training faces in eval mode, without augmentation, where the recipe asks for it."""
    if recipe.until_train_accuracy is None:
        return {}
    counts = correct_counts(network, data.faces, data.train, device)
    return {task: count / len(data.train) for task, count in counts.items()}


def _order(n: int, recipe: Recipe, seed: int, epoch: int) -> Tensor:
    """Give the places of an epoch's faces among the `n` that train, in the order of training."""
    if recipe.steps_per_epoch is None:
        return random_order(n, seed=seed, epoch=epoch)
    return random_passes(n, recipe.steps_per_epoch * recipe.batch_size, seed=seed, epoch=epoch)


def _is_over(state: TrainingState, recipe: Recipe) -> bool:
    if state.epochs_done >= recipe.max_epochs or state.has_learnt_all:
        return True
    patience = recipe.early_stopping_epochs
    return patience is not None and state.epochs_done - state.best_epoch > patience


def _train_epoch(
    state: TrainingState,
    faces: FaceBatches,
    order: Tensor,
    experiment: Experiment,
    seed: int,
    device: Device,
    totals: "_Totals",
) -> Iterator[Progress]:
    recipe = experiment.recipe
    changes = generator_for(seed, state.epochs_done, purpose=1)
    # Dropout and the like draw from the global stream; seeding it by epoch lets a resumed run
    # draw what an undisturbed one would have drawn.
    torch.manual_seed(int(generator_for(seed, state.epochs_done, purpose=2).initial_seed()))
    trained = [parameter for parameter in state.network.parameters() if parameter.requires_grad]
    state.network.train()
    last_report = time.perf_counter()
    for indices in split_into_batches(order, recipe.batch_size):
        images = augment(faces.images(indices), recipe.augmentation, changes)
        truths = faces.truths(indices)
        with device.autocast():
            logits = state.network(images)
        loss = weighted_cross_entropy(logits, truths, recipe.loss_weights)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(trained, recipe)
        state.optimiser.step()
        totals.add(loss, logits, truths)
        if time.perf_counter() - last_report >= PROGRESS_SECONDS:
            last_report = time.perf_counter()
            yield Progress(state.epochs_done, totals.n_images, len(order), totals.mean_loss())


class _Totals:
    """Losses and right answers of an epoch, gathered on the device and read rarely.

    Reading a number makes the host wait for the device, so that no step does it.
    """

    def __init__(self, device: Device) -> None:
        self.n_images = 0
        self._loss = torch.zeros((), device=device.torch_device)
        self._hits: dict[TaskName, Tensor] = {}

    def add(
        self, loss: Tensor, logits: dict[TaskName, Tensor], truths: dict[TaskName, Tensor]
    ) -> None:
        for task, values in logits.items():
            n = len(truths[task])
            hits = (values.detach().argmax(1) == truths[task]).sum()
            self._hits[task] = self._hits.get(task, torch.zeros_like(hits)) + hits
        self._loss += loss.detach() * n
        self.n_images += n

    def mean_loss(self) -> float:
        return float(self._loss) / max(1, self.n_images)

    def accuracies(self) -> dict[TaskName, float]:
        return {task: int(hits) / self.n_images for task, hits in self._hits.items()}


def _refuse_bad_loss(loss: float, epoch: int, rate: float) -> None:
    if not math.isfinite(loss):
        raise RunError(
            f"the training loss of epoch {epoch} is {loss} at learning rate {rate:g}",
            allowed="a finite loss",
            fix="Lower recipe.learning_rate or recipe.clip_norm",
        )
