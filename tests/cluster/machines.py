"""Two Ray nodes, PostgreSQL and an MLflow server, all on this machine's loopback addresses.

Each has a folder of its own; what is started here is ended here, by its process id.
"""

import contextlib
import glob
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HEAD_IP, NODE_IPS = "127.0.0.2", tuple(f"127.0.0.{n}" for n in range(3, 10))
STORE_BYTES = 200_000_000


def free_port(ip: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


def wait_until(is_so: Callable[[], object], what: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)


def started(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a process that works and logs in a folder."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started at once, as a power cut would."""
    children = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    for one in [*children, process]:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.kill(one.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=10)


def has_ended(node: subprocess.Popen[bytes]) -> bool:
    """Tell whether a Ray node ended, or waits in vain for its raylet, which did."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parts = psutil.Process(node.pid).children()
        if any(it.name() == "raylet" and it.status() == psutil.STATUS_ZOMBIE for it in parts):
            return True
    return node.poll() is not None


@dataclass
class RayCluster:
    """A head and further nodes, as `ray start` on several machines makes them."""

    folder: Path
    """Of the nodes' working directories and of all that they keep, one each."""
    port: int = field(default_factory=lambda: free_port(HEAD_IP))
    client_port: int = field(default_factory=lambda: free_port(HEAD_IP))
    token: dict[str, str] = field(
        default_factory=lambda: {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    )
    """What nodes and drivers have in their environment; Ray runs anybody's code without it."""
    session: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="fb", dir="/tmp")))
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{HEAD_IP}:{self.port}"

    def start(self, ip: str, **environment: str) -> None:
        """Start a node with one CPU, and wait until it has joined; HEAD_IP is the head's.

        On a busy machine Ray gives up some, which try again.
        """
        own = self.folder / ip
        own.mkdir(exist_ok=True)
        where = ["--address", self.address]
        if ip == HEAD_IP:
            where = ["--head", "--port", str(self.port), "--include-dashboard=false",
                     "--ray-client-server-port", str(self.client_port),
                     "--temp-dir", str(self.session)]  # fmt: skip
        # Else Ray waits for the agents to name them, 15 s: too short for a busy machine.
        agents = ("dashboard-agent-grpc", "runtime-env-agent", "dashboard-agent-listen",
                  "metrics-export")  # fmt: skip
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--block",
            "--node-ip-address", ip, "--num-cpus", "1", "--num-gpus", "0",
            "--object-store-memory", str(STORE_BYTES),
            *(f"--{name}-port={free_port(ip)}" for name in agents),
        ]  # fmt: skip
        variables = {
            "FACEBENCH_WORKER_DIR": str(own / "kept"), "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0",
            "RAY_raylet_start_wait_time_s": "120", **self.token, **environment,
        }  # fmt: skip
        self.nodes[ip], tries = started(command, own, **variables), 5
        while "Ray runtime started" not in (said := (own / "log").read_text(errors="replace")):
            if has_ended(self.nodes[ip]):
                tries -= 1
                assert tries > 0, f"node {ip}: {said}"
                kill_all(self.nodes[ip])
                self.nodes[ip] = started(command, own, **variables)
            time.sleep(0.3)

    def kill(self, ip: str) -> None:
        """End a node with SIGKILL: its raylet, its workers and what they were at."""
        kill_all(self.nodes.pop(ip))


def postgres_program() -> str | None:
    """Find what creates, starts and stops a PostgreSQL server."""
    folders = [os.environ["PATH"], *glob.glob("/usr/lib/postgresql/*/bin")]
    return shutil.which("pg_ctl", path=os.pathsep.join(folders))


@dataclass
class Postgres:
    """A PostgreSQL server of a test's own, with an empty database."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="fbpg", dir="/tmp")))
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        return f"postgresql://facebench@127.0.0.1:{self.port}/postgres"

    def _control(self, action: str, *words: str) -> None:
        own: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to be root.
            user = pwd.getpwnam("nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            own = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        command = [postgres_program() or "pg_ctl", action, "-D", self.folder / "data", *words]
        # Not captured: the server would keep the pipe open.
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, **own)
        assert done.returncode == 0, action

    def start(self) -> None:
        if not (self.folder / "data").exists():
            made = "--username facebench --auth trust --no-sync --encoding UTF8 --locale C"
            self._control("initdb", "-o", made)
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -F"
        self._control("start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """Shut down as an administrator's restart does: connections are cut, nothing is lost."""
        self._control("stop", "-m", "fast")

    def restart(self, seconds_away: float) -> None:
        self.stop()
        time.sleep(seconds_away)
        self.start()


@dataclass
class MlflowServer:
    """An MLflow server on PostgreSQL, whose artifacts go through it."""

    store: str
    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [
            sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1", "--backend-store-uri",
            self.store.replace("postgresql://", "postgresql+psycopg://"),
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        self._server = started(command, self.folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        wait_until(self._is_up, "the MLflow server")

    def stop(self) -> None:
        kill_all(self._server)

    def _is_up(self) -> bool:
        asked = f"{self.address}/health"
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=5) as answer:
            return bool(answer.status == 200)
        return False
