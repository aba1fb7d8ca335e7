"""The runs and data sets that are here, as commands read them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark import registry
from benchmark.cli.options import complete_run
from benchmark.cli.output import CommandResult, watching
from benchmark.errors import DataError, RunError
from benchmark.record import HOW_TO_RUN, RunRecord, all_records, finished_runs, records_named

if TYPE_CHECKING:
    from benchmark.comparison.library import Library, Run
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


def chosen_records(runs_dir: Path, asked: Sequence[str]) -> list[RunRecord]:
    """Find runs by ids, experiments and suites; every run where nothing was asked.

    Raises RunError for an argument that means no run. A run that cannot be read is found by its id.
    """
    if not asked:
        if not any(all_records(runs_dir)):
            raise RunError("there is no run here", source=str(runs_dir), fix=HOW_TO_RUN)
        return list(all_records(runs_dir))
    suites, chosen = registry.suites(), dict[str, RunRecord]()
    for argument in asked:
        names = suites[argument].experiments if argument in suites else (argument,)
        found = [record for name in names for record in records_named(name, runs_dir)]
        if not found:
            finished_runs(argument, runs_dir)  # says so
        chosen |= {record.identity: record for record in found}
    return list(chosen.values())


def prepared_here(data_dir: Path, answer: CommandResult) -> "list[FaceSet]":
    """Open the prepared data sets; a damaged one is no obstacle to numbers, but a warning."""
    from benchmark.data.dataset import prepared_datasets

    with contextlib.suppress(DataError):
        return prepared_datasets(data_dir)
    answer.warnings.append(
        f"the data sets in {data_dir} cannot be opened: no face is predicted again"
    )
    return []
