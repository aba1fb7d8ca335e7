"""What the report is made from: one data set's runs, their rows and predictions, and run links."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final
from urllib.parse import urlencode, urlsplit

from benchmark.comparison.leaderboard import KINDS, Kind, Leaderboard
from benchmark.comparison.library import Library, NotRun, RunGroup, Setting
from benchmark.comparison.pairs import Book, Found
from benchmark.comparison.rows import Row
from benchmark.comparison.statistics import Family
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment, Protocol

DIGITS: Final = 12
"""How many digits of an identity name a run on the page."""


@dataclass(frozen=True)
class RunLinks:
    """Where runs are shown: in MLflow at `base`, or, without one, in their folders."""

    base: str = ""
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By the first digits of an identity: MLflow's ids of the experiment and of the run."""
    work: str = "../work"
    """The folder that holds the runs' folders, as an address relative to the page."""

    def of(self, identities: Sequence[str]) -> str:
        """Give the address of one run, or of MLflow's comparison of several; by whole identities.

        Empty where MLflow does not know one of them, and for several runs without MLflow.
        """
        wanted = dict.fromkeys(key[:DIGITS] for key in identities)
        if not self.base:
            return f"{self.work}/{identities[0]}/" if len(wanted) == 1 else ""
        found = [self.known[key] for key in wanted if key in self.known]
        if not found or len(found) < len(wanted):
            return ""
        if len(found) == 1:
            return f"{self.base}/#/experiments/{found[0][0]}/runs/{found[0][1]}"
        experiments = sorted({experiment for experiment, _ in found})
        query = {"runs": [run for _, run in found], "experiments": experiments}
        texts = {key: json.dumps(ids, separators=(",", ":")) for key, ids in query.items()}
        return f"{self.base}/#/compare-runs?{urlencode(texts)}"


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
    """A row of a leaderboard with the very runs behind it, by ascending seed."""

    row: Row
    kind: Kind
    experiment: Experiment
    group: RunGroup

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.row.name


@dataclass(frozen=True)
class Evidence:
    """All that is known of one data set's runs."""

    library: Library
    board: Leaderboard
    suites: tuple[str, ...] = ()
    """Those asked for; empty: every experiment that was begun."""
    links: RunLinks = RunLinks()
    book: Book = field(default_factory=Book)
    found: dict[Family, Found] = field(default_factory=dict)
    """The page's comparisons, once benchmark.reporting.questions has made them."""

    @property
    def dataset(self) -> str:
        """The data set that all numbers are about."""
        return self.board.dataset

    @cached_property
    def experiments(self) -> tuple[Experiment, ...]:
        """The experiments of the leaderboard's rows, run or not."""
        known = self.library.experiments
        names = dict.fromkeys(row.name for table in self.board.tables for row in table.rows)
        return tuple(known[name] for name in names if name in known)

    @cached_property
    def setting(self) -> Setting | None:
        """What the answers are about: everyone's faces, honestly split, as most rows have it.

        None where no such run is finished. Other settings have tables of their own and take part
        in no answer.
        """
        counts = Counter(
            table.setting
            for table in self.board.tables
            for row in table.rows
            if table.setting.protocol == Protocol() and table.setting.subset is None
            if row.status == "done" and not row.leaky
        )
        return counts.most_common(1)[0][0] if counts else None

    @cached_property
    def networks(self) -> Mapping[str, RankedNetwork]:
        """The finished honest rows of the setting by name, in the order of the tables."""
        runs = {run.record.identity[:DIGITS]: run for run in self.library.runs}
        found: dict[str, RankedNetwork] = {}
        for table in self.board.tables:
            for row in table.rows if table.setting == self.setting else ():
                if row.status == "done" and not row.leaky and row.name not in found:
                    ours = tuple(runs[identity[:DIGITS]] for identity in row.identities)
                    group = RunGroup(row.name, ours)
                    experiment = self.library.experiments[row.name]
                    found[row.name] = RankedNetwork(row, table.kind, experiment, group)
        return found

    @property
    def tested(self) -> list[RankedNetwork]:
        """The networks that were evaluated on the test set."""
        return [network for network in self.networks.values() if network.row.scores]

    def ranked(self, kind: Kind) -> tuple[RankedNetwork, ...]:
        """The networks of a kind that have a rank, best on validation first."""
        return tuple(it for it in self.tested if it.kind == kind and it.row.rank is not None)

    @property
    def first_ranked(self) -> tuple[RankedNetwork, ...]:
        """The ranked networks of the first kind that has any."""
        return next((ranked for kind in KINDS if (ranked := self.ranked(kind))), ())

    def of_name(self, name: str) -> RunGroup | NotRun:
        """Give the runs of an experiment as its row has them, or say why there are none."""
        if network := self.networks.get(name):
            return network.group if network.row.scores else NotRun(name, "not evaluated on test")
        found = self.library.run_group(name, self.dataset)
        if isinstance(found, NotRun):
            return found
        why = "run on other faces, another split or another protocol"
        return NotRun(name, "LEAKY, never compared with honest runs" if found.leaky else why)
