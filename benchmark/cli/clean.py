"""`facebench clean`: say what takes room, and remove what was asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmark.cli.options import DEFAULT_DATA_DIR, DEFAULT_RUNS_DIR, AsJson, DataDir, RunsDir
from benchmark.cli.output import Answer, ExitCode, out, say_error, speaking
from benchmark.errors import ExperimentError, RunError

if TYPE_CHECKING:
    from benchmark.runs.leftovers import Kind, Leftover

EXAMPLES = """
Examples:

  facebench clean --dry-run

  facebench clean

  facebench clean --only cache,epoch-weights
"""


def clean(
    only: Annotated[
        str | None,
        typer.Option(
            help="What to remove, as in cache,failed; --dry-run lists the kinds. "
            "Leftovers alone if left out."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only say.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: AsJson = False,
) -> None:
    """Free disk space: what killed processes left, and with --only what can be made again.

    A run that a living process is at is never touched, nor are prepared data sets, weights that
    were added, or anything in MLflow.
    """
    code = ExitCode.FINE
    with speaking("clean", as_json=as_json) as answer:
        from benchmark.runs.leftovers import KINDS, NEEDLESS, leftovers

        wanted = _kinds(only)
        # A dry run shows every kind, so that one can choose.
        shown = set(KINDS) if dry_run and only is None else wanted or set(NEEDLESS)
        found = list(leftovers(runs_dir, data_dir, shown))
        rows = _rows(found, shown)
        if not dry_run:
            _remove(found, rows, answer)
            code = ExitCode.FINDINGS if answer.errors else code
        answer.data = {"dry_run": dry_run, "kinds": rows}
        if not as_json:
            _print(rows, dry_run=dry_run)
            for error in answer.errors:
                say_error(error)
    if code is not ExitCode.FINE:
        raise typer.Exit(code)


def _kinds(only: str | None) -> "set[Kind]":
    from benchmark.runs.leftovers import KINDS

    asked = [name.strip() for name in (only or "").split(",") if name.strip()]
    unknown = [name for name in asked if name not in KINDS]
    if unknown:
        raise ExperimentError(f"--only names {unknown[0]!r}", allowed=", ".join(KINDS))
    return {kind for kind in KINDS if kind in asked}


def _rows(found: "Sequence[Leftover]", shown: "set[Kind]") -> dict[str, dict[str, Any]]:
    from benchmark.runs.leftovers import KINDS

    return {
        kind: {
            "what": KINDS[kind],
            "n": sum(item.kind == kind for item in found),
            "bytes": sum(item.n_bytes for item in found if item.kind == kind),
            "removed": 0,
            "bytes_removed": 0,
        }
        for kind in KINDS
        if kind in shown
    }


def _remove(found: "Sequence[Leftover]", rows: dict[str, dict[str, Any]], answer: Answer) -> None:
    """Remove one after another; what cannot be removed is said, and stops nothing."""
    for item in found:
        try:
            gone = item.remove()
        except OSError as error:
            answer.errors.append(
                RunError(f"{item.path} cannot be removed: {error.strerror or error}")
            )
            continue
        if gone:
            rows[item.kind]["removed"] += 1
            rows[item.kind]["bytes_removed"] += item.n_bytes
        else:
            answer.warnings.append(f"{_named(item.path)} was left: a process is at work on it")


def _named(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _print(rows: dict[str, dict[str, Any]], *, dry_run: bool) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("kind", no_wrap=True)
    table.add_column("here" if dry_run else "removed", justify="right")
    table.add_column("MiB", justify="right")
    table.add_column("what it is", overflow="fold")
    prefix = "" if dry_run else "_removed"
    for kind, row in rows.items():
        n = row["n"] if dry_run else row["removed"]
        table.add_row(kind, str(n), f"{row[f'bytes{prefix}'] / 2**20:,.1f}", row["what"])
    out.print(table)
    if dry_run:
        out.print("Nothing was removed. `facebench clean --only KIND,KIND` removes some kinds.")
