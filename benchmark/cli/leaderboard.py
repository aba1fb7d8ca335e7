"""`facebench leaderboard`: the tables of the available runs, printed and written."""

import datetime
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from rich.text import Text

from benchmark import registry
from benchmark.cli import options, output
from benchmark.cli.options import advanced, option
from benchmark.errors import RunError
from benchmark.files import check_outputs, write_text
from benchmark.record import finished_runs
from benchmark.reporting.tables import Cell, Column, Table

if TYPE_CHECKING:
    from benchmark.comparison.leaderboard import Leaderboard
    from benchmark.comparison.library import Run

MOST_NOTE_LINES: Final = 10
PERCEIVED: Final = "Labels are perceived, and the same person may be in training and test. "
CLOSING: Final = "--notes prints {more}differences, costs and limitations."

# fmt: off
Suites = Annotated[list[str] | None, option(
    "Show a suite, what is missing included; several in one table.",
    autocompletion=options.complete_suite)]
Dataset = Annotated[str | None, option(
    "Show the runs on this data set; photographs if left out.",
    autocompletion=options.complete_dataset)]
# fmt: on


def leaderboard(
    answer: options.Answer,
    suite: Suites = None,
    dataset: Dataset = None,
    where: Annotated[list[str] | None, option(
        "Show the rows for which it holds: a column of the CSV file, then =, !=, <, <=, > or >=, "
        "then a value; text may hold *, rates may be 0.9 or 90%.", metavar="CONDITION")] = None,
    sort: Annotated[str, option(
        "Order rows by a column of the CSV file, or COLUMN:asc, COLUMN:desc.",
        metavar="COLUMN", show_default=False)] = "",
    notes: Annotated[bool, option(
        "Print differences, costs and all notes too.", "--notes")] = False,
    ad_hoc: Annotated[bool, option(
        "Show runs changed on the command line too.", "--ad-hoc")] = False,
    from_predictions: Annotated[bool, advanced(
        "Compute every number from the stored predictions anew.", "--from-predictions")] = False,
    fit_references: Annotated[bool, advanced(
        "Fit the logistic regressions that are missing, on pixels and on the frozen backbones of "
        "finished runs; minutes on many faces, once.", "--fit-references")] = False,
    folds: Annotated[bool, advanced(
        "Compare what `run --folds` gave with the fixed split: mean ± sd and ranks.",
        "--folds")] = False,
    acknowledge: Annotated[list[str] | None, advanced(
        "Rank a run stopped by a red flag (its id, or an experiment: all its runs).",
        autocompletion=options.complete_run)] = None,
    why: Annotated[str, advanced(
        "With --acknowledge: what was checked, and why the result stands; kept with the run."
    )] = "",
    out_dir: Annotated[Path | None, option(
        "Where the files go; RUNS_DIR/leaderboards if left out.", "--out")] = None,
    overwrite: options.Overwrite = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:  # fmt: skip
    """Rank the available runs; write the tables as Markdown, CSV, LaTeX, JSON and an HTML page.

    Ranked by validation. Without --suite: every experiment that was begun. A result on UTKFace that
    is too good to be true is marked ! and not ranked until it is acknowledged.

    Examples:
      facebench leaderboard --suite quick --notes
      facebench leaderboard --suite quick --suite depth --sort seconds
      facebench leaderboard --where architecture=vgg16 --where 'gender_accuracy>=90%'
      facebench leaderboard --suite quick --folds
      facebench leaderboard --acknowledge b9aa30a6a761 --why "Split and pixels checked by hand"
      facebench leaderboard --json
    """
    from benchmark.reporting import leaderboards as boards_of
    from benchmark.reporting.columns import as_data, narrowed

    if why and not acknowledge:
        raise RunError("--why gives a reason for nothing", fix="Name a run with --acknowledge")
    for name in acknowledge or ():
        _acknowledge(name, why, runs_dir, answer)
    places = boards_of.Places(runs_dir, data_dir, weights_dir or data_dir / "weights")
    folder, is_owned = out_dir or runs_dir / "leaderboards", overwrite or out_dir is None
    with output.watching() as watch:
        available = boards_of.available_runs(
            runs_dir, from_predictions=from_predictions, watch=watch
        )
        boards = [] if folds else boards_of.leaderboards(
            available, places, suite or (), dataset,
            ad_hoc=ad_hoc, fitting=fit_references, watch=watch,
        )  # fmt: skip
    answer.warnings += available.warnings
    if folds:
        datasets = available.datasets(dataset, folder)
        runs = [run for run in available.runs if run.setting.dataset in datasets]
        _write_folds(runs, suite or (), folder, answer, overwrite=is_owned)
        return
    answer.data = {"leaderboards": []}
    for board in boards:
        if where or sort:
            board = narrowed(board, where or (), sort)
        with output.busy("writing"):
            files = boards_of.write_board(board, folder, runs_dir, is_owned)
        answer.data["leaderboards"].append(as_data(board) | {"files": list(map(str, files))})
        _print(board, whole=notes)
        others = ", ".join(path.suffix for path in files[1:])
        output.tell(f"\nWritten: {files[0]}, {others}")


def _acknowledge(argument: str, why: str, runs_dir: Path, answer: output.CommandResult) -> None:
    """Write into the flagged runs' folders that somebody has looked, and why they stand."""
    from benchmark.evaluation import red_flags

    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    runs = finished_runs(argument, runs_dir)
    flagged = [run for run in runs if red_flags.flag_state(run).flags]
    # Where none is flagged, the first says so.
    for run in flagged or runs[:1]:
        red_flags.acknowledge(run, why, when)
        answer.warnings.append(f"run {run.identity[:12]} is acknowledged: {why}")


def _print(board: "Leaderboard", *, whole: bool) -> None:
    """Print a table per setting, and the notes that fit into ten lines; or all there is."""
    from benchmark.comparison.library import counted
    from benchmark.reporting import columns
    from benchmark.reporting.board_tables import board_table, by_setting, document_tables

    out = output.out
    out.print(Text(board.title, style="bold yellow" if board.drawn else "bold"))
    study = columns.study_table(board)
    if study.rows:
        out.print(Text(f"{columns.READING}\n"))
        output.print_table(study)
        out.print()
    for setting, tables in by_setting(board) if whole or not study.rows else ():
        out.print(Text(f"{setting}\n", style="dim"))
        table = board_table(tables).keeping(())
        measured = tuple(row for row in table.rows if row.status != "missing")
        output.print_table(Table(table.columns, measured))
        for further in document_tables(tables)[1:] if whole else ():
            out.print()
            output.print_table(further)
    out.print()
    notes = list(_notes(board))
    if whole:
        notes += board.limits[int(board.drawn) :]
    else:
        ending = CLOSING if board.drawn else PERCEIVED + CLOSING
        texts = [ending.format(more="00 more notes, "), *notes]
        lines = [len(textwrap.wrap(text, out.width - 3)) for text in texts]
        n = sum(end <= MOST_NOTE_LINES for end in itertools.accumulate(lines)) - 1
        more = f"{counted(len(notes) - n, 'more note')}, " if n < len(notes) else ""
        notes = [*notes[:n], ending.format(more=more)]
    output.print_points(notes)


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


def _write_folds(
    runs: "Sequence[Run]", suites: Sequence[str], folder: Path, answer: output.CommandResult, *,
    overwrite: bool,
) -> None:  # fmt: skip
    """Write and print how stable the numbers are over the five folds."""
    from benchmark.comparison import leaderboard as boards
    from benchmark.comparison.wording import setting_text

    asked = [item for name in dict.fromkeys(suites) for item in registry.experiments_of(name)]
    found = boards.stability_tables(runs, asked or list(registry.experiments().values()))
    if not found:
        allowed = "runs made with `facebench run --folds`, of registered experiments"
        fix = "`facebench run NAME --folds 0-4`"
        raise RunError("no finished run is of a fold", allowed=allowed, fix=fix)
    answer.data = {"folds": []}
    files = [folder / f"folds-{it.dataset}-{number}.csv" for number, (it, _) in enumerate(found)]
    check_outputs(files, overwrite=overwrite)
    for path, (setting, numbers) in zip(files, found, strict=True):
        write_text(path, numbers.to_csv(index=False))
        plain = numbers.astype(object).where(numbers.notna(), None)
        answer.data["folds"].append(
            {"dataset": setting.dataset, "split_digest": setting.split_digest,
             "rows": plain.to_dict("records"), "file": str(path)}
        )  # fmt: skip
        headings, rows = boards.stability_cells(numbers)
        columns = [Column(heading, left=not place) for place, heading in enumerate(headings)]
        stacked = [[Cell.parted(text.replace(" / ", "\n")) for text in row] for row in rows]
        synthetic = "SYNTHETIC FACES · " if setting.drawn else ""
        title = Text(f"{synthetic}Stability over folds on {setting.dataset}\n", "bold")
        output.out.print(title + Text(setting_text(setting), style="dim"))
        output.print_table(Table.of(columns, stacked))
    output.out.print(Text(boards.STABILITY_NOTE))
