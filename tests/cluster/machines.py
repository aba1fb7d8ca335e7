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

import psutil

HEAD_IP, NODE_IPS = "127.0.0.2", ("127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6")
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
        """Wait until nodes have joined; Ray gives a node 30 s, so a busy machine may try again."""
        for ip in ips:
            log, tries = self.folder / ip / "ray.log", 3
            while "Ray runtime started" not in (said := log.read_text(errors="replace")):
                if self.nodes[ip].poll() is not None:
                    tries -= 1
                    is_late = "timed out during startup" in said
                    assert is_late and tries > 0, f"node {ip}: {said}"  # noqa: PT018
                    self.nodes[ip] = self.launched[ip]()
                time.sleep(0.2)

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


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yield the address of an empty database of a server that is this context's own."""
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    assert initdb is not None
    assert server is not None
    # PostgreSQL refuses to be root.
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    own = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    folder = Path(tempfile.mkdtemp(prefix="fbpg", dir="/tmp"))
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)
    port, place = free_port(), folder / "data"
    process = None
    try:
        subprocess.run(
            [initdb, "--pgdata", place, "--username", "facebench", "--auth", "trust", "--no-sync",
             "--encoding", "UTF8", "--locale", "C"],
            check=True, capture_output=True, cwd=folder, **own,
        )  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [server, "-D", place, "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"],
                stdout=log, stderr=subprocess.STDOUT, cwd=folder, **own,
            )  # fmt: skip
        address = f"postgresql://facebench@127.0.0.1:{port}/postgres"
        wait_until(lambda: _answers(address), "PostgreSQL")
        yield address
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


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
