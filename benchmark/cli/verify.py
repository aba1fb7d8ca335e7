"""`facebench verify`: does what a run says still follow from what it kept?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.completion import complete_run
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
)
from benchmark.cli.output import Answer, ExitCode, out, progress_bar, speaking
from benchmark.cli.rescore import chosen_runs, prepared_here
from benchmark.errors import BenchmarkError, RunError
from benchmark.record import RunRecord, all_records

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet
    from benchmark.runs.verify import Finding

EXAMPLES = """
Examples:

  facebench verify

  facebench verify b9aa30a6a761

  facebench verify quick --json
"""
COLOURS = {"holds": "green", "differs": "bold red", "not checked": "yellow"}
SHORTEST_ID = 8


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Runs' ids (8 digits or more), experiments or suites; every done run if left out.",
            autocompletion=complete_run,
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compute a run's metrics from its predictions, and its predictions from its weights, again.

    Says of each whether it holds: its files by their digests, its id by its definition, its
    numbers, and its predictions where the faces are prepared here. Exits 1 where something differs.
    """
    code = ExitCode.FINE
    with speaking("verify", as_json=as_json) as answer:
        records = _chosen(runs_dir, names or [], answer)
        prepared = prepared_here(data_dir, answer)
        found = dict(_verified(records, prepared, quiet=quiet or as_json))
        answer.data = {"runs": [_as_dict(record, of) for record, of in found.items()]}
        n_wrong = sum(any(item.verdict == "differs" for item in of) for of in found.values())
        if not as_json:
            for record, of in found.items():
                _print(record, of)
            out.print(f"{len(found) - n_wrong} of {len(found)} runs hold.")
        if n_wrong:
            code = ExitCode.FINDINGS
    if code is not ExitCode.FINE:
        raise typer.Exit(code)


def _chosen(runs_dir: Path, names: Sequence[str], answer: Answer) -> list[RunRecord]:
    """Find the runs meant; those that cannot even be read are meant by their ids, or by no name."""
    everything = list(all_records(runs_dir))
    by_id = [
        record
        for record in everything
        for name in names
        if len(name) >= SHORTEST_ID and record.identity.startswith(name)
    ]
    if names and all(any(item.identity.startswith(name) for item in by_id) for name in names):
        return list(dict.fromkeys(by_id))
    if names:
        found = [run.record for run in chosen_runs(runs_dir, names, answer)]
        done = [record for record in found if record.state == "done"]
    else:
        done = [record for record in everything if record.state == "done"]
    if not done:
        raise RunError(
            "none of these runs is done" if names else "there is no finished run",
            allowed="a finished run",
            source=str(runs_dir),
            fix="`facebench run --suite quick` makes some, `facebench status` says what is there",
        )
    return done


def _verified(
    records: Sequence[RunRecord], prepared: "Sequence[FaceSet]", *, quiet: bool
) -> "Iterator[tuple[RunRecord, list[Finding]]]":
    from benchmark.runs.verify import Finding
    from benchmark.runs.verify import verify as verify_one

    with progress_bar(quiet=quiet) as progress:
        bar = progress.add_task("runs", total=len(records))
        for record in records:
            try:
                yield record, verify_one(record, prepared)
            except BenchmarkError as error:
                if len(records) == 1 and record.state != "done":
                    raise
                yield record, [Finding("files", "differs", str(error))]
            progress.advance(bar)


def _title(record: RunRecord) -> str:
    try:
        return f"{record.experiment_name}, seed {record.seed}"
    except (BenchmarkError, LookupError, TypeError, ValueError):
        return "a run that cannot be read"


def _as_dict(record: RunRecord, found: "Sequence[Finding]") -> dict[str, Any]:
    return {
        "identity": record.identity,
        "run": _title(record),
        "holds": all(item.verdict != "differs" for item in found),
        "findings": [vars(item) for item in found],
    }


def _print(record: RunRecord, found: "Sequence[Finding]") -> None:
    out.print(f"[bold]{escape(_title(record))}[/]  {record.identity[:12]}", soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, min_width=13)
    table.add_column(no_wrap=True, min_width=11)
    table.add_column(overflow="fold")
    for item in found:
        colour = COLOURS[item.verdict]
        table.add_row(f"  {item.what}", f"[{colour}]{item.verdict}[/]", escape(item.detail))
    out.print(table)
