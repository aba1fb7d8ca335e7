"""`facebench leaderboard`: the tables of the runs at hand, printed and written."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from benchmark.cli.completion import complete_dataset, complete_run, complete_suite
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
    WeightsDir,
)
from benchmark.cli.output import Answer, busy, err, out, speaking, watching
from benchmark.errors import RunError
from benchmark.files import write_text

if TYPE_CHECKING:
    from benchmark.comparison.leaderboard import Leaderboard
    from benchmark.reporting.leaderboards import RunsAtHand

app = typer.Typer(help="Tables of what was run.")

EXAMPLES: Final = """
Examples:

  facebench leaderboard --suite quick

  facebench leaderboard --suite quick --suite depth --sort gender_accuracy

  facebench leaderboard --where architecture=vgg16 --where 'gender_accuracy>=90%'

  facebench leaderboard --suite quick --folds

  facebench leaderboard --dataset utkface-100 --format tex > table.tex

  facebench leaderboard --acknowledge b9aa30a6a761 --why "Split and pixels checked by hand"

  facebench leaderboard --json
"""
FORMAT_NAMES: Final = ("md", "csv", "tex", "json", "html")
"""As benchmark.reporting.leaderboards.FORMATS has them; here so that --help loads nothing heavy."""


Suites = Annotated[
    list[str] | None,
    typer.Option(
        help="Show a suite, what is missing included; several in one table.",
        autocompletion=complete_suite,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="Show the runs on this data set; photographed ones if left out.",
        autocompletion=complete_dataset,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Show the rows for which it holds: a column of the CSV file, then =, !=, <, <=, > "
        "or >=, then a value; text may hold *, rates may be 0.9 or 90%.",
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Order rows by a column of the CSV file, or COLUMN:asc, :desc."
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="|".join(FORMAT_NAMES),
        help="Print that text alone instead of tables.",
        autocompletion=lambda: list(FORMAT_NAMES),
    ),
]
AdHoc = Annotated[bool, typer.Option("--ad-hoc", help="Show runs changed on the command line too.")]
FromPredictions = Annotated[
    bool,
    typer.Option(
        "--from-predictions", help="Compute every number from the stored predictions anew."
    ),
]
FitReferences = Annotated[
    bool,
    typer.Option(
        "--fit-references",
        help="Fit the logistic regressions that are missing, on pixels and on frozen trunks of "
        "finished runs; minutes on many faces, once.",
    ),
]
Folds = Annotated[
    bool,
    typer.Option(
        "--folds", help="Compare what `run --folds` gave with the fixed split: mean ± sd and ranks."
    ),
]
Acknowledge = Annotated[
    list[str] | None,
    typer.Option(
        help="Rank a run stopped by a red flag (its id, or an experiment: all its runs).",
        autocompletion=complete_run,
    ),
]
Why = Annotated[
    str, typer.Option(help="What was checked, and why the result stands; kept with the run.")
]
OutDir = Annotated[
    Path | None,
    typer.Option("--out", help="Where the files go; RUNS_DIR/leaderboards if left out."),
]


@app.command("leaderboard", epilog=EXAMPLES)
def leaderboard(
    suite: Suites = None,
    dataset: Dataset = None,
    where: Where = None,
    sort: Sort = None,
    format_: Format = None,
    ad_hoc: AdHoc = False,
    from_predictions: FromPredictions = False,
    fit_references: FitReferences = False,
    folds: Folds = False,
    acknowledge: Acknowledge = None,
    why: Why = "",
    out_dir: OutDir = None,
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
        from benchmark.reporting.columns import condition, narrowed, sort_by
        from benchmark.reporting.leaderboards import Places, leaderboards, runs_at_hand

        conditions = [condition(text) for text in where or ()]
        order = sort_by(sort) if sort else None
        if acknowledge:
            _acknowledge(acknowledge, why, runs_dir, answer)
        places = Places(runs_dir, data_dir, weights_dir or data_dir / "weights")
        with watching(quiet=quiet or as_json) as watch:
            at_hand = runs_at_hand(runs_dir, from_predictions=from_predictions, watch=watch)
            boards = [] if folds else leaderboards(
                at_hand, places, suite or (), dataset,
                ad_hoc=ad_hoc, fitting=fit_references, watch=watch,
            )  # fmt: skip
        answer.warnings += at_hand.warnings
        if folds:
            where_to = out_dir or runs_dir / "leaderboards"
            _show_folds(at_hand, suite or (), dataset, where_to, answer, as_json=as_json)
            return
        boards = [narrowed(board, conditions, order) for board in boards]
        with busy("writing", quiet=quiet or as_json):
            files = _written(boards, out_dir or runs_dir / "leaderboards")
        _show(boards, files, answer, format_, as_json=as_json, quiet=quiet)


def _check(format_: str | None, why: str, acknowledge: Sequence[str] | None) -> None:
    if why and not acknowledge:
        raise RunError("--why gives a reason for nothing", fix="Name a run with --acknowledge")
    if format_ is not None and format_ not in FORMAT_NAMES:
        raise RunError(f"--format is {format_!r}", allowed=", ".join(FORMAT_NAMES))


def _acknowledge(asked: Sequence[str], why: str, runs_dir: Path, answer: Answer) -> None:
    """Write into the flagged runs' folders that somebody has looked, and why they stand."""
    from benchmark.cli.library import chosen_runs
    from benchmark.evaluation import red_flags

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


def _show_folds(
    at_hand: "RunsAtHand",
    suites: Sequence[str],
    dataset: str | None,
    folder: Path,
    answer: Answer,
    *,
    as_json: bool,
) -> None:
    """Print and write how stable the numbers are over the five folds of the split."""
    from benchmark import registry
    from benchmark.cli.leaderboard_beside import SHORTEST_NAME
    from benchmark.comparison.cells import broken_name, setting_text
    from benchmark.comparison.out_of_fold import STABILITY_NOTE, stability_cells, stability_tables
    from benchmark.runs.notes import table as markdown_table

    asked = [item for name in dict.fromkeys(suites) for item in registry.experiments_of(name)]
    experiments = asked or list(registry.experiments().values())
    datasets = at_hand.datasets(dataset, folder)
    runs = [run for run in at_hand.runs if run.setting.dataset in datasets]
    found = stability_tables(runs, experiments)
    if not found:
        raise RunError(
            "no finished run is of a fold",
            allowed="runs made with `facebench run --folds`, of registered experiments",
            fix="`facebench run NAME --folds 0-4`",
        )
    answer.data = {"folds": []}
    lines = []
    for number, (setting, numbers) in enumerate(found):
        heads, rows = stability_cells(numbers)
        drawn = "DRAWN FACES · " if setting.drawn else ""
        title = f"{drawn}Stability over folds on {setting.dataset}"
        lines += [f"# {title}", "", setting_text(setting), "", *markdown_table(heads, rows)]
        path = folder / f"folds-{setting.dataset}-{number}.csv"
        _write(path, numbers.to_csv(index=False))
        plain = numbers.astype(object).where(numbers.notna(), None)
        answer.data["folds"].append(
            {"dataset": setting.dataset, "split_digest": setting.split_digest,
             "rows": plain.to_dict("records"), "file": str(path)}
        )  # fmt: skip
        if not as_json:
            shown = RichTable(
                title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False
            )
            for index, head in enumerate(heads):
                lines_of = head.replace(": ", "\n").replace(" / ", "\n").replace(" → ", "\n")
                shown.add_column(
                    lines_of, justify="right" if index else "left", no_wrap=index > 0,
                    overflow="fold",
                )  # fmt: skip
            for name, *row in rows:
                cells = (cell.replace(" / ", "\n").replace(" ± ", "±") for cell in row)
                told = (cell.replace(" (", "\n(") for cell in cells)
                shown.add_row(*map(escape, (broken_name(name, SHORTEST_NAME), *told)))
            out.print(setting_text(setting), style="dim")
            out.print(shown)
    lines += [STABILITY_NOTE, ""]
    _write(folder / "folds.md", "\n".join(lines))
    if not as_json:
        out.print(STABILITY_NOTE)


def _written(boards: Sequence["Leaderboard"], folder: Path) -> list[list[Path]]:
    """Write each leaderboard in every format; give the files."""
    from benchmark.reporting.leaderboards import FORMATS, stem_of

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
    from benchmark.reporting.columns import as_data
    from benchmark.reporting.leaderboards import FORMATS

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
