"""What the report is made from: one data set's runs, and which of them are compared.

Pairs are experiments that differ in one respect alone, found by content and not by name. All
comparisons of a report are made and corrected together, so that each has one p-value on it.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlencode

from benchmark.comparison import pairs as comparing
from benchmark.comparison.leaderboard import BoardTable, Kind, Leaderboard
from benchmark.comparison.library import Library, Setting
from benchmark.comparison.pairs import Found, Pair
from benchmark.comparison.rows import Row
from benchmark.comparison.statistics import Family
from benchmark.experiment.definition import CONDITIONINGS, Experiment, Protocol, steering_content
from benchmark.files import canonical_json
from benchmark.tasks import TASKS

Sides = tuple[Experiment, Experiment]
"""A reference, and what is compared with it."""
VARIED: Final[dict[Family, tuple[str, str, Callable[[Experiment], Any]]]] = {
    "weights": ("backbone", "weights", lambda it: it.backbone.weights != "none"),
    "depth": ("backbone", "trainable_stages", lambda it: len(it.backbone.trained_stages)),
    "conditioning": ("head", "conditioning", lambda it: CONDITIONINGS.index(it.head.conditioning)),
}
"""What the experiments of a question differ in: part and field of their definitions, and by what
they stand in order, the reference first."""
PAIRED: Final[dict[Family, Callable[[Sequence[Experiment]], Iterable[Sides]]]] = {
    "weights": lambda group: itertools.combinations(group, 2),
    "depth": itertools.pairwise,
    "conditioning": lambda group: ((group[0], other) for other in group[1:]),
}
"""Which of them are compared: all weights, neighbours by depth, all with `none`."""
MOST_RIVALS: Final = 60
"""So many networks are compared with the first of their table."""


@dataclass(frozen=True)
class RunLinks:
    """Where runs are shown: in MLflow at `base`, or, without one, in their folders."""

    base: str = ""
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By identity, MLflow's ids of the experiment and of the run."""
    work: str = "../work"
    """The folder that holds the runs' folders, as an address relative to the page."""

    def of(self, identities: Sequence[str]) -> str:
        """Give the address of one run, or of MLflow's comparison of several.

        Empty where MLflow does not know one of them, and for several runs without MLflow.
        """
        wanted = dict.fromkeys(identities)
        if not self.base:
            return f"{self.work}/{identities[0]}/" if len(wanted) == 1 else ""
        if not wanted or wanted.keys() - self.known.keys():
            return ""
        experiments, runs = zip(*(self.known[key] for key in wanted), strict=True)
        if len(runs) == 1:
            return f"{self.base}/#/experiments/{experiments[0]}/runs/{runs[0]}"
        ids = {"runs": runs, "experiments": sorted(set(experiments))}
        query = urlencode({key: canonical_json(value) for key, value in ids.items()})
        return f"{self.base}/#/compare-runs?{query}"


@dataclass(frozen=True)
class Evidence:
    """All that is known of one data set's runs."""

    library: Library
    board: Leaderboard
    suites: tuple[str, ...] = ()
    """Those asked for; empty: every experiment that was begun."""
    links: RunLinks = RunLinks()

    @property
    def dataset(self) -> str:
        return self.board.dataset

    @cached_property
    def experiments(self) -> tuple[Experiment, ...]:
        """The experiments of the leaderboard's rows, run or not."""
        known = self.library.experiments
        names = dict.fromkeys(row.name for table in self.board.tables for row in table.rows)
        return tuple(known[name] for name in names if name in known)

    @cached_property
    def _honest(self) -> list[tuple[BoardTable, Row]]:
        """The finished rows that do not leak, with their tables."""
        rows = ((table, row) for table in self.board.tables for row in table.rows)
        return [it for it in rows if it[1].status == "done" and not it[1].leaky]

    @cached_property
    def setting(self) -> Setting | None:
        """What the answers are about: all faces, honestly split, as most rows have it.

        None where no such run is finished. Other settings have tables of their own and take part
        in no answer.
        """
        settings = (table.setting for table, _ in self._honest)
        counts = Counter(it for it in settings if it.protocol == Protocol() and it.subset is None)
        return counts.most_common(1)[0][0] if counts else None

    @cached_property
    def networks(self) -> Mapping[str, Row]:
        """The finished honest rows of the setting by name, in the order of the tables."""
        return {row.name: row for table, row in self._honest if table.setting == self.setting}

    @cached_property
    def ranked(self) -> Mapping[Kind, list[Row]]:
        """The networks of each kind that has any with a rank and a score on the test set, best on
        validation first."""
        found: dict[Kind, list[Row]] = {}
        for table, row in self._honest:
            if row is self.networks.get(row.name) and row.rank and row.scores:
                found.setdefault(table.kind, []).append(row)
        return found

    @property
    def first_ranked(self) -> list[Row]:
        """The ranked networks of the first kind that has any."""
        return next(iter(self.ranked.values()), [])

    @cached_property
    def found(self) -> dict[Family, Found]:
        """What came of each question: all comparisons, made and corrected together."""
        groups = {name: row.group for name, row in self.networks.items() if row.scores}
        ours = comparing.counterpart_pairs(self.library, groups.values(), self.dataset)
        pairs: dict[Family, list[Pair]] = {"mtl_stl": [*ours], "compare_with": [], "first": []}
        pairs |= {family: [] for family in VARIED}
        for family, reference, other in self._named():
            if reference in groups and other in groups:
                pairs[family].append((groups[reference], groups[other], TASKS))
        return comparing.compare_pairs(pairs)

    def _named(self) -> Iterator[tuple[Family, str, str]]:
        """Name what is compared beside counterparts: question, reference and other network."""
        fold = self.setting.protocol.fold if self.setting else None
        # Folds of the split are no networks of their own: `leaderboard --folds` has them.
        ours = [it for it in self.experiments if it.protocol.fold == fold and not it.protocol.leaky]
        for family in VARIED:
            for one, other in itertools.chain(*map(PAIRED[family], siblings(ours, family))):
                yield family, one.name, other.name
        # Shown by no table of the report, and compared all the same: the leaderboard of these runs
        # corrects a pair within this family, and a pair has one corrected p on both.
        for item in (it for it in self.experiments if it.compare_with):
            yield "compare_with", str(item.compare_with), item.name
        for first, *others in self.ranked.values():
            yield from (("first", first.name, row.name) for row in others[:MOST_RIVALS])


def siblings(experiments: Iterable[Experiment], family: Family) -> list[list[Experiment]]:
    """Group experiments that differ in one of VARIED alone, their learning rates perhaps with it:
    shallow to deep, the reference first. Groups of one are none."""
    part, name, place = VARIED[family]
    groups: dict[str, dict[str, Experiment]] = {}
    for item in experiments:
        content = steering_content(item.as_dict())
        value = content[part].pop(name)
        # The study trained frozen backbones at another rate than deeper ones.
        content["recipe"].pop("learning_rate")
        groups.setdefault(canonical_json(content), {}).setdefault(str(value), item)
    ordered = (sorted(it.values(), key=place) for it in groups.values() if len(it) > 1)
    is_conditioning = family == "conditioning"
    return [it for it in ordered if not is_conditioning or it[0].head.conditioning == "none"]
