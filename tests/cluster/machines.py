"""Two Ray nodes, PostgreSQL and an MLflow server, all on this machine's loopback addresses.

Each has a folder of its own; what is started here is ended here, by its process id.
"""

import contextlib
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HEAD_IP, NODE_IPS = "127.0.0.2", tuple(f"127.0.0.{n}" for n in range(3, 10))
STORE_BYTES = 200_000_000
PATIENCE_SECONDS = 240.0
POSTGRES_FOLDERS = ("/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin",
                    "/usr/lib/postgresql/17/bin")  # fmt: skip


def free_port(ip: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


def wait_until(is_so: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started at once, as a power cut would."""
    started = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    for one in [*started, process]:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.kill(one.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(started, timeout=10)


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
    launched: dict[str, Callable[[], subprocess.Popen[bytes]]] = field(default_factory=dict)
    """By node, what starts it once more."""

    @property
    def address(self) -> str:
        return f"{HEAD_IP}:{self.port}"

    def start(self, ip: str, n_cpus: int = 1, **environment: str) -> None:
        """Start a node; one that has the head's address is the head."""
        own = self.folder / ip
        own.mkdir(exist_ok=True)
        where = ["--address", self.address]
        if ip == HEAD_IP:
            where = ["--head", "--port", str(self.port), "--include-dashboard=false",
                     "--ray-client-server-port", str(self.client_port),
                     "--temp-dir", str(self.session)]  # fmt: skip
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--block",
            "--node-ip-address", ip, "--num-cpus", str(n_cpus), "--num-gpus", "0",
            "--object-store-memory", str(STORE_BYTES),
            # Else Ray waits for the agents to name them, 15 s: too short for a busy machine.
            "--dashboard-agent-grpc-port", str(free_port(ip)),
            "--runtime-env-agent-port", str(free_port(ip)),
            "--dashboard-agent-listen-port", str(free_port(ip)),
            "--metrics-export-port", str(free_port(ip)),
        ]  # fmt: skip
        variables = {
            "FACEBENCH_WORKER_DIR": str(own / "kept"), "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0",
            "RAY_raylet_start_wait_time_s": "120", **self.token,
        }  # fmt: skip

        def launch() -> subprocess.Popen[bytes]:
            with (own / "ray.log").open("ab") as log:
                return subprocess.Popen(
                    command, cwd=own, env=os.environ | variables | environment, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip

        self.launched[ip] = launch
        self.nodes[ip] = launch()

    def wait_for(self, *ips: str) -> None:
        """Wait until nodes have joined; on a busy machine Ray gives up some, which try again."""
        for ip in ips:
            log, tries = self.folder / ip / "ray.log", 5
            while "Ray runtime started" not in (said := log.read_text(errors="replace")):
                if has_ended(self.nodes[ip]):
                    tries -= 1
                    assert tries > 0, f"node {ip}: {said}"
                    kill_all(self.nodes[ip])
                    self.nodes[ip] = self.launched[ip]()
                time.sleep(0.3)

    def kill(self, ip: str) -> None:
        """End a node with SIGKILL: its raylet, its workers and what they were at."""
        kill_all(self.nodes.pop(ip))

    def stop(self) -> None:
        for ip in [*reversed(self.nodes)]:
            self.kill(ip)
        shutil.rmtree(self.session, ignore_errors=True)


@contextlib.contextmanager
def ray_cluster(folder: Path, *ips: str, n_cpus: int = 1) -> Iterator[RayCluster]:
    cluster = RayCluster(folder)
    try:
        cluster.start(HEAD_IP, n_cpus)
        cluster.wait_for(HEAD_IP)
        for ip in ips:
            cluster.start(ip, n_cpus)
        cluster.wait_for(*ips)
        yield cluster
    finally:
        cluster.stop()


def postgres_program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *POSTGRES_FOLDERS]))


@dataclass
class Postgres:
    """A PostgreSQL server of a test's own, with an empty database."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="fbpg", dir="/tmp")))
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"postgresql://facebench@127.0.0.1:{self.port}/postgres"

    def _words(self, name: str, *words: str | Path) -> tuple[list[str | Path], dict[str, Any]]:
        program = postgres_program(name)
        assert program is not None
        # PostgreSQL refuses to be root.
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        own = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        if user:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        return [program, *words], {"cwd": self.folder, **own}

    def start(self) -> None:
        data = self.folder / "data"
        if not data.exists():
            words, own = self._words(
                "initdb", "--pgdata", data, "--username", "facebench", "--auth", "trust",
                "--no-sync", "--encoding", "UTF8", "--locale", "C",
            )  # fmt: skip
            subprocess.run(words, check=True, capture_output=True, **own)
        words, own = self._words(
            "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(self.port), "-k", self.folder, "-F"
        )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, **own)
        wait_until(lambda: _answers(self.address), "PostgreSQL")

    def stop(self) -> None:
        """Shut down as an administrator's restart does: connections are cut, nothing is lost."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)
            self.process = None

    def restart(self, seconds_away: float) -> None:
        self.stop()
        time.sleep(seconds_away)
        self.start()


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


def _answers(address: str) -> bool:
    import psycopg

    try:
        psycopg.connect(address, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@dataclass
class MlflowServer:
    """An MLflow server on PostgreSQL, whose artifacts go through it."""

    store: str
    artifacts: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1", "--backend-store-uri",
            self.store.replace("postgresql://", "postgresql+psycopg://"),
            "--artifacts-destination", str(self.artifacts),
        ]  # fmt: skip
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.artifacts.parent / "mlflow.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.artifacts.parent, env=os.environ | quiet, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_until(self._is_up, "the MLflow server")

    def stop(self) -> None:
        if self.process is not None:
            kill_all(self.process)
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
