"""The parts of a definition, each checked when it is made: network, recipe, protocol, subset.

Every number that steers a training is a field here; trainer and models have no defaults of their
own. A field is named by its dotted path, as in `recipe.max_epochs`. Loads no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from inspect import get_annotations
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from benchmark.errors import ExperimentError, did_you_mean, require
from benchmark.experiment.architectures import NOT_OFFERED, architecture_named
from benchmark.tasks import TASKS, TaskName

Definition = TypeVar("Definition")
UNIONS: Final[tuple[Any, ...]] = (Union, UnionType)
Conditioning = Literal["none", "embedding", "gate", "attention"]
CONDITIONINGS: Final = get_args(Conditioning)
OWN_WEIGHTS: Final = re.compile(r"local:[a-z0-9_]+|run:[0-9a-f]{8,64}")
LEAK_FREE_SPLITS: Final = ("leak-free-2", "leak-free-1")
"""The current version, and the one that older runs were made on."""
SplitVersion = Literal[
    "leak-free-2", "leak-free-1",
    "published-1", "test-by-file-1", "clean-test-1", "clean-val-1", "unique-1", "by-file-1",
]  # fmt: skip
"""Versions of the split; what each of those that leak does is in benchmark.data.replays."""


Positive = Annotated[float, "(0, inf)"]
NotNegative = Annotated[float, "[0, inf)"]
Part = Annotated[float, "[0, 1)"]
Count = Annotated[int, "[1, inf)"]


def check_fields(part: Any, where: str, *others: str) -> None:
    """Raise ExperimentError unless each field has a value of its type, a number in its interval.

    where: what stands before a field's name. others: fields that are checked elsewhere.
    """
    of: Any = type(part)
    for name, kinds in _kinds_of(of).items():
        value = getattr(part, name)
        if name not in others and not any(_fits(value, kind) for kind in kinds):
            allowed = " or ".join(map(_words, kinds))
            raise ExperimentError(f"{where}{name} is {value!r}", allowed=allowed)


@functools.cache
def _kinds_of(of: Any) -> dict[str, tuple[Any, ...]]:
    """Give the types that each field may have."""
    kinds = {}
    for name, hint in get_annotations(of, eval_str=True).items():
        kinds[name] = get_args(hint) if get_origin(hint) in UNIONS else (hint,)
    return kinds


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
    if origin is not Annotated:
        return isinstance(value, origin or kind)
    interval, types = kind.__metadata__[0], (int,) if kind.__origin__ is int else (int, float)
    low, high = map(float, interval[1:-1].split(","))
    return (
        isinstance(value, types)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (value > low or (interval[0] == "[" and value == low))
        and (value < high or (interval[-1] == "]" and value == high))
    )


def _words(kind: Any) -> str:
    """Say what values a type has."""
    if get_origin(kind) is Annotated:
        number = "a whole number" if kind.__origin__ is int else "a number"
        return f"{number} in {kind.__metadata__[0]}"
    if dataclasses.is_dataclass(kind):
        return f"a group of fields: {', '.join(item.name for item in dataclasses.fields(kind))}"
    words = {bool: "True, False", NoneType: "None", str: "text"}
    return words.get(kind) or ", ".join(map(str, get_args(kind)))


@dataclass(frozen=True)
class Backbone:
    """An architecture, where its weights come from, and how deep it is trained."""

    architecture: str
    weights: str = "none"
    """A weight source of the architecture; `none` is random initialisation, `local:LABEL` a file
    added under that label, `run:ID` the backbone of an earlier run."""
    trainable_stages: int | Literal["all"] = "all"
    """Unfreezing depth: how many of the deepest stages are trained; 0 is a frozen backbone."""
    input_px: Annotated[int, "[32, 1024]"] = 100
    """Side of the square input in pixels; faces of another size are resized on the device."""

    def __post_init__(self) -> None:
        check_fields(self, "backbone.", "trainable_stages")
        architecture = architecture_named(self.architecture)
        require(
            self.weights in architecture.weight_sources
            or OWN_WEIGHTS.fullmatch(self.weights) is not None,
            f"{self.architecture} has no {self.weights!r} weights"
            + (f": {NOT_OFFERED[self.weights]}" if self.weights in NOT_OFFERED else ""),
            allowed=f"{', '.join(architecture.weight_sources)}, local:LABEL, run:ID",
            fix="Choose one of those, or add a source in benchmark/models/weight_manifest.py",
        )
        stages, depth = architecture.stages, self.trainable_stages
        n = len(stages)
        require(
            depth == "all" or (type(depth) is int and 0 <= depth < n),
            f"trainable_stages of {self.architecture} is {depth!r}",
            allowed=f"0 to {n - 1}, or 'all' for its {n} stages {', '.join(stages)}",
        )
        multiple, found = architecture.input_multiple, f"input_px of {self.architecture} is "
        allowed = f"a multiple of {multiple}, the side of its patches"
        require(self.input_px % multiple == 0, f"{found}{self.input_px}", allowed=allowed)

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
        stages, depth = architecture_named(self.architecture).stages, self.trainable_stages
        return stages if depth == "all" else stages[len(stages) - depth :]


@dataclass(frozen=True)
class Head:
    """What predicts from the backbone's features: one branch per task (study's notebooks, §3)."""

    tasks: tuple[TaskName, ...] = TASKS
    """One task (STL) or all three in the order age_group, gender, race (MTL)."""
    hidden_units: Annotated[int, "[1, 65536]"] = 128
    conditioning: Conditioning = "none"
    """How the age-group and race branches see the gender branch's hidden layer."""
    features: Literal["pooled", "flattened"] = "pooled"
    """Global average pooling of the last feature map, or all of its cells."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        fits = self.tasks in (TASKS, *((task,) for task in TASKS))
        allowed = "one of age_group, gender, race, or all three in this order"
        require(fits, f"head.tasks is {self.tasks!r}", allowed=allowed)
        check_fields(self, "head.")
        found = f"conditioning {self.conditioning!r} on the single task {self.tasks[0]!r}"
        allowed = "'none' for a single task, which has no gender branch to look at"
        require(self.conditioning == "none" or len(self.tasks) > 1, found, allowed=allowed)


@dataclass(frozen=True)
class LossWeights:
    """Weight of each task's cross-entropy in the sum; a single task always counts 1."""

    age_group: Positive = 0.4
    gender: Positive = 0.2
    race: Positive = 0.4

    def __post_init__(self) -> None:
        check_fields(self, "recipe.loss_weights.")


@dataclass(frozen=True)
class Augmentation:
    """Random changes drawn anew for every face and epoch; all zero means none."""

    flip: bool = False
    """Mirror half of the faces."""
    rotation_degrees: Annotated[float, "[0, 180]"] = 0.0
    """Rotate by an angle drawn uniformly from +- this many degrees."""
    brightness: Part = 0.0
    """Add a value drawn uniformly from +- this fraction of the full range."""
    contrast: Part = 0.0
    """Scale about the face's mean by a factor drawn uniformly from 1 +- this fraction."""

    def __post_init__(self) -> None:
        check_fields(self, "augmentation.")


@dataclass(frozen=True)
class Recipe:
    """How the network is trained. Defaults are the study's (notebooks, §2)."""

    learning_rate: Positive
    """Adam's rate at the first epoch."""
    batch_size: Count = 32
    max_epochs: Count = 30
    early_stopping_epochs: Count | None = None
    """Stop after this many epochs without a better validation score; None trains them all."""
    steps_per_epoch: Count | None = None
    """Optimiser steps that count as one epoch, whatever the number of faces; None: one pass."""
    until_train_accuracy: Annotated[float, "(0, 1]"] | None = None
    """Stop once every task reaches this on the training faces, in eval mode; None: never."""
    schedule: Literal["study", "constant", "cosine"] = "study"
    """`study`: constant, then times exp(-decay) each epoch; `cosine`: to zero over max_epochs."""
    constant_epochs: Annotated[int, "[0, inf)"] = 20
    """Epochs at the full rate before `study` decays."""
    decay: NotNegative = 0.01
    """Exponent of the `study` decay, per epoch."""
    weight_decay: NotNegative = 0.0
    adam_epsilon: Positive = 1e-7
    """Keras's default; torch's is 1e-8."""
    clipping: Literal["per_variable", "global", "none"] = "per_variable"
    """`per_variable` is Keras's `clipnorm`: each tensor's gradient by itself."""
    clip_norm: Positive = 1.0
    """Largest L2 norm of a gradient under `per_variable` or `global` clipping."""
    head_initialisation: Literal["glorot", "torch"] = "glorot"
    """`glorot` is Keras's Dense default: Glorot uniform, zero bias."""
    loss_weights: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)
    trunk_rate_ratio: Positive | None = None
    """The deepest trained stage's rate as a fraction of learning_rate, the head's; None: 1."""
    stage_rate_decay: Positive | None = None
    """Each shallower stage's rate as a fraction of the one behind it; None: 1."""
    standardise_features: bool = False
    """Whether the head gets a frozen backbone's features minus their mean over the training faces,
    divided by their standard deviation: random and pretrained weights differ in scale alone
    otherwise, and a learning rate suits one scale."""

    def __post_init__(self) -> None:
        check_fields(self, "recipe.")

    def images_of_epoch(self, n_train: int) -> int:
        return self.steps_per_epoch * self.batch_size if self.steps_per_epoch else n_train

    def rate_at(self, epoch: int) -> float:
        """Give the learning rate of `epoch`, counted from 0."""
        if self.schedule == "study":
            n_decays = max(0, epoch + 1 - self.constant_epochs)
            return self.learning_rate * math.exp(-self.decay * n_decays)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.max_epochs))
        return self.learning_rate


@dataclass(frozen=True)
class Protocol:
    """What makes two runs comparable: the split, input scaling, shuffling and selection."""

    split: SplitVersion = "leak-free-2"
    """Version of the split; its seed is part of the version. All others than LEAK_FREE_SPLITS leak,
    on purpose: they replay the study's split, or a step from it to ours."""
    fold: Annotated[int, "[0, 4]"] | None = None
    """0 to 4: a fold of the five-fold version of the split, in tables of its own."""
    input_scaling: Literal["weights", "unit", "weights_swapped", "unit_minus_mean"] = "weights"
    """`weights`: as the weights were trained; `unit`: RGB / 255 whatever the weights, as the
    study did; `weights_swapped`: as the weights, red and blue exchanged (a control);
    `unit_minus_mean`: RGB / 255 minus a BGR mean, as the study's early rows R1 to R6 did."""
    shuffling: Literal["every_epoch", "fixed_batches"] = "every_epoch"
    selection: Literal["best_validation_combined", "last_epoch"] = "best_validation_combined"

    def __post_init__(self) -> None:
        check_fields(self, "protocol.")
        found = f"protocol.fold is {self.fold!r} with the split {self.split!r}"
        require(self.fold is None or not self.leaky, found, allowed="folds of leak-free-2 only")

    @property
    def leaky(self) -> bool:
        """Whether training faces, or pictures of them, stand among those that select or test."""
        return self.split not in LEAK_FREE_SPLITS

    @property
    def name(self) -> str:
        kind = self.split.rpartition("-")[0]
        return kind if self.fold is None else f"{kind} fold {self.fold}"


GenderName = Literal["male", "female"]
RaceName = Literal["White", "Black", "Asian", "Indian", "Others"]


@dataclass(frozen=True)
class Subset:
    """The part of all faces that an experiment is about: it is selected and tested on no other."""

    gender: GenderName | None = None
    race: RaceName | None = None
    training: Literal["subset", "everyone", "size_matched"] = "subset"
    """Trained on the subset, on all faces, or on a stratified sample of all faces of its size."""

    def __post_init__(self) -> None:
        check_fields(self, "subset.")
        is_part = self.gender is not None or self.race is not None
        fix = "Leave the subset out to train and test on all faces"
        require(is_part, "a subset of all faces", allowed="a gender, a race, or both", fix=fix)

    @property
    def label(self) -> str:
        """The subset in a name: `women`, `black`, `women_black`."""
        gender = {"male": "men", "female": "women", None: ""}[self.gender]
        return "_".join(filter(None, (gender, (self.race or "").lower())))

    @property
    def tested(self) -> Subset:
        """The faces that select and test, however the network was trained."""
        return dataclasses.replace(self, training="subset")

    @property
    def ending(self) -> str:
        """How the name of an experiment on this subset ends: `women`, `women-matched`."""
        endings = {"subset": "", "everyone": "-everyone", "size_matched": "-matched"}
        return f"{self.label}{endings[self.training]}"


@dataclass(frozen=True)
class StudyRow:
    """What the original study printed for this row, leak included; accuracies in [0, 1]."""

    row: str
    age_group: float | None = None
    gender: float | None = None
    race: float | None = None


def with_values(definition: Definition, values: Mapping[str, Any]) -> Definition:
    """Copy `definition` with each dotted path set; the copy is validated like any definition.

    Raises ExperimentError for an unknown path, a group of fields or a value of another type.
    """
    for path, value in values.items():
        definition = _with_value(definition, path.split("."), value, path)
    return definition


def flattened(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every plain value of nested groups with its dotted path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def changed_settings(base: Mapping[str, Any], changed: Mapping[str, Any]) -> Iterator[str]:
    """Give `path=value`, as --set takes it, for every setting in which a definition differs."""
    groups = {name: fields for name, fields in base.items() if isinstance(fields, Mapping)}
    before = dict(flattened(groups))
    for path, value in flattened(changed):
        plain = tuple(value) if isinstance(value, list) else value
        if path.split(".")[0] in groups and before.get(path) != plain:
            # Without spaces, so that a list of settings can be divided at them.
            is_text = isinstance(value, str)
            yield f"{path}={value if is_text else json.dumps(value, separators=(',', ':'))}"


def _with_value(node: Any, keys: list[str], value: Any, path: str) -> Any:
    name = keys[0]
    of: Any = type(node)
    allowed = [item.name for item in dataclasses.fields(node) if item.name != "ad_hoc"]
    if name not in allowed:
        guess, found = did_you_mean(name, allowed).strip(), f"unknown setting {path!r}"
        raise ExperimentError(found, allowed=", ".join(allowed), fix=guess)
    current, kinds = getattr(node, name), _kinds_of(of)[name]
    if len(keys) > 1:
        found = f"unknown setting {path!r}: {name} has no fields"
        above = ".".join(path.split(".")[: -len(keys) + 1])
        require(dataclasses.is_dataclass(current), found, allowed=f"{above}=VALUE")
        value = _with_value(current, keys[1:], value, path)
    elif isinstance(value, list):
        value = tuple(value)
    elif type(value) is int and float in [getattr(kind, "__origin__", kind) for kind in kinds]:
        value = float(value)  # as definitions write it: 1 and 1.0 are two identities
    return dataclasses.replace(node, **{name: value})
