"""Commands on what is here: verify, runs rescore and import, clean, doctor, status, ui."""

import contextlib
import datetime
import os
import shutil
import socket
import statistics
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

from benchmark import record as provenance
from benchmark.cli import options, output
from benchmark.cli.output import ExitCode, busy, out, print_table, watching
from benchmark.errors import BenchmarkError, RunError, TrackingError, require
from benchmark.record import HOW_TO_RUN, RunRecord, all_records, work_folder
from benchmark.reporting.tables import Cell, Column, Table

if TYPE_CHECKING:
    from benchmark.comparison.library import Standing
    from benchmark.runs.queue import Queue

STATES: Final = {
    "claimed": ("running", "cyan"), "interrupted": ("interrupted", "yellow"),
    "failed": ("failed", "red"), "damaged": ("damaged", "red"), "queued": ("queued", "dim"),
    "done": ("done", "green"),
}  # fmt: skip
"""Word and colour of each; those that ask for attention first."""

COLOURS: Final = {"holds": "green", "differs": "bold red", "not checked": "yellow"}
LOW_DISK_GIB: Final = 5
START_SECONDS: Final = 300
"""That MLflow's server may take."""
ONLY: Final = (
    "What to remove, as in leftovers,cache; --dry-run lists the kinds. Temporary files alone if "
    "left out."
)


def _finished(names: Sequence[str] | None, runs_dir: Path) -> Iterator[RunRecord]:
    """Yield the finished runs that are meant, under a bar; raise RunError where there is none."""
    chosen = options.chosen_records(runs_dir, names or [])
    records = [record for record in chosen if record.state == "done"]
    if not records:
        fix = f"{HOW_TO_RUN}; `facebench status` lists all"
        raise RunError("none of these runs is done", source=str(runs_dir), fix=fix)
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
        try:
            title = f"{record.experiment_name}, seed {record.seed}"
        except (BenchmarkError, LookupError, TypeError, ValueError):
            title = "a run that cannot be read"
        holds = all(item.verdict != "differs" for item in findings)
        named = {"identity": record.identity, "run": title, "holds": holds}
        runs.append(named | {"findings": [vars(item) for item in findings]})
    answer.data = {"runs": runs}
    n_wrong = sum(not run["holds"] for run in runs)
    answer.code = ExitCode.FINDINGS if n_wrong else ExitCode.FINE
    for run in runs:
        out.print(f"[bold]{escape(run['run'])}[/]  {run['identity'][:12]}", soft_wrap=True)
        rows = [(of["what"], Cell(of["verdict"], style=COLOURS[of["verdict"]]), of["detail"])
                for of in run["findings"]]  # fmt: skip
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
    folder: Annotated[
        Path | None, typer.Argument(help="A runs folder of another machine; this one's if none.")
    ] = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Bring MLflow to what the runs' folders say; run it as often as you like.

    Takes over the runs of another machine that ran with --tracking files.

    Examples:
      facebench runs import
      facebench runs import /media/stick/mlruns
    """
    from benchmark.tracking.mirror import MlflowMirror

    if folder is not None and folder.resolve() != runs_dir.resolve():
        _copy_runs(folder, runs_dir)
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


def _copy_runs(folder: Path, runs_dir: Path) -> None:
    """Copy the finished runs of another folder that are not here yet."""
    done = [record for record in all_records(folder) if record.state == "done"]
    if not done:
        allowed = "a folder with work/<identity>/done.json"
        fix = "Copy the other machine's runs folder (mlruns) here and name it"
        raise RunError(f"{folder} holds no finished run", allowed=allowed, fix=fix)
    for record in done:
        target = work_folder(runs_dir) / record.identity
        if RunRecord(target).state != "done":
            shutil.rmtree(target, ignore_errors=True)
            # As a run does, what makes it done comes last.
            shutil.copytree(record.folder, target, ignore=shutil.ignore_patterns("done.json"))
            shutil.copy2(record.folder / "done.json", target)


def clean(
    answer: options.Answer,
    only: Annotated[str | None, options.option(ONLY)] = None,
    dry_run: Annotated[bool, options.option("Remove nothing, only say.")] = False,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Free disk space: what killed processes left, and with --only what can be made again.

    A run that a living process works on is never touched, nor are prepared data sets, weights that
    were added, or anything in MLflow.

    Examples:
      facebench clean --dry-run
      facebench clean
      facebench clean --only cache
    """
    from benchmark.runs.folder import KINDS, removables

    # A dry run shows every kind, so that one can choose.
    by_itself = ",".join(KINDS) if dry_run else "leftovers"
    asked = [name.strip() for name in (only or by_itself).split(",")]
    for name in asked:
        require(name in KINDS, f"--only names {name!r}", allowed=", ".join(KINDS))
    kinds = {kind: what for kind, what in KINDS.items() if kind in asked}
    rows: dict[str, Any] = {it: {"what": what, "n": 0, "bytes": 0} for it, what in kinds.items()}
    for item in [one for one in removables(runs_dir, data_dir) if one.kind in rows]:
        row, n_bytes = rows[item.kind], item.n_bytes
        try:
            if dry_run or item.remove():
                row["n"] += 1
                row["bytes"] += n_bytes
            else:
                answer.warnings.append(f"{item.path} was left: a process is at work on it")
        except OSError as error:
            reason = error.strerror or error
            answer.errors.append(RunError(f"{item.path} cannot be removed: {reason}"))
    answer.data = {"dry_run": dry_run, "kinds": rows}
    lines = [(kind, str(row["n"]), f"{row['bytes'] / 2**20:,.1f}", row["what"])
             for kind, row in rows.items()]  # fmt: skip
    what = Column("what it is", left=True, fold=True)
    print_table(Table.of(["kind", "here" if dry_run else "removed", "MiB", what], lines))
    if dry_run:
        out.print("Nothing was removed. `facebench clean --only KIND,KIND` removes kinds.")


def doctor(
    answer: options.Answer,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:
    """Say what this machine has: device, data, weights, disk, packages.

    Examples:
      facebench doctor
    """
    from benchmark.data.dataset import prepared_datasets
    from benchmark.training.device import choose_device

    with busy("looking"):
        device, versions = choose_device(), provenance.versions()
        data = ", ".join(faces.name for faces in prepared_datasets(data_dir))
        files = (weights_dir or data_dir / "weights").glob("*.safetensors")
        weights = ", ".join(sorted(path.stem for path in files))
        place = next(one for one in (runs_dir / "x").resolve().parents if one.exists())
        free_gib = shutil.disk_usage(place).free / 2**30
        missing = [name for name in provenance.NAMED_PACKAGES if name not in versions]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    on_gpu = device.kind == "cuda"
    rows = (
        ("device", f"{device.kind}: {device.description}, {device.precision}", on_gpu,
         "A CUDA GPU trains faster; the quick suite does without"),
        ("data", data or "no prepared data set", bool(data),
         "facebench data prepare SOURCE, or --dataset drawn for synthetic faces"),
        ("weights", weights or "none", bool(weights),
         "facebench weights list says where to get them"),
        ("disk", f"{free_gib:.0f} GiB free for runs", free_gib >= LOW_DISK_GIB,
         f"Free some space: under {LOW_DISK_GIB} GiB are left"),
        ("packages", packages, not missing, f"Install {', '.join(missing)}"),
    )  # fmt: skip
    answer.data = [{"what": what, "found": found, "fix": "" if fine else fix}
                   for what, found, fine, fix in rows]  # fmt: skip
    folded = [Column(heading, left=True, fold=True) for heading in ("found", "to do")]
    lines = [(row["what"], row["found"], row["fix"] or "nothing") for row in answer.data]
    print_table(Table.of(["what", *folded], lines, "This machine"))


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
    from benchmark.comparison.library import standing
    from benchmark.runs.queue import queues, seconds_left

    with busy("reading runs"):
        records, going = list(all_records(runs_dir)), list(queues(runs_dir))
        found, order = _with_queues(map(standing, records), going), list(STATES)
        found.sort(key=lambda item: (order.index(item.state), item.name, item.seed or 0))
        rows = [item.as_dict() | _seconds_left(item, runs_dir) for item in found]
    counts = Counter[str](item.state for item in found)
    took = _median_seconds(records) if going else {}
    suites = list[dict[str, Any]]()
    for queue in going:
        left = seconds_left(queue, took, time.time())
        about = vars(queue) | {"counts": dict(Counter(run.state for run in queue.runs))}
        suites.append(about | {"seconds_left": None if left is None else round(left)})
        del suites[-1]["runs"]
    answer.data = {"counts": dict(counts), "runs": rows, "suites": suites}
    hidden = () if all_ else ("done", "queued")
    if shown := [row for row in rows if row["state"] not in hidden]:
        print_table(_states_table(shown))
    parts = [(counts[state], *STATES[state]) for state in STATES if counts[state]]
    words = ", ".join(f"{n} [{colour}]{word}[/]" for n, word, colour in parts)
    out.print(f"{words}." if words else f"No run has begun in {runs_dir}. {HOW_TO_RUN}.")
    for one in suites:
        said = ", ".join(f"{n} {state}" for state, n in one["counts"].items())
        left = one["seconds_left"]
        out.print(
            f"{sum(one['counts'].values())} runs by process {one['pid']} on {one['host']} "
            f"({one['engine']}, {one['n_slots']} at once): {said}; "
            f"time left: {'not known yet' if left is None else output.duration(left)}.",
            soft_wrap=True,
        )


def _with_queues(begun: "Iterable[Standing]", going: "Sequence[Queue]") -> "list[Standing]":
    """Say of runs that they wait or where they run, and add those that have not begun."""
    from benchmark.comparison.library import Standing

    runs = [run for queue in going for run in queue.runs]
    where = {run.identity: run.where for run in runs if run.state == "running"}
    waiting = dict.fromkeys((run.name, run.seed) for run in runs if run.state == "queued")
    listed: list[Standing] = []
    for item in begun:
        key = item.name, item.seed or 0
        if item.state == "claimed":
            item = replace(item, where=where.get(item.identity, ""))
            waiting.pop(key, None)  # The file may not say yet that it has begun.
        elif item.state != "done" and key in waiting:
            item = replace(item, state="queued")
            waiting.pop(key)
        listed.append(item)
    return listed + [Standing("queued", name, seed) for name, seed in waiting]


def _median_seconds(records: "Sequence[RunRecord]") -> dict[str, float]:
    """Give the seconds of finished runs by experiment, from their start to `done.json`."""
    took: dict[str, list[float]] = {}
    for record in records:
        with contextlib.suppress(BenchmarkError, LookupError, ValueError):
            if record.state == "done":
                times = record.about["started"], record.done["finished"]
                began, ended = map(datetime.datetime.fromisoformat, times)
                took.setdefault(record.experiment_name, []).append((ended - began).total_seconds())
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def _seconds_left(item: "Standing", runs_dir: Path) -> dict[str, int]:
    """Predict the time to the recipe's last epoch, where a run has ended one and goes on."""
    if item.state == "claimed" and item.epochs and item.of_epochs:
        with contextlib.suppress(RunError):
            history = RunRecord(work_folder(runs_dir) / item.identity).history()
            each = float(history["epoch_seconds"].median())
            return {"seconds_left": round(each * (item.of_epochs - item.epochs))}
    return {}


def _states_table(shown: Iterable[dict[str, Any]]) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for row in shown:
        word, colour = STATES[row["state"]]
        why = row.get("why", "").strip().partition("\n")[0]
        name = Cell(row["name"] + (" (ad hoc)" if row["ad_hoc"] else ""), why)
        epochs = f"{row['epochs']}/{row['of_epochs']}" if "epochs" in row else ""
        left = output.duration(row["seconds_left"]) if "seconds_left" in row else ""
        process = str(row.get("pid", "")) + (f" on {row['where']}" if "where" in row else "")
        since = row.get("since", "").removesuffix("+00:00").replace("T", " ")
        state, seed = Cell(word, style=colour), str(row.get("seed", ""))
        rows.append((state, name, seed, epochs, left, process, since))
    numbers = [Column(heading, left=False) for heading in ("seed", "epochs", "left", "process")]
    name_column = Column("experiment", left=True, names=True)
    return Table.of(["state", name_column, *numbers, Column("since (UTC)", left=True)], rows)


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
    with socket.socket() as probe:
        # As the server does: a port is free whose last connection has only just ended.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
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
