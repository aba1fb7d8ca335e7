"""A Ray cluster: reached or started, with the versions of this process and resources for a run.

Everything that would end badly is refused here, before the first run.
"""

import contextlib
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmark.errors import RunError, require

LOCAL: Final = "ray"
"""The address that means a cluster of this machine alone, started for this process."""
CONNECT_SECONDS: Final = 10.0
PROBE_SECONDS: Final = 120.0
SETTINGS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # What takes more memory than a node has is a failed run, as it is without Ray.
    "RAY_task_oom_retries": "0",
}
"""Must be in the environment before Ray is imported."""
GPU: Final = "GPU"
CPU: Final = "CPU"


@dataclass(frozen=True)
class ClusterOptions:
    """Where runs are computed, and what each takes there."""

    address: str
    """`ray`, `auto`, HOST:PORT of a cluster of which this machine is a node, ray://HOST:PORT."""
    gpus: float | None = None
    """GPUs for each run, or a part of one; None: one where the cluster has any."""
    cpus: float = 1.0
    shared_runs: bool = False
    """Whether the runs' folder is the same, under the same path, on every node."""
    device: str | None = None
    precision: str = "auto"
    report_seconds: float = 60.0
    """A run's files so far come back at most so often."""

    def __post_init__(self) -> None:
        known = self.address in (LOCAL, "auto") or ":" in self.address
        require(known, f"--on is {self.address!r}", allowed="ray, auto, HOST:PORT, ray://HOST:PORT")
        require(self.cpus > 0, f"--cpus-per-run is {self.cpus:g}", allowed="more than 0")
        gpus = self.gpus or 0.0
        is_possible = 0 <= gpus <= 1 or gpus == int(gpus)
        require(is_possible, f"--gpus-per-run is {gpus:g}", allowed="0 to 1, or a whole number")
        require(
            not gpus or (self.device or "cuda").startswith("cuda"),
            f"--gpus-per-run is {gpus:g} and --device is {self.device}",
            allowed="GPUs for runs on cuda alone",
        )


@dataclass(frozen=True)
class Node:
    """A living node: its id, host with address, and what it has in all (CPU, GPU, …)."""

    id: str
    host: str
    resources: Mapping[str, float]

    def slots(self, needs: Mapping[str, float]) -> int:
        """Count the runs that fit at once."""
        return min(int(self.resources.get(name, 0) / n + 1e-6) for name, n in needs.items() if n)

    def __str__(self) -> str:
        has = (f"{self.resources.get(name, 0):g} {name}" for name in (GPU, CPU))
        return f"{self.host} with {', '.join(has)}"


@dataclass(frozen=True)
class Connection:
    """A cluster that is in use, and what each run takes of it."""

    ray: Any
    options: ClusterOptions
    needs: Mapping[str, float]

    def nodes(self) -> list[Node]:
        """Give the nodes that live now."""
        return [
            Node(str(it["NodeID"]), f"{it['NodeManagerHostname']} ({it['NodeManagerAddress']})",
                 dict(it["Resources"]))
            for it in self.ray.nodes() if it["Alive"]
        ]  # fmt: skip

    @property
    def sentence(self) -> str:
        nodes = self.nodes()
        n_runs = sum(node.slots(self.needs) for node in nodes)
        where = "this machine" if self.options.address == LOCAL else self.options.address
        return f"Ray on {where}: {'; '.join(map(str, nodes))}. {n_runs} runs at once"


def ray_module() -> Any:
    """Import Ray without telemetry; raise RunError where it is not installed."""
    os.environ.update(SETTINGS | dict(os.environ))
    try:
        with warnings.catch_warnings(action="ignore"):
            import ray
    except ImportError as error:
        raise RunError(
            "Ray is not installed", source="--on", fix="pip install 'facebench[cluster]'"
        ) from error
    return ray


@contextlib.contextmanager
def connected(options: ClusterOptions) -> Iterator[Connection]:
    """Reach a cluster or start one here, and check its nodes; at the end, leave or stop it.

    Raises RunError where Ray is not installed, the address does not answer, a node has other
    versions than this process, or no node has what a run asks for.
    """
    ray, is_local = ray_module(), options.address == LOCAL
    known: dict[str, Any] = {"include_dashboard": False} if is_local else {}
    _check_answers(options.address)
    troubles = (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError)
    on_stop = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings(action="ignore"):
            address = "local" if is_local else options.address
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, **known)
    except troubles as error:  # Ray compares its own version and Python's when it connects.
        raise _unreachable(options.address, str(error)) from error
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:  # Ray's own handler ends a process before it has marked its runs.
        signal.signal(signal.SIGTERM, on_stop)
    try:
        gpus, wants = options.gpus, (options.device or "cuda").startswith("cuda")
        if gpus is None:
            gpus = float(wants and ray.cluster_resources().get(GPU, 0) > 0)
        connection = Connection(ray, options, {CPU: options.cpus, GPU: gpus})
        _check_resources(connection)
        _check_versions(connection)
        yield connection
    finally:
        ray.shutdown()


def _unreachable(address: str, why: str) -> RunError:
    return RunError(
        f"the Ray cluster cannot be used: {' '.join(why.split())[:300]}",
        source=f"--on {address}",
        fix="`ray start --head` starts one, and one with a token wants RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN; `--on ray` takes this machine",
    )


def _check_answers(address: str) -> None:
    """Raise RunError unless something that speaks gRPC answers soon; Ray would try for minutes."""
    address = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    place = address.removeprefix("ray://")
    if ":" not in place or os.environ.get("RAY_USE_TLS") == "1":
        return
    import grpc

    with contextlib.closing(grpc.insecure_channel(place)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            why = f"nothing answers at {place} within {CONNECT_SECONDS:g} s"
            raise _unreachable(address, why) from None


def _check_resources(connection: Connection) -> None:
    nodes, needs = connection.nodes(), connection.needs
    if not any(node.slots(needs) for node in nodes):
        raise RunError(
            f"a run asks for {needs[GPU]:g} GPU and {needs[CPU]:g} CPU, more than any node has",
            allowed="; ".join(map(str, nodes)),
            source="--gpus-per-run, --cpus-per-run",
            fix="Ask for less, or add a node by `ray start --address=HOST:PORT`",
        )


def probe() -> Callable[[], dict[str, str]]:
    """Make the question which versions a process has: facebench's with a digest of its code.

    It is a local function, whose code is sent: a node's facebench may be too old to have it.
    """

    def ask() -> dict[str, str]:
        import hashlib
        import platform
        from importlib.metadata import version
        from pathlib import Path

        found = {"facebench": "none", "torch": "none", "python": platform.python_version()}
        try:
            import benchmark
        except ImportError:
            return found
        digest, package = hashlib.sha256(), Path(benchmark.__file__).parent
        for path in sorted(package.rglob("*.py")):
            digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
        found["facebench"] = f"{benchmark.__version__} ({digest.hexdigest()[:12]})"
        return found | {"torch": version("torch")}

    return ask


def _check_versions(connection: Connection) -> None:
    ray = connection.ray
    place = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    ask = ray.remote(num_cpus=0, max_retries=1)(probe())
    end = time.monotonic() + PROBE_SECONDS
    while True:
        nodes = [node for node in connection.nodes() if node.slots(connection.needs)]
        asked = [ask.options(scheduling_strategy=place(n.id, soft=False)).remote() for n in nodes]
        try:
            found = ray.get(asked, timeout=PROBE_SECONDS)
            break
        except ray.exceptions.RayError as error:
            if time.monotonic() > end:  # Until then it may be one that Ray takes for alive.
                raise _unreachable(connection.options.address, f"a node: {error}") from None
            time.sleep(1)
    here = probe()()
    others = [
        f"{node.host} has {', '.join(f'{name} {value}' for name, value in other.items())}"
        for node, there in zip(nodes, found, strict=True)
        if (other := {name: value for name, value in there.items() if value != here[name]})
    ]
    if others:
        raise RunError(
            f"{len(others)} of {len(nodes)} nodes have other versions: {'; '.join(others)}",
            allowed=", ".join(f"{name} {value}" for name, value in here.items()),
            source=f"--on {connection.options.address}",
            fix="Install the same facebench and torch under the same Python on every node",
        )
