"""Find the runs that a name stands for; which run groups can be compared.

The arms of a comparison, who may meet whom, and with which of their runs.

An arm is a run named by its id, or an experiment with all its finished seeds. How it is found is
in benchmark.comparison.library.

What a name on the command line stands for: a run by its id, an experiment, a suite.

Runs of an older definition, and ad-hoc ones, stand for no experiment; an id finds them all the
same.
"""

import dataclasses
import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from benchmark.comparison.rows import Run, Setting, definition_key
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment, Suite
from benchmark.tasks import TASKS, TaskName


@dataclass(frozen=True)
class RunGroup:
    """One side of a comparison: finished runs of one family, a run per seed."""

    label: str
    runs: tuple[Run, ...]
    """By ascending seed."""
    by_id: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The experiment's name, as the run has it."""
        return str(self.runs[0].definition["name"])

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it predicts."""
        return tuple(task for task in TASKS if task in self.runs[0].definition["head"]["tasks"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return tuple(run.record.seed for run in self.runs)

    @property
    def setting(self) -> Setting:
        """The faces, split and protocol of its runs."""
        return self.runs[0].setting

    @property
    def identities(self) -> tuple[str, ...]:
        """The ids of its runs."""
        return tuple(run.record.identity for run in self.runs)

    @property
    def ad_hoc(self) -> bool:
        """Whether it was changed on the command line."""
        return self.runs[0].ad_hoc

    @property
    def leaky(self) -> bool:
        """Whether test faces were seen in training."""
        return any(run.leaky for run in self.runs)

    @property
    def speaks_for_the_experiment(self) -> bool:
        """Whether there are several seeds; one permits no claim about an experiment."""
        return not self.by_id and len(self.runs) > 1


@dataclass(frozen=True)
class NotRun:
    """An experiment that has no runs to compare."""

    label: str
    why: str


def why_not_comparable(one: RunGroup, other: RunGroup) -> str | None:
    """Say why two arms must not be compared, or None: settings, leaks, shared runs; not faces."""
    here, there = one.setting, other.setting
    told = [
        ("the data set", here.dataset, there.dataset),
        ("pixels", here.pixel_digest[:8], there.pixel_digest[:8]),
        *(
            (f"protocol.{item.name}", *(getattr(s.protocol, item.name) for s in (here, there)))
            for item in dataclasses.fields(here.protocol)
        ),
        ("the split", here.split_digest[:8], there.split_digest[:8]),
        ("the people tested", *(s.subset.label if s.subset else "everyone" for s in (here, there))),
        ("leaks", *("LEAKY" if group.leaky else "honest" for group in (one, other))),
    ]
    shared = sorted(set(one.identities) & set(other.identities))
    if shared:
        return f"they share the run {shared[0][:12]}"
    differing = [f"{what} ({left} and {right})" for what, left, right in told if left != right]
    return f"they differ in {', '.join(differing)}" if differing else None


def contestants(reference: RunGroup, group: RunGroup) -> tuple[RunGroup, RunGroup]:
    """Give who really meets: both arms whole, or one run of each.

    Where one arm has a single run, no claim about its experiment is possible, and a single run of
    the other stands against it: of the same seed if there is one, else of the lowest; never the
    best.
    """
    if reference.speaks_for_the_experiment and group.speaks_for_the_experiment:
        return reference, group
    shared = sorted(set(reference.seeds) & set(group.seeds))
    return _single(reference, shared), _single(group, shared)


def _single(group: RunGroup, seeds: Sequence[int]) -> RunGroup:
    chosen = [run for run in group.runs if run.record.seed in seeds[:1]] or group.runs
    return dataclasses.replace(group, runs=(chosen[0],))


RUN_ID: Final = re.compile(r"[0-9a-f]{8,64}")
Faces = tuple[str, str, str]
"""Name, pixel digest and split digest of a prepared data set."""


@dataclass(frozen=True)
class Request:
    """What one argument stands for."""

    argument: str
    kind: Literal["run", "experiment", "suite"]
    names: tuple[str, ...]
    """The experiments meant; of a run, the one it was begun as."""
    run: Run | None = None


@dataclass(frozen=True)
class Library:
    """All runs that can be read, and the definitions that they may be runs of."""

    runs: tuple[Run, ...]
    experiments: Mapping[str, Experiment]
    suites: Mapping[str, Suite]
    prepared: Collection[Faces] = ()
    """Where an experiment was run on faces that were prepared anew since, these are meant."""

    def request(self, argument: str) -> Request:
        """Read an argument; raise RunError where it is no run, experiment or suite."""
        if argument in self.experiments:
            return Request(argument, "experiment", (argument,))
        if argument in self.suites:
            return Request(argument, "suite", self.suites[argument].experiments)
        found = [run for run in self.runs if run.record.identity.startswith(argument)]
        if RUN_ID.fullmatch(argument) is None or not found:
            raise self._unknown(argument)
        if len(found) > 1:
            raise RunError(
                f"{argument} is the beginning of {len(found)} runs",
                allowed=", ".join(run.record.identity[: len(argument) + 4] for run in found),
            )
        name = str(found[0].definition["name"])
        return Request(argument, "run", (name,), found[0])

    def _unknown(self, argument: str) -> RunError:
        names = [*self.experiments, *self.suites]
        near = difflib.get_close_matches(argument, names, n=3, cutoff=0.5)
        short = re.fullmatch(r"[0-9a-f]{1,7}", argument) is not None
        return RunError(
            f"{argument!r} is no run here, no experiment and no suite",
            allowed="at least 8 digits of a run's id"
            if short
            else f"did you mean {', '.join(near)}?"
            if near
            else "a run's id, the name of an experiment or of a suite",
            fix="`facebench list` shows the names, `facebench leaderboard --json` the ids",
        )

    def group_of_run(self, run: Run) -> RunGroup:
        """Give the arm of a run that was named by its id; raise RunError if it is not done."""
        name, seed = run.definition["name"], run.record.seed
        if run.record.state != "done":
            raise RunError(
                f"run {run.short_identity} of {name} is not done: {_why_not_done(run)}",
                allowed="a finished run",
                source=str(run.record.folder),
                fix=f"`facebench run {name} --seeds {seed}` goes on with it",
            )
        mark = ", ad hoc" if run.ad_hoc else ""
        label = f"{name} seed {seed} (run {run.record.identity[:8]}{mark})"
        remarks = ("ad hoc: changed on the command line",) if run.ad_hoc else ()
        return RunGroup(label, (run,), by_id=True, remarks=remarks)

    def run_group(self, name: str, dataset: str) -> RunGroup | NotRun:
        """Give the arm of an experiment: its finished seeds, as it is defined now."""
        here = [run for run in self._current_runs(name) if run.setting.dataset == dataset]
        done = [run for run in here if run.record.state == "done"]
        if not done:
            return NotRun(name, self._why_absent(name, here))
        families: dict[str, list[Run]] = defaultdict(list)
        for run in sorted(done, key=lambda run: run.record.seed):
            families[run.record.family].append(run)
        meant = self._meant(list(families.values()))
        if len(meant) > 1:
            ids = "; ".join(", ".join(run.short_identity for run in runs) for runs in meant)
            return NotRun(
                name, f"its runs are of {len(meant)} kinds ({_how_they_differ(meant)}): {ids}"
            )
        left_out = [run for runs in families.values() if runs is not meant[0] for run in runs]
        return RunGroup(name, tuple(meant[0]), remarks=_left_out(left_out))

    def datasets_of(self, name: str) -> list[str]:
        """Name the data sets on which an experiment, as it is defined now, has finished runs."""
        done = (run for run in self._current_runs(name) if run.record.state == "done")
        return sorted({run.setting.dataset for run in done})

    @cached_property
    def _by_definition(self) -> dict[str, list[Run]]:
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            if not run.ad_hoc:
                found[run.definition_key].append(run)
        return found

    def _current_runs(self, name: str) -> list[Run]:
        return self._by_definition.get(definition_key(self.experiments[name].as_dict()), [])

    def _meant(self, families: list[list[Run]]) -> list[list[Run]]:
        """Keep the families on the faces that are prepared here, then those of the last trainer."""
        here = [runs for runs in families if _faces_of(runs[0]) in self.prepared] or families
        newest = max(_trainer_version(runs[0]) for runs in here)
        return [runs for runs in here if _trainer_version(runs[0]) == newest]

    def _why_absent(self, name: str, unfinished: Sequence[Run]) -> str:
        if unfinished:
            return "; ".join(f"seed {run.record.seed} {_why_not_done(run)}" for run in unfinished)
        elsewhere = self.datasets_of(name)
        if elsewhere:
            return f"run on {', '.join(elsewhere)} alone"
        same_name = [run for run in self.runs if run.definition["name"] == name]
        older = sum(not run.ad_hoc for run in same_name)
        if older:
            return f"not run as it is defined now ({older} of an older definition)"
        return "run ad hoc alone; an id names such a run" if same_name else "not run"


def _why_not_done(run: Run) -> str:
    if run.record.state != "failed":
        return "was interrupted or is still running"
    try:
        return f"failed: {run.record.failed['why']}"
    except (RunError, KeyError):
        return "failed"


def _faces_of(run: Run) -> Faces:
    return run.setting.dataset, run.setting.pixel_digest, run.setting.split_digest


def _trainer_version(run: Run) -> int:
    return int(run.about.get("trainer_version", 0))


def _how_they_differ(families: Sequence[Sequence[Run]]) -> str:
    """Name what keeps the families of one definition apart."""
    told = {
        "pixels": {runs[0].setting.pixel_digest for runs in families},
        "splits": {runs[0].setting.split_digest for runs in families},
        "weight files": {
            str((runs[0].about.get("weights") or {}).get("sha256")) for runs in families
        },
    }
    return "other " + ", ".join(what for what, values in told.items() if len(values) > 1)


def _left_out(runs: Sequence[Run]) -> tuple[str, ...]:
    if not runs:
        return ()
    ids = ", ".join(run.short_identity for run in runs)
    return (f"left out, of an older trainer or of faces prepared otherwise: {ids}",)


def choose_dataset(library: Library, requests: Sequence[Request], asked: str | None) -> str:
    """Give the one data set that a comparison is on; raise RunError where it is not one.

    The one asked for; else that of the runs named by id; else the only one that the named
    experiments were run on, photographed faces before drawn ones.
    """
    of_runs = {item.run.setting.dataset: item.argument for item in requests if item.run}
    if len(of_runs) > 1:
        said = " and ".join(f"{argument} on {name}" for name, argument in of_runs.items())
        raise RunError(f"runs on different data sets: {said}", allowed="one data set")
    names = [name for item in requests if item.run is None for name in item.names]
    found: dict[str, list[str]] = {name: [] for name in of_runs}
    for name in dict.fromkeys(names):
        for dataset in library.datasets_of(name):
            found.setdefault(dataset, []).append(name)
    if asked is not None:
        found = _asked_for(asked, found)
    elif of_runs:
        return next(iter(of_runs))
    if not found:
        raise RunError(
            f"nothing of {', '.join(item.argument for item in requests)} was run",
            fix="`facebench run NAME --seeds 0,1,2` makes runs to compare",
        )
    return _only_one(library, found)


def _asked_for(asked: str, found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Keep the data set of this name; `drawn` stands for drawn-100, as leaderboards have it."""
    named = {
        name: said for name, said in found.items() if name == asked or name.startswith(f"{asked}-")
    }
    if not named:
        raise RunError(
            f"nothing of what is to be compared was run on the data set {asked!r}",
            allowed=", ".join(sorted(found)) or "none: nothing of it was run",
        )
    return {asked: named[asked]} if asked in named else named


def _only_one(library: Library, found: Mapping[str, list[str]]) -> str:
    drawn = {run.setting.dataset for run in library.runs if run.setting.drawn}
    photographed = {name: said for name, said in found.items() if name not in drawn}
    candidates = photographed or found
    if len(candidates) > 1:
        said = "; ".join(f"{', '.join(names)} on {name}" for name, names in candidates.items())
        raise RunError(
            f"the runs are on different data sets: {said}",
            allowed="one data set",
            fix="Choose one with --dataset",
        )
    return next(iter(candidates))
