"""The parts of a definition: backbone, head and recipe, each checked when it is made."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmark.architectures import NOT_OFFERED, architecture_named
from benchmark.errors import require, require_choice
from benchmark.tasks import TASKS, TaskName

Conditioning = Literal["none", "embedding", "gate", "attention"]
CONDITIONINGS: Final = ("none", "embedding", "gate", "attention")
SCHEDULES: Final = ("study", "constant", "cosine")
CLIPPINGS: Final = ("per_variable", "global", "none")
INITIALISATIONS: Final = ("glorot", "torch")
OWN_WEIGHTS: Final = re.compile(r"local:[a-z0-9_]+|run:[0-9a-f]{8,64}")


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_positive(field_name: str, value: float) -> None:
    fits = _is_finite(value) and value > 0
    require(fits, f"{field_name} is {value!r}", allowed="a finite number above 0")


def _require_not_negative(field_name: str, value: float) -> None:
    fits = _is_finite(value) and value >= 0
    require(fits, f"{field_name} is {value!r}", allowed="a finite number, 0 or more")


def _require_count(field_name: str, value: int, least: int = 1, alternative: str = "") -> None:
    fits = _is_whole(value) and value >= least
    allowed = f"an integer of at least {least}{alternative}"
    require(fits, f"{field_name} is {value!r}", allowed=allowed)


def _require_fraction(field_name: str, value: float) -> None:
    fits = _is_finite(value) and 0 <= value < 1
    require(fits, f"{field_name} is {value!r}", allowed="0 <= value < 1")


def _require_bool(field_name: str, value: bool) -> None:
    require(isinstance(value, bool), f"{field_name} is {value!r}", allowed="True or False")


@dataclass(frozen=True)
class Backbone:
    """The trunk: an architecture, where its weights come from, and how deep it is trained."""

    architecture: str
    weights: str = "none"
    """A weight source of the architecture; `none` is random initialisation, `local:LABEL` a file
    added under that label, `run:ID` the trunk of an earlier run."""
    trainable_stages: int | Literal["all"] = "all"
    """Unfreezing depth: how many of the deepest stages are trained; 0 is a frozen trunk."""
    input_px: int = 100
    """Side of the square input in pixels; faces of another size are resized on the device."""

    def __post_init__(self) -> None:
        architecture = architecture_named(self.architecture)
        require(
            self.weights in architecture.weight_sources
            or OWN_WEIGHTS.fullmatch(self.weights) is not None,
            f"{self.architecture} has no {self.weights!r} weights"
            + (f": {NOT_OFFERED[self.weights]}" if self.weights in NOT_OFFERED else ""),
            allowed=f"{', '.join(architecture.weight_sources)}, local:LABEL, run:ID",
            fix="Choose one of those, or add a source in benchmark/models/weight_manifest.py",
        )
        n_stages = len(architecture.stages)
        depth = self.trainable_stages
        is_depth = isinstance(depth, int) and _is_whole(depth) and 0 <= depth < n_stages
        require(
            depth == "all" or is_depth,
            f"trainable_stages of {self.architecture} is {depth!r}",
            allowed=f"0 to {n_stages - 1}, or 'all' for its {n_stages} stages "
            f"{', '.join(architecture.stages)}",
        )
        require(
            _is_whole(self.input_px) and 32 <= self.input_px <= 1024,
            f"input_px is {self.input_px!r}",
            allowed="32 to 1024 pixels, an integer",
        )
        require(
            self.input_px % architecture.input_multiple == 0,
            f"input_px of {self.architecture} is {self.input_px}",
            allowed=f"a multiple of {architecture.input_multiple}, the side of its patches",
        )

    @property
    def depth_name(self) -> str:
        """`frozen`, `full`, or the name of the shallowest trained stage."""
        if self.trainable_stages == "all":
            return "full"
        if self.trainable_stages == 0:
            return "frozen"
        return architecture_named(self.architecture).stages[-self.trainable_stages]

    @property
    def trained_stages(self) -> tuple[str, ...]:
        """Names of the stages that are trained, shallow to deep."""
        stages = architecture_named(self.architecture).stages
        if self.trainable_stages == "all":
            return stages
        return stages[len(stages) - self.trainable_stages :]


@dataclass(frozen=True)
class Head:
    """What reads the trunk's features: one branch per task (study's notebooks, §3)."""

    tasks: tuple[TaskName, ...] = TASKS
    """One task (STL) or all three in the order age_group, gender, race (MTL)."""
    hidden_units: int = 128
    conditioning: Conditioning = "none"
    """How the age-group and race branches see the gender branch's hidden layer."""
    features: Literal["pooled", "flattened"] = "pooled"
    """Global average pooling of the last feature map, or all of its cells."""

    def __post_init__(self) -> None:
        tasks = tuple(self.tasks)
        require(
            tasks == TASKS or (len(tasks) == 1 and tasks[0] in TASKS),
            f"head.tasks is {list(tasks)}",
            allowed="one of age_group, gender, race, or all three in this order",
        )
        object.__setattr__(self, "tasks", tasks)
        require_choice("head.conditioning", self.conditioning, CONDITIONINGS)
        require_choice("head.features", self.features, ("pooled", "flattened"))
        require(
            _is_whole(self.hidden_units) and 1 <= self.hidden_units <= 65_536,
            f"head.hidden_units is {self.hidden_units!r}",
            allowed="an integer from 1 to 65536",
        )
        require(
            self.conditioning == "none" or len(tasks) == len(TASKS),
            f"conditioning {self.conditioning!r} on the single task {tasks[0]!r}",
            allowed="'none' for a single task, which has no gender branch to look at",
        )


@dataclass(frozen=True)
class LossWeights:
    """Weight of each task's cross-entropy in the sum; a single task always counts 1."""

    age_group: float = 0.4
    gender: float = 0.2
    race: float = 0.4

    def __post_init__(self) -> None:
        for task in TASKS:
            _require_positive(f"recipe.loss_weights.{task}", getattr(self, task))


@dataclass(frozen=True)
class Augmentation:
    """Random changes drawn anew for every face and epoch; all zero means none."""

    flip: bool = False
    """Mirror half of the faces."""
    rotation_degrees: float = 0.0
    """Rotate by an angle drawn uniformly from +- this many degrees."""
    brightness: float = 0.0
    """Add a value drawn uniformly from +- this fraction of the full range."""
    contrast: float = 0.0
    """Scale about the face's mean by a factor drawn uniformly from 1 +- this fraction."""

    def __post_init__(self) -> None:
        _require_bool("augmentation.flip", self.flip)
        require(
            _is_finite(self.rotation_degrees) and 0 <= self.rotation_degrees <= 180,
            f"augmentation.rotation_degrees is {self.rotation_degrees!r}",
            allowed="0 to 180",
        )
        _require_fraction("augmentation.brightness", self.brightness)
        _require_fraction("augmentation.contrast", self.contrast)


@dataclass(frozen=True)
class Recipe:
    """How the network is trained. Defaults are the study's (notebooks, §2)."""

    learning_rate: float
    """Adam's rate at the first epoch."""
    batch_size: int = 32
    max_epochs: int = 30
    early_stopping_epochs: int | None = None
    """Stop after this many epochs without a better validation score; None trains them all."""
    steps_per_epoch: int | None = None
    """Optimiser steps that count as one epoch, whatever the number of faces; None: one pass."""
    until_train_accuracy: float | None = None
    """Stop once every task reaches this on the training faces, in eval mode; None: never."""
    schedule: Literal["study", "constant", "cosine"] = "study"
    """`study`: constant, then times exp(-decay) each epoch; `cosine`: to zero over max_epochs."""
    constant_epochs: int = 20
    """Epochs at the full rate before `study` decays."""
    decay: float = 0.01
    """Exponent of the `study` decay, per epoch."""
    weight_decay: float = 0.0
    adam_epsilon: float = 1e-7
    """Keras's default; torch's is 1e-8."""
    clipping: Literal["per_variable", "global", "none"] = "per_variable"
    """`per_variable` is Keras's `clipnorm`: each tensor's gradient by itself."""
    clip_norm: float = 1.0
    """Largest L2 norm of a gradient under `per_variable` or `global` clipping."""
    head_initialisation: Literal["glorot", "torch"] = "glorot"
    """`glorot` is Keras's Dense default: Glorot uniform, zero bias."""
    loss_weights: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)
    trunk_rate_ratio: float | None = None
    """The deepest trained stage's rate as a fraction of learning_rate, the head's; None: 1."""
    stage_rate_decay: float | None = None
    """Each shallower stage's rate as a fraction of the one behind it; None: 1."""
    standardise_features: bool = False
    """Whether the head reads a frozen trunk's features minus their mean over the training faces,
    divided by their standard deviation: random and pretrained weights differ in scale alone
    otherwise, and a learning rate suits one scale."""

    def __post_init__(self) -> None:
        for name in ("trunk_rate_ratio", "stage_rate_decay"):
            if getattr(self, name) is not None:
                _require_positive(f"recipe.{name}", getattr(self, name))
        for name in ("learning_rate", "adam_epsilon", "clip_norm"):
            _require_positive(f"recipe.{name}", getattr(self, name))
        for name in ("batch_size", "max_epochs"):
            _require_count(f"recipe.{name}", getattr(self, name))
        patience, steps = self.early_stopping_epochs, self.steps_per_epoch
        if patience is not None:
            _require_count("recipe.early_stopping_epochs", patience, alternative=", or None")
        if steps is not None:
            one_pass = ", or None for one pass over the faces"
            _require_count("recipe.steps_per_epoch", steps, alternative=one_pass)
        until = self.until_train_accuracy
        require(
            until is None or (_is_finite(until) and 0 < until <= 1),
            f"recipe.until_train_accuracy is {until!r}",
            allowed="above 0 and at most 1, or None",
        )
        require_choice("recipe.schedule", self.schedule, SCHEDULES)
        require_choice("recipe.clipping", self.clipping, CLIPPINGS)
        require_choice("recipe.head_initialisation", self.head_initialisation, INITIALISATIONS)
        _require_count("recipe.constant_epochs", self.constant_epochs, least=0)
        for name in ("decay", "weight_decay"):
            _require_not_negative(f"recipe.{name}", getattr(self, name))
        _require_bool("recipe.standardise_features", self.standardise_features)

    def rate_at(self, epoch: int) -> float:
        """Give the learning rate of `epoch`, counted from 0."""
        if self.schedule == "study":
            n_decays = max(0, epoch + 1 - self.constant_epochs)
            return self.learning_rate * math.exp(-self.decay * n_decays)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.max_epochs))
        return self.learning_rate
