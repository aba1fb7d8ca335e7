"""What a search may change about an experiment, and in what range: plain values, no torch.

A range is a dotted path of the definition and the values it may take. Whether they fit an
experiment is for benchmark.experiment.search_points to say, and who searches for benchmark.tuning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from benchmark.errors import require

RATE: Final = "recipe.learning_rate"
RATIO: Final = "recipe.trunk_rate_ratio"
DECAY: Final = "recipe.stage_rate_decay"
DEPTH: Final = "backbone.trainable_stages"
AUGMENTATION: Final = "recipe.augmentation"


@dataclass(frozen=True)
class Floats:
    """Every number from `low` to `high`, both included; by factors where `log`."""

    path: str
    low: float
    high: float
    log: bool = True

    def __post_init__(self) -> None:
        numbers = all(isinstance(end, (int, float)) for end in (self.low, self.high))
        finite = numbers and math.isfinite(self.low) and math.isfinite(self.high)
        require(
            finite and self.low < self.high,
            f"the range of {self.path} is {self.low!r} to {self.high!r}",
            allowed="two finite numbers, the lower one first",
        )
        require(
            not self.log or self.low > 0,
            f"the range of {self.path} is by factors and begins at {self.low!r}",
            allowed="a beginning above 0, or log=False",
        )

    @property
    def words(self) -> str:
        """The range as a person would say it."""
        return f"{self.low:g} to {self.high:g}" + (", by factors" if self.log else "")

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all others when the range is checked."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Tell whether a value is in the range."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


@dataclass(frozen=True)
class Integers:
    """Every whole number from `low` to `high`, both included."""

    path: str
    low: int
    high: int

    def __post_init__(self) -> None:
        whole = all(
            isinstance(end, int) and not isinstance(end, bool) for end in (self.low, self.high)
        )
        require(
            whole and self.low < self.high,
            f"the range of {self.path} is {self.low!r} to {self.high!r}",
            allowed="two whole numbers, the lower one first",
        )

    @property
    def words(self) -> str:
        """The range as a person would say it."""
        return f"{self.low} to {self.high}"

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all others when the range is checked."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Tell whether a value is in the range."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """A few values, in no order."""

    path: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        plain = all(isinstance(value, (str, int, float)) for value in self.values)
        require(
            plain and len(self.values) > 0 and len(set(self.values)) == len(self.values),
            f"the choices of {self.path} are {list(self.values)!r}",
            allowed="different texts or numbers, one or more",
        )

    @property
    def words(self) -> str:
        """The range as a person would say it."""
        return " | ".join(f"{value:g}" if _is_float(value) else str(value) for value in self.values)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all others when the range is checked: here, all of them."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of the choices."""
        return value in self.values


def _is_float(value: object) -> bool:
    return isinstance(value, float)


Range = Floats | Integers | Choices


@dataclass(frozen=True)
class SearchSpace:
    """What a search may change about an experiment; each path once."""

    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", tuple(self.ranges))
        kinds = all(isinstance(item, (Floats, Integers, Choices)) for item in self.ranges)
        require(
            kinds and len(self.ranges) > 0,
            f"a search space of {list(self.ranges)!r:.80}",
            allowed="one range or more: Floats, Integers or Choices",
        )
        paths = self.paths
        twice = sorted({path for path in paths if paths.count(path) > 1})
        require(
            not twice,
            f"a search space with two ranges for {', '.join(twice)}",
            allowed="one range for each path",
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """What is searched, in the order of the definition."""
        return tuple(item.path for item in self.ranges)

    @property
    def words(self) -> dict[str, str]:
        """Each path with its range as a person would say it."""
        return {item.path: item.words for item in self.ranges}

    def only(self, paths: tuple[str, ...]) -> SearchSpace:
        """Keep some of the ranges; raise ExperimentError for a path that is not among them."""
        unknown = [path for path in paths if path not in self.paths]
        require(
            not unknown,
            f"{', '.join(unknown)} is not searched here",
            allowed=", ".join(self.paths),
        )
        return SearchSpace(tuple(item for item in self.ranges if item.path in paths))
