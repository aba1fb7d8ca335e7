"""The runs and data sets that are here, as commands read them.

`ours` chooses which of our own runs stand beside the study's numbers in `facebench list`.
"""

import contextlib
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark import registry
from benchmark.cli.options import complete_run
from benchmark.cli.output import CommandResult, watching
from benchmark.errors import DataError, RunError
from benchmark.experiment.definition import Experiment
from benchmark.record import HOW_TO_RUN, all_records
from benchmark.tasks import TASKS, TaskName

if TYPE_CHECKING:
    from benchmark.comparison.library import Faces, Library, Run, RunGroup
    from benchmark.data.dataset import FaceSet

Named = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Runs' ids (8 digits or more), experiments or suites; every run if left out.",
        autocompletion=complete_run,
    ),
]


def read_runs(
    runs_dir: Path, answer: CommandResult, *, suite: str = "", quiet: bool = True
) -> "list[Run]":
    """Read all runs; what cannot be read is a warning. Raises RunError where there is none.

    suite: the one whose runs are wanted.
    """
    from benchmark.comparison import library

    with watching(quiet=quiet) as watch:
        runs, notes = library.read_runs(list(all_records(runs_dir)), watch)
    answer.warnings += [note for note in notes if note not in answer.warnings]
    if not runs:
        raise RunError(
            "there is no run here",
            source=str(runs_dir),
            fix=f"`facebench run --suite {suite} --seeds 0,1,2` makes some"
            if suite
            else HOW_TO_RUN,
        )
    return runs


def open_library(
    runs_dir: Path, data_dir: Path, answer: CommandResult, *, suite: str = "", quiet: bool = True
) -> "Library":
    """Read all runs, with the definitions that they may be runs of; `suite` as for `read_runs`."""
    return library_of(read_runs(runs_dir, answer, suite=suite, quiet=quiet), data_dir)


def library_of(runs: "Sequence[Run]", data_dir: Path | None = None) -> "Library":
    """Put runs together with the definitions that they may be runs of, and the prepared faces."""
    from benchmark.comparison.library import Faces, Library
    from benchmark.data.dataset import prepared_datasets

    prepared = []
    with contextlib.suppress(DataError):  # None is no obstacle: runs keep what they say.
        prepared = [
            Faces(faces.name, faces.pixel_digest, faces.split_digest)
            for faces in (prepared_datasets(data_dir) if data_dir else ())
        ]
    folds = registry.folds_of(str(run.definition["name"]) for run in runs)
    return Library(tuple(runs), registry.experiments() | folds, registry.suites(), prepared)


def chosen_runs(runs_dir: Path, asked: Sequence[str], answer: CommandResult) -> "list[Run]":
    """Find runs by ids, experiments and suites; every run where nothing was asked.

    Runs of an older definition are found by the name they were begun under, too.
    """
    from benchmark.comparison.library import Library, definition_key

    runs = read_runs(runs_dir, answer)
    if not asked:
        return runs
    names = {str(run.definition["name"]) for run in runs} | set(asked)
    experiments = registry.experiments() | registry.folds_of(names)
    library = Library(tuple(runs), experiments, registry.suites())
    chosen: dict[str, Run] = {}
    for argument in asked:
        request = library.request(argument)
        # Named by its id, a run need not be of any experiment that is registered here.
        found = [request.run] if request.run else []
        if not found:
            keys = {definition_key(experiments[name].as_dict()) for name in request.names}
            found = [
                run
                for run in runs
                if run.definition["name"] in request.names or run.definition_key in keys
            ]
        chosen |= {run.record.identity: run for run in found}
    return list(chosen.values())


def prepared_here(data_dir: Path, answer: CommandResult) -> "list[FaceSet]":
    """Open the prepared data sets; a damaged one is no obstacle to numbers, but a warning."""
    from benchmark.data.dataset import prepared_datasets

    with contextlib.suppress(DataError):
        return prepared_datasets(data_dir)
    answer.warnings.append(
        f"the data sets in {data_dir} cannot be opened: no sheets of faces and no checks for leaks"
    )
    return []


@dataclass(frozen=True)
class MeanAccuracy:
    """Test accuracy of one task over the seeds of one experiment, in [0, 1]."""

    mean: float
    sd: float | None
    """Sample standard deviation over seeds; None for one seed."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """First digits of the runs' identities, in the order of the seeds."""


Accuracies = Mapping[str, Mapping[TaskName, MeanAccuracy]]
"""By experiment and task."""


@dataclass(frozen=True)
class Ours:
    """Mean test accuracies, and the faces they were measured on."""

    faces: "Faces | None" = None
    """None where nothing was measured."""
    drawn: bool = False
    accuracies: Accuracies = field(default_factory=dict)
    leaky: Accuracies = field(default_factory=dict)
    """The same of runs on a leaking split, kept apart: shown under LEAKY or not at all."""
    notes: tuple[str, ...] = ()


def gather(
    experiments: Sequence[Experiment], asked: str | None, *, runs_dir: Path, data_dir: Path
) -> Ours:
    """Average the runs on one data set: `asked`, or the only photographed one.

    All honest ones on the same pixels and split: those prepared here, else those of most runs. A
    leaking split is its run's own. Raises RunError where `asked` is neither prepared nor in a run.
    """
    # Looked at before anything is imported: without runs, listing must stay quick.
    some = any((runs_dir / "work").glob("*/experiment.json"))
    if not some and asked is None:
        return Ours()
    from benchmark.comparison.library import Faces, Library, NotRun, read_runs
    from benchmark.data.dataset import prepared_datasets
    from benchmark.record import all_records

    # The leaderboard says which runs cannot be read, and why.
    runs = read_runs(list(all_records(runs_dir)))[0] if some else []
    if not runs and asked is None:
        return Ours()
    notes: list[str] = []
    prepared: list[FaceSet] = []
    try:
        prepared = prepared_datasets(data_dir)
    except DataError as error:
        notes.append(str(error))
    name = _chosen(runs, prepared, asked, notes)
    if name is None:
        return Ours(notes=tuple(notes))
    here = [run for run in runs if run.setting.dataset == name]
    known = [Faces(item.name, item.pixel_digest, item.split_digest) for item in prepared]
    known = [faces for faces in known if faces.dataset == name]
    if not known:
        found = Counter(r.faces for r in here if r.done and not r.ad_hoc and not r.leaky)
        known = sorted(found, key=lambda faces: (found[faces], faces))[-1:]
    usable = tuple(run for run in here if run.leaky or run.faces in known)
    library = Library(usable, {item.name: item for item in experiments}, {}, known)
    accuracies: dict[bool, dict[str, dict[TaskName, MeanAccuracy]]] = {True: {}, False: {}}
    for item in experiments:
        group = library.run_group(item.name, name)
        if not isinstance(group, NotRun) and (means := _means(group)):
            accuracies[group.leaky][item.name] = means
    faces = known[0] if known and accuracies[False] else None
    drawn = any(run.setting.drawn for run in here)
    return Ours(faces, drawn, accuracies[False], accuracies[True], tuple(notes))


def _means(group: "RunGroup") -> dict[TaskName, MeanAccuracy]:
    """Average over the runs whose test faces were evaluated and whose metrics can be read."""
    found: dict[TaskName, MeanAccuracy] = {}
    for task in TASKS:
        values: list[float] = []
        runs: list[Run] = []
        for run in group.runs:
            with contextlib.suppress(RunError, KeyError):
                values.append(run.record.metrics[f"test/{task}/accuracy"])
                runs.append(run)
        if values:
            found[task] = MeanAccuracy(
                mean=statistics.fmean(values),
                sd=statistics.stdev(values) if len(values) > 1 else None,
                seeds=tuple(run.record.seed for run in runs),
                runs=tuple(run.short_identity for run in runs),
            )
    return found


def _chosen(
    runs: "Sequence[Run]", prepared: "Sequence[FaceSet]", asked: str | None, notes: list[str]
) -> str | None:
    """Name the data set to show; a note says why there is none."""
    from benchmark.comparison.library import named_dataset

    drawn = {run.setting.dataset: run.setting.drawn for run in runs}
    here = {faces.name for faces in prepared}
    known = sorted(drawn.keys() | here)
    if asked is not None:
        named = named_dataset(asked, known)
        if len(named) != 1:
            raise RunError(
                f"no data set and no run is called {asked!r}",
                allowed=", ".join(known) or "none: nothing is prepared, and nothing was run",
            )
        return named[0]
    photographed = sorted(name for name in drawn if not drawn[name])
    if len(photographed) > 1 and len(here & set(photographed)) == 1:
        photographed = sorted(here & set(photographed))
    if len(photographed) > 1:
        notes.append(f"runs are on {', '.join(photographed)}; --dataset shows one of them")
    if not photographed:
        notes.append(f"runs on synthetic faces are not shown; --dataset {known[0]} shows them")
    return photographed[0] if len(photographed) == 1 else None
