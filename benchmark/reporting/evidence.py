"""What the report is made from: one data set's runs, their rows and predictions, and run links."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final
from urllib.parse import urlencode, urlsplit

from benchmark.comparison.leaderboard import KINDS, Kind, Leaderboard
from benchmark.comparison.library import Library, NotRun, Run, RunGroup, Setting, definition_key
from benchmark.comparison.pairs import Book, Found
from benchmark.comparison.rows import Row
from benchmark.comparison.statistics import Family
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment, Protocol
from benchmark.tasks import TASKS, TaskName

DIGITS: Final = 12
"""How many digits of an identity name a run on the page."""
COMPARED_AT_MOST: Final = 24
"""More runs than MLflow can show beside each other: the link leads to the list of all."""


@dataclass(frozen=True)
class RunLinks:
    """Where runs are shown: in MLflow at `base`, or, without one, in their folders."""

    base: str = ""
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By the first digits of an identity: MLflow's ids of the experiment and of the run."""
    work: str = "../work"
    """The folder that holds the runs' folders, as an address relative to the page."""

    def of(self, identities: Sequence[str]) -> str:
        """Give the address of one run, MLflow's comparison of several, or its list of very many.

        Empty where MLflow does not know one of them, and for several runs without MLflow.
        """
        wanted = list(dict.fromkeys(identities))
        if not self.base:
            return f"{self.work}/{wanted[0]}/" if len(wanted) == 1 else ""
        found = [self.known[key[:DIGITS]] for key in wanted if key[:DIGITS] in self.known]
        if not found or len(found) < len(wanted):
            return ""
        experiments = sorted({experiment for experiment, _ in found})
        if len(found) > COMPARED_AT_MOST and len(experiments) == 1:
            return f"{self.base}/#/experiments/{experiments[0]}/runs"
        if len(found) == 1:
            return f"{self.base}/#/experiments/{experiments[0]}/runs/{found[0][1]}"
        query = {
            "runs": json.dumps([run for _, run in found], separators=(",", ":")),
            "experiments": json.dumps(experiments, separators=(",", ":")),
        }
        return f"{self.base}/#/compare-runs?{urlencode(query)}"


def mlflow_links(url: str, known: Mapping[str, tuple[str, str]]) -> RunLinks:
    """Make links to the UI at `url`; raise RunError for what is no address of a web page.

    known: by identity, MLflow's ids of the experiment and of the run.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise RunError(f"--mlflow-url {url!r} is no address", allowed="http://… or https://…")
    short = {identity[:DIGITS]: place for identity, place in known.items()}
    return RunLinks(url.rstrip("/"), short)


@dataclass(frozen=True)
class RankedNetwork:
    """A row of a leaderboard with the runs behind it."""

    row: Row
    kind: Kind
    experiment: Experiment
    runs: tuple[Run, ...]
    """By ascending seed."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.row.name

    @property
    def anchor(self) -> str:
        """Its place on the page, where tables lead to."""
        return f"network-{self.row.name}"

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it predicts."""
        return tuple(task for task in TASKS if task in self.experiment.head.tasks)

    @property
    def tested(self) -> bool:
        """Whether it was evaluated on the test set."""
        return bool(self.row.scores)

    @property
    def group(self) -> RunGroup:
        """The very runs of the row, as one side of a comparison."""
        return RunGroup(self.row.name, self.runs)


@dataclass(frozen=True)
class Evidence:
    """All that is known of one data set's runs."""

    library: Library
    board: Leaderboard
    experiments: tuple[Experiment, ...]
    """Those that the page is about, in order."""
    suites: tuple[str, ...] = ()
    """Those asked for; empty: every experiment that was begun."""
    links: RunLinks = RunLinks()
    book: Book = field(default_factory=Book)
    found: dict[Family, Found] = field(default_factory=dict)
    """The page's comparisons, once benchmark.reporting.pair_questions has made them."""

    @property
    def dataset(self) -> str:
        """The data set that all numbers are about."""
        return self.board.dataset

    @property
    def runs(self) -> list[Run]:
        """All runs on the data set, finished or not."""
        return [run for run in self.library.runs if run.setting.dataset == self.dataset]

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
    def networks(self) -> Mapping[str, RankedNetwork]:
        """The finished honest rows of the setting by name, in the order of the tables."""
        runs = {run.record.identity[:DIGITS]: run for run in self.library.runs}
        found: dict[str, RankedNetwork] = {}
        for table in self.board.tables:
            for row in table.rows if table.setting == self.setting else ():
                if row.status == "done" and not row.leaky and row.name not in found:
                    ours = tuple(runs[identity[:DIGITS]] for identity in row.identities)
                    experiment = self.library.experiments[row.name]
                    found[row.name] = RankedNetwork(row, table.kind, experiment, ours)
        return found

    def ranked(self, kind: Kind) -> tuple[RankedNetwork, ...]:
        """The networks of a kind that have a rank, best on validation first."""
        return tuple(
            network
            for network in self.networks.values()
            if network.kind == kind and network.row.rank is not None and network.tested
        )

    @property
    def first_ranked(self) -> tuple[RankedNetwork, ...]:
        """The ranked networks of the first kind that has any."""
        return next((ranked for kind in KINDS if (ranked := self.ranked(kind))), ())

    def group(self, name: str) -> RunGroup | NotRun:
        """Give the runs of an experiment as its row has them, or say why there are none."""
        network = self.networks.get(name)
        if network is not None:
            tested = network.tested
            return network.group if tested else NotRun(name, "not evaluated on the test set")
        found = self.library.run_group(name, self.dataset)
        if isinstance(found, NotRun):
            return found
        why = "run on other faces, another split or another protocol"
        return NotRun(name, "LEAKY, never compared with honest runs" if found.leaky else why)


def chosen_experiments(library: Library, suites: Sequence[str], dataset: str) -> list[Experiment]:
    """List the experiments of some suites, or every one that was begun on a data set.

    Raises RunError for a suite that is not registered.
    """
    if suites:
        unknown = [name for name in suites if name not in library.suites]
        if unknown:
            raise RunError(f"unknown suite {unknown[0]!r}", allowed=", ".join(library.suites))
        wanted = [name for suite in suites for name in library.suites[suite].experiments]
        return [library.experiments[name] for name in dict.fromkeys(wanted)]
    begun = [run for run in library.runs if run.setting.dataset == dataset]
    names = {str(run.definition["name"]) for run in begun}
    keys = {run.definition_key for run in begun}
    return [
        item
        for item in library.experiments.values()
        if item.name in names or definition_key(item.as_dict()) in keys
    ]
