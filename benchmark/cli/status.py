"""`facebench status`: the state of every run, which process runs it, and the time left."""

import datetime
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark import registry
from benchmark.cli.completion import complete_dataset, complete_experiment, complete_suite
from benchmark.cli.options import DEFAULT_RUNS_DIR, AsJson, RunsDir
from benchmark.cli.output import busy, out, print_table, speaking
from benchmark.errors import RunError
from benchmark.experiment.settings import parse_seeds
from benchmark.record import HOW_TO_RUN, RunRecord, all_records, work_folder
from benchmark.reporting.tables import Cell, Column, Table

if TYPE_CHECKING:
    from benchmark.comparison.status import Standing

EXAMPLES = """
Examples:

  facebench status

  facebench status --suite quick --seeds 0,1,2

  facebench status mtl-cnn-none-full-short --json
"""
STATES = {
    "claimed": ("running", "cyan"), "interrupted": ("interrupted", "yellow"),
    "failed": ("failed", "red"), "damaged": ("damaged", "red"), "absent": ("not run", "dim"),
    "done": ("done", "green"),
}  # fmt: skip


def status(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Experiments by name.", autocompletion=complete_experiment),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="All experiments of a suite.", autocompletion=complete_suite),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as in 0,1,2.")] = "0",
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Runs on this one.", autocompletion=complete_dataset),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="List finished runs too.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: AsJson = False,
) -> None:
    """List runs with their state (not run, running, interrupted, failed, damaged, done), the
    process that runs them, and the time left.

    Without a name or suite, every run that has begun here. Nothing is changed.
    """
    with speaking("status", as_json=as_json) as answer:
        from benchmark.comparison.status import STATES as ORDER
        from benchmark.comparison.status import standing, standings_of

        with busy("reading runs", quiet=as_json):
            wanted = {name: registry.experiment(name) for name in names or []}
            if suite is not None:
                wanted |= {item.name: item for item in registry.experiments_of(suite)}
            numbers = parse_seeds(seeds)
            found = {record: standing(record) for record in all_records(runs_dir)}
            if wanted:
                shown = list(standings_of(wanted.values(), numbers, found, dataset))
            else:
                shown = [item for item in found.values() if dataset in (None, item.dataset)]
                shown.sort(key=lambda item: (ORDER.index(item.state), item.name, item.seed or 0))
            left = [_seconds_left(item, runs_dir) for item in shown]
        counts = Counter(item.state for item in shown)
        rows = [
            item.as_dict() | ({} if seconds is None else {"seconds_left": seconds})
            for item, seconds in zip(shown, left, strict=True)
        ]
        answer.data = {"counts": dict(counts), "runs": rows}
        if not as_json:
            table = _table(shown, left, finished=all_ or bool(wanted))
            if table.rows:
                print_table(table)
            parts = [(counts[state], *STATES[state]) for state in ORDER if counts[state]]
            words = [f"{n} [{colour}]{word}[/]" for n, word, colour in parts]
            nothing = f"No run has begun in {runs_dir}. {HOW_TO_RUN}."
            out.print(", ".join(words) + "." if words else nothing)


def _seconds_left(item: "Standing", runs_dir: Path) -> int | None:
    """Predict the time to the recipe's last epoch from the epochs so far; early stopping may end
    it sooner. None where the run is not running, or has no epoch yet."""
    if item.state != "claimed" or not item.epochs or item.of_epochs is None:
        return None
    try:
        history = RunRecord(work_folder(runs_dir) / item.identity).history()
    except RunError:
        return None
    return round(float(history["epoch_seconds"].median()) * (item.of_epochs - item.epochs))


def _table(shown: "list[Standing]", left: list[int | None], *, finished: bool) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for item, seconds in zip(shown, left, strict=True):
        if item.state == "done" and not finished:
            continue
        word, colour = STATES[item.state]
        why = item.why.strip().splitlines()[0] if item.why else ""
        name = item.name + (" (ad hoc)" if item.ad_hoc else "")
        rows.append(
            (
                Cell(word, style=colour),
                Cell(name, why if len(why) <= 160 else why[:159] + "…"),
                "" if item.seed is None else str(item.seed),
                "" if item.epochs is None else f"{item.epochs}/{item.of_epochs}",
                "" if seconds is None else str(datetime.timedelta(seconds=seconds)),
                str(item.pid or ""),
                item.since.removesuffix("+00:00").replace("T", " "),
            )
        )
    numbers = [Column(heading, left=False) for heading in ("seed", "epochs", "left", "process")]
    name_column = Column("experiment", left=True, names=True)
    return Table.of(["state", name_column, *numbers, Column("since (UTC)", left=True)], rows)
