"""What a search may change about an experiment, in what range, and what a point of it means.

A range is a dotted path of the definition and the values it may take; plain values, no torch. A
point holds plain numbers; what it means for the definition (depth n of n is `all`, a ratio of 1 is
none) is said here once, so that a trial that changes nothing is the definition itself. A grid of
the study is a space of two ranges, with the numbers that the study printed for its points.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final

from benchmark.errors import ExperimentError, require
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.parts import Augmentation, with_values
from benchmark.tasks import TASKS

if TYPE_CHECKING:
    from benchmark.experiment.definition import Experiment

RATE: Final = "recipe.learning_rate"
RATIO: Final = "recipe.trunk_rate_ratio"
DECAY: Final = "recipe.stage_rate_decay"
DEPTH: Final = "backbone.trainable_stages"
AUGMENTATION: Final = "recipe.augmentation"
BATCH_SIZE: Final = "recipe.batch_size"
LOSS_WEIGHTS: Final = "recipe.loss_weights."


@dataclass(frozen=True)
class Floats:
    """Every number from `low` to `high`, both included; sampled by factors where `log`."""

    path: str
    low: float
    high: float
    log: bool = True
    kinds: ClassVar[tuple[type, ...]] = (int, float)

    def __post_init__(self) -> None:
        found = f"the range of {self.path} is {self.low!r} to {self.high!r}"
        fits = self.holds(self.low) and self.holds(self.high) and self.low < self.high
        kind = "finite" if float in self.kinds else "whole"
        require(fits, found, allowed=f"two {kind} numbers, lower one first")
        found, allowed = f"{found}, by factors", "a beginning above 0, or log=False"
        require(not self.log or self.low > 0, found, allowed=allowed)

    @property
    def words(self) -> str:
        """The range in words; part of a study's identity."""
        return f"{self.low:g} to {self.high:g}" + (", by factors" if self.log else "")

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values at which a range is checked."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        is_number = type(value) in self.kinds and math.isfinite(value)
        return is_number and self.low <= value <= self.high


@dataclass(frozen=True)
class Integers(Floats):
    """Every whole number from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = field(default=False, init=False)
    kinds: ClassVar[tuple[type, ...]] = (int,)


@dataclass(frozen=True)
class Choices:
    """A few values, in no order."""

    path: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        plain = all(isinstance(value, (str, int, float)) for value in self.values)
        fits = plain and 0 < len(self.values) == len(set(self.values))
        found = f"the choices of {self.path} are {list(self.values)!r}"
        require(fits, found, allowed="different texts or numbers, one or more")

    @property
    def words(self) -> str:
        """The choices in words; part of a study's identity."""
        return " | ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in self.values)

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.values

    def holds(self, value: Any) -> bool:
        return value in self.values


Range = Floats | Choices


@dataclass(frozen=True)
class SearchSpace:
    """What a search may change about an experiment; each path once."""

    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", tuple(self.ranges))
        fits = len(self.ranges) > 0 and all(isinstance(item, Range) for item in self.ranges)
        found = f"a search space of {list(self.ranges)!r:.80}"
        require(fits, found, allowed="one range or more: Floats, Integers or Choices")
        twice = sorted({path for path in self.paths if self.paths.count(path) > 1})
        found = f"a search space with two ranges for {', '.join(twice)}"
        require(not twice, found, allowed="one range for each path")

    @property
    def paths(self) -> tuple[str, ...]:
        """What is searched, in the order of the definition."""
        return tuple(item.path for item in self.ranges)

    @property
    def words(self) -> dict[str, str]:
        return {item.path: item.words for item in self.ranges}

    def only(self, names: Iterable[str]) -> SearchSpace:
        """Keep ranges by path, its last word or `depth`; ExperimentError for what is not there."""
        by_word = {path.rpartition(".")[2]: path for path in self.paths} | {"depth": DEPTH}
        kept = [by_word.get(name, name) for name in names]
        unknown = [path for path in kept if path not in self.paths]
        found = f"{', '.join(unknown)} is not searched here"
        require(not unknown, found, allowed=", ".join(self.paths))
        return SearchSpace(tuple(item for item in self.ranges if item.path in kept))


AUGMENTATION_LEVELS: Final = (
    Augmentation(),
    Augmentation(flip=True),
    Augmentation(flip=True, rotation_degrees=10, brightness=0.1, contrast=0.15),
    Augmentation(flip=True, rotation_degrees=20, brightness=0.2, contrast=0.3),
)
"""Strengths 0 to 3: none, mirrored, half of what the study's searches used, all of it (notebooks,
§4; its rotation was written as 20 degrees). Up to 1 the frozen part is computed once."""
SLOWEST_STAGE: Final = 0.01
"""Of the deepest stage's rate: no decay in a default space makes the shallowest slower."""
GRID_PREFIX: Final = "grid-"


def space_of(experiment: Experiment) -> SearchSpace:
    """Give what is searched about an experiment: its own space, or its architecture's.

    Depth and the backbone's rates are searched where there are weights to keep, since nothing
    would be learnt in a frozen part of random weights, and where features are not standardised,
    which only those of a frozen backbone are.
    """
    if experiment.search:
        return experiment.search
    ranges: list[Range] = [Floats(RATE, 1e-5, 1e-2)]
    if experiment.backbone.weights != "none" and not experiment.recipe.standardise_features:
        n_stages = count_stages(experiment)
        slowest = SLOWEST_STAGE ** (1 / max(1, n_stages - 1))
        ranges += [
            Integers(DEPTH, 0, n_stages),
            Floats(RATIO, 1e-3, 1.0),
            Floats(DECAY, max(0.3, round(slowest, 2)), 1.0, log=False),
        ]
    if experiment.recipe.steps_per_epoch is None:  # else larger batches train on more faces
        ranges.append(Choices(BATCH_SIZE, (16, 32, 64, 128)))
    ranges += [
        Choices("head.hidden_units", (64, 128, 256, 512)),
        Integers(AUGMENTATION, 0, len(AUGMENTATION_LEVELS) - 1),
        Choices("recipe.weight_decay", (0.0, 1e-4, 1e-3, 1e-2, 1e-1)),
    ]
    if len(experiment.head.tasks) > 1:
        # Against race, whose weight stays: only their ratios matter to what is learnt.
        ranges += [Floats(f"{LOSS_WEIGHTS}{task}", 0.1, 1.0) for task in ("age_group", "gender")]
    return SearchSpace(tuple(ranges))


def count_stages(experiment: Experiment) -> int:
    return len(architecture_named(experiment.backbone.architecture).stages)


def depth_of(experiment: Experiment) -> int:
    return len(experiment.backbone.trained_stages)


def check_space(space: SearchSpace, experiment: Experiment) -> None:
    """Raise ExperimentError where a space does not fit its experiment, at either end of a range."""
    ranges = {item.path: item for item in space.ranges}
    for path, item in ranges.items():
        for end in item.ends:
            try:
                experiment_at(experiment, {path: end})
            except ExperimentError as error:
                source = f"the range of {path} of {experiment.name!r}: {item.words}"
                raise ExperimentError(error.found, allowed=error.allowed, source=source) from error
    deepest = ranges[DEPTH].ends[-1] if DEPTH in ranges else depth_of(experiment)
    trains, is_pass = f"trains {deepest} stages", experiment.recipe.steps_per_epoch is None
    for path, fits, does, allowed in (
        (RATIO, deepest >= 1, trains, "a depth of 1 or more, or no range for it"),
        (DECAY, deepest >= 2, trains, "a depth of 2 or more, or no range for it"),
        (BATCH_SIZE, is_pass, "counts steps: its epochs would not have the same number of faces",
         "no range for it, or recipe.steps_per_epoch=null"),
        *((f"{LOSS_WEIGHTS}{task}", len(experiment.head.tasks) > 1, "has a single task",
           "loss weights of three tasks: a single one always counts 1") for task in TASKS),
    ):  # fmt: skip
        found = f"the search of {experiment.name!r} varies {path} and {does}"
        require(fits or path not in ranges, found, allowed=allowed)


def settings_at(experiment: Experiment, point: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a point of a space into values by dotted path, as the definition writes them."""
    n_stages = count_stages(experiment)
    for path, most in ((DEPTH, n_stages), (AUGMENTATION, len(AUGMENTATION_LEVELS) - 1)):
        value = point.get(path, 0)
        fits = type(value) is int and 0 <= value <= most
        require(fits, f"{path} is {value!r}", allowed=f"whole numbers from 0 to {most}")
    settings, depth = dict(point), point.get(DEPTH, depth_of(experiment))
    if DEPTH in point and depth == n_stages:
        settings[DEPTH] = "all"
    for path, least in ((RATIO, 1), (DECAY, 2)):
        if path in point and (depth < least or point[path] == 1.0):
            settings[path] = None
    if AUGMENTATION in point:
        settings[AUGMENTATION] = AUGMENTATION_LEVELS[point[AUGMENTATION]]
    return settings


def experiment_at(experiment: Experiment, point: Mapping[str, Any]) -> Experiment:
    """Give the experiment at a point, marked ad hoc even where it changes nothing.

    What is ad hoc is never evaluated on the test faces by itself.
    """
    start = dataclasses.replace(experiment, ad_hoc=True, search=None)
    return with_values(start, settings_at(experiment, point))


def point_of(experiment: Experiment, space: SearchSpace) -> dict[str, Any]:
    """Give the point that an experiment is at.

    Raises ExperimentError where it is outside of the space.
    """
    point = {path: value_at(experiment, path) for path in space.paths}
    outside = [item for item in space.ranges if not item.holds(point[item.path])]
    found = ", ".join(f"{item.path} is {point[item.path]}" for item in outside)
    allowed = ", ".join(item.words for item in outside)
    what = f"{experiment.name} itself is outside of its search space: {found}"
    require(not outside, what, allowed=allowed)
    return point


def value_at(experiment: Experiment, path: str) -> Any:
    """Give the plain value of a definition at a path; an augmentation of no strength as text."""
    if path == DEPTH:
        return depth_of(experiment)
    value = attrgetter(path)(experiment)
    if path in (RATIO, DECAY):
        return 1.0 if value is None else value
    if path == AUGMENTATION:
        return AUGMENTATION_LEVELS.index(value) if value in AUGMENTATION_LEVELS else str(value)
    return value


@dataclass(frozen=True)
class GridSpace:
    """Two ranges crossed, on a part of the faces; rows and columns as the study's table has them.

    study: what it printed, validation accuracy in [0, 1], by row and column. The fractions are of
    all faces, as many as the study trained and validated on.
    """

    name: str
    asks: str
    experiment: Experiment
    rows: Choices
    columns: Choices
    study: tuple[tuple[float, ...], ...]
    source: str

    def __post_init__(self) -> None:
        check_space(self.space, self.experiment)

    @property
    def space(self) -> SearchSpace:
        return SearchSpace((self.rows, self.columns))

    @property
    def printed(self) -> dict[tuple[Any, Any], float]:
        """What the study printed, by the values of row and column, row by row."""
        points = itertools.product(self.rows.values, self.columns.values)
        return dict(zip(points, itertools.chain(*self.study), strict=True))
