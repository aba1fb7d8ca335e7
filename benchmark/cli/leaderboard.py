"""`facebench leaderboard`: the tables of the runs at hand, printed and written."""

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
    WeightsDir,
)
from benchmark.cli.output import Answer, err, out, progress_bar, speaking
from benchmark.errors import RunError
from benchmark.files import write_text

if TYPE_CHECKING:
    from benchmark.results.board import Leaderboard
    from benchmark.results.families import Watch

app = typer.Typer(help="Tables of what was run.")

EXAMPLES: Final = """
Examples:

  facebench leaderboard --suite quick

  facebench leaderboard --suite quick --suite depth --sort gender_accuracy

  facebench leaderboard --where architecture=vgg16 --where 'gender_accuracy>=90%'

  facebench leaderboard --dataset utkface-100 --format tex > table.tex

  facebench leaderboard --acknowledge b9aa30a6a761 --why "Split and pixels checked by hand"

  facebench leaderboard --json
"""
FORMAT_NAMES: Final = ("md", "csv", "tex", "json", "html")
"""As benchmark.leaderboards.FORMATS has them; here so that --help loads nothing heavy."""


@app.command("leaderboard", epilog=EXAMPLES)
def leaderboard(
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Show a suite, what is missing included; several in one table."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Show the runs on this data set; photographed ones if left out."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Show the rows for which it holds: a column of the CSV file, then =, !=, <, <=, > "
            "or >=, then a value; text may hold *, rates may be 0.9 or 90%.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Order rows by a column of the CSV file, or COLUMN:asc, :desc."
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="|".join(FORMAT_NAMES),
            help="Print that text alone instead of tables.",
        ),
    ] = None,
    ad_hoc: Annotated[
        bool, typer.Option("--ad-hoc", help="Show runs changed on the command line too.")
    ] = False,
    from_predictions: Annotated[
        bool,
        typer.Option(
            "--from-predictions", help="Compute every number from the stored predictions anew."
        ),
    ] = False,
    fit_references: Annotated[
        bool,
        typer.Option(
            "--fit-references",
            help="Fit the logistic regressions that are missing, on pixels and on frozen trunks of "
            "finished runs; minutes on many faces, once.",
        ),
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
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Print the tables of the runs at hand, and write them as Markdown, CSV, LaTeX, JSON and HTML.

    Ranked by validation. Without --suite: every experiment that was begun. A result on UTKFace that
    is too good to be true is marked ! and not ranked until it is acknowledged.
    """
    with speaking("leaderboard", as_json=as_json) as answer:
        _check(format_, why, acknowledge)
        from benchmark.leaderboards import Places, leaderboards, runs_at_hand
        from benchmark.results.narrowing import condition, narrowed, sort_by

        conditions = [condition(text) for text in where or ()]
        order = sort_by(sort) if sort else None
        if acknowledge:
            _acknowledge(acknowledge, why, runs_dir, answer)
        places = Places(runs_dir, data_dir, weights_dir or data_dir / "weights")
        with _watching(quiet=quiet or as_json) as watch:
            at_hand = runs_at_hand(runs_dir, from_predictions=from_predictions, watch=watch)
            boards = leaderboards(at_hand, places, suite or (), dataset, ad_hoc=ad_hoc, watch=watch)
        boards = [narrowed(board, conditions, order) for board in boards]
        answer.warnings += at_hand.warnings
        files = _written(boards, out_dir or runs_dir / "leaderboards")
        _show(boards, files, answer, format_, as_json=as_json, quiet=quiet)


def _check(format_: str | None, why: str, acknowledge: Sequence[str] | None) -> None:
    if why and not acknowledge:
        raise RunError("--why gives a reason for nothing", fix="Name a run with --acknowledge")
    if format_ is not None and format_ not in FORMAT_NAMES:
        raise RunError(f"--format is {format_!r}", allowed=", ".join(FORMAT_NAMES))


@contextlib.contextmanager
def _watching(*, quiet: bool) -> Iterator["Watch"]:
    """Show on stderr how far reading and building are."""
    with progress_bar(quiet=quiet) as progress:
        tasks: dict[str, Any] = {}

        def watch(what: str, n_done: int, n_all: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=n_all)
            progress.update(tasks[what], completed=n_done, total=n_all)

        yield watch


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


def _written(boards: Sequence["Leaderboard"], folder: Path) -> list[list[Path]]:
    """Write each leaderboard in every format; give the files."""
    from benchmark.leaderboards import FORMATS, stem_of

    files = []
    for board in boards:
        paths = []
        for ending, text in FORMATS.items():
            paths.append(folder / f"{stem_of(board)}.{ending}")
            _write(paths[-1], text(board))
        files.append(paths)
    return files


def _show(
    boards: Sequence["Leaderboard"],
    files: Sequence[Sequence[Path]],
    answer: Answer,
    format_: str | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from benchmark.cli.leaderboard_table import render
    from benchmark.leaderboards import FORMATS
    from benchmark.results.columns import as_data

    answer.data = {
        "leaderboards": [
            as_data(board) | {"files": [str(path) for path in paths]}
            for board, paths in zip(boards, files, strict=True)
        ]
    }
    if as_json:
        return
    for board, paths in zip(boards, files, strict=True):
        if format_ is not None:
            typer.echo(FORMATS[format_](board), nl=False)
            continue
        out.print(render(board, out.width))
        if not quiet:
            others = ", ".join(path.suffix for path in paths[1:])
            err.print(f"\nWritten: {paths[0]}, {others}", soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}",
            fix="Choose another folder with --out",
        ) from error
