"""`facebench compare`: paired differences between runs, experiments and suites."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from benchmark.cli.completion import complete_dataset, complete_run
from benchmark.cli.library import open_library
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
)
from benchmark.cli.output import bullet, busy, err, out, print_table, speaking
from benchmark.errors import ExperimentError, RunError
from benchmark.files import write_text
from benchmark.tasks import TASKS

if TYPE_CHECKING:
    from benchmark.comparison.pairs import Comparison


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
    from benchmark.comparison.cells import setting_text
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
