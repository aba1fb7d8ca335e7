"""An MLflow server that dies in the middle of a run and comes back."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmark.tracking.store import QUIET_SETTINGS
from tests.torture.command import (
    EXPERIMENTS,
    PATIENCE_SECONDS,
    environment,
    run,
    run_arguments,
    said,
    start,
    wait_for,
)
from tests.torture.rows import Room, Row


def lost_server(room: Room) -> Row:
    """Stop the server while a run goes on; the run ends well, and import catches up."""
    row = Row("MLflow server lost in mid-run, and back")
    store, runs_dir, port = room.folder / "store", room.folder / "runs", free_port()
    store.mkdir()
    env = environment(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    arguments = run_arguments(room, runs_dir, EXPERIMENTS[:2], epochs=12)
    with served(store, port) as server:
        process, started = start(arguments, env=env), time.monotonic()
        begun = wait_for(lambda: bool(list(runs_dir.glob("work/*/history.csv"))), process)
        row.expect(begun, "no epoch was done before the server was stopped")
        _stop(server)
        end = said(process, started)
        row.expect(end.code == 0 and end.is_clear, end.tail())
        row.expect("runs import" in end.err, f"nothing was said of the server: {end.tail()}")
    absent = run(["runs", "import", "--runs-dir", str(runs_dir)], env=env)
    row.expect(absent.code == 2 and absent.is_clear, f"import without a server: {absent.tail()}")
    with served(store, port):
        caught_up = run(["runs", "import", "--runs-dir", str(runs_dir)], env=env)
        row.expect(caught_up.code == 0, caught_up.tail())
        missing = _missing(runs_dir, env)
        row.expect(not missing, f"not caught up: {missing[:3]}")
    return row


def _missing(runs_dir: Path, env: dict[str, str]) -> list[str]:
    """Ask the server, in a process that knows its address."""
    code = (
        "import json, sys, pathlib; from tests.torture.mirrored import missing_in_mlflow as m; "
        "print(json.dumps(m(pathlib.Path(sys.argv[1]))))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(runs_dir)],
        env=env, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    if answer.returncode:
        return [answer.stderr[-300:]]
    found: list[str] = json.loads(answer.stdout.splitlines()[-1])
    return found


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(store: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real MLflow server, until the block ends."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{store}/mlflow.db"),
            *("--artifacts-destination", str(store / "artifacts")),
        ],
        env=environment(**QUIET_SETTINGS),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _wait_until_up(server, port)
        yield server
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and the workers that it started, which are its session and nobody else's."""
    import os
    import signal

    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return
        time.sleep(0.2)
    raise RuntimeError("the MLflow server did not come up")
