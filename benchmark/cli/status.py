"""`facebench status`: where every run stands, and which process is at it."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from benchmark import registry
from benchmark.cli.completion import complete_dataset, complete_experiment, complete_suite
from benchmark.cli.options import DEFAULT_RUNS_DIR, AsJson, RunsDir
from benchmark.cli.output import busy, out, speaking
from benchmark.experiment.definition import Experiment
from benchmark.experiment.settings import parse_seeds
from benchmark.record import all_records

if TYPE_CHECKING:
    from benchmark.comparison.status import Standing, State

EXAMPLES = """
Examples:

  facebench status

  facebench status --suite quick --seeds 0,1,2

  facebench status mtl-cnn-none-full-short --json
"""
COLOURS = {
    "claimed": "cyan", "interrupted": "yellow", "failed": "red", "damaged": "red",
    "absent": "dim", "done": "green",
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
    """Say who is at what: absent, claimed by a process, interrupted, failed, damaged or done.

    Without a name or suite, every run that has begun here. Nothing is changed.
    """
    with speaking("status", as_json=as_json) as answer:
        with busy("looking", quiet=as_json):
            shown = _standings(runs_dir, _wanted(names or [], suite), seeds, dataset)
        counts: Counter[State] = Counter(item.state for item in shown)
        answer.data = {"counts": dict(counts), "runs": [item.as_dict() for item in shown]}
        if not as_json:
            asked = bool(names or suite)
            _print(shown if all_ or asked else [item for item in shown if item.state != "done"])
            out.print(_in_words(counts))


def _wanted(names: list[str], suite: str | None) -> list[Experiment]:
    found = {name: registry.experiment(name) for name in names}
    if suite is not None:
        found |= {item.name: item for item in registry.experiments_of(suite)}
    return list(found.values())


def _standings(
    runs_dir: Path, wanted: list[Experiment], seeds: str, dataset: str | None
) -> "list[Standing]":
    from benchmark.comparison.status import STATES, standing, standings_of

    numbers = parse_seeds(seeds)
    found = {record: standing(record) for record in all_records(runs_dir)}
    if wanted:
        return list(standings_of(wanted, numbers, found, dataset))
    here = [item for item in found.values() if dataset in (None, item.dataset)]
    return sorted(here, key=lambda item: (STATES.index(item.state), item.name, item.seed or 0))


def _print(shown: "Iterable[Standing]") -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("state", "experiment", "seed", "epochs", "process", "since (UTC)"):
        right = column in ("seed", "epochs", "process")
        table.add_column(
            column, justify="right" if right else "left", overflow="fold", no_wrap=column == "state"
        )
    for item in shown:
        colour = COLOURS[item.state]
        table.add_row(
            f"[{colour}]{item.state}[/]",
            escape(item.name + (" (ad hoc)" if item.ad_hoc else "")),
            "" if item.seed is None else str(item.seed),
            "" if item.epochs is None else f"{item.epochs}/{item.of_epochs}",
            str(item.pid or ""),
            item.since.removesuffix("+00:00").replace("T", " "),
        )
        if item.why:
            table.add_row("", f"[dim]{escape(_first_sentence(item.why))}[/]")
    if table.row_count:
        out.print(table)


def _first_sentence(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 160 else line[:159] + "…"


def _in_words(counts: "Counter[State]") -> str:
    from benchmark.comparison.status import STATES

    if not counts:
        return "No run has begun here. `facebench run --suite quick` makes some."
    told = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    return ", ".join(told) + "."
