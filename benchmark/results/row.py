"""A leaderboard's row, as plain values: what was measured of one experiment over its seeds.

How rows are computed from runs is for benchmark.results.rows; what they are set against, for
benchmark.results.against.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmark.experiment import Protocol, StudyRow, Subset
from benchmark.results.paired import Difference, Judged
from benchmark.results.subgroups import By
from benchmark.tasks import TaskName

Opponent = Literal["twin", "defined", "first"]
"""Its single-task (or multi-task) counterpart, the one its definition names, the table's first."""


@dataclass(frozen=True)
class Setting:
    """What two runs must share to stand in one table: the faces, their split, the protocol."""

    dataset: str
    drawn: bool
    split_version: str
    split_digest: str
    """Empty where nothing has been run yet; so is the next."""
    pixel_digest: str
    protocol: Protocol
    subset: Subset | None = None
    """The people that all are selected on and tested on; None for everyone."""


@dataclass(frozen=True)
class TaskScore:
    """One task on the test faces, rates in [0, 1]; over several seeds, means and their sd."""

    accuracy: float
    low: float
    """Ends of the accuracy's 95 % interval: Wilson's for one seed, cluster bootstrap for more."""
    high: float
    macro_f1: float | None
    accuracy_sd: float | None = None
    """Sample standard deviation over seeds; None for one seed."""
    macro_f1_sd: float | None = None


@dataclass(frozen=True)
class CombinedScore:
    """All tasks on the test faces together, 0.4 age group + 0.2 gender + 0.4 race; in [0, 1]."""

    value: float
    low: float | None
    """Ends of a cluster bootstrap; None for a run that was scored before there was one."""
    high: float | None
    sd: float | None = None


@dataclass(frozen=True)
class WorstGroup:
    """The subgroup of people that a task is read worst for, among those of 30 faces or more."""

    task: TaskName
    by: By
    group: str
    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupGap:
    """How far the best-read group of a division is from the worst-read one; means over seeds."""

    task: TaskName
    by: By
    gap: float
    low: float
    """Ends of each run's 95 % interval, averaged over seeds: the seeds share the test faces, so
    that the average is no narrower than it must be."""
    high: float
    chance: float
    """The gap of a run whose group names are drawn by lot."""


@dataclass(frozen=True)
class Against:
    """A row set against another on the same test faces; where it cannot be, `why` says so."""

    kind: Opponent
    other: str
    """The other row's experiment."""
    task: TaskName | None
    """None: all tasks together, weighted as in `combined`."""
    judged: Judged | None = None
    """The row minus the other."""
    of_trainings_alone: bool = False
    """Whether single runs met, which permit no claim about an experiment."""
    why: str = ""

    @property
    def difference(self) -> Difference | None:
        """The row minus the other."""
        return self.judged.difference if self.judged else None

    @property
    def significant(self) -> bool:
        """Whether the corrected p is 0.05 or less."""
        return self.judged is not None and self.judged.significant


@dataclass(frozen=True)
class Row:
    """One line of a table. What does not exist is None or absent, never 0."""

    status: Literal["reference", "done", "missing"]
    name: str
    rank: int | None = None
    val_combined: float | None = None
    """Mean over seeds of the selected epoch's combined validation accuracy: what ranks."""
    val_combined_sd: float | None = None
    scores: Mapping[TaskName, TaskScore] = field(default_factory=dict)
    combined: CombinedScore | None = None
    """On test; None where a single task is predicted."""
    worst: WorstGroup | None = None
    gap: GroupGap | None = None
    against: tuple[Against, ...] = ()
    tied: bool = False
    """Whether there is no significant difference from the first row of its table, on test."""
    study: StudyRow | None = None
    """What the original study printed for this very row, its leak included."""
    parameters: int | None = None
    trainable_parameters: int | None = None
    gmacs: float | None = None
    """Billions of multiply-adds to read one face."""
    seconds: float | None = None
    """Mean training time of a run."""
    images_per_second: float | None = None
    peak_memory_mib: float | None = None
    """The largest of its runs."""
    seeds: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    leaky: bool = False
    stopped: bool = False
    """Too good to be true and not acknowledged: shown, and not ranked."""
    red_flag: str = ""
    """What is too good to be true and which checks were run; empty for most rows."""
    remarks: tuple[str, ...] = ()
    definition: Mapping[str, Any] = field(default_factory=dict)
    """As it was run, or as it would be; empty for reference rows."""
