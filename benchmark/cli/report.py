"""`facebench report`, `card` and `data explore`: pages about the runs, one run, one data set."""

import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markdown import Markdown
from rich.markup import escape

from benchmark.cli import options
from benchmark.cli.leaderboard import Dataset, Suites
from benchmark.cli.options import option
from benchmark.cli.output import CommandResult, busy, out, print_table, tell, watching
from benchmark.errors import DataError, RunError, TrackingError
from benchmark.files import check_outputs, write_text
from benchmark.record import finished_runs, work_folder
from benchmark.reporting.tables import Table

if TYPE_CHECKING:
    from benchmark.reporting.evidence import Evidence, RunLinks


def report(
    answer: options.Answer,
    suite: Suites = None,
    dataset: Dataset = None,
    with_faces: Annotated[bool, option(
        "Show photographed faces predicted wrongly: the page is personal data.")] = False,
    mlflow_url: Annotated[str | None, option(
        "Link runs to MLflow at this address; else to their folders.")] = None,
    out_path: Annotated[Path | None, option(
        "FILE.html, or a folder; RUNS_DIR/reports if left out.", "--out")] = None,
    overwrite: options.Overwrite = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:  # fmt: skip
    """Write one HTML page: the answers first, each with its figure, its table and its runs.

    It needs no network and no file beside it. What the runs do not tell is said, with the command
    that would.

    Examples:
      facebench report
      facebench report --suite quick --suite depth --dataset drawn
      facebench report --suite study --out study.html --mlflow-url http://127.0.0.1:5000
    """
    from benchmark.reporting.evidence import Evidence
    from benchmark.reporting.leaderboards import Places, available_runs, leaderboards
    from benchmark.reporting.report import answers_of, write_page

    asked = tuple(suite or ())
    places = Places(runs_dir, data_dir, weights_dir or data_dir / "weights")
    with watching() as watch:
        available = available_runs(runs_dir, watch=watch)
        boards = leaderboards(available, places, asked, dataset, compared=False, watch=watch)
    answer.warnings += [*available.warnings, *available.notes]
    answer.data = {"reports": []}
    library = options.library_of(available.runs, data_dir)
    for board in boards:
        name = f"report-{board.dataset}-{'-'.join(asked) or 'all'}.html"
        part = board.dataset if len(boards) > 1 else ""
        path = named_file(out_path or runs_dir / "reports", name, (".html",), part)
        check_outputs([path], overwrite=overwrite or out_path is None)
        evidence = Evidence(library, board, asked, _links(runs_dir, path, mlflow_url, answer))
        faces = _faces(evidence, data_dir, answer) if board.drawn or with_faces else None
        with watching() as watch:
            answers = answers_of(evidence, watch)
        write_text(path, write_page(evidence, answers, datetime.datetime.now().date(), faces))
        found = {
            it.question.slug: {
                "question": it.question.text, "answered": it.answered,
                "answer": it.sentences[0],
            } for it in answers
        }  # fmt: skip
        answer.data["reports"].append({
            "dataset": board.dataset, "suites": list(asked), "drawn": board.drawn,
            "with_faces": faces is not None and not faces["drawn"], "answers": found,
            "file": str(path),
        })  # fmt: skip
        out.print(f"[bold]{board.dataset}[/]")
        for item in sorted(answers, key=lambda item: not item.answered):
            out.print(f"\n[bold]{'LEAKY · ' if item.leaky else ''}{item.question.text}[/]")
            out.print(item.sentences[0], markup=False)
            for command in item.commands[:1]:
                out.print(f"  {command}", markup=False, soft_wrap=True)
        tell(f"\nWritten: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def named_file(asked: Path, name: str, endings: Sequence[str], part: str = "") -> Path:
    """Name the file to write: the one asked for, or `name` in it where it is a folder.

    part: added to the file's stem where several are written.
    """
    if asked.suffix == "" or asked.is_dir():
        return asked / name
    if asked.suffix not in endings:
        files = ", ".join(f"FILE{ending}" for ending in endings)
        raise RunError(f"--out is {asked}", allowed=f"{files} or a folder")
    return asked.with_stem(f"{asked.stem}-{part}") if part else asked


def _links(runs_dir: Path, page: Path, url: str | None, answer: CommandResult) -> "RunLinks":
    """Find the runs in MLflow; trouble with it is said, and no obstacle."""
    from benchmark.reporting.evidence import RunLinks, mlflow_links
    from benchmark.tracking import run_places

    if url is None:
        return RunLinks(work=Path(os.path.relpath(work_folder(runs_dir), page.parent)).as_posix())
    known = {}
    try:
        with busy("looking for the runs in MLflow"):
            known = run_places(runs_dir)
    except TrackingError as error:
        answer.warnings.append(f"{error} No run of the page is linked to MLflow.")
    return mlflow_links(url, known)


def _faces(evidence: "Evidence", data_dir: Path, answer: CommandResult) -> dict[str, Any] | None:
    """Find the pictures of the most confident errors; trouble is said, and no obstacle."""
    from benchmark.data.dataset import prepared_datasets
    from benchmark.reporting.report import gallery

    try:
        prepared = [item for item in prepared_datasets(data_dir) if item.name == evidence.dataset]
        found = gallery(evidence, prepared[0]) if prepared else None
    except (DataError, RunError) as error:
        answer.warnings.append(str(error))
        return None
    if found is not None and not found["drawn"]:
        answer.warnings.append(
            "the page holds pictures of people: personal data. Do not publish it, and pass it on "
            "only to those who may see the pictures"
        )
    return found


def card(
    answer: options.Answer,
    name: Annotated[str, typer.Argument(
        metavar="RUN", autocompletion=options.complete_run,
        help="A run's id (8 digits or more), or an experiment: all its finished seeds.")],
    out_path: Annotated[Path | None, option(
        "Write it there too, and print no card: FILE.md or FILE.html, or a folder.",
        "--out")] = None,
    overwrite: options.Overwrite = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:  # fmt: skip
    """Write the model card of a trained run: uses, accuracy by subgroup, limitations, licences.

    Kept as card.md in the run's folder; `facebench runs import` takes it into MLflow.

    Examples:
      facebench card mtl-cnn-none-full-short
      facebench card fc7728290a43 --out card.html
      facebench card fc7728290a43 --json
    """
    from benchmark.reporting.card import CARD_FILE, card_page, model_card

    records = finished_runs(name, runs_dir)
    answer.data = {"cards": []}
    for record in records:
        with busy(f"writing the card of seed {record.seed}"):
            text, named = model_card(record), f"{record.experiment_name}-seed-{record.seed}"
            written = [record.folder / CARD_FILE]
            if out_path is not None:
                part = f"seed-{record.seed}" if len(records) > 1 else ""
                written.append(named_file(out_path, f"{named}.md", (".md", ".html"), part))
                is_page = written[-1].suffix == ".html"
                check_outputs(written[1:], overwrite=overwrite)
                content = card_page(text, f"Model card: {named}") if is_page else text
                write_text(written[-1], content)
            write_text(written[0], text)
        files = [str(path) for path in written]
        answer.data["cards"].append({"identity": record.identity, "files": files, "markdown": text})
        if out_path is None:
            # Laid out on a terminal, as Markdown into a file or pipe.
            shown = Markdown(text) if out.is_terminal else text
            out.print(shown, soft_wrap=True, markup=False)
        tell(f"Written: {escape(str(written[-1]))}")


def explore(
    answer: options.Answer,
    dataset: options.DatasetName = None,
    output: Annotated[Path | None, option(
        "Folder for page and PNGs; DATA_DIR/DATASET/explore by default.", "--out")] = None,
    overwrite: options.Overwrite = False,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:  # fmt: skip
    """Show the composition of a data set: labels alone and together, ages, parts, duplicates.

    Writes one page that needs nothing else, and its figures as PNGs; no picture of anybody.

    Examples:
      facebench data explore
      facebench data explore --dataset utkface-100 --out docs/pictures/utkface
      facebench data explore --dataset drawn --json
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
