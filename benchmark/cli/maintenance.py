"""Commands on what is here: verify, runs rescore and import, clean, status, ui."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

from benchmark import registry
from benchmark.cli import options, output
from benchmark.cli.output import ExitCode, busy, out, print_table, watching
from benchmark.errors import BenchmarkError, RunError, TrackingError
from benchmark.record import HOW_TO_RUN, RunRecord, all_records
from benchmark.registry import finished_runs, records_named
from benchmark.reporting.tables import Cell, Column, Table

if TYPE_CHECKING:
    from benchmark.runs.queue import Queue

STATES: Final = {
    "claimed": ("running", "cyan"),
    "interrupted": ("interrupted", "yellow"),
    "failed": ("failed", "red"),
    "damaged": ("damaged", "red"),
    "queued": ("queued", "dim"),
    "done": ("done", "green"),
}
"""Word and colour of each; those that ask for attention first."""

START_SECONDS: Final = 300
"""That MLflow's server may take."""
COLOURS: Final = {"holds": "green", "differs": "bold red", "not checked": "yellow"}


def _finished(names: Sequence[str] | None, runs_dir: Path) -> Iterator[RunRecord]:
    """Yield the finished runs that ids, experiments and suites mean, under a bar; else every one.

    Raises RunError where there is none. A run that cannot be read is found by its id.
    """
    suites, chosen = registry.suites(), dict[str, RunRecord]()
    for argument in names or ():
        meant = suites[argument].experiments if argument in suites else (argument,)
        found = [record for name in meant for record in records_named(name, runs_dir)]
        found = found or finished_runs(argument, runs_dir)  # says that there is none
        chosen |= {record.identity: record for record in found}
    every = chosen.values() if names else all_records(runs_dir)
    if not (records := [record for record in every if record.state == "done"]):
        fix = f"{HOW_TO_RUN}; `facebench status` lists all"
        raise RunError("there is no finished run here", source=str(runs_dir), fix=fix)
    with watching() as watch:
        for n_done, record in enumerate(records):
            watch("runs", n_done, len(records))
            yield record


def verify(
    answer: options.Answer,
    names: options.Named = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Compute a run's metrics from its predictions, and its predictions from its weights, again.

    Says of each finished run whether it holds: its files by their checksums, its id by its
    definition, its numbers, and its predictions where the faces are prepared here. Exits 1 where
    something differs.

    Examples:
      facebench verify
      facebench verify b9aa30a6a761
    """
    from benchmark.inference import evaluate

    prepared, runs = options.prepared_here(data_dir, answer), list[dict[str, Any]]()
    for record in _finished(names, runs_dir):
        findings = evaluate.verify(record, prepared)
        title = "a run that cannot be read"
        with contextlib.suppress(BenchmarkError, LookupError, TypeError, ValueError):
            title = f"{record.experiment_name}, seed {record.seed}"
        holds = all(item.verdict != "differs" for item in findings)
        named = {"identity": record.identity, "run": title, "holds": holds}
        runs.append(named | {"findings": [vars(item) for item in findings]})
    answer.data = {"runs": runs}
    n_wrong = sum(not run["holds"] for run in runs)
    answer.code = ExitCode.FINDINGS if n_wrong else ExitCode.FINE
    for run in runs:
        out.print(f"[bold]{escape(run['run'])}[/]  {run['identity'][:12]}", soft_wrap=True)
        rows = [
            (of["what"], Cell(of["verdict"], style=COLOURS[of["verdict"]]), of["detail"])
            for of in run["findings"]
        ]
        print_table(Table.of(["", "", Column("", left=True, fold=True)], rows))
    out.print(f"{len(runs) - n_wrong} of {len(runs)} runs hold.")


def rescore(
    answer: options.Answer,
    names: options.Named = None,
    again: Annotated[bool, options.option("Also what is up to date already.")] = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Compute finished runs' numbers, tables and figures again from their stored predictions.

    For runs of an older facebench. Needs no network, no GPU and no faces. What is up to date is
    left alone. `facebench runs import` brings the numbers to MLflow.

    Examples:
      facebench runs rescore
      facebench runs rescore b9aa30a6a761 --again
    """
    from benchmark.evaluation.artifacts import rescore as rescore_one

    outcomes = Counter[str]()
    for record in _finished(names, runs_dir):
        try:
            outcomes[rescore_one(record, again=again)] += 1
        except BenchmarkError as error:
            answer.errors.append(error)
    answer.data = {"runs": dict(outcomes)}
    answer.code = ExitCode.RUNS_FAILED if answer.errors else ExitCode.FINE
    done = f"{outcomes['rescored']} runs rescored, {outcomes['current']} were up to date"
    out.print(f"{done}, {len(answer.errors)} could not be.")


def import_(
    answer: options.QuietAnswer,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Bring MLflow to what the runs' folders say; run it as often as you like.

    Those of another machine, that ran with --tracking files, are copied into RUNS_DIR/work first.

    Examples:
      facebench runs import
    """
    from benchmark.tracking.mirror import MlflowMirror

    mirror, imported = MlflowMirror(runs_dir, output.say_warning), []
    records = list(all_records(runs_dir))
    with watching() as watch:
        for n_done, record in enumerate(records, 1):
            try:
                run_id = mirror.mirror(record)
                imported.append({"identity": record.identity, "mlflow_run": run_id})
            except TrackingError:
                raise
            except RunError as error:
                answer.warnings.append(f"left out: {error}")
            watch("runs", n_done, len(records))
    answer.data = {"runs": imported}
    out.print(f"{len(imported)} runs are in MLflow.")


def clean(
    answer: options.Answer,
    dry_run: Annotated[bool, options.option("Remove nothing, only say.")] = False,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Remove the temporary files that killed processes left, an hour ago or longer.

    Runs, prepared data sets, weights and MLflow are never touched, nor are cached features, whose
    limit `run --cache-gib` sets.

    Examples:
      facebench clean --dry-run
      facebench clean
    """
    from benchmark.runs.folder import leftovers

    n, n_bytes = 0, 0
    for path in list(leftovers(runs_dir, data_dir)):
        try:
            files = [file for file in (path, *path.rglob("*")) if file.is_file()]
            size = sum(file.stat().st_size for file in files)
            if path.is_dir() and not dry_run:
                shutil.rmtree(path)
            elif not dry_run:
                path.unlink(missing_ok=True)
        except OSError as error:
            found = f"{path} cannot be removed: {error.strerror or error}"
            answer.errors.append(RunError(found, fix="Remove it by hand; the others are done"))
        else:
            n, n_bytes = n + 1, n_bytes + size
    answer.data = {"dry_run": dry_run, "n": n, "bytes": n_bytes}
    done = "would be removed" if dry_run else "removed"
    out.print(f"{n} temporary files and folders {done}, {n_bytes / 2**20:,.1f} MiB.")


def status(
    answer: options.Answer,
    all_: Annotated[bool, options.option("List queued and finished runs too.")] = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """List every run with its state (queued, running, interrupted, failed, damaged, done), where it
    runs, and the time left of each and of the suites that run now.

    Nothing is changed. `facebench run --suite NAME --dry-run` tells what a suite still lacks.

    Examples:
      facebench status
      facebench status --all
    """
    from benchmark.runs.queue import queues

    with busy("reading runs"):
        going, order = list(queues(runs_dir)), list(STATES)
        rows = _rows_of_status(runs_dir, going)
        rows.sort(key=lambda row: (order.index(row["state"]), row["name"], row.get("seed", 0)))
    counts, suites = Counter[str](row["state"] for row in rows), list[dict[str, Any]]()
    running = {row["identity"]: row["seconds_left"] for row in rows if "seconds_left" in row}
    for queue in going:
        left = queue.seconds_left(time.time(), running)
        of_queue = {name: value for name, value in vars(queue).items() if name != "runs"}
        of_queue["counts"] = dict(Counter(run.state for run in queue.runs))
        suites.append(of_queue | {"seconds_left": None if left is None else round(left)})
    answer.data = {"counts": dict(counts), "runs": rows, "suites": suites}
    hidden = () if all_ else ("done", "queued")
    if shown := [row for row in rows if row["state"] not in hidden]:
        print_table(_states_table(shown))
    parts = [(counts[state], *STATES[state]) for state in STATES if counts[state]]
    words = ", ".join(f"{n} [{colour}]{word}[/]" for n, word, colour in parts)
    out.print(f"{words}." if words else f"No run has begun in {runs_dir}. {HOW_TO_RUN}.")
    for one in suites:
        said = ", ".join(f"{n} {state}" for state, n in one["counts"].items())
        said = said.replace("missing", "not run")
        left = one["seconds_left"]
        out.print(
            f"{sum(one['counts'].values())} runs by process {one['pid']} on {one['host']} "
            f"({one['engine']}, {one['n_slots']} at once): {said}; "
            f"time left: {'not known yet' if left is None else output.duration(left)}.",
            soft_wrap=True,
        )


def _rows_of_status(runs_dir: Path, going: "Sequence[Queue]") -> list[dict[str, Any]]:
    """Say where every run stands that has begun, or waits in a queue; what is not known is absent.

    The time left is to the recipe's last epoch: early stopping may end a run sooner.
    """
    from benchmark.comparison.library import standing

    queued = [run for queue in going for run in queue.runs]
    where = {run.identity: run.where for run in queued if run.state == "running"}
    waiting = dict.fromkeys((run.name, run.seed) for run in queued if run.state == "queued")
    rows = []
    for record in all_records(runs_dir):
        row = standing(record)
        key = row["name"], row.get("seed", 0)
        if row["state"] == "claimed":
            waiting.pop(key, None)  # The file may not say yet that it has begun.
            row |= {"where": where[record.identity]} if where.get(record.identity) else {}
            with contextlib.suppress(RunError, KeyError, TypeError, ValueError):
                each = float(record.history()["epoch_seconds"].median())
                row["seconds_left"] = round(each * (row["of_epochs"] - row["epochs"]))
        elif row["state"] != "done" and key in waiting:
            waiting.pop(key)
            row["state"] = "queued"
        rows.append(row)
    of_waiting = {"state": "queued", "ad_hoc": False}
    return rows + [{"name": name, "seed": seed, **of_waiting} for name, seed in waiting]


def _states_table(shown: Iterable[dict[str, Any]]) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for row in shown:
        word, colour = STATES[row["state"]]
        why = row.get("why", "").strip().partition("\n")[0]
        name = Cell(row["name"] + (" (ad hoc)" if row["ad_hoc"] else ""), why)
        epochs = f"{row['epochs']}/{row['of_epochs']}" if "epochs" in row else ""
        left = output.duration(row["seconds_left"]) if "seconds_left" in row else ""
        process = str(row.get("pid", "")) + (f" on {row['where']}" if "where" in row else "")
        state, seed = Cell(word, style=colour), str(row.get("seed", ""))
        rows.append((state, name, seed, epochs, left, process))
    numbers = [Column(heading, left=False) for heading in ("seed", "epochs", "left", "process")]
    name_column = Column("experiment", left=True, names=True)
    return Table.of(["state", name_column, *numbers], rows)


def ui(
    answer: output.CommandResult,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    port: Annotated[int, typer.Option(help="A free port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on 127.0.0.1, with a link to the page that shows the runs.

    Examples:
      facebench ui
      facebench ui --port 5001
    """
    from benchmark.tracking.store import landing_path, server_command

    if not _is_free(port):
        free = next((other for other in range(port + 1, 65536) if _is_free(other)), port)
        fix = f"facebench ui --port {free}"
        raise TrackingError(f"port {port} on 127.0.0.1 is in use", fix=fix)
    path = landing_path(runs_dir)
    if path == "/":
        brings = "`facebench runs import` brings those that were made without it"
        output.say_warning(f"there is no run in MLflow yet. {HOW_TO_RUN}; {brings}")
    quietly = os.environ | {"PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(server_command(runs_dir, port), env=quietly)
    link = f"[bold]http://127.0.0.1:{port}{path}[/]"
    try:
        with busy("starting MLflow"):
            _wait_until_up(server, port)
        out.print(f"\n{link}\nStop with Ctrl-C.", soft_wrap=True)
        if server.wait():
            answer.code = ExitCode.RUNS_FAILED
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait for the server's health page; TrackingError when it dies or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        time.sleep(0.3)
    fix = "Read what it printed above, or choose another --port"
    raise TrackingError(f"the MLflow server did not come up on 127.0.0.1:{port}", fix=fix)
