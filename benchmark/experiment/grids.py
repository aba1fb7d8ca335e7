"""A grid as the study searched: every pair of two values, on a small part of the faces.

What the study printed for each point stands beside, so that ours can be shown next to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmark.errors import require
from benchmark.experiment.definition import Experiment
from benchmark.experiment.search_points import check_space
from benchmark.experiment.space import Choices, SearchSpace

PREFIX: Final = "grid-"


@dataclass(frozen=True)
class GridSpace:
    """Two ranges crossed; rows and columns as the study's table has them."""

    name: str
    asks: str
    experiment: Experiment
    """Trained at every point."""
    rows: Choices
    columns: Choices
    study: tuple[tuple[float, ...], ...]
    """What the study printed, validation accuracy in [0, 1], by row and column."""
    source: str
    train_fraction: float = 0.10
    """Of all faces, as many as the study trained on."""
    val_fraction: float = 0.05

    def __post_init__(self) -> None:
        require(
            self.name.startswith(PREFIX),
            f"a grid named {self.name!r}",
            allowed=f"a name that begins with {PREFIX!r}",
        )
        shape = [len(row) for row in self.study]
        require(
            shape == [len(self.columns.values)] * len(self.rows.values),
            f"{self.name!r} has printed numbers of shape {shape}",
            allowed=f"{len(self.rows.values)} rows of {len(self.columns.values)}",
        )
        for name in ("train_fraction", "val_fraction"):
            value = getattr(self, name)
            require(0 < value <= 1, f"{name} of {self.name!r} is {value!r}", allowed="0 < x <= 1")
        check_space(self.space, self.experiment)

    @property
    def space(self) -> SearchSpace:
        """Both ranges."""
        return SearchSpace((self.rows, self.columns))

    def points(self, rows: tuple[Any, ...] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the points, row by row; of some rows only, where these are given."""
        chosen = self.rows.values if rows is None else rows
        unknown = [str(row) for row in chosen if row not in self.rows.values]
        require(
            not unknown,
            f"{self.name} has no row {', '.join(unknown)}",
            allowed=", ".join(map(str, self.rows.values)),
        )
        for row in chosen:
            for column in self.columns.values:
                yield {self.rows.path: row, self.columns.path: column}

    def printed(self) -> Mapping[tuple[Any, Any], float]:
        """Give what the study printed, by row and column value."""
        return {
            (row, column): value
            for row, line in zip(self.rows.values, self.study, strict=True)
            for column, value in zip(self.columns.values, line, strict=True)
        }
