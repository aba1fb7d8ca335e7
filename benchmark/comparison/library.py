"""The runs there are, which of them belong to an experiment, and where each stands.

A run is an experiment's when it was trained as that is defined now; a run group is all of them that
differ in the seed alone. Leaderboards, comparisons, studies, folds and `status` ask here.
"""

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import ExperimentError, RunError, did_you_mean
from benchmark.evaluation.predictions import RunPredictions, read_run_predictions
from benchmark.experiment.definition import Experiment, Protocol, Subset, Suite, definition_key
from benchmark.files import is_locked, lock_owner
from benchmark.record import RUN_ID, RunRecord
from benchmark.tasks import TASKS, TaskName

LEAKY_REMARK: Final = "LEAKY: test faces were seen in training"
MOST_NOTES: Final = 3
"""Folders that cannot be read are named one by one up to so many, and counted beyond."""


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


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
    """The subset that all are selected and tested on; None for all faces."""

    @property
    def faces(self) -> tuple[str, str, str]:
        """The very faces and split that numbers are about, by names and digests."""
        return self.dataset, self.pixel_digest, self.split_digest


@dataclass(frozen=True)
class Run:
    """A run's folder, read and understood as far as tables need it."""

    record: RunRecord
    setting: Setting
    definition: dict[str, Any]
    definition_key: str
    """Equal for runs of one definition, whatever its name and question."""
    name: str
    """The experiment that it was begun as."""
    trainer_version: int
    weights_sha256: str | None
    """The checksum of the weights that it started from; None without weights."""
    ad_hoc: bool
    leaky: bool

    @property
    def short_identity(self) -> str:
        """The first twelve digits, enough to name a run."""
        return self.record.identity[:12]

    @property
    def done(self) -> bool:
        return self.record.state == "done"


def read_run(record: RunRecord) -> Run:
    """Read what `experiment.json` says; raise RunError where it says too little."""
    about = record.about
    try:
        dataset, definition = about["dataset"], about["experiment"]
        sha256 = (about.get("weights") or {}).get("sha256")
        _ = (record.group_identity, record.seed)
        return Run(
            record,
            Setting(
                dataset=str(dataset["name"]),
                drawn=bool(dataset["drawn"]),
                **{
                    of: str(dataset[of]) for of in ("split_version", "split_digest", "pixel_digest")
                },
                protocol=Protocol(**definition["protocol"]),
                subset=Subset(**definition["subset"]).tested if definition.get("subset") else None,
            ),
            definition,
            definition_key(definition),
            name=str(definition["name"]),
            trainer_version=int(about.get("trainer_version", 0)),
            weights_sha256=None if sha256 is None else str(sha256),
            ad_hoc=bool(about["ad_hoc"]),
            leaky=bool(about["leaky"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, ExperimentError) as error:
        raise RunError(
            f"experiment.json of run {record.identity[:12]} is not understood "
            f"({type(error).__name__}: {error})",
            allowed="what this version of facebench writes",
            fix="Run the experiment again, or use the facebench that wrote it",
        ) from error


def read_runs(
    records: Sequence[RunRecord], watch: OnProgress = keep_quiet
) -> tuple[list[Run], list[str]]:
    """Read all runs; what cannot be read becomes a note."""
    runs, refused = [], []
    for n_read, record in enumerate(records, start=1):
        try:
            runs.append(read_run(record))
        except RunError as error:
            refused.append(error)
        watch("Reading runs", n_read, len(records))
    notes = [f"Left out, not readable: {error}" for error in refused]
    if more := len(notes[MOST_NOTES:]):
        notes[MOST_NOTES:] = [f"Left out, not readable either: {counted(more, 'more run')}."]
    return runs, notes


@dataclass(frozen=True)
class RunGroup:
    """Finished runs that differ in the seed alone, or one run named by its id."""

    label: str
    runs: tuple[Run, ...] = ()
    """By ascending seed."""
    remarks: tuple[str, ...] = ()
    why: str = ""
    """Why there are no runs to compare."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What its runs predict; nothing without runs."""
        predicted = self.runs[0].definition["head"]["tasks"] if self.runs else ()
        return tuple(task for task in TASKS if task in predicted)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.record.seed for run in self.runs)

    @property
    def setting(self) -> Setting:
        return self.runs[0].setting

    @property
    def identities(self) -> tuple[str, ...]:
        return tuple(run.record.identity for run in self.runs)

    @property
    def leaky(self) -> bool:
        """Whether test faces were seen in training."""
        return any(run.leaky for run in self.runs)

    @property
    def predictions(self) -> RunPredictions:
        """What its runs predict of their test faces; RunError where that cannot be read."""
        records = tuple(run.record for run in self.runs)
        return _predictions(records, tuple(it.predictions_sha256 for it in records), self.tasks)

    def of_seeds(self, seeds: Collection[int]) -> "RunGroup":
        runs = tuple(run for run in self.runs if run.record.seed in seeds)
        return dataclasses.replace(self, runs=runs)


@lru_cache(maxsize=256)
def _predictions(
    records: tuple[RunRecord, ...], _sha256: tuple[str, ...], tasks: tuple[TaskName, ...]
) -> RunPredictions:
    """Read predictions once for all that they are compared with; _sha256: as metrics.json has
    them, so that a run that was scored again is read again."""
    return read_run_predictions(records, tasks)


@dataclass(frozen=True)
class Library:
    """All runs that can be read, and the definitions that they may be runs of."""

    runs: tuple[Run, ...]
    experiments: Mapping[str, Experiment]
    suites: Mapping[str, Suite]
    prepared: Collection[tuple[str, str, str]] = ()
    """Settings' faces that are here: of those that an experiment was run on, these are meant."""
    _by_key: dict[str, dict[str, list[Run]]] = field(default_factory=dict)

    def runs_of(self, name: str, **any_of: bool) -> Sequence[Run]:
        """Give the runs of an experiment as it is defined now; any_of: see definition_key.

        A run that was changed on the command line is of none.
        """
        found = self._by_key.setdefault(str(any_of), defaultdict(list))
        for run in () if found else self.runs:
            if not run.ad_hoc:
                found[definition_key(run.definition, **any_of)].append(run)
        return found.get(definition_key(self.experiments[name].as_dict(), **any_of), ())

    def meant(self, argument: str) -> Run | tuple[str, ...]:
        """Give the run, or the experiments, that an argument of a command line stands for.

        Raises RunError where it is no run, experiment or suite.
        """
        if argument in self.experiments:
            return (argument,)
        if argument in self.suites:
            return self.suites[argument].experiments
        found = [run for run in self.runs if run.record.identity.startswith(argument)]
        if RUN_ID.fullmatch(argument) is None or not found:
            names = [*self.experiments, *self.suites]
            guess = did_you_mean(argument, names)
            nothing = f"{argument!r} is no run here, no experiment and no suite"
            allowed = "at least 8 digits of a run's id, the name of an experiment or of a suite"
            fix = f"{guess}`facebench list` shows the names, `facebench leaderboard --json` the ids"
            raise RunError(nothing, allowed=allowed, fix=fix)
        if len(found) > 1:
            several = ", ".join(run.record.identity[: len(argument) + 4] for run in found)
            raise RunError(f"{argument} is the beginning of {len(found)} runs", allowed=several)
        return found[0]

    def groups_of(self, argument: str, dataset: str) -> list[RunGroup]:
        """Give what an argument means: one run, or the experiments' groups on a data set.

        Raises RunError for what means nothing, and for a run that is not done.
        """
        if not isinstance(run := self.meant(argument), Run):
            return [self.run_group(name, dataset) for name in run]
        record = run.record
        if not run.done:
            raise RunError(
                f"run {run.short_identity} of {run.name} is not done: {why_not_done(run)}",
                allowed="a finished run",
                source=str(record.folder),
                fix=record.how_to_finish,
            )
        mark = ", ad hoc" if run.ad_hoc else ""
        label = f"{run.name} seed {record.seed} (run {record.identity[:8]}{mark})"
        remarks = ("ad hoc: changed on the command line",) if run.ad_hoc else ()
        return [RunGroup(label, (run,), remarks)]

    def run_group(self, name: str, dataset: str) -> RunGroup:
        """Give an experiment's finished seeds on a data set, as it is defined now, or why none.

        Of several groups (other faces, trainers or weight files), those on the faces that are
        prepared here are meant, then those of the newest trainer.
        """
        here = [run for run in self.runs_of(name) if run.setting.dataset == dataset]
        done = sorted((run for run in here if run.done), key=lambda run: run.record.seed)
        if not done:
            same_name = [run for run in self.runs if run.name == name]
            if here:
                why = "; ".join(f"seed {run.record.seed} {why_not_done(run)}" for run in here)
            elif elsewhere := self.datasets_of(name):
                why = f"run on {', '.join(elsewhere)} alone"
            elif older := sum(not run.ad_hoc for run in same_name):
                why = edited_after(name, older)
            else:
                why = "run ad hoc alone; an id names such a run" if same_name else "not run"
            return RunGroup(name, why=why)
        found = [run for run in done if run.setting.faces in self.prepared] or done
        newest = max(run.trainer_version for run in found)
        meant = [run for run in found if run.trainer_version == newest]
        kinds: dict[str, list[str]] = defaultdict(list)
        for run in meant:
            kinds[run.record.group_identity].append(run.short_identity)
        if len(kinds) > 1:
            ids = "; ".join(map(", ".join, kinds.values()))
            other = ", ".join(files_of_several(meant))
            why = f"its runs are of {len(kinds)} kinds (other {other}): {ids}"
            return RunGroup(name, why=why)
        left_out = ", ".join(run.short_identity for run in done if run not in meant)
        remark = f"left out, of an older trainer or of faces prepared otherwise: {left_out}"
        return RunGroup(name, tuple(meant), (remark,) if left_out else ())

    def datasets_of(self, name: str) -> list[str]:
        """Name the data sets on which an experiment, as it is defined now, has finished runs."""
        return sorted({run.setting.dataset for run in self.runs_of(name) if run.done})


def files_of_several(runs: Collection[Run]) -> dict[str, int]:
    """Name what runs have more than one of: pixels, splits or weight files; with how many."""
    counts = {
        "pixels": len({run.setting.pixel_digest for run in runs}),
        "splits": len({run.setting.split_digest for run in runs}),
        "weight files": len({run.weights_sha256 for run in runs}),
    }
    return {what: count for what, count in counts.items() if count > 1}


def edited_after(name: str, n_runs: int) -> str:
    """Say that an experiment was edited after its runs: the same words in every command."""
    return (
        f"its definition was edited after {counted(n_runs, 'run')} of an older one; `facebench run "
        f"{name}` trains it as it is defined now"
    )


def why_not_done(run: Run) -> str:
    """Say what became of a run that is not finished, and how far it came."""
    found = standing(run.record)
    if found["state"] == "failed":
        return f"failed: {found['why']}"
    n_epochs, of_epochs = found.get("epochs"), found.get("of_epochs")
    progress = f" ({n_epochs} of {of_epochs} epochs done)" if n_epochs else ""
    return f"was interrupted or is still running{progress}"


def named_dataset(asked: str, known: Iterable[str]) -> list[str]:
    """Find a data set by its name or by what it begins with: `drawn` stands for drawn-100."""
    names = list(known)
    return [asked] if asked in names else [name for name in names if name.startswith(f"{asked}-")]


def choose_dataset(
    library: Library, arguments: Iterable[str], asked: str | None, suite: str = ""
) -> str:
    """Give the one data set that a comparison is on; raise RunError where it is not one.

    The one asked for; else that of the runs named by id; else the only one that the named
    experiments were run on, photographed faces before synthetic ones. suite: which one to run where
    nothing was; the first argument if left out.
    """
    found: dict[str, list[str]] = defaultdict(list)
    named, of_runs = list(arguments), set[str]()
    for argument in named:
        if isinstance(meant := library.meant(argument), Run):
            of_runs.add(meant.setting.dataset)
            found[meant.setting.dataset].append(argument)
        else:
            for name in meant:
                for place in library.datasets_of(name):
                    found[place].append(name)
    drawn = {run.setting.dataset for run in library.runs if run.setting.drawn}
    candidates = list(of_runs or found.keys() - drawn or found)
    if asked is not None:
        candidates = named_dataset(asked, found)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        said = " and ".join(f"{', '.join(found[name])} on {name}" for name in sorted(candidates))
        several, fix = f"the runs are on different data sets: {said}", "Choose one with --dataset"
        raise RunError(several, allowed="one data set", fix=fix)
    on = f" on the data set {asked!r}" if found else ""
    first = suite or named[0]
    what = f"--suite {first}" if first in library.suites else first
    fix = f"`facebench run {what} --seeds 0,1,2` makes runs to compare"
    nothing = f"nothing of {', '.join(named)} was run{on}"
    raise RunError(nothing, allowed=", ".join(sorted(found)), fix=fix)


LOCK: Final = "claim"


def standing(record: RunRecord) -> dict[str, Any]:
    """Say where a run that has begun stands; what is not known is absent.

    Its state is `claimed` (the process `pid` works on it), interrupted, failed, damaged or done: a
    lock file that no living process holds says nothing. Of the recipe's epochs (`of_epochs`), early
    stopping may leave out some.
    """
    try:
        run = read_run(record)
    except RunError as error:
        damaged = {"state": "damaged", "name": "?", "ad_hoc": False}
        return damaged | {"identity": record.identity, "why": error.found}
    held = is_locked(record.folder / LOCK)
    found: dict[str, Any] = {
        "state": "claimed" if held else record.state, "name": run.name, "seed": record.seed,
        "dataset": run.setting.dataset, "identity": record.identity, "ad_hoc": run.ad_hoc,
        "of_epochs": run.definition.get("recipe", {}).get("max_epochs"),
    }  # fmt: skip
    if held and (pid := lock_owner(record.folder / LOCK).get("pid")):
        found["pid"] = pid
    with contextlib.suppress(RunError):
        found["epochs"] = len(record.history())
    if found["state"] == "failed":
        try:
            found["why"] = str(record.failed.get("why", ""))
        except RunError as error:
            found["why"] = error.found
    return found
