"""`facebench compare`, `leak` and `subsets`: paired differences, and what two studies found."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from benchmark import registry
from benchmark.cli.library import open_library
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Overwrite,
    Quiet,
    RunsDir,
    complete_dataset,
    complete_run,
    complete_suite,
)
from benchmark.cli.output import CommandResult, bullet, busy, err, out, print_table, speaking
from benchmark.errors import ExperimentError, RunError
from benchmark.files import check_outputs, write_text
from benchmark.reporting.tables import Cell, Column, Table
from benchmark.tasks import TASKS

if TYPE_CHECKING:
    from benchmark.comparison.pairs import Comparison
    from benchmark.comparison.wording import StudyPage

Dataset = Annotated[
    str | None,
    typer.Option(
        help="The data set; the only one with such runs if left out.",
        autocompletion=complete_dataset,
    ),
]
OutDir = Annotated[
    Path | None,
    typer.Option("--out", help="Where the files go; RUNS_DIR/leaderboards if left out."),
]


def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run's id (8 digits or more), an experiment (all its finished seeds) or a suite "
            "(all its experiments).",
            autocompletion=complete_run,
        ),
    ],
    task: Annotated[
        list[str] | None, typer.Option(help="age_group, gender or race; all if left out.")
    ] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Each against each, not against the first.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set of the runs, where there are several.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the comparison there as Markdown too.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write its lines there as CSV too.")] = None,
    overwrite: Overwrite = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Tell whether one network predicts better than another, and by how much.

    Paired on the same test faces, each against the first. Of a suite, or of one experiment named
    alone: MTL networks against their single-task counterparts, and each experiment against the one
    that its definition names. One seed permits no claim about an experiment.

    Examples:
      facebench compare mtl-cnn-none-full-short
      facebench compare quick --task age_group
      facebench compare 1123730c00 3c32f0f3cf --json
    """
    with speaking("compare", as_json=as_json) as answer:
        from benchmark.comparison.pairs import compare as compared
        from benchmark.reporting.comparison_tables import as_data, csv_text
        from benchmark.reporting.comparison_tables import markdown as markdown_text

        for name in task or ():
            if name not in TASKS:
                raise ExperimentError(f"unknown task {name!r}", allowed=", ".join(TASKS))
        outputs = [path for path in (markdown, csv) if path is not None]
        check_outputs(outputs, overwrite=overwrite)
        tasks = [name for name in TASKS if not task or name in task]
        library = open_library(runs_dir, data_dir, answer, quiet=quiet or as_json)
        with busy("comparing", quiet=quiet or as_json):
            found = compared(library, what, dataset=dataset, tasks=tasks, all_pairs=all_pairs)
        answer.data = as_data(found)
        if not as_json:
            _print(found)
        for path, text_of in ((markdown, markdown_text), (csv, csv_text)):
            if path is None:
                continue
            try:
                write_text(path, text_of(found))
            except OSError as error:
                raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
            if not as_json:
                err.print(f"Written: {path}", soft_wrap=True)


def _print(found: "Comparison") -> None:
    """Print the run groups by themselves, then the differences, pair by pair."""
    from benchmark.comparison.wording import setting_text
    from benchmark.reporting.comparison_tables import pairs_table, scores_table, title_of

    out.print(Text(title_of(found), style="bold yellow" if found.drawn else "bold"))
    for setting in dict.fromkeys(item.group.setting for item in found.groups):
        out.print(Text(setting_text(setting), style="dim"))
    out.print()
    print_table(scores_table(found).keeping(()))
    for table in found.tables:
        out.print(Text(f"\n{table.title}", style="bold underline"))
        if table.lines:
            print_table(pairs_table(table).keeping(()))
            out.print(Text(f"{table.family}\n", style="dim"))
        for sentence in table.sentences:
            out.print(Text(sentence))
        for sentence in table.gap_sentences:
            out.print(bullet(sentence))
    for title, notes in (("How to read it", found.notes), ("Limitations", found.limits)):
        out.print(Text(f"\n{title}", style="bold"))
        for note in notes:
            out.print(bullet(note))


def leak(
    suite: Annotated[
        str | None,
        typer.Option(
            help="A suite of run groups that end as `leak`'s do; headline, leak and leak_vgg16 if "
            "left out.",
            autocompletion=complete_suite,
        ),
    ] = None,
    dataset: Dataset = None,
    out_dir: OutDir = None,
    overwrite: Overwrite = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Take a leaky score apart: what it is on faces never met, and what each condition is worth.

    Reads the stored predictions of a suite's runs; writes tables (.md) and a figure (.png) of
    each network, all of them marked LEAKY.

    Examples:
      facebench run --suite leak --seeds 0,1,2
      facebench leak
      facebench leak --suite headline --dataset utkface-100 --json
    """
    from benchmark.comparison.leak_study import LEAK_SUITES, leak_page, leak_study

    suites = (suite,) if suite else LEAK_SUITES
    with speaking("leak", as_json=as_json) as answer:
        found = _study(answer, leak_study, suites, dataset, runs_dir, data_dir, quiet or as_json)
        stem = (out_dir or runs_dir / "leaderboards") / f"{suite or 'leak'}-{found['dataset']}"
        page, is_owned = leak_page(found), overwrite or out_dir is None
        _show(answer, page, found, stem, overwrite=is_owned, quiet=quiet, as_json=as_json)


def subsets(
    suite: Annotated[
        str,
        typer.Option(help="A suite of subsets in three run groups.", autocompletion=complete_suite),
    ] = "subsets",
    dataset: Dataset = None,
    out_dir: OutDir = None,
    overwrite: Overwrite = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say whether specialists predict the age group of a subset better than one network of all.

    Reads the stored predictions of a suite's runs; writes tables (.md) and a figure (.png).

    Examples:
      facebench run --suite subsets --seeds 0,1,2
      facebench subsets
      facebench subsets --dataset drawn --json
    """
    from benchmark.comparison.subset_study import subset_data, subset_page, subset_study

    with speaking("subsets", as_json=as_json) as answer:
        found = _study(answer, subset_study, [suite], dataset, runs_dir, data_dir, quiet or as_json)
        stem = (out_dir or runs_dir / "leaderboards") / f"{suite}-{found['dataset']}"
        page, data, is_owned = subset_page(found), subset_data(found), overwrite or out_dir is None
        _show(answer, page, data, stem, overwrite=is_owned, quiet=quiet, as_json=as_json)


def _study(
    answer: CommandResult,
    study_of: Callable[..., dict[str, Any]],
    suites: Sequence[str],
    dataset: str | None,
    runs_dir: Path,
    data_dir: Path,
    silent: bool,
) -> dict[str, Any]:
    """Read the runs of some suites on one data set, and study them."""
    from benchmark.comparison.library import choose_dataset

    experiments = [item for name in suites for item in registry.experiments_of(name)]
    suite = "leak" if "leak" in suites else suites[0]
    library = open_library(runs_dir, data_dir, answer, suite=suite, quiet=silent)
    requests = [library.request(name) for name in suites]
    with busy("comparing", quiet=silent):
        return study_of(library, experiments, choose_dataset(library, requests, dataset))


def _show(
    answer: CommandResult,
    page: "StudyPage",
    data: dict[str, Any],
    stem: Path,
    *,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write tables and figures, and print the page or the data."""
    from benchmark.evaluation.figures import write_png
    from benchmark.reporting.figures import study_figure

    pictures = [f"{stem}{'-' if it.name else ''}{it.name}.png" for it in page.pictures]
    files = [f"{stem}.md", *pictures]
    check_outputs(map(Path, files), overwrite=overwrite)
    try:
        write_text(Path(files[0]), page.markdown())
        for file, picture in zip(pictures, page.pictures, strict=True):
            write_png(Path(file), study_figure(picture, data["dataset"], drawn=page.drawn))
    except OSError as error:
        raise RunError(
            f"{error.filename or stem} cannot be written: {error.strerror or error}",
            fix="Choose another folder with --out",
        ) from error
    answer.data = data | {"sentences": [words for words, _ in page.sentences], "files": files}
    if as_json:
        return
    out.print(f"[bold]{page.heading}[/]")
    for found in page.tables:
        rows = [[Cell.parted(text) for text in cells] for cells in found.rows]
        columns = [Column(head, left=not place) for place, head in enumerate(found.heads)]
        out.print()
        print_table(Table.of(columns, rows, found.caption))
    for title, texts in (
        ("The answer", [words for words, _ in page.sentences]),
        ("How to read it", page.notes),
        ("Limitations", page.limits),
    ):
        out.print(f"\n[bold]{title}[/]", *map(bullet, texts), sep="\n")
    if not quiet:
        err.print(f"\nWritten: {', '.join(files)}", soft_wrap=True)
