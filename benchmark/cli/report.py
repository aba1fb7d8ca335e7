"""`facebench report`: one HTML page of the runs at hand that answers the benchmark's questions."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

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
from benchmark.cli.output import Answer, busy, err, out, progress_bar, speaking, watching
from benchmark.errors import DataError, RunError, TrackingError
from benchmark.files import write_text

if TYPE_CHECKING:
    from benchmark.reporting.answer import Answer as Answered
    from benchmark.reporting.evidence import Evidence, MlflowLinks
    from benchmark.reporting.subgroups import Gallery

EXAMPLES = """
Examples:

  facebench report

  facebench report --suite quick --suite depth --dataset drawn

  facebench report --suite study --out study.html
"""
Item = TypeVar("Item")

PERSONAL_DATA = (
    "the page holds pictures of people: personal data. Do not publish it, and pass it on only to "
    "those who may see the pictures"
)

Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        help="Show a suite, what is missing included; again for several. Else all that ran.",
        autocompletion=complete_suite,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="The data set, or `drawn`; photographed ones if left out, a page each.",
        autocompletion=complete_dataset,
    ),
]
WithFaces = Annotated[
    bool,
    typer.Option(
        "--with-faces",
        help="Show photographed faces that were read wrongly. The page is personal data then.",
    ),
]


def report(
    suites: Suites = None,
    dataset: Dataset = None,
    with_faces: WithFaces = False,
    mlflow_url: Annotated[
        str, typer.Option(help="Where `facebench ui` or your server shows the runs.")
    ] = "http://127.0.0.1:5000",
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
    """Write one HTML page: the answers first, each with its plot, its table and its runs.

    It needs no network and no file beside it. What the runs do not tell is said, with the command
    that would. Of photographed faces it shows none, unless asked.
    """
    with speaking("report", as_json=as_json) as answer:
        from benchmark.reporting.evidence import Evidence, chosen_experiments
        from benchmark.reporting.leaderboards import Places, available_runs, leaderboards

        places = Places(runs_dir, data_dir, weights_dir or data_dir / "weights")
        with watching(quiet=quiet or as_json) as watch:
            at_hand = available_runs(runs_dir, watch=watch)
            boards = leaderboards(
                at_hand, places, suites or (), dataset, compared=False, watch=watch
            )
        answer.warnings += [*at_hand.warnings, *at_hand.notes]
        with busy("looking the runs up in MLflow", quiet=quiet or as_json):
            links = _links(runs_dir, mlflow_url, answer)
        library = library_of(at_hand.runs, data_dir)
        answer.data = {"reports": []}
        for board in boards:
            chosen = chosen_experiments(library, suites or (), board.dataset)
            evidence = Evidence(library, board, tuple(chosen), tuple(suites or ()), links)
            gallery = _gallery(evidence, data_dir, answer, with_faces=with_faces)
            name = f"report-{board.dataset}-{'-'.join(suites or ()) or 'all'}.html"
            part = board.dataset if len(boards) > 1 else ""
            path = named_file(out_path or runs_dir / "reports", name, (".html",), part)
            answer.data["reports"].append(
                _written(evidence, gallery, path, as_json=as_json, quiet=quiet)
            )


def _links(runs_dir: Path, url: str, answer: Answer) -> "MlflowLinks":
    """Find the runs in MLflow; trouble with it is said, and no obstacle."""
    from benchmark.reporting.evidence import mlflow_links
    from benchmark.tracking import run_places

    links = mlflow_links(url, {})
    try:
        return mlflow_links(url, run_places(runs_dir))
    except TrackingError as error:
        answer.warnings.append(f"{error} No number of the page leads to MLflow.")
        return links


def _gallery(
    evidence: "Evidence", data_dir: Path, answer: Answer, *, with_faces: bool
) -> "Gallery | None":
    """Show mistakes on drawn faces; on photographed ones only where somebody asked for it."""
    if not evidence.drawn and not with_faces:
        return None
    from benchmark.data.dataset import prepared_datasets
    from benchmark.reporting.subgroups import gallery

    try:
        here = [item for item in prepared_datasets(data_dir) if item.name == evidence.dataset]
        if not here:
            raise DataError(
                f"{evidence.dataset} is not prepared here, so that none of its faces is shown",
                source=str(data_dir),
            )
        found = gallery(evidence, here[0])
    except (DataError, RunError) as error:
        answer.warnings.append(str(error))
        return None
    if found is not None and not found.drawn:
        answer.warnings.append(PERSONAL_DATA)
    return found


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


def _written(
    evidence: "Evidence", gallery: "Gallery | None", path: Path, *, as_json: bool, quiet: bool
) -> dict[str, object]:
    from benchmark.reporting.page import answers, n_steps, portraits, write_page

    with progress_bar(quiet=quiet or as_json) as bar:
        step = bar.add_task(evidence.dataset, total=n_steps(evidence))
        answered = list(_counted(answers(evidence), lambda: bar.advance(step)))
        shown = list(_counted(portraits(evidence), lambda: bar.advance(step)))
    with busy("writing the page", quiet=quiet or as_json):
        text = write_page(evidence, answered, shown, gallery)
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}",
            fix="Choose another place with --out",
        ) from error
    if not as_json:
        _say(evidence.dataset, answered)
        err.print(f"\nWritten: {path} ({len(text.encode()) / 1e6:.1f} MB)", soft_wrap=True)
    return {
        "dataset": evidence.dataset,
        "suites": list(evidence.suites),
        "drawn": evidence.drawn,
        "with_faces": gallery is not None and not gallery.drawn,
        "answers": {
            item.slug: {"question": item.question, "answered": item.answered, "answer": item.short}
            for item in answered
        },
        "file": str(path),
    }


def _counted(items: Iterator[Item], done: Callable[[], None]) -> Iterator[Item]:
    for item in items:
        done()
        yield item


def _say(dataset: str, answers: "Sequence[Answered]") -> None:
    """Print the short answers, as they stand at the top of the page."""
    out.print(f"[bold]{dataset}[/]")
    for item in answers:
        leaky = "LEAKY · " if item.leaky else ""
        out.print(f"\n[bold]{leaky}{item.question}[/]")
        out.print(item.short, markup=False)
        for command in item.commands[:1] if not item.answered else ():
            out.print(f"  {command}", markup=False, soft_wrap=True)
