"""The epoch loop, and AdamW as a recipe specifies it: the rate of each parameter, its stored state.

The loop yields what happened; its reader logs, prunes, displays or stops. Nothing has a default:
recipe and protocol specify all. AdamW without weight decay is Adam.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmark.data.batches import FaceBatches, epoch_batches, generator_for, random_passes
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment, Recipe
from benchmark.models.network import Network, StandardisedHead
from benchmark.tasks import TaskName, combined
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CachedFaces
from benchmark.training.steps import ForwardPass, SpeedSettings, Steps, in_fp32

RATIO = "rate_ratio"
"""Key in a parameter group: its learning rate as a fraction of the recipe's."""

TRAINER_VERSION: Final = 2
"""Part of every run's identity: raised when the same definition would train or select differently.

Version 1 selected the epoch at the training's precision, version 2 in fp32."""

PROGRESS_SECONDS: Final = 1.0
KEPT: Final = ("epochs_done", "best_epoch", "best_score", "best_weights", "has_learnt_all")
"""Of a training's state in a checkpoint, beside network and optimiser."""


@dataclass(frozen=True)
class Progress:
    """Of the current epoch; yielded at most once a second, for the display alone."""

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
    """In fp32 whatever the training's precision, as predictions.csv is computed."""
    val_combined: float
    is_best: bool
    epoch_seconds: float
    images_per_second: float
    """Training images; validation apart."""
    fitted_accuracy: dict[TaskName, float]
    """On the training faces in eval mode after the epoch; empty unless the recipe stops by it."""

    def metrics(self) -> dict[str, float]:
        """Give the epoch under the names that MLflow and history.csv use."""
        values = {"train/loss": self.train_loss, "train/learning_rate": self.learning_rate}
        for part in ("train", "val", "fitted"):
            by_task: dict[TaskName, float] = getattr(self, f"{part}_accuracy")
            values |= {f"{part}/{task}/accuracy": rate for task, rate in by_task.items()}
        names = ("epoch_seconds", "images_per_second")
        return values | {"val/combined": self.val_combined} | {n: getattr(self, n) for n in names}


@dataclass
class TrainingState:
    """All that a checkpoint must hold to resume from the end of an epoch."""

    network: Network
    optimiser: torch.optim.Optimizer
    epochs_done: int = 0
    best_epoch: int = -1
    best_score: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    has_learnt_all: bool = False
    """Whether the accuracy on the training faces is what the recipe stops at."""
    speed_report: dict[str, Any] = field(default_factory=dict)
    """How the steps were made, and the seconds to prepare them; no part of the state."""

    def checkpoint(self) -> dict[str, Any]:
        """Give the state as tensors and plain numbers, so that it loads without running code."""
        saved = self.optimiser.state_dict()
        groups = [group | {"lr": float(group["lr"])} for group in saved["param_groups"]]
        return {
            "network": self.network.state_dict(),
            # Rates as plain numbers, whatever device they are on.
            "optimiser": saved | {"param_groups": groups},
            **{name: getattr(self, name) for name in KEPT},
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take the state of a checkpoint; raises RunError when it belongs to another network."""
        try:
            self.network.load_state_dict(checkpoint["network"])
            # How it steps on its device stays its own.
            saved = checkpoint["optimiser"]
            both = zip(self.optimiser.param_groups, saved["param_groups"], strict=True)
            groups = [own | {"params": theirs["params"]} for own, theirs in both]
            self.optimiser.load_state_dict(saved | {"param_groups": groups})
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunError(f"the checkpoint does not fit the network: {error}") from error
        for name in KEPT:
            setattr(self, name, checkpoint[name])

    def keep_if_best(self, epoch: int, score: float) -> bool:
        """Remember the weights when `score` is strictly greater than any before (study's rule)."""
        if not score > self.best_score:
            return False
        self.best_epoch, self.best_score = epoch, score
        state = self.network.state_dict().items()
        self.best_weights = {name: value.detach().clone() for name, value in state}
        return True


@dataclass(frozen=True)
class TrainingFaces:
    """The faces of one training: where they are, and which rows train and select."""

    faces: FaceBatches
    train: Tensor
    val: Tensor
    prefix: CachedFaces | None = None
    """Cached activations of the network's frozen part; None: it is computed for each batch."""
    exact: CachedFaces | None = None
    """The same of the validation faces in fp32, equal to a live forward pass; None: live."""


def start(network: Network, recipe: Recipe, device: Device) -> TrainingState:
    """Place the network on the device and make its optimiser."""
    device.place(network)
    return TrainingState(network, new_optimiser(network, recipe, device))


def fit(
    state: TrainingState, data: TrainingFaces, experiment: Experiment, seed: int, device: Device,
    speed: SpeedSettings | None = None,
) -> Iterator[Progress | EpochResult]:  # fmt: skip
    """Train until the recipe ends, from wherever `state` is; leave the selected weights in it.

    Raises RunError when the loss of an epoch, or the weights after it, are not finite.
    """
    recipe, protocol, network = experiment.recipe, experiment.protocol, state.network
    forward = ForwardPass(network, data.faces, device, data.prefix)
    steps = Steps(forward, state.optimiser, experiment, data.train, speed or SpeedSettings())
    state.speed_report = steps.report
    if isinstance(network.head, StandardisedHead) and state.epochs_done == 0:
        network.head.measure(map(forward.features, forward.batches(data.train)))
    while not _is_over(state, recipe):
        epoch = state.epochs_done
        rate = recipe.rate_at(epoch)
        set_rate(state.optimiser, rate)
        order_epoch = 0 if protocol.shuffling == "fixed_batches" else epoch
        n_train, n_steps = len(data.train), recipe.steps_per_epoch
        n_images = n_train if n_steps is None else n_steps * recipe.batch_size
        places = random_passes(n_train, n_images, seed=seed, epoch=order_epoch)
        started = time.perf_counter()
        rows = data.train.cpu()[places].to(device.torch_device)
        changes = generator_for(seed, epoch, purpose=1)
        in_epoch = epoch_batches(rows, recipe.augmentation, recipe.batch_size, changes)
        network.train()
        steps.start_epoch(in_epoch[0])
        # Dropout and the like draw from the global stream; seeding it by epoch lets a resumed run
        # draw what an undisturbed one would have drawn.
        torch.manual_seed(int(generator_for(seed, epoch, purpose=2).initial_seed()))
        device.synchronise()
        # What a first epoch needs to compile and record is not counted.
        train_started = last_report = time.perf_counter()
        for batch in in_epoch:
            steps(batch)
            if time.perf_counter() - last_report >= PROGRESS_SECONDS:
                last_report = time.perf_counter()
                loss = steps.mean_loss()
                _check_loss(loss, epoch, rate, steps.n_images)
                yield Progress(epoch, steps.n_images, n_images, loss)
        device.synchronise()
        train_seconds = time.perf_counter() - train_started
        _check_loss(steps.mean_loss(), epoch, rate, n_images)
        check_weights(network, epoch, rate)
        val_accuracy = in_fp32(network, data.faces, data.exact).accuracies(data.val)
        score = combined(val_accuracy)
        chosen = score if protocol.selection == "best_validation_combined" else float(epoch)
        is_best = state.keep_if_best(epoch, chosen)
        fitted: dict[TaskName, float] = {}
        if recipe.until_train_accuracy is not None:
            fitted = forward.accuracies(data.train)
            state.has_learnt_all = min(fitted.values()) >= recipe.until_train_accuracy
        state.epochs_done = epoch + 1
        yield EpochResult(
            epoch=epoch, learning_rate=rate, train_loss=steps.mean_loss(),
            train_accuracy=steps.accuracies(rows), val_accuracy=val_accuracy,
            val_combined=score, is_best=is_best, epoch_seconds=time.perf_counter() - started,
            images_per_second=n_images / train_seconds, fitted_accuracy=fitted,
        )  # fmt: skip
    network.load_state_dict(state.best_weights)


def _is_over(state: TrainingState, recipe: Recipe) -> bool:
    if state.epochs_done >= recipe.max_epochs or state.has_learnt_all:
        return True
    patience = recipe.early_stopping_epochs
    return patience is not None and state.epochs_done - state.best_epoch > patience


LOWER: Final = "Lower recipe.learning_rate or recipe.clip_norm"


def _check_loss(loss: float, epoch: int, rate: float, n_images: int) -> None:
    if not math.isfinite(loss):
        where = f"after {n_images:,} images at learning rate {rate:g}"
        found = f"the training loss of epoch {epoch + 1} is {loss} {where}"
        raise RunError(found, allowed="a finite loss", fix=LOWER)


def check_weights(network: Network, epoch: int, rate: float) -> None:
    """Raise RunError for weights that are not finite, which an epoch's last step can leave though
    its loss is: as a checkpoint, they would replace the last good one."""
    values = [item.detach() for item in network.parameters() if item.requires_grad]
    values += [item for item in network.buffers() if item.is_floating_point()]
    norms = torch.stack(torch._foreach_norm(values)) if values else torch.zeros(1)
    if not bool(norms.isfinite().all()):
        found = f"the weights are not finite after epoch {epoch + 1} at learning rate {rate:g}"
        raise RunError(found, allowed="finite weights", fix=LOWER)


def new_optimiser(network: Network, recipe: Recipe, device: Device) -> torch.optim.AdamW:
    """Make the optimiser of a network that is on the device.

    Parameters are grouped by the ratio of their rate, in the network's order. On CUDA the rate is a
    tensor there, so that a CUDA graph can be given another one.
    """
    ratios, by_ratio = dict[int, float](), dict[float, list[nn.Parameter]]()
    for stage, ratio in stage_ratios(network, recipe).items():
        ratios |= {id(item): ratio for item in network.backbone.stages[stage].parameters()}
    for parameter in network.parameters():
        if parameter.requires_grad:
            by_ratio.setdefault(ratios.get(id(parameter), 1.0), []).append(parameter)
    on_cuda, groups = device.kind == "cuda", []
    for ratio, parameters in by_ratio.items():
        rate: float | Tensor = recipe.learning_rate * ratio
        rate = torch.tensor(rate, device=device.torch_device) if on_cuda else rate
        groups.append({"params": parameters, "lr": rate, RATIO: ratio})
    return torch.optim.AdamW(
        groups, eps=recipe.adam_epsilon, weight_decay=recipe.weight_decay,
        fused=device.kind in ("cpu", "cuda"), capturable=on_cuda,
    )  # fmt: skip


def stage_ratios(network: Network, recipe: Recipe) -> dict[str, float]:
    """Give each trained stage's rate as a fraction of the head's, shallow to deep.

    The deepest stage learns at `trunk_rate_ratio`, each one before it at `stage_rate_decay` times
    the rate of the next deeper one.
    """
    ratio = 1.0 if recipe.trunk_rate_ratio is None else recipe.trunk_rate_ratio
    decay = 1.0 if recipe.stage_rate_decay is None else recipe.stage_rate_decay
    stages = network.trained_stages
    return {stage: ratio * decay ** (len(stages) - 1 - place) for place, stage in enumerate(stages)}


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate to its fraction of `rate`; CUDA graphs read it from then on."""
    for group in optimiser.param_groups:
        own = rate * group.get(RATIO, 1.0)
        group["lr"] = group["lr"].fill_(own) if isinstance(group["lr"], Tensor) else own
