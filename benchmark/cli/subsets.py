"""`facebench subsets`: what the runs of the subset study say, printed and written."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from benchmark import registry
from benchmark.cli.completion import complete_dataset, complete_suite
from benchmark.cli.options import DEFAULT_RUNS_DIR, AsJson, Quiet, RunsDir
from benchmark.cli.output import busy, err, out, speaking
from benchmark.errors import RunError
from benchmark.files import write_text
from benchmark.results.record import RunRecord, all_records

if TYPE_CHECKING:
    from benchmark.results.subset_study import SubsetStudy


def subsets(
    suite: Annotated[
        str,
        typer.Option(help="A suite of subsets in three arms.", autocompletion=complete_suite),
    ] = "subsets",
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set; the photographed one if left out.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Where the files go; RUNS_DIR/leaderboards if left out."),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say whether specialists read the age group of their people better than one network of all.

    Reads the stored predictions of a suite's runs; writes a table (.md) and a picture (.png).

    Examples:
      facebench run --suite subsets --seeds 0,1,2
      facebench subsets
      facebench subsets --dataset drawn --json
    """
    with speaking("subsets", as_json=as_json) as answer:
        from benchmark.results.figures import write_png
        from benchmark.results.subset_answer import as_data, markdown
        from benchmark.results.subset_figures import subset_figure
        from benchmark.results.subset_study import study

        experiments = list(registry.experiments_of(suite))
        records = list(all_records(runs_dir))
        with busy("comparing", quiet=quiet or as_json):
            found = study(records, experiments, _dataset(records, dataset, runs_dir))
        folder = out_dir or runs_dir / "leaderboards"
        stem = folder / f"{suite}-{found.dataset}"
        try:
            write_text(stem.with_suffix(".md"), markdown(found))
            write_png(stem.with_suffix(".png"), subset_figure(found))
        except OSError as error:
            raise RunError(
                f"{stem} cannot be written: {error.strerror or error}",
                fix="Choose another folder with --out",
            ) from error
        answer.data = as_data(found) | {"files": [f"{stem}.md", f"{stem}.png"]}
        if not as_json:
            _print(found)
            if not quiet:
                err.print(f"\nWritten: {stem}.md and .png", soft_wrap=True)


def _dataset(records: list[RunRecord], asked: str | None, runs_dir: Path) -> str:
    """Choose the data set: the one asked for, else the only photographed one, else drawn faces."""
    drawn = {
        str(record.about["dataset"]["name"]): bool(record.about["dataset"]["drawn"])
        for record in records
    }
    photographed = sorted(name for name in drawn if not drawn[name])
    names = sorted(drawn)
    if asked is not None:
        alike = [name for name in names if name == asked or name.startswith(f"{asked}-")]
        # utkface-100 is itself, even beside a sample of it called utkface-100-4000.
        names = [asked] if asked in alike else alike
    elif photographed:
        names = photographed
    if len(names) != 1:
        raise RunError(
            f"{'several data sets have' if names else 'no data set has'} runs here"
            if asked is None
            else f"{len(names)} data sets with runs are called {asked!r}",
            allowed=", ".join(sorted(drawn)) or "none yet",
            source=str(runs_dir),
            fix="Choose one with --dataset, or `facebench run --suite subsets` first",
        )
    return names[0]


def _print(study: "SubsetStudy") -> None:
    from benchmark.cli.leaderboard_table import bullet
    from benchmark.results.limits import LIMITS, LIMITS_DRAWN
    from benchmark.results.subset_answer import notes, sentences

    drawn = "DRAWN FACES · " if study.drawn else ""
    out.print(f"[bold]{drawn}Specialists against everyone, {study.dataset}[/]\n")
    out.print(_subset_table(study))
    if study.systems:
        out.print(_system_table(study))
    for title, texts in (
        ("The answer", sentences(study)),
        ("How to read it", notes(study)),
        ("What these numbers are not", [*(LIMITS_DRAWN if study.drawn else ()), *LIMITS]),
    ):
        out.print(f"\n[bold]{title}[/]")
        for text in texts:
            out.print(bullet(text))


def _subset_table(study: "SubsetStudy") -> Table:
    """Two lines a subset, so that it fits 80 columns."""
    from benchmark.results.subset_answer import (
        TRAININGS,
        arm_text,
        difference_text,
        p_text,
        people_text,
        verdict_text,
    )

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("people")
    for _, name in TRAININGS:
        table.add_column(name, justify="right")
    table.add_column("specialist −", justify="right")
    table.add_column("p", justify="right")
    for result in study.subsets:
        arms = [arm_text(result.arms.get(training)) for training, _ in TRAININGS]
        shown = [text.replace(" (", "\n").rstrip(")") for text in arms]
        pairs = (result.against_everyone, result.against_matched)
        differences = [
            f"{difference_text(pair).partition(' (')[0]} {name}"
            for pair, name in zip(pairs, ("everyone", "matched"), strict=True)
        ]
        table.add_row(
            f"{people_text(result)}\nn {result.n_test:,}",
            *shown,
            "\n".join(differences),
            "\n".join(p_text(pair) for pair in pairs),
        )
        verdicts = {verdict_text(pair) for pair in pairs if pair is not None and pair.significant}
        if verdicts:
            table.rows[-1].style = "bold"
    return table


def _system_table(study: "SubsetStudy") -> Table:
    from benchmark.results.subset_answer import system_cells

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("routed", "n", "system", "single network", "difference", "p", "misrouted"):
        table.add_column(head, justify="left" if head == "routed" else "right")
    for cells in system_cells(study):
        table.add_row(*(cell.replace(" (", "\n").rstrip(")") for cell in cells))
    return table
