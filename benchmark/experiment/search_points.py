"""From an experiment to what may be searched about it, and from a point of that space back.

Every architecture has a search space of its own unless the definition gives one. A point holds
plain numbers; what it means for the definition (depth n of n is `all`, a ratio of 1 is none) is
said here once, so that a trial that changes nothing is the definition itself. A grid of the study
is a space of two ranges, with the numbers that the study printed for its points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmark.errors import ExperimentError, require
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.parts import Augmentation
from benchmark.experiment.settings import with_values
from benchmark.experiment.space import (
    AUGMENTATION,
    DECAY,
    DEPTH,
    RATE,
    RATIO,
    Choices,
    Floats,
    Integers,
    Range,
    SearchSpace,
)

if TYPE_CHECKING:
    from benchmark.experiment.definition import Experiment

AUGMENTATION_LEVELS: Final = (
    Augmentation(),
    Augmentation(flip=True),
    Augmentation(flip=True, rotation_degrees=10, brightness=0.1, contrast=0.15),
    Augmentation(flip=True, rotation_degrees=20, brightness=0.2, contrast=0.3),
)
"""Strengths 0 to 3: none, mirrored, half of what the study's searches used, all of it (notebooks,
§4; its rotation was written as 20 degrees). Up to 1 the frozen part is computed once."""
AUGMENTATION_NAMES: Final = ("none", "flip", "mild", "strong")
BATCH_SIZE: Final = "recipe.batch_size"
STEPS: Final = "recipe.steps_per_epoch"
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
    sizes = tuple(size for size in (16, 32, 64, 128) if _divides(size, experiment))
    ranges += [
        Choices(BATCH_SIZE, sizes),
        Choices("head.hidden_units", (64, 128, 256, 512)),
        Integers(AUGMENTATION, 0, len(AUGMENTATION_LEVELS) - 1),
        Choices("recipe.weight_decay", (0.0, 1e-4, 1e-3, 1e-2, 1e-1)),
    ]
    if len(experiment.head.tasks) > 1:
        # Against race, whose weight stays: only their ratios matter to what is learnt.
        ranges += [
            Floats(f"recipe.loss_weights.{task}", 0.1, 1.0) for task in ("age_group", "gender")
        ]
    return SearchSpace(tuple(ranges))


def count_stages(experiment: Experiment) -> int:
    """Count the stages of an experiment's backbone."""
    return len(architecture_named(experiment.backbone.architecture).stages)


def depth_of(experiment: Experiment) -> int:
    """Count the stages that an experiment trains."""
    depth = experiment.backbone.trainable_stages
    return count_stages(experiment) if depth == "all" else depth


def faces_per_epoch(experiment: Experiment) -> int | None:
    """Count the faces of an epoch of counted steps; None where an epoch is one pass over them."""
    steps = experiment.recipe.steps_per_epoch
    return None if steps is None else steps * experiment.recipe.batch_size


def _divides(batch_size: Any, experiment: Experiment) -> bool:
    """Tell whether batches of a size make up the faces of an epoch of counted steps exactly.

    What is no size at all is for the definition to refuse.
    """
    n_faces = faces_per_epoch(experiment)
    is_size = isinstance(batch_size, int) and batch_size > 0
    return n_faces is None or not is_size or n_faces % batch_size == 0


def check_space(space: SearchSpace, experiment: Experiment) -> None:
    """Raise ExperimentError where a space does not fit its experiment, at either end of a range."""
    searched = {item.path: item for item in space.ranges}
    deepest = searched[DEPTH].ends[-1] if DEPTH in searched else depth_of(experiment)
    highest = {DEPTH: count_stages(experiment), AUGMENTATION: len(AUGMENTATION_LEVELS) - 1}
    n_faces = faces_per_epoch(experiment)
    for path, item in searched.items():
        what = f"the search of {experiment.name!r} varies {path} ({item.words})"
        if path in highest:
            so_many = f"{experiment.backbone.architecture} has so many stages"
            meaning = so_many if path == DEPTH else ", ".join(AUGMENTATION_NAMES)
            require(
                all(isinstance(end, int) and 0 <= end <= highest[path] for end in item.ends),
                what,
                allowed=f"whole numbers from 0 to {highest[path]}: {meaning}",
            )
        if path in (RATIO, DECAY):
            least = 1 if path == RATIO else 2
            require(
                deepest >= least,
                f"{what} and trains {deepest} stages",
                allowed=f"a depth of {least} or more, or no range for it",
            )
        require(
            not path.startswith("recipe.loss_weights") or len(experiment.head.tasks) > 1,
            f"{what} of a single task",
            allowed="loss weights of three tasks: a single one always counts 1",
        )
        uneven = not all(_divides(size, experiment) for size in item.ends) or STEPS in searched
        require(
            path != BATCH_SIZE or not uneven,
            f"{what} with epochs of counted steps, which would not be of the same number of faces",
            allowed=f"divisors of {n_faces} faces, and no range for {STEPS}",
        )
        require(
            not path.startswith(f"{AUGMENTATION}.") or AUGMENTATION not in searched,
            f"{what} and {AUGMENTATION}",
            allowed="one of the two",
        )
        for end in item.ends:
            try:
                experiment_at(experiment, {path: end})
            except ExperimentError as error:
                raise ExperimentError(
                    error.found, allowed=error.allowed,
                    source=f"the range of {path} of {experiment.name!r}: {item.words}",
                ) from error  # fmt: skip


def settings_at(experiment: Experiment, point: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a point of a space into values by dotted path, as the definition writes them.

    Where an epoch is a number of steps and not a pass, another batch size takes as many steps as
    make the same number of faces: else the larger batches would be trained on more of them.
    """
    settings = dict(point)
    n_faces = faces_per_epoch(experiment)
    if n_faces is not None and BATCH_SIZE in point:
        settings[STEPS] = n_faces // int(point[BATCH_SIZE])
    depth = int(point.get(DEPTH, depth_of(experiment)))
    if DEPTH in point and depth == count_stages(experiment):
        settings[DEPTH] = "all"
    for path, least in ((RATIO, 1), (DECAY, 2)):
        if path in point and (depth < least or point[path] == 1.0):
            settings[path] = None
    if AUGMENTATION in point:
        settings[AUGMENTATION] = AUGMENTATION_LEVELS[int(point[AUGMENTATION])]
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
    require(
        not outside,
        f"{experiment.name} itself is outside of its search space: "
        + ", ".join(f"{item.path} is {point[item.path]}" for item in outside),
        allowed=", ".join(item.words for item in outside),
    )
    return point


def value_at(experiment: Experiment, path: str) -> Any:
    """Give the plain value of a definition at a path; an augmentation of no strength as text."""
    if path == DEPTH:
        return depth_of(experiment)
    value: Any = experiment
    for name in path.split("."):
        value = getattr(value, name)
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
    train_fraction: float = 0.10
    val_fraction: float = 0.05

    def __post_init__(self) -> None:
        require(
            self.name.startswith(GRID_PREFIX),
            f"a grid named {self.name!r}",
            allowed=f"a name that begins with {GRID_PREFIX!r}",
        )
        shape = [len(row) for row in self.study]
        require(
            shape == [len(self.columns.values)] * len(self.rows.values),
            f"{self.name!r} has printed numbers of shape {shape}",
            allowed=f"{len(self.rows.values)} rows of {len(self.columns.values)}",
        )
        check_space(self.space, self.experiment)

    @property
    def space(self) -> SearchSpace:
        """Both ranges."""
        return SearchSpace((self.rows, self.columns))

    def points(self, rows: tuple[Any, ...] = ()) -> Iterator[dict[str, Any]]:
        """Yield the points row by row; of some rows only, where these are given."""
        unknown = [str(row) for row in rows if row not in self.rows.values]
        require(
            not unknown,
            f"{self.name} has no row {', '.join(unknown)}",
            allowed=", ".join(map(str, self.rows.values)),
        )
        for row in rows or self.rows.values:
            for column in self.columns.values:
                yield {self.rows.path: row, self.columns.path: column}

    def printed(self) -> dict[tuple[Any, Any], float]:
        """Give what the study printed, by row and column value."""
        values = [value for row in self.study for value in row]
        points = [tuple(point.values()) for point in self.points()]
        return dict(zip(points, values, strict=True))
