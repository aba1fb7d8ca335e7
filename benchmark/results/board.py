"""A leaderboard as plain values: tables of rows, and what a reader must know about them.

How it is built from runs is for benchmark.results.leaderboard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmark.results.row import Row, Setting
from benchmark.tasks import TASKS, TaskName

Kind = Literal["mtl", "age_group", "gender", "race"]
KINDS: Final[tuple[Kind, ...]] = ("mtl", *TASKS)

HEADINGS: Final[dict[Kind, str]] = {
    "mtl": "Three tasks, one network (MTL)",
    "age_group": "Age group alone (STL)",
    "gender": "Gender alone (STL)",
    "race": "Race alone (STL)",
}

ONE_SEED: Final = "one seed: no claim about the experiment"


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: one setting, and networks for the same tasks."""

    setting: Setting
    kind: Kind
    rows: tuple[Row, ...]
    """Reference rows, then ranked experiments, then missing ones in the order asked for."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks that every network of the table predicts."""
        return tasks_of(self.kind)


@dataclass(frozen=True)
class Leaderboard:
    """All tables of one data set, and what a reader must know about them."""

    dataset: str
    suite: str | None
    """None: no suite, but every experiment that was begun."""
    drawn: bool
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """What was left out and why, about this very leaderboard."""
    limits: tuple[str, ...]
    """What numbers of this benchmark are not; the same under every leaderboard."""
    suites: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Which experiments the suites asked for list."""
    narrowed: str = ""
    """By what rows were chosen or ordered since; empty for the whole, by rank."""

    def suites_of(self, name: str) -> tuple[str, ...]:
        """Name the suites asked for that list an experiment."""
        return tuple(suite for suite, names in self.suites.items() if name in names)


def tasks_of(kind: Kind) -> tuple[TaskName, ...]:
    """Name the tasks of a table's networks."""
    return TASKS if kind == "mtl" else (kind,)
