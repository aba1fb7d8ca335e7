"""`facebench leak`: what the runs of a suite like `leak` say, printed and written."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from benchmark import registry
from benchmark.cli.completion import complete_dataset, complete_suite
from benchmark.cli.library import library_at_hand
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
)
from benchmark.cli.output import busy, err, out, speaking
from benchmark.errors import RunError
from benchmark.files import write_text

if TYPE_CHECKING:
    from benchmark.results.leak_study import LeakStudy, NetworkLeak

EXAMPLES = """
Examples:

  facebench run --suite leak --seeds 0,1,2

  facebench leak

  facebench leak --dataset utkface-100-4000 --json
"""


def leak(
    suite: Annotated[
        str,
        typer.Option(
            help="A suite of arms that end as `leak`'s do.", autocompletion=complete_suite
        ),
    ] = "leak",
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set; the only one with such runs if left out.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Where the files go; RUNS_DIR/leaderboards if left out."),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Take a leaky number apart: what it is on faces never met, and what each condition is worth.

    Reads the stored predictions of a suite's runs; writes a table (.md) and a waterfall (.png) for
    each network, all of them marked LEAKY.
    """
    with speaking("leak", as_json=as_json) as answer:
        from benchmark.results.figures import write_png
        from benchmark.results.leak_answer import as_data, markdown
        from benchmark.results.leak_figures import waterfall_figure
        from benchmark.results.leak_study import leak_study
        from benchmark.results.library import choose_dataset

        experiments = list(registry.experiments_of(suite))
        library = library_at_hand(runs_dir, data_dir, answer, quiet=quiet or as_json)
        name = choose_dataset(library, [library.request(suite)], dataset)
        with busy("comparing", quiet=quiet or as_json):
            found = leak_study(library, experiments, name)
        folder = out_dir or runs_dir / "leaderboards"
        files = [folder / f"{suite}-{found.dataset}.md"]
        try:
            write_text(files[0], markdown(found))
            for network in found.networks:
                files.append(folder / f"{suite}-{found.dataset}-{network.label}.png")
                figure = waterfall_figure(network, found.dataset, drawn=found.drawn)
                write_png(files[-1], figure)
        except OSError as error:
            raise RunError(
                f"{files[-1]} cannot be written: {error.strerror or error}",
                fix="Choose another folder with --out",
            ) from error
        answer.data = as_data(found) | {"files": [str(path) for path in files]}
        if not as_json:
            _print(found)
            if not quiet:
                err.print(f"\nWritten: {', '.join(str(path) for path in files)}", soft_wrap=True)


def _print(study: "LeakStudy") -> None:
    from benchmark.cli.leaderboard_table import bullet
    from benchmark.results.leak_answer import notes, sentences
    from benchmark.results.limits import LIMITS, LIMITS_DRAWN

    drawn = "DRAWN FACES · " if study.drawn else ""
    out.print(f"[bold]{drawn}LEAKY · What a leak is worth, {study.dataset}[/]")
    for network in study.networks:
        out.print(f"\n[bold underline]{network.label}[/]")
        for table in _tables(network):
            out.print()
            out.print(table)
    for title, texts in (
        ("The answer", sentences(study)),
        ("How to read it", notes(study)),
        ("What these numbers are not", [*(LIMITS_DRAWN if study.drawn else ()), *LIMITS]),
    ):
        out.print(f"\n[bold]{title}[/]")
        for text in texts:
            out.print(bullet(text))


def _tables(network: "NetworkLeak") -> list[Table]:
    from benchmark.results.leak_answer import alone_cells, decomposition_cells, waterfall_cells
    from benchmark.tasks import TASK_TITLES, TASKS

    titles = [TASK_TITLES[task] for task in TASKS]
    met = _table(["test faces of the leaky network", "n", *titles])
    for cells in decomposition_cells(network):
        met.add_row(*(_folded(cell) for cell in cells))
    steps = _table(["condition, one more each", "n", *titles])
    for name, n_test, *cells, epochs in waterfall_cells(network):
        pairs = zip(cells[0::2], cells[1::2], strict=True)
        values = [f"{_folded(rate)}\n{change}" for rate, change in pairs]
        steps.add_row(f"{name}\nepochs {epochs}", n_test, *values)
    if not network.alone:
        return [met, steps]
    alone = _table(["one condition mended by itself", *titles])
    for cells in alone_cells(network):
        alone.add_row(*(_folded(cell) for cell in cells))
    return [met, steps, alone]


def _table(heads: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
    return table


def _folded(cell: str) -> str:
    """Set an interval beneath its number."""
    return cell.replace(" (", "\n").rstrip(")")
