"""`facebench compare`, `leak` and `subsets`: paired differences, and what two studies found."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from benchmark import registry
from benchmark.cli import options
from benchmark.cli.options import open_library
from benchmark.cli.output import CommandResult, bullet, busy, err, out, print_table, speaking
from benchmark.errors import ExperimentError
from benchmark.files import write_text
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
        autocompletion=options.complete_dataset,
    ),
]


def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run's id (8 digits or more), an experiment (all its finished seeds) or a suite "
            "(all its experiments).",
            autocompletion=options.complete_run,
        ),
    ],
    task: Annotated[
        list[str] | None, typer.Option(help="age_group, gender or race; all if left out.")
    ] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Each against each, not against the first.")
    ] = False,
    dataset: Dataset = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    as_json: options.AsJson = False,
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
    print_table(scores_table(found))
    for table in found.tables:
        out.print(Text(f"\n{table.title}", style="bold underline"))
        if table.lines:
            print_table(pairs_table(table))
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
            autocompletion=options.complete_suite,
        ),
    ] = None,
    dataset: Dataset = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    as_json: options.AsJson = False,
) -> None:
    """Take a leaky score apart: what it is on faces never met, and what each condition is worth.

    Reads the stored predictions of a suite's runs; writes tables (.md) and a figure (.png) of
    each network into RUNS_DIR/leaderboards, all of them marked LEAKY.

    Examples:
      facebench run --suite leak --seeds 0,1,2
      facebench leak
      facebench leak --suite headline --dataset utkface-100 --json
    """
    from benchmark.comparison.leak_study import LEAK_SUITES, leak_page, leak_study

    suites, stem = (suite,) if suite else LEAK_SUITES, runs_dir / "leaderboards" / (suite or "leak")
    with speaking("leak", as_json=as_json) as answer:
        study, limits = _study(answer, leak_study, suites, dataset, runs_dir, data_dir)
        _show(answer, leak_page(study), study, limits, stem, as_json)


def subsets(
    suite: Annotated[
        str,
        typer.Option(
            help="A suite of subsets in three run groups.", autocompletion=options.complete_suite
        ),
    ] = "subsets",
    dataset: Dataset = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    as_json: options.AsJson = False,
) -> None:
    """Say whether specialists predict the age group of a subset better than one network of all.

    Reads the stored predictions of a suite's runs; writes tables (.md) and a figure (.png) into
    RUNS_DIR/leaderboards.

    Examples:
      facebench run --suite subsets --seeds 0,1,2
      facebench subsets
      facebench subsets --dataset drawn --json
    """
    from benchmark.comparison.subset_study import subset_data, subset_page, subset_study

    stem = runs_dir / "leaderboards" / suite
    with speaking("subsets", as_json=as_json) as answer:
        study, limits = _study(answer, subset_study, (suite,), dataset, runs_dir, data_dir)
        _show(answer, subset_page(study), subset_data(study), limits, stem, as_json)


def _study(
    answer: CommandResult,
    study_of: Callable[..., dict[str, Any]],
    suites: Sequence[str],
    asked: str | None,
    runs_dir: Path,
    data_dir: Path,
) -> tuple[dict[str, Any], Sequence[str]]:
    """Study the runs of some suites on one data set; with what their numbers are not."""
    from benchmark.comparison.library import choose_dataset
    from benchmark.comparison.wording import limitations

    experiments = [item for name in suites for item in registry.experiments_of(name)]
    suite = answer.command if answer.command in suites else suites[0]
    library = open_library(runs_dir, data_dir, answer, suite=suite)
    dataset = choose_dataset(library, [library.request(name) for name in suites], asked)
    with busy("comparing"):
        study = study_of(library, experiments, dataset)
    return study, limitations(run for run in library.runs if run.setting.dataset == dataset)


def _show(
    answer: CommandResult,
    page: "StudyPage",
    data: dict[str, Any],
    limits: Sequence[str],
    stem: Path,
    as_json: bool,
) -> None:
    """Write tables and figures of a study, and print the page."""
    from benchmark.evaluation.figures import write_png
    from benchmark.reporting.figures import study_figure

    path = f"{stem}-{data['dataset']}"
    heading = f"{'SYNTHETIC FACES · ' * data['drawn']}{page.title}"
    tables = [_table(found) for found in page.tables]
    lines = [f"# {heading}", "", *(f"- {text}" for text in page.sentences), ""]
    lines += [*map(markdown_table, tables), *(f"- {text}" for text in (*page.notes, *limits)), ""]
    write_text(Path(f"{path}.md"), "\n".join(lines))
    files = [f"{path}.md"]
    for picture in page.pictures:
        files.append(f"{path}{'-' * bool(picture.name)}{picture.name}.png")
        figure = study_figure(picture, data["dataset"], drawn=data["drawn"])
        write_png(Path(files[-1]), figure)
    answer.data = data | {"sentences": list(page.sentences), "files": files}
    if not as_json:
        out.print(Text(heading, style="bold"))
        for table in tables:
            out.print()
            print_table(table)
        _print_lists(
            ("The answer", page.sentences), ("How to read it", page.notes), ("Limitations", limits)
        )
        err.print(f"\nWritten: {', '.join(files)}", soft_wrap=True)


def _table(found: "StudyTable") -> Table:
    rows = [[Cell.parted(text) for text in cells] for cells in found.rows]
    columns = [Column(head, left=not place) for place, head in enumerate(found.heads)]
    return Table.of(columns, rows, found.caption)
