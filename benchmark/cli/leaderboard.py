"""`facebench leaderboard`: the tables of the runs at hand, printed and written."""

import contextlib
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark import registry
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    RunsDir,
    WeightsDir,
)
from benchmark.cli.output import Answer, err, out, speaking
from benchmark.errors import RunError
from benchmark.experiment import Experiment
from benchmark.files import write_text
from benchmark.results.record import RunRecord, all_records
from benchmark.tasks import TaskName

if TYPE_CHECKING:
    from benchmark.results.leaderboard import Leaderboard
    from benchmark.results.rows import Row, Run, Setting

app = typer.Typer(help="Tables of what was run.")


@app.command("leaderboard")
def leaderboard(
    suite: Annotated[
        str | None, typer.Option(help="Show a suite, what is missing included.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Show the runs on this data set; photographed ones if left out."),
    ] = None,
    ad_hoc: Annotated[
        bool, typer.Option("--ad-hoc", help="Show runs changed on the command line too.")
    ] = False,
    acknowledge: Annotated[
        list[str] | None,
        typer.Option(
            help="Rank a run stopped by a red flag (its id, or an experiment: all its runs).",
        ),
    ] = None,
    why: Annotated[
        str, typer.Option(help="What was checked, and why the result stands; kept with the run.")
    ] = "",
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Where the files go; RUNS_DIR/leaderboards if left out."),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the tables of the runs at hand, and write them as Markdown and CSV.

    Ranked by validation. Without --suite: every experiment that was begun. A result on UTKFace that
    is too good to be true is marked ! and not ranked until it is acknowledged.

    Examples:
      facebench leaderboard --suite quick
      facebench leaderboard --dataset utkface-100 --out tables
      facebench leaderboard --acknowledge b9aa30a6a761 --why "Split and pixels checked by hand"
      facebench leaderboard --json
    """
    with speaking("leaderboard", as_json=as_json) as answer:
        if why and not acknowledge:
            raise RunError("--why gives a reason for nothing", fix="Name a run with --acknowledge")
        if acknowledge:
            _acknowledge(acknowledge, why, runs_dir, answer)
        records = list(all_records(runs_dir))
        runs = _readable(records)
        boards = [
            _build(
                records,
                _experiments([run for run in runs if run.setting.dataset == name], suite),
                name,
                suite=suite,
                data_dir=data_dir,
                weights_dir=weights_dir or data_dir / "weights",
                ad_hoc=ad_hoc,
            )
            for name in _datasets(runs, dataset, runs_dir, answer)
        ]
        _show(boards, out_dir or runs_dir / "leaderboards", answer, as_json=as_json)


def _acknowledge(asked: Sequence[str], why: str, runs_dir: Path, answer: Answer) -> None:
    """Write into the flagged runs' folders that somebody has looked, and why they stand."""
    from benchmark.cli.rescore import chosen_runs
    from benchmark.results import red_flags

    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for argument in asked:
        found = chosen_runs(runs_dir, [argument], answer)
        runs = [run for run in found if run.record.state == "done"]
        if not runs:
            raise RunError(f"{argument} has no finished run", source=str(runs_dir))
        flagged = [run for run in runs if red_flags.flag_state(run.record).flags]
        # Where none is flagged, the first says so.
        for run in flagged or runs[:1]:
            red_flags.acknowledge(run.record, why, when)
            answer.warnings.append(f"run {run.short_identity} is acknowledged: {why}")


def _readable(records: Sequence[RunRecord]) -> "list[Run]":
    """Read what can be read; what cannot is noted beneath the tables."""
    from benchmark.results.rows import read_run

    runs = []
    for record in records:
        with contextlib.suppress(RunError):
            runs.append(read_run(record))
    return runs


def _datasets(
    runs: "Sequence[Run]", asked: str | None, runs_dir: Path, answer: Answer
) -> list[str]:
    """Name the data sets to show: the one asked for, else all photographed ones, else drawn."""
    drawn = {run.setting.dataset: run.setting.drawn for run in runs}
    if not drawn:
        raise RunError(
            "there is no run to show",
            source=str(runs_dir),
            fix="`facebench run --suite quick` makes some",
        )
    if asked is not None:
        # `drawn` stands for drawn-100, as `utkface` does for utkface-100 and utkface-200.
        named = [name for name in sorted(drawn) if name == asked or name.startswith(f"{asked}-")]
        if not named:
            raise RunError(
                f"no run is on the data set {asked!r}",
                allowed=", ".join(sorted(drawn)),
                source=str(runs_dir),
            )
        return [asked] if asked in named else named
    photographed = sorted(name for name in drawn if not drawn[name])
    hidden = sorted(set(drawn) - set(photographed))
    if photographed and hidden:
        answer.warnings.append(
            f"runs on drawn faces are not shown; --dataset {hidden[0]} shows them"
        )
    return photographed or hidden


def _experiments(runs: "Sequence[Run]", suite: str | None) -> list[Experiment]:
    """List a suite's experiments, or every registered one that was begun."""
    from benchmark.results.rows import definition_key

    if suite is not None:
        return list(registry.experiments_of(suite))
    names = {str(run.definition["name"]) for run in runs}
    definitions = {run.definition_key for run in runs}
    return [
        item
        for item in registry.experiments().values()
        if item.name in names or definition_key(item.as_dict()) in definitions
    ]


def _build(
    records: Sequence[RunRecord],
    experiments: Sequence[Experiment],
    dataset: str,
    *,
    suite: str | None,
    data_dir: Path,
    weights_dir: Path,
    ad_hoc: bool,
) -> "Leaderboard":
    from benchmark.results.leaderboard import build

    return build(
        records,
        experiments,
        dataset,
        suite=suite,
        references=lambda setting, tasks: _references(setting, tasks, data_dir),
        missing=_missing_weights(experiments, weights_dir),
        ad_hoc=ad_hoc,
    )


def _references(setting: "Setting", tasks: tuple[TaskName, ...], data_dir: Path) -> "Sequence[Row]":
    """Score the majority class on the very split, if the data set is at hand."""
    from benchmark.faces.splits import parts_of
    from benchmark.faces.store import prepared_datasets
    from benchmark.faces.subsets import subset_parts
    from benchmark.results.rows import majority_row

    for faces in prepared_datasets(data_dir):
        if (faces.name, faces.split_digest) == (setting.dataset, setting.split_digest):
            whole = parts_of(faces, setting.protocol.fold)
            parts = subset_parts(faces.table, whole, setting.subset, seed=0)
            train, test = faces.table.iloc[parts["train"]], faces.table.iloc[parts["test"]]
            return (majority_row(train, test, tasks),)
    return ()


def _missing_weights(experiments: Sequence[Experiment], weights_dir: Path) -> dict[str, str]:
    """Say by experiment which weights are not at hand."""
    pretrained = [item for item in experiments if item.backbone.weights != "none"]
    if not pretrained:
        return {}
    from benchmark.models.weights import list_weights

    absent = {
        (state.architecture, state.source)
        for state in list_weights(weights_dir)
        if state.state != "here"
    }
    return {
        item.name: f"not measured: weights missing ({item.backbone.weights} of "
        f"{item.backbone.architecture}; `facebench weights list` says how to get them)"
        for item in pretrained
        if (item.backbone.architecture, item.backbone.weights) in absent
    }


def _show(boards: "Sequence[Leaderboard]", folder: Path, answer: Answer, *, as_json: bool) -> None:
    from benchmark.cli.leaderboard_table import render
    from benchmark.results.formats import csv_text, flat_rows, markdown

    answer.data = {"leaderboards": []}
    for board in boards:
        stem = f"leaderboard-{board.dataset}-{board.suite or 'all'}"
        paths = [folder / f"{stem}.{kind}" for kind in ("md", "csv")]
        for path, text in zip(paths, (markdown(board), csv_text(board)), strict=True):
            _write(path, text)
        answer.data["leaderboards"].append(
            {
                "dataset": board.dataset,
                "suite": board.suite,
                "drawn": board.drawn,
                "rows": list(flat_rows(board)),
                "notes": board.notes,
                "limits": board.limits,
                "files": [str(path) for path in paths],
            }
        )
        if not as_json:
            out.print(render(board, out.width))
            err.print(f"\nWritten: {paths[0]} and .csv", soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}",
            fix="Choose another folder with --out",
        ) from error
