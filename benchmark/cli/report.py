"""`facebench leaderboard`, `report`, `card` and `data explore`: tables and pages."""

import datetime
import itertools
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markdown import Markdown
from rich.markup import escape
from rich.text import Text

from benchmark import registry
from benchmark.cli import options
from benchmark.cli.options import advanced, option
from benchmark.cli.output import CommandResult, busy, out, print_points, print_table, tell, watching
from benchmark.errors import DataError, RunError, TrackingError, and_more
from benchmark.files import check_outputs, write_text
from benchmark.record import work_folder
from benchmark.registry import finished_runs
from benchmark.reporting.tables import Table

if TYPE_CHECKING:
    from benchmark.comparison.leaderboard import Leaderboard
    from benchmark.comparison.library import Run
    from benchmark.reporting.evidence import RunLinks

MOST_NOTE_LINES: Final = 10
PERCEIVED: Final = "Labels are perceived, and the same person may be in training and test. "
PERSONAL: Final = (
    "the page holds pictures of people: personal data. Do not publish it, and pass it on only to "
    "those who may see the pictures"
)
CLOSING: Final = "--notes prints {more}differences, costs and limitations."

Suites = Annotated[
    list[str] | None,
    option(
        "Show a suite, including experiments that were not run; repeat to combine suites.",
        autocompletion=options.complete_suite,
    ),
]


def leaderboard(
    answer: options.Answer,
    suite: Suites = None,
    dataset: options.OnDataset = None,
    where: Annotated[list[str] | None, option(
        "Show the rows for which it holds: a column of the CSV file, then =, !=, <, <=, > or >=, "
        "then a value; text may hold *, rates may be 0.9 or 90%.", metavar="CONDITION")] = None,
    sort: Annotated[str, option(
        "Order rows by a column of the CSV file, or COLUMN:asc, COLUMN:desc.",
        metavar="COLUMN", show_default=False)] = "",
    notes: Annotated[bool, option("Print differences, costs and all notes too.")] = False,
    ad_hoc: Annotated[bool, option("Show runs changed on the command line too.")] = False,
    from_predictions: Annotated[bool, advanced(
        "Compute every number from the stored predictions anew.")] = False,
    fit_references: Annotated[bool, advanced(
        "Fit the logistic regressions not yet fitted, on pixels and on the frozen backbones of "
        "finished runs; minutes on many faces, once.")] = False,
    folds: Annotated[bool, advanced(
        "Compare what `run --folds` gave with the fixed split: mean ± sd and ranks.")] = False,
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
    """
    from benchmark.reporting.columns import as_data, narrowed
    from benchmark.reporting.leaderboards import available_runs, leaderboards, write_board

    if why and not acknowledge:
        raise RunError("--why gives a reason for nothing", fix="Name a run with --acknowledge")
    for name in acknowledge or ():
        _acknowledge(name, why, runs_dir, answer)
    folder = out_dir or runs_dir / "leaderboards"
    with watching() as watch:
        available = available_runs(runs_dir, from_predictions=from_predictions, watch=watch)
        boards = [] if folds else leaderboards(
            available, data_dir, suite or (), dataset, weights_dir=weights_dir,
            ad_hoc=ad_hoc, fitting=fit_references, watch=watch,
        )  # fmt: skip
    answer.warnings += available.warnings
    if folds:
        datasets = available.datasets(dataset)
        runs = [run for run in available.runs if run.setting.dataset in datasets]
        _print_folds(runs, suite or (), answer)
        return
    answer.data = {"leaderboards": []}
    for board in boards:
        files = list[Path]()
        if where or sort:
            board = narrowed(board, where or (), sort)
        if out_dir or not where:  # a part never replaces the files of the whole
            with busy("writing"):
                files = write_board(board, folder, overwrite or out_dir is None)
        answer.data["leaderboards"].append(as_data(board) | {"files": list(map(str, files))})
        _print_board(board, whole=notes)
        others = ", ".join(path.suffix for path in files[1:])
        tell(f"\nWritten: {files[0]}, {others}" if files else "\n--out FOLDER writes these rows")


def _acknowledge(argument: str, why: str, runs_dir: Path, answer: CommandResult) -> None:
    """Write into the flagged runs' folders that somebody has looked, and why they stand."""
    from benchmark.evaluation import red_flags

    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    runs = finished_runs(argument, runs_dir)
    flagged = [run for run in runs if red_flags.flag_state(run).flags]
    # Where none is flagged, the first says so.
    for run in flagged or runs[:1]:
        red_flags.acknowledge(run, why, when)
        answer.warnings.append(f"run {run.identity[:12]} is acknowledged: {why}")


def _print_board(board: "Leaderboard", *, whole: bool) -> None:
    """Print a table per setting, and the notes that fit into ten lines; or all there is."""
    from benchmark.comparison.library import counted
    from benchmark.reporting import board_tables as shown

    out.print(Text(board.title, style="bold yellow" if board.drawn else "bold"))
    study = shown.study_table(board)
    if study.rows:
        out.print(Text(f"{shown.STUDY_READING}\n"))
        print_table(study)
        out.print()
    for setting, tables in shown.by_setting(board) if whole or not study.rows else ():
        out.print(Text(f"{setting}\n", style="dim"))
        for table in shown.document_tables(tables)[: None if whole else 1]:
            print_table(table)
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
    print_points(notes)


def _notes(board: "Leaderboard") -> Iterator[str]:
    """Give what must be known first: how to read it, leaks and red flags, what was not run."""
    from benchmark.reporting.board_tables import READING, footnotes, not_run

    yield READING
    yield from board.limits[: int(board.drawn)]
    remarks: dict[str, list[str]] = {}
    for row in (row for table in board.tables for row in table.rows):
        for remark in footnotes(row):
            remarks.setdefault(remark, []).append(row.name)
    for remark, names in remarks.items():
        rows = (f"{name} ({n} rows)" if n > 1 else name for name, n in Counter(names).items())
        yield f"{and_more(list(rows))}: {remark}"
    yield from not_run(board)
    yield from board.notes


def _print_folds(runs: "Sequence[Run]", suites: Sequence[str], answer: CommandResult) -> None:
    """Print how stable the numbers are over the five folds."""
    from benchmark.comparison import leaderboard as boards
    from benchmark.comparison.wording import StudyTable, setting_text
    from benchmark.reporting.board_tables import text_table

    asked = [item for name in dict.fromkeys(suites) for item in registry.experiments_of(name)]
    found = boards.stability_tables(runs, asked or list(registry.experiments().values()))
    if not found:
        allowed = "runs made with `facebench run --folds`, of registered experiments"
        fix = "`facebench run NAME --folds 0-4`"
        raise RunError("no finished run is of a fold", allowed=allowed, fix=fix)
    answer.data = {"folds": []}
    for setting, numbers in found:
        plain = numbers.astype(object).where(numbers.notna(), None).to_dict("records")
        named = {"dataset": setting.dataset, "split_digest": setting.split_digest}
        answer.data["folds"].append(named | {"rows": plain})
        heads, rows = boards.stability_cells(numbers)
        stacked = tuple(tuple(text.replace(" / ", "\n") for text in row) for row in rows)
        synthetic = "SYNTHETIC FACES · " if setting.drawn else ""
        title = Text(f"{synthetic}Stability over folds on {setting.dataset}\n", "bold")
        out.print(title + Text(setting_text(setting), style="dim"))
        print_table(text_table(StudyTable("", tuple(heads), stacked)))
    out.print(Text(boards.STABILITY_NOTE))


def report(
    answer: options.Answer,
    suite: Suites = None,
    dataset: options.OnDataset = None,
    with_faces: Annotated[
        bool, option("Show photographed faces predicted wrongly: the page is personal data.")
    ] = False,
    mlflow_url: Annotated[
        str | None, option("Link runs to MLflow at this address; else to their folders.")
    ] = None,
    out_path: Annotated[
        Path | None, option("FILE.html, or a folder; RUNS_DIR/reports if left out.", "--out")
    ] = None,
    overwrite: options.Overwrite = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:
    """Write one HTML page: the answers first, each with its figure, its table and its runs.

    It needs no network and no file beside it. Questions the runs cannot answer are listed
    with the command that answers them.

    Examples:
      facebench report
      facebench report --suite quick --suite depth --dataset drawn
      facebench report --suite study --out study.html --mlflow-url http://127.0.0.1:5000
    """
    from benchmark.reporting.evidence import Evidence
    from benchmark.reporting.leaderboards import available_runs, leaderboards
    from benchmark.reporting.report import answers_of, gallery, write_page

    asked = tuple(suite or ())
    with watching() as watch:
        available = available_runs(runs_dir, watch=watch)
        boards = leaderboards(
            available, data_dir, asked, dataset,
            weights_dir=weights_dir, compared=False, watch=watch,
        )  # fmt: skip
    answer.warnings += [*available.warnings, *available.notes]
    answer.data = {"reports": []}
    here = {faces.name: faces for faces in options.prepared_here(data_dir, answer)}
    library = options.library_of(available.runs, list(here.values()))
    for board in boards:
        name = f"report-{board.dataset}-{'-'.join(asked) or 'all'}.html"
        part = board.dataset if len(boards) > 1 else ""
        path = _page_path(out_path or runs_dir / "reports", name, part)
        check_outputs([path], overwrite=overwrite or out_path is None)
        evidence = Evidence(library, board, asked, _links(runs_dir, path, mlflow_url, answer))
        faces, shown = None, here.get(board.dataset) if board.drawn or with_faces else None
        try:
            faces = gallery(evidence, shown) if shown else None
        except (DataError, RunError) as error:
            answer.warnings.append(str(error))
        if faces and not board.drawn:
            answer.warnings.append(PERSONAL)
        with watching() as watch:
            answers = answers_of(evidence, watch)
        write_text(path, write_page(evidence, answers, datetime.datetime.now().date(), faces))
        found = {
            it.question.slug: {
                "question": it.question.text,
                "answered": not it.command,
                "answer": it.sentences[0],
            }
            for it in answers
        }
        about = {"dataset": board.dataset, "drawn": board.drawn, "suites": list(asked)}
        answer.data["reports"].append(about | {"answers": found, "file": str(path)})
        out.print(f"[bold]{board.dataset}[/]")
        for item in sorted(answers, key=lambda item: bool(item.command)):
            out.print(f"\n[bold]{'LEAKY · ' if item.leaky else ''}{item.question.text}[/]")
            out.print(item.sentences[0], markup=False)
            if item.command:
                out.print(f"  {item.command}", markup=False, soft_wrap=True)
        tell(f"\nWritten: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _page_path(asked: Path, name: str, part: str) -> Path:
    """Give the page's file: `name` in a folder; else the one asked for, `part` added to it."""
    if asked.suffix == "" or asked.is_dir():
        return asked / name
    if asked.suffix != ".html":
        raise RunError(f"--out is {asked}", allowed="FILE.html or a folder")
    return asked.with_stem(f"{asked.stem}-{part}") if part else asked


def _links(runs_dir: Path, page: Path, url: str | None, answer: CommandResult) -> "RunLinks":
    """Link runs to their folders, or to MLflow at `url`; trouble with it is said, no obstacle."""
    from benchmark.reporting.evidence import RunLinks
    from benchmark.tracking.store import run_places

    if url is None:
        return RunLinks(work=Path(os.path.relpath(work_folder(runs_dir), page.parent)).as_posix())
    if not re.match("https?://[^/]", url):
        raise RunError(f"--mlflow-url {url!r} is no address", allowed="http://… or https://…")
    known = {}
    try:
        with busy("looking for the runs in MLflow"):
            known = run_places(runs_dir)
    except TrackingError as error:
        answer.warnings.append(f"{error} No run of the page is linked to MLflow.")
    return RunLinks(url.rstrip("/"), known)


def card(
    answer: options.Answer,
    name: Annotated[str, typer.Argument(
        metavar="RUN", autocompletion=options.complete_run,
        help="A run's id (8 digits or more), or an experiment: all its finished seeds.")],
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:  # fmt: skip
    """Write the model card of a trained run: uses, accuracy by subgroup, limitations, licences.

    Kept as card.md in the run's folder; `facebench runs import` takes it into MLflow.

    Examples:
      facebench card mtl-cnn-none-full-short
      facebench card fc7728290a43 > card.md
    """
    from benchmark.reporting.card import CARD_FILE, model_card

    answer.data = {"cards": []}
    for record in finished_runs(name, runs_dir):
        with busy(f"writing the card of seed {record.seed}"):
            text, path = model_card(record), record.folder / CARD_FILE
            write_text(path, text)
        about = {"identity": record.identity, "files": [str(path)], "markdown": text}
        answer.data["cards"].append(about)
        # Laid out on a terminal, as Markdown into a file or pipe.
        out.print(Markdown(text) if out.is_terminal else text, soft_wrap=True, markup=False)
        tell(f"Written: {escape(str(path))}")


def explore(
    answer: options.Answer,
    dataset: options.DatasetName = None,
    output: Annotated[
        Path | None,
        option("Folder for page and PNGs; DATA_DIR/DATASET/explore by default.", "--out"),
    ] = None,
    overwrite: options.Overwrite = False,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:
    """Show the composition of a data set: labels alone and together, ages, parts, duplicates.

    Writes one page that needs nothing else, and its figures as PNGs; no picture of anybody.

    Examples:
      facebench data explore
      facebench data explore --dataset utkface-100 --out docs/pictures/utkface
    """
    from benchmark.data.dataset import choose_dataset
    from benchmark.reporting.explore import Explored, write_exploration

    faces = choose_dataset(data_dir, dataset)
    with busy(f"counting and drawing {faces.name}"):
        found = Explored(faces)
        folder = output or faces.folder / "explore"
        written = write_exploration(found, folder, overwrite or output is None)
    answer.data = {**found.numbers, "files": [str(path) for path in written]}
    out.print(f"{faces.name}: {found.lead()}", markup=False)
    print_table(Table.of(["", ""], list(found.facts().items())))
    out.print(*found.notes(), sep="\n", markup=False)
    out.print(f"Page: {written[0]}", soft_wrap=True, markup=False)
