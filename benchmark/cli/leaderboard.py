"""`facebench leaderboard`: the tables of the available runs, printed and written."""

import datetime
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from benchmark.cli.options import (
    ADVANCED,
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Overwrite,
    Quiet,
    RunsDir,
    WeightsDir,
    complete_dataset,
    complete_run,
    complete_suite,
)
from benchmark.cli.output import (
    CommandResult,
    bullet,
    busy,
    err,
    out,
    print_table,
    speaking,
    watching,
)
from benchmark.errors import RunError
from benchmark.files import check_outputs, write_text
from benchmark.reporting.tables import Cell, Column, Table
from benchmark.reporting.tables import markdown as markdown_table

if TYPE_CHECKING:
    from benchmark.comparison.leaderboard import Leaderboard
    from benchmark.reporting.leaderboards import AvailableRuns

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
        help="Show the runs on this data set; photographs if left out.",
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
        "--from-predictions",
        help="Compute every number from the stored predictions anew.",
        rich_help_panel=ADVANCED,
    ),
]
FitReferences = Annotated[
    bool,
    typer.Option(
        "--fit-references",
        help="Fit the logistic regressions that are missing, on pixels and on the frozen "
        "backbones of finished runs; minutes on many faces, once.",
        rich_help_panel=ADVANCED,
    ),
]
Folds = Annotated[
    bool,
    typer.Option(
        "--folds",
        help="Compare what `run --folds` gave with the fixed split: mean ± sd and ranks.",
        rich_help_panel=ADVANCED,
    ),
]
Notes = Annotated[bool, typer.Option("--notes", help="Print differences, costs and all notes too.")]
Acknowledge = Annotated[
    list[str] | None,
    typer.Option(
        help="Rank a run stopped by a red flag (its id, or an experiment: all its runs).",
        rich_help_panel=ADVANCED,
        autocompletion=complete_run,
    ),
]
Why = Annotated[
    str,
    typer.Option(
        help="With --acknowledge: what was checked, and why the result stands; kept with the run.",
        rich_help_panel=ADVANCED,
    ),
]
OutDir = Annotated[
    Path | None,
    typer.Option("--out", help="Where the files go; RUNS_DIR/leaderboards if left out."),
]


def leaderboard(
    suite: Suites = None,
    dataset: Dataset = None,
    where: Where = None,
    sort: Sort = None,
    format_: Format = None,
    notes: Notes = False,
    ad_hoc: AdHoc = False,
    from_predictions: FromPredictions = False,
    fit_references: FitReferences = False,
    folds: Folds = False,
    acknowledge: Acknowledge = None,
    why: Why = "",
    out_dir: OutDir = None,
    overwrite: Overwrite = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Rank the available runs; write the tables as Markdown, CSV, LaTeX, JSON and an HTML page.

    Ranked by validation. Without --suite: every experiment that was begun. A result on UTKFace that
    is too good to be true is marked ! and not ranked until it is acknowledged.

    Examples:
      facebench leaderboard --suite quick
      facebench leaderboard --suite quick --notes
      facebench leaderboard --suite quick --suite depth --sort gender_accuracy
      facebench leaderboard --where architecture=vgg16 --where 'gender_accuracy>=90%'
      facebench leaderboard --suite quick --folds
      facebench leaderboard --dataset utkface-100 --format tex > table.tex
      facebench leaderboard --acknowledge b9aa30a6a761 --why "Split and pixels checked by hand"
      facebench leaderboard --json
    """
    with speaking("leaderboard", as_json=as_json) as answer:
        _check(format_, why, acknowledge)
        from benchmark.reporting.columns import as_data, condition, narrowed, sort_by
        from benchmark.reporting.leaderboards import (
            Places,
            available_runs,
            leaderboards,
            write_board,
        )

        conditions = [condition(text) for text in where or ()]
        order = sort_by(sort) if sort else None
        if acknowledge:
            _acknowledge(acknowledge, why, runs_dir, answer)
        places = Places(runs_dir, data_dir, weights_dir or data_dir / "weights")
        folder = out_dir or runs_dir / "leaderboards"
        with watching(quiet=quiet or as_json) as watch:
            available = available_runs(runs_dir, from_predictions=from_predictions, watch=watch)
            boards = [] if folds else leaderboards(
                available, places, suite or (), dataset,
                ad_hoc=ad_hoc, fitting=fit_references, watch=watch,
            )  # fmt: skip
        answer.warnings += available.warnings
        if folds:
            is_owned = overwrite or out_dir is None
            _show_folds(
                available, suite or (), dataset, folder, answer, overwrite=is_owned, as_json=as_json
            )
            return
        boards = [narrowed(board, conditions, order) for board in boards]
        answer.data = {"leaderboards": []}
        for board in boards:
            with busy("writing", quiet=quiet or as_json):
                files = write_board(board, folder, runs_dir, overwrite or out_dir is None)
            answer.data["leaderboards"].append(as_data(board) | {"files": list(map(str, files))})
            if as_json:
                continue
            if format_ is not None:
                _echo(files, format_)
                continue
            _print(board, whole=notes)
            if not quiet:
                others = ", ".join(path.suffix for path in files[1:])
                err.print(f"\nWritten: {files[0]}, {others}", soft_wrap=True)


def _check(format_: str | None, why: str, acknowledge: Sequence[str] | None) -> None:
    if why and not acknowledge:
        raise RunError("--why gives a reason for nothing", fix="Name a run with --acknowledge")
    if format_ is not None and format_ not in FORMAT_NAMES:
        raise RunError(f"--format is {format_!r}", allowed=", ".join(FORMAT_NAMES))


def _acknowledge(asked: Sequence[str], why: str, runs_dir: Path, answer: CommandResult) -> None:
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


def _echo(files: Sequence[Path], format_: str) -> None:
    (path,) = (path for path in files if path.suffix == f".{format_}")
    typer.echo(path.read_text(encoding="utf-8"), nl=False)


MOST_NOTE_LINES: Final = 10
CLOSING: Final = (
    "Labels are perceived, and the same person may be in training and test. --notes prints "
    "{more}differences, costs and limitations."
)


def _print(board: "Leaderboard", *, whole: bool) -> None:
    """Print a table per setting, and the notes that fit into ten lines; or all there is."""
    from benchmark.comparison.wording import title_of
    from benchmark.reporting.board_tables import board_table, by_setting, document_tables
    from benchmark.reporting.columns import READING as STUDY_READING
    from benchmark.reporting.columns import study_table

    out.print(Text(title_of(board), style="bold yellow" if board.drawn else "bold"))
    study = study_table(board)
    if study.rows:
        out.print(Text(f"{STUDY_READING}\n"))
        print_table(study)
        out.print()
    for setting, tables in by_setting(board) if whole or not study.rows else ():
        out.print(Text(setting, style="dim"))
        out.print()
        table = board_table(tables).keeping(())
        measured = tuple(row for row in table.rows if row.status != "missing")
        print_table(Table(table.columns, measured))
        for further in document_tables(tables)[1:] if whole else ():
            out.print()
            print_table(further)
    out.print()
    notes = list(_notes(board))
    shown = [*notes, *board.limits[int(board.drawn) :]]
    if not whole:
        lines = [len(textwrap.wrap(note, out.width - 3)) for note in notes]
        closing = len(textwrap.wrap(CLOSING.format(more="00 more notes, "), out.width - 3))
        n = 0
        while n < len(notes) and sum(lines[: n + 1]) + closing <= MOST_NOTE_LINES:
            n += 1
        more = f"{len(notes) - n} more notes, " if n < len(notes) else ""
        shown = [*notes[:n], CLOSING.format(more=more)]
    for note in shown:
        out.print(bullet(note))


def _notes(board: "Leaderboard") -> Iterator[str]:
    """Give what must be known first: how to read it, leaks and red flags, what was not run."""
    from benchmark.reporting.board_tables import READING, footnotes, listed, not_run

    yield READING
    yield from board.limits[: int(board.drawn)]
    remarks: dict[str, list[str]] = {}
    for row in (row for table in board.tables for row in table.rows):
        for remark in footnotes(row):
            remarks.setdefault(remark, []).append(row.name)
    yield from (f"{listed(names)}: {remark}" for remark, names in remarks.items())
    yield from not_run(board)
    yield from board.notes


def _show_folds(
    available: "AvailableRuns",
    suites: Sequence[str],
    dataset: str | None,
    folder: Path,
    answer: CommandResult,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Print and write how stable the numbers are over the five folds of the split."""
    from benchmark import registry
    from benchmark.comparison.out_of_fold import STABILITY_NOTE, stability_cells, stability_tables
    from benchmark.comparison.wording import setting_text

    asked = [item for name in dict.fromkeys(suites) for item in registry.experiments_of(name)]
    experiments = asked or list(registry.experiments().values())
    datasets = available.datasets(dataset, folder)
    runs = [run for run in available.runs if run.setting.dataset in datasets]
    found = stability_tables(runs, experiments)
    if not found:
        raise RunError(
            "no finished run is of a fold",
            allowed="runs made with `facebench run --folds`, of registered experiments",
            fix="`facebench run NAME --folds 0-4`",
        )
    answer.data = {"folds": []}
    names = ["folds.md", *(f"folds-{it.dataset}-{n}.csv" for n, (it, _) in enumerate(found))]
    check_outputs([folder / name for name in names], overwrite=overwrite)
    texts = []
    for number, (setting, numbers) in enumerate(found):
        headings, rows = stability_cells(numbers)
        synthetic = "SYNTHETIC FACES · " if setting.drawn else ""
        title = f"{synthetic}Stability over folds on {setting.dataset}"
        columns = [Column(heading, left=not place) for place, heading in enumerate(headings)]
        table = Table.of(columns, rows)
        texts += [f"# {title}\n", f"{setting_text(setting)}\n", markdown_table(table)]
        path = folder / f"folds-{setting.dataset}-{number}.csv"
        write_text(path, numbers.to_csv(index=False))
        plain = numbers.astype(object).where(numbers.notna(), None)
        answer.data["folds"].append(
            {"dataset": setting.dataset, "split_digest": setting.split_digest,
             "rows": plain.to_dict("records"), "file": str(path)}
        )  # fmt: skip
        if not as_json:
            out.print(Text(title, style="bold"))
            out.print(Text(setting_text(setting), style="dim"))
            stacked = [[Cell.parted(c.replace(" / ", "\n")) for c in row] for row in rows]
            print_table(Table.of(columns, stacked))
    write_text(folder / "folds.md", "\n".join([*texts, STABILITY_NOTE, ""]))
    if not as_json:
        out.print(STABILITY_NOTE)
