"""`facebench report`: one HTML page that answers the research questions from the runs."""

import datetime
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.completion import complete_dataset, complete_suite
from benchmark.cli.library import library_of
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
    WeightsDir,
)
from benchmark.cli.output import CommandResult, busy, err, out, progress_bar, speaking, watching
from benchmark.errors import DataError, RunError, TrackingError
from benchmark.files import write_text

if TYPE_CHECKING:
    from benchmark.reporting.evidence import Evidence, RunLinks
    from benchmark.reporting.networks import Gallery
    from benchmark.reporting.report import Report

EXAMPLES = """
Examples:

  facebench report

  facebench report --suite quick --suite depth --dataset drawn

  facebench report --suite study --out study.html --mlflow-url http://127.0.0.1:5000
"""

PERSONAL_DATA = (
    "the page holds pictures of people: personal data. Do not publish it, and pass it on only to "
    "those who may see the pictures"
)


def report(
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="Show a suite, what was not run included; again for several. Else all that ran.",
            autocompletion=complete_suite,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set, or `drawn`; photographed ones if left out, a page each.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    with_faces: Annotated[
        bool,
        typer.Option(
            "--with-faces",
            help="Show photographed faces that are predicted wrongly: the page is personal data.",
        ),
    ] = False,
    mlflow_url: Annotated[
        str | None,
        typer.Option(help="Link runs to MLflow at this address; else to their folders."),
    ] = None,
    out_path: Annotated[
        Path | None,
        typer.Option("--out", help="FILE.html, or a folder; RUNS_DIR/reports if left out."),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page: the answers first, each with its figure, its table and its runs.

    It needs no network and no file beside it. What the runs do not tell is said, with the command
    that would. Of photographed faces it shows none, unless asked.
    """
    silent = quiet or as_json
    with speaking("report", as_json=as_json) as answer:
        from benchmark.reporting.evidence import Evidence, chosen_experiments
        from benchmark.reporting.leaderboards import Places, available_runs, leaderboards
        from benchmark.reporting.report import make_report, n_steps, write_page

        places = Places(runs_dir, data_dir, weights_dir or data_dir / "weights")
        with watching(quiet=silent) as watch:
            available = available_runs(runs_dir, watch=watch)
            boards = leaderboards(
                available, places, suites or (), dataset, compared=False, watch=watch
            )
        answer.warnings += [*available.warnings, *available.notes]
        library = library_of(available.runs, data_dir)
        answer.data = {"reports": []}
        for board in boards:
            name = f"report-{board.dataset}-{'-'.join(suites or ()) or 'all'}.html"
            part = board.dataset if len(boards) > 1 else ""
            path = named_file(out_path or runs_dir / "reports", name, (".html",), part)
            chosen = tuple(chosen_experiments(library, suites or (), board.dataset))
            links = _links(runs_dir, path, mlflow_url, answer)
            evidence = Evidence(library, board, chosen, tuple(suites or ()), links)
            faces = _gallery(evidence, data_dir, answer, with_faces=with_faces)
            with progress_bar(quiet=silent) as bar:
                step = bar.add_task(board.dataset, total=n_steps(evidence))
                made = make_report(evidence, faces, functools.partial(bar.advance, step))
            with busy("writing the page", quiet=silent):
                write_text(path, write_page(made, datetime.datetime.now().date()))
            answer.data["reports"].append(_as_data(made) | {"file": str(path)})
            if not as_json:
                _print(made)
                err.print(f"\nWritten: {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


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
    from benchmark.record import work_folder
    from benchmark.reporting.evidence import RunLinks, mlflow_links

    if url is None:
        work = os.path.relpath(work_folder(runs_dir), page.parent)
        return RunLinks(work=Path(work).as_posix())
    from benchmark.tracking import run_places

    links = mlflow_links(url, {})
    try:
        return mlflow_links(url, run_places(runs_dir))
    except TrackingError as error:
        answer.warnings.append(f"{error} No run of the page is linked to MLflow.")
        return links


def _gallery(
    evidence: "Evidence", data_dir: Path, answer: CommandResult, *, with_faces: bool
) -> "Gallery | None":
    """Show errors on synthetic faces; on photographed ones only where somebody asked for it."""
    if not evidence.board.drawn and not with_faces:
        return None
    from benchmark.data.dataset import prepared_datasets
    from benchmark.reporting.networks import gallery

    try:
        prepared = [item for item in prepared_datasets(data_dir) if item.name == evidence.dataset]
        if not prepared:
            raise DataError(
                f"{evidence.dataset} is not prepared, so none of its faces is shown",
                source=str(data_dir),
            )
        found = gallery(evidence, prepared[0])
    except (DataError, RunError) as error:
        answer.warnings.append(str(error))
        return None
    if found is not None and not found.drawn:
        answer.warnings.append(PERSONAL_DATA)
    return found


def _as_data(made: "Report") -> dict[str, object]:
    evidence, faces = made.evidence, made.gallery
    return {
        "dataset": evidence.dataset,
        "suites": list(evidence.suites),
        "drawn": evidence.board.drawn,
        "with_faces": faces is not None and not faces.drawn,
        "answers": {
            item.slug: {
                "question": item.question,
                "answered": item.answered,
                "answer": item.sentences[0],
            }
            for item in made.answers
        },
    }


def _print(made: "Report") -> None:
    """Print the short answers; then what is not answered, each with the command that would."""
    out.print(f"[bold]{made.evidence.dataset}[/]")
    for item in sorted(made.answers, key=lambda item: not item.answered):
        out.print(f"\n[bold]{'LEAKY · ' if item.leaky else ''}{item.question}[/]")
        out.print(item.sentences[0], markup=False)
        for command in item.commands[:1]:
            out.print(f"  {command}", markup=False, soft_wrap=True)
