"""`facebench ui` and `facebench runs import`: MLflow, served and caught up."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli import options
from benchmark.cli.output import CommandResult, ExitCode, busy, out, say_warning, watching
from benchmark.errors import RunError, TrackingError
from benchmark.record import HOW_TO_RUN, RunRecord, all_records, work_folder

START_SECONDS = 300


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
    from benchmark.tracking import import_records

    if folder is not None and folder.resolve() != runs_dir.resolve():
        _copy_runs(folder, runs_dir)
    records, imported = list(all_records(runs_dir)), []
    with watching() as watch:

        def leave_out(error: RunError) -> None:
            answer.warnings.append(f"left out: {error}")

        for record, run_id in import_records(records, runs_dir, leave_out):
            imported.append({"identity": record.identity, "mlflow_run": run_id})
            watch("runs", len(imported) + len(answer.warnings), len(records))
    answer.data = {"runs": imported}
    out.print(f"{len(imported)} runs are in MLflow.")


def _copy_runs(folder: Path, runs_dir: Path) -> None:
    """Copy the finished runs of another folder that are not here yet."""
    records = list(all_records(folder)) or list(all_records(folder.parent))
    done = [record for record in records if record.state == "done"]
    if not done:
        allowed = "a folder with work/<identity>/done.json"
        fix = "Copy the other machine's runs folder (mlruns) here and name it"
        raise RunError(f"{folder} holds no finished run", allowed=allowed, fix=fix)
    for record in done:
        target = work_folder(runs_dir) / record.identity
        if RunRecord(target).state != "done":
            # Whole or not there: put into place last, an unfinished one before it removed.
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".import.") as scratch:
                copied = shutil.copytree(record.folder, Path(scratch) / "run")
                shutil.rmtree(target, ignore_errors=True)
                copied.rename(target)


def ui(
    answer: CommandResult,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    port: Annotated[int, typer.Option(help="A free port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on 127.0.0.1, with a link to the page that shows the runs.

    Examples:
      facebench ui
      facebench ui --port 5001
    """
    from benchmark.tracking import landing_path, server_command

    if not _is_free(port):
        free = next((other for other in range(port + 1, 65536) if _is_free(other)), port)
        fix = f"facebench ui --port {free}"
        raise TrackingError(f"port {port} on 127.0.0.1 is in use", fix=fix)
    path = landing_path(runs_dir)
    if path == "/":
        brings = "`facebench runs import` brings those that were made without it"
        say_warning(f"there is no run in MLflow yet. {HOW_TO_RUN}; {brings}")
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
