"""Whom does it call, who may call it, and does it keep a secret?"""

import time
from pathlib import Path

import psutil

from tests.torture.command import EXPERIMENTS, environment, kill, run, run_arguments, start
from tests.torture.rows import Room, Row
from tests.torture.server import free_port

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "swordfish-1",
    "MLFLOW_TRACKING_PASSWORD": "swordfish-2",
    "MLFLOW_TRACKING_TOKEN": "swordfish-3",
    "HF_TOKEN": "swordfish-4",
    "GITHUB_TOKEN": "swordfish-5",
}
LISTENER = """
import os, sys
def heard(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):
        where = arguments[1] if event == 'socket.connect' else arguments[0]
        with open(os.environ['FACEBENCH_HEARD'], 'a') as stream:
            stream.write(f'{event} {where}\\n')
sys.addaudithook(heard)
"""
"""As sitecustomize.py: every Python that is started writes down whom it calls."""
AT_HOME = ("127.0.0.1", "localhost", "::1", "/")


def calls(room: Room) -> Row:
    """Run the main commands and the server, and listen: no connection leaves the machine."""
    row = Row("telemetry: connections to other machines")
    heard, hook = room.folder / "heard", room.folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(LISTENER, encoding="utf-8")
    runs_dir = room.folder / "runs"
    base = environment(FACEBENCH_HEARD=str(heard))
    base["PYTHONPATH"] = f"{hook}:{base['PYTHONPATH']}"
    for quiet in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "CI"):
        base.pop(quiet, None)  # it must be ours, not this machine's
    for arguments in (
        run_arguments(room, runs_dir, EXPERIMENTS[:1], epochs=1),
        ["leaderboard", "--runs-dir", str(runs_dir), "--data-dir", str(room.data_dir)],
        ["doctor", "--runs-dir", str(runs_dir), "--data-dir", str(room.data_dir)],
    ):
        end = run(arguments, env=base)
        row.expect(end.code == 0, f"{arguments[0]}: {end.tail()}")
        row.expect(not (abroad := _abroad(heard)), f"{arguments[0]} called {abroad[:3]}")
    if not room.short:
        _serve(row, base, runs_dir)
        row.expect(not (abroad := _abroad(heard)), f"ui called {abroad[:3]}")
    return row


def _abroad(heard: Path) -> list[str]:
    lines = heard.read_text(encoding="utf-8").splitlines() if heard.is_file() else []
    return [line for line in lines if not any(home in line for home in AT_HOME)]


def _serve(row: Row, env: dict[str, str], runs_dir: Path) -> None:
    """Start `facebench ui` and see who may reach it."""
    port = free_port()
    process = start(["ui", "--port", str(port), "--runs-dir", str(runs_dir)], env=env)
    family = psutil.Process(process.pid)
    listening: set[str] = set()
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None and not listening:
        time.sleep(1)
        ours = [family, *family.children(recursive=True)]
        listening = {
            connection.laddr.ip
            for member in ours
            if member.is_running()
            for connection in member.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
    time.sleep(10)  # for telemetry that waits a while
    for member in family.children(recursive=True):
        member.kill()
    kill(process)
    row.expect(listening == {"127.0.0.1"}, f"the UI listens on {sorted(listening)}")


def secrets(room: Room) -> Row:
    """Run with secrets in the environment and look for them in all that is written and said."""
    row = Row("secrets in logs, environment.txt and MLflow")
    runs_dir = room.folder / "runs"
    arguments = run_arguments(room, runs_dir, EXPERIMENTS[:1], epochs=1)
    end = run(["--debug", *arguments], env=environment(**SECRETS))
    row.expect(end.code == 0, end.tail())
    server = environment(**SECRETS, MLFLOW_TRACKING_URI="http://me:swordfish-6@127.0.0.1:9",
                         MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")  # fmt: skip
    unreachable = run(["runs", "import", "--runs-dir", str(runs_dir)], env=server)
    row.expect(unreachable.code == 2, unreachable.tail())
    spoken = end.out + end.err + unreachable.out + unreachable.err
    row.expect("swordfish" not in spoken, "a secret was said")
    for path in sorted(runs_dir.rglob("*")):
        if path.is_file():
            row.expect(b"swordfish" not in path.read_bytes(), f"a secret is in {path.name}")
    return row


def privacy(room: Room) -> Row:
    """Run in an empty home: no picture is written but where the user said."""
    row = Row("pictures outside data/ and mlruns/")
    home, temporary, here = (room.folder / name for name in ("home", "tmp", "here"))
    for folder in (home, temporary, here):
        folder.mkdir()
    env = environment(HOME=str(home), TMPDIR=str(temporary))
    end = run(run_arguments(room, room.folder / "runs", EXPERIMENTS[:1], epochs=1), env=env,
              cwd=here)  # fmt: skip
    row.expect(end.code == 0, end.tail())
    for folder in (home, temporary, here):
        found = [path for path in folder.rglob("*") if path.is_file() and is_picture(path)]
        row.expect(not found, f"pictures in {folder.name}: {found[:3]}")
    return row


MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\x93NUMPY")


def is_picture(path: Path) -> bool:
    """Tell by its first bytes whether a file is a picture, or an array that may hold some."""
    with path.open("rb") as stream:
        start = stream.read(16)
    return start.startswith(MAGIC) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
