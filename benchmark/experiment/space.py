"""What a search may change about an experiment, and in what range: plain values, no torch.

A range is a dotted path of the definition and the values it may take. Whether they fit an
experiment is for benchmark.experiment.search_points to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from benchmark.errors import require

RATE: Final = "recipe.learning_rate"
RATIO: Final = "recipe.trunk_rate_ratio"
DECAY: Final = "recipe.stage_rate_decay"
DEPTH: Final = "backbone.trainable_stages"
AUGMENTATION: Final = "recipe.augmentation"


@dataclass(frozen=True)
class _Interval:
    path: str
    low: float
    high: float

    kinds: ClassVar[tuple[type, ...]] = (int, float)

    def __post_init__(self) -> None:
        is_range = all(self._is_number(end) for end in self.ends) and self.low < self.high
        require(
            is_range,
            f"the range of {self.path} is {self.low!r} to {self.high!r}",
            allowed=f"two {'finite' if float in self.kinds else 'whole'} numbers, lower one first",
        )

    @property
    def words(self) -> str:
        """The range in words; part of a study's identity."""
        return f"{self.low:g} to {self.high:g}"

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all others when the range is checked."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Tell whether a value is in the range."""
        return self._is_number(value) and self.low <= value <= self.high

    def _is_number(self, value: Any) -> bool:
        return type(value) in self.kinds and math.isfinite(value)


@dataclass(frozen=True)
class Floats(_Interval):
    """Every number from `low` to `high`, both included; sampled by factors where `log`."""

    log: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.log or self.low > 0,
            f"the range of {self.path} is by factors and begins at {self.low!r}",
            allowed="a beginning above 0, or log=False",
        )

    @property
    def words(self) -> str:
        """The range in words; part of a study's identity."""
        return super().words + (", by factors" if self.log else "")


@dataclass(frozen=True)
class Integers(_Interval):
    """Every whole number from `low` to `high`, both included."""

    low: int
    high: int
    kinds: ClassVar[tuple[type, ...]] = (int,)


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
        """The choices in words; part of a study's identity."""
        return " | ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in self.values)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that are tried when the range is checked: all of them."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of the choices."""
        return value in self.values


Range = Floats | Integers | Choices


@dataclass(frozen=True)
class SearchSpace:
    """What a search may change about an experiment; each path once."""

    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", tuple(self.ranges))
        require(
            len(self.ranges) > 0 and all(isinstance(item, Range) for item in self.ranges),
            f"a search space of {list(self.ranges)!r:.80}",
            allowed="one range or more: Floats, Integers or Choices",
        )
        twice = sorted({path for path in self.paths if self.paths.count(path) > 1})
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
        """Each path with its range in words."""
        return {item.path: item.words for item in self.ranges}

    def only(self, paths: tuple[str, ...]) -> SearchSpace:
        """Keep some of the ranges; raise ExperimentError for a path that is not among them."""
        unknown = [path for path in paths if path not in self.paths]
        require(
            not unknown, f"{', '.join(unknown)} is not searched here", allowed=", ".join(self.paths)
        )
        return SearchSpace(tuple(item for item in self.ranges if item.path in paths))
