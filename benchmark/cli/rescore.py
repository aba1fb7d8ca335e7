"""`facebench runs rescore` and `facebench runs suspects`: stored predictions, looked at again."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark import registry
from benchmark.cli.completion import complete_run
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
)
from benchmark.cli.output import Answer, ExitCode, out, progress_bar, say_error, speaking
from benchmark.errors import BenchmarkError, DataError, RunError
from benchmark.record import RunRecord, all_records

if TYPE_CHECKING:
    from benchmark.comparison.library import Run
    from benchmark.data.dataset import FaceSet

Named = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Runs' ids (8 digits or more), experiments or suites; every run if left out.",
        autocompletion=complete_run,
    ),
]
ToMlflow = Annotated[bool, typer.Option("--mlflow", help="Bring MLflow up to date too.")]


def rescore(
    names: Named = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also what is up to date already.")
    ] = False,
    mlflow: ToMlflow = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compute finished runs' numbers, tables and pictures again from their stored predictions.

    For runs of an older facebench. Needs no network and no GPU; where the data set is prepared
    here, the sheet of label suspects and the checks for leaks are made too. Run it as often as you
    like: what is up to date is left alone.

    Examples:
      facebench runs rescore
      facebench runs rescore quick --mlflow
      facebench runs rescore b9aa30a6a761 --again
    """
    code = ExitCode.FINE
    with speaking("runs rescore", as_json=as_json) as answer:
        records = [run.record for run in chosen_runs(runs_dir, names or [], answer) if _done(run)]
        prepared = prepared_here(data_dir, answer)
        outcomes = _rescore_all(records, prepared, answer, again=again, quiet=quiet or as_json)
        if mlflow:
            outcomes["mirrored"] = _mirror(records, runs_dir, quiet=quiet or as_json)
        answer.data = {"runs": dict(outcomes)}
        if answer.errors:
            code = ExitCode.RUNS_FAILED
        if not as_json:
            out.print(
                f"{outcomes['rescored']} runs rescored, {outcomes['current']} were up to date, "
                f"{len(answer.errors)} could not be."
            )
            for error in answer.errors:
                say_error(error)
    if code is not ExitCode.FINE:
        raise typer.Exit(code)


def _rescore_all(
    records: Sequence[RunRecord],
    prepared: "Sequence[FaceSet]",
    answer: Answer,
    *,
    again: bool,
    quiet: bool,
) -> Counter[str]:
    """Rescore run by run; one that cannot be does not stop the others."""
    from benchmark.evaluation.artifacts import rescore as rescore_one

    outcomes: Counter[str] = Counter()
    with progress_bar(quiet=quiet) as progress:
        bar = progress.add_task("runs", total=len(records))
        for record in records:
            try:
                outcomes[rescore_one(record, prepared, again=again)] += 1
            except BenchmarkError as error:
                answer.errors.append(error)
            progress.advance(bar)
    return outcomes


def _mirror(records: Sequence[RunRecord], runs_dir: Path, *, quiet: bool) -> int:
    """Bring MLflow to what the folders say now, and count the runs."""
    from benchmark.tracking import import_records

    fresh = [RunRecord(record.folder) for record in records]
    with progress_bar(quiet=quiet) as progress:
        bar = progress.add_task("MLflow", total=len(fresh))
        for _ in import_records(iter(fresh), runs_dir):
            progress.advance(bar)
    return len(fresh)


def suspects(
    names: Named = None,
    mlflow: ToMlflow = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """List the labels that the five folds of an experiment contradict, over every face of a set.

    Each face is judged by the network that did not see it. The labels may be right: nothing is
    relabelled. The table, and with the data set at hand a sheet of the faces, is kept with the run
    of fold 0.

    Examples:
      facebench runs suspects
      facebench runs suspects mtl-cnn-none-full-short-fold0 --mlflow
    """
    with speaking("runs suspects", as_json=as_json) as answer:
        from benchmark.comparison.out_of_fold import TABLE, fold_runs, write_suspects

        asked = {run.record.identity for run in chosen_runs(runs_dir, names or [], answer)}
        families = [
            folds
            for folds in fold_runs(_readable(runs_dir, answer))
            if asked & {run.record.identity for run in folds.by_fold.values()}
        ]
        if not families:
            raise RunError(
                "none of these runs is a finished fold",
                allowed="runs of experiments with protocol.fold 0 to 4",
                source=str(runs_dir),
                fix="`facebench run` the five folds of an experiment first",
            )
        prepared = prepared_here(data_dir, answer)
        answer.data = {"suspects": []}
        for folds in families:
            found = write_suspects(folds, prepared)
            record = folds.by_fold[0].record
            counts = {str(task): int(n) for task, n in found["task"].value_counts().items()}
            path = str(record.folder / TABLE)
            answer.data["suspects"].append({"runs": folds.name, "faces": counts, "file": path})
            if not as_json:
                out.print(f"{folds.name}: {sum(counts.values())} suspects, in {path}")
            if mlflow:
                _mirror([record], runs_dir, quiet=quiet or as_json)


def chosen_runs(runs_dir: Path, asked: Sequence[str], answer: Answer) -> "list[Run]":
    """Find the runs meant by ids, experiments and suites; every run where nothing was asked.

    Runs of an older definition are meant by the name they were begun under, too.
    """
    from benchmark.comparison.library import Library, definition_key

    runs = _readable(runs_dir, answer)
    if not runs:
        raise RunError(
            "there is no run here",
            source=str(runs_dir),
            fix="`facebench run --suite quick` makes some",
        )
    if not asked:
        return runs
    names = {str(run.definition["name"]) for run in runs} | set(asked)
    experiments = registry.experiments() | registry.folds_of(names)
    library = Library(tuple(runs), experiments, registry.suites())
    chosen: dict[str, Run] = {}
    for argument in asked:
        request = library.request(argument)
        if request.run:
            # Named by its id, it need not be of any experiment that is registered here.
            chosen[request.run.record.identity] = request.run
            continue
        keys = {definition_key(experiments[name].as_dict()) for name in request.names}
        meant = [
            run
            for run in runs
            if run.definition["name"] in request.names or run.definition_key in keys
        ]
        chosen |= {run.record.identity: run for run in meant}
    return list(chosen.values())


def _readable(runs_dir: Path, answer: Answer) -> "list[Run]":
    """Read all runs; what cannot be read is said once."""
    from benchmark.comparison.library import read_run

    runs = []
    for record in all_records(runs_dir):
        try:
            runs.append(read_run(record))
        except RunError as error:
            said = f"left out, not readable: {error}"
            if said not in answer.warnings:
                answer.warnings.append(said)
    return runs


def _done(run: "Run") -> bool:
    return run.record.state == "done"


def prepared_here(data_dir: Path, answer: Answer) -> "list[FaceSet]":
    """Open the data sets at hand; a damaged one is no obstacle to numbers, and is said."""
    from benchmark.data.dataset import prepared_datasets

    with contextlib.suppress(DataError):
        return prepared_datasets(data_dir)
    answer.warnings.append(
        f"the data sets in {data_dir} cannot be opened: no sheets of faces and no checks for leaks"
    )
    return []
