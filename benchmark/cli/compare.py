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
    RunsDir,
    complete_dataset,
    complete_run,
    complete_suite,
)
from benchmark.cli.output import bullet, busy, err, out, print_table, speaking
from benchmark.errors import ExperimentError
from benchmark.files import check_outputs, write_text
from benchmark.reporting.tables import Cell, Column, Table
from benchmark.reporting.tables import markdown as markdown_table
from benchmark.tasks import TASKS

if TYPE_CHECKING:
    from benchmark.comparison.pairs import Comparison
    from benchmark.comparison.wording import StudyPage, StudyTable

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
    dataset: Dataset = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
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
        from benchmark.reporting.comparison_tables import as_data

        for name in task or ():
            if name not in TASKS:
                raise ExperimentError(f"unknown task {name!r}", allowed=", ".join(TASKS))
        tasks = [name for name in TASKS if not task or name in task]
        library = open_library(runs_dir, data_dir, answer, quiet=as_json)
        with busy("comparing", quiet=as_json):
            found = compared(library, what, dataset=dataset, tasks=tasks, all_pairs=all_pairs)
        answer.data = as_data(found)
        if not as_json:
            _print(found)


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
    _print_lists(("How to read it", found.notes), ("Limitations", found.limits))


def _print_lists(*lists: tuple[str, Sequence[str]]) -> None:
    for title, texts in lists:
        out.print(Text(f"\n{title}", style="bold"))
        for text in texts:
            out.print(bullet(text))


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

    suites, name = (suite,) if suite else LEAK_SUITES, suite or "leak"
    folder, is_owned = out_dir or runs_dir / "leaderboards", overwrite or out_dir is None
    _study("leak", leak_study, leak_page, lambda study: study, suites, dataset, folder / name,
           is_owned, runs_dir, data_dir, as_json)  # fmt: skip


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

    folder, is_owned = out_dir or runs_dir / "leaderboards", overwrite or out_dir is None
    _study("subsets", subset_study, subset_page, subset_data, (suite,), dataset, folder / suite,
           is_owned, runs_dir, data_dir, as_json)  # fmt: skip


def _study(
    command: str,
    study_of: Callable[..., dict[str, Any]],
    page_of: Callable[[dict[str, Any]], "StudyPage"],
    data_of: Callable[[dict[str, Any]], dict[str, Any]],
    suites: Sequence[str],
    asked: str | None,
    stem: Path,
    overwrite: bool,
    runs_dir: Path,
    data_dir: Path,
    as_json: bool,
) -> None:
    """Study the runs of some suites on one data set; write and print what is found."""
    with speaking(command, as_json=as_json) as answer:
        from benchmark.comparison.library import choose_dataset
        from benchmark.comparison.wording import limitations
        from benchmark.evaluation.figures import write_png
        from benchmark.reporting.figures import study_figure

        experiments = [item for name in suites for item in registry.experiments_of(name)]
        suite = command if command in suites else suites[0]
        library = open_library(runs_dir, data_dir, answer, suite=suite, quiet=as_json)
        dataset = choose_dataset(library, [library.request(name) for name in suites], asked)
        with busy("comparing", quiet=as_json):
            study = study_of(library, experiments, dataset)
        page, stem = page_of(study), stem.with_name(f"{stem.name}-{dataset}")
        limits = limitations(run for run in library.runs if run.setting.dataset == dataset)
        heading = f"{'SYNTHETIC FACES · ' * study['drawn']}{page.title}"
        pictures = [f"{stem}{'-' if it.name else ''}{it.name}.png" for it in page.pictures]
        files = [f"{stem}.md", *pictures]
        check_outputs(map(Path, files), overwrite=overwrite)
        lines = [f"# {heading}", "", *(f"- {text}" for text in page.sentences), ""]
        lines += [markdown_table(_table(found)) for found in page.tables]
        lines += [f"- {text}" for text in (*page.notes, *limits)]
        write_text(Path(files[0]), "\n".join([*lines, ""]))
        for file, picture in zip(pictures, page.pictures, strict=True):
            write_png(Path(file), study_figure(picture, dataset, drawn=study["drawn"]))
        answer.data = data_of(study) | {"sentences": list(page.sentences), "files": files}
        if as_json:
            return
        out.print(Text(heading, style="bold"))
        for found in page.tables:
            out.print()
            print_table(_table(found))
        _print_lists(
            ("The answer", page.sentences), ("How to read it", page.notes), ("Limitations", limits)
        )
        err.print(f"\nWritten: {', '.join(files)}", soft_wrap=True)


def _table(found: "StudyTable") -> Table:
    rows = [[Cell.parted(text) for text in cells] for cells in found.rows]
    columns = [Column(head, left=not place) for place, head in enumerate(found.heads)]
    return Table.of(columns, rows, found.caption)
