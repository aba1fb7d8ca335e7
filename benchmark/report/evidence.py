"""What the page is made from: the runs, the rows they make, and their answers, read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from benchmark.errors import RunError
from benchmark.experiment import Experiment, Protocol
from benchmark.report.links import DIGITS, MlflowLinks
from benchmark.results.arms import Absent, Arm
from benchmark.results.board import Kind, Leaderboard, Table
from benchmark.results.comparison import Book, Found
from benchmark.results.library import Library
from benchmark.results.paired import Family
from benchmark.results.row import Row, Setting
from benchmark.results.rows import Run, definition_key
from benchmark.tasks import TASKS, TaskName


@dataclass(frozen=True)
class Network:
    """A row of a table with the runs behind it."""

    row: Row
    kind: Kind
    experiment: Experiment
    runs: tuple[Run, ...]
    """By ascending seed."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it predicts."""
        return tuple(task for task in TASKS if task in self.experiment.head.tasks)

    @property
    def tested(self) -> bool:
        """Whether its test faces were read."""
        return bool(self.row.scores)

    @property
    def multiply_adds(self) -> int | None:
        """Of one face; None for runs of a time when it was not counted."""
        found = self.runs[0].about.get("multiply_adds")
        return None if found is None else int(found)

    def as_arm(self) -> Arm:
        """Give the very runs of the row as one side of a comparison."""
        return Arm(self.row.name, self.runs)


@dataclass(frozen=True)
class Evidence:
    """All that is known of one data set's runs."""

    library: Library
    board: Leaderboard
    experiments: tuple[Experiment, ...]
    """Those that the page is about, in order."""
    suites: tuple[str, ...]
    """Those asked for; empty: every experiment that was begun."""
    links: MlflowLinks
    book: Book = field(default_factory=Book)
    found: dict[Family, Found] = field(default_factory=dict)
    """What came of the page's comparisons, once benchmark.report.pairs has made them."""

    @property
    def dataset(self) -> str:
        """The data set that all numbers are about."""
        return self.board.dataset

    @cached_property
    def setting(self) -> Setting | None:
        """What the answers are about: everyone's faces, honestly split, as most rows have it.

        None where no such run is finished. Other settings have tables of their own and take part
        in no answer.
        """
        counts: dict[Setting, int] = {}
        for table in self.board.tables:
            where = table.setting
            if where.protocol == Protocol() and where.subset is None:
                done = sum(row.status == "done" and not row.leaky for row in table.rows)
                counts[where] = counts.get(where, 0) + done
        found = [where for where, count in counts.items() if count]
        return max(found, key=lambda where: counts[where]) if found else None

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The finished honest rows of the setting, in the order of the tables; one per name."""
        found: dict[str, Network] = {}
        for table in self.board.tables:
            if table.setting == self.setting:
                for row in table.rows:
                    if row.status == "done" and not row.leaky and row.name not in found:
                        found[row.name] = self._network(row, table)
        return tuple(found.values())

    def ranked(self, kind: Kind) -> tuple[Network, ...]:
        """The networks of a kind that have a rank, best on validation first."""
        return tuple(
            network
            for network in self.networks
            if network.kind == kind and network.row.rank is not None and network.tested
        )

    @property
    def drawn(self) -> bool:
        """Whether the faces are drawn and not photographed."""
        return self.board.drawn

    def _network(self, row: Row, table: Table) -> Network:
        runs = tuple(self.runs_by_id[identity[:DIGITS]] for identity in row.identities)
        return Network(row, table.kind, self.library.experiments[row.name], runs)

    @cached_property
    def runs_by_id(self) -> Mapping[str, Run]:
        """All runs that could be read, by the first digits of their identities."""
        return {run.record.identity[:DIGITS]: run for run in self.library.runs}

    @cached_property
    def _networks_by_name(self) -> Mapping[str, Network]:
        return {network.row.name: network for network in self.networks}

    def arm(self, name: str) -> Arm | Absent:
        """Give the runs of an experiment as its row has them, or say why there are none."""
        network = self._networks_by_name.get(name)
        if network is None:
            found = self.library.experiment_arm(name, self.dataset)
            return found if isinstance(found, Absent) else Absent(name, _why_apart(found))
        if not network.tested:
            return Absent(name, "its test was not read")
        return network.as_arm()


def _why_apart(arm: Arm) -> str:
    if arm.leaky:
        return "LEAKY, never set beside honest runs"
    return "run on other faces, another split or another protocol"


def chosen_experiments(library: Library, suites: Sequence[str], dataset: str) -> list[Experiment]:
    """List the experiments of some suites, or every one that was begun on a data set.

    Raises RunError for a suite that is not registered.
    """
    if suites:
        unknown = [name for name in suites if name not in library.suites]
        if unknown:
            raise RunError(f"unknown suite {unknown[0]!r}", allowed=", ".join(library.suites))
        names = [name for suite in suites for name in library.suites[suite].experiments]
        return [library.experiments[name] for name in dict.fromkeys(names)]
    here = [run for run in library.runs if run.setting.dataset == dataset]
    begun = {str(run.definition["name"]) for run in here}
    keys = {run.definition_key for run in here}
    return [
        item
        for item in library.experiments.values()
        if item.name in begun or definition_key(item.as_dict()) in keys
    ]
