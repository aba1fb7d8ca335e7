"""What a process that runs many experiments has before it: a file that any other process can read.

`RUNS_DIR/queues/HOST-PID.json`, removed at the end of the runs. A kernel lock beside it tells
whether its process lives; a file of a dead one is nobody's queue.
"""

import json
import os
import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmark.experiment.definition import Experiment
from benchmark.files import file_lock, is_locked, write_json

if TYPE_CHECKING:
    from benchmark.runs.run import Event

SCHEMA: Final = 1
STATES: Final = {
    "Started": "running", "Finished": "done", "Skipped": "skipped", "Missing": "missing",
    "Failed": "failed",
}  # fmt: skip
"""What an event of runs.run says of its run; of the others a queue says nothing."""


@dataclass
class QueuedRun:
    """One experiment with one seed: where it stands, since when (seconds of the epoch)."""

    name: str
    seed: int
    state: str = "queued"
    """`queued`, or one of STATES; skipped: up to date, or another process has it."""
    identity: str = ""
    """Empty until its weights are found."""
    where: str = ""
    """The host that trains it, or did."""
    since: float = 0.0
    seconds: float = 0.0
    """From its start to its end, once it has ended."""


@dataclass(frozen=True)
class Queue:
    """The runs of one process; n_slots: how many run at once."""

    host: str
    pid: int
    engine: str
    """`local`, or `ray`."""
    n_slots: int
    runs: tuple[QueuedRun, ...]

    def seconds_left(self, now: float, running: Mapping[str, float]) -> float | None:
        """Predict the time to its end from the runs that it has finished, and those under way.

        running: seconds left by identity, of runs that have ended an epoch. None before any has.
        """
        took: dict[str, list[float]] = {}
        for run in self.runs:
            if run.state == "done":
                took.setdefault(run.name, []).append(run.seconds)
            elif run.identity in running:
                took.setdefault(run.name, []).append(now - run.since + running[run.identity])
        usual = {name: median(seconds) for name, seconds in took.items()}
        left = [0.0]
        for run in self.runs:
            if run.state in ("queued", "running"):
                if not usual:
                    return None
                spent = now - run.since if run.state == "running" else 0.0
                left.append(max(0.0, usual.get(run.name, median(usual.values())) - spent))
        return max(sum(left) / self.n_slots, *left)


def queues_folder(runs_dir: Path) -> Path:
    return runs_dir / "queues"


def queues(runs_dir: Path) -> Iterator[Queue]:
    """Yield the queues of living processes."""
    for path in sorted(queues_folder(runs_dir).glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("schema") == SCHEMA and is_locked(path.with_suffix(".lock")):
                runs = tuple(QueuedRun(**run) for run in content.pop("runs"))
                yield Queue(runs=runs, **content)


def queued(
    events: "Generator[Event]", experiments: Sequence[Experiment], seeds: Sequence[int],
    runs_dir: Path, *, engine: str = "local", n_slots: int = 1,
) -> "Generator[Event]":  # fmt: skip
    """Pass on the events of these runs, and let a file say meanwhile where each of them stands."""
    host, now = socket.gethostname(), time.time()
    wanted = [(experiment, seed) for experiment in experiments for seed in seeds]
    runs = {(of, seed): QueuedRun(of.name, seed, since=now) for of, seed in wanted}
    queue = Queue(host, os.getpid(), engine, n_slots, tuple(runs.values()))
    path = queues_folder(runs_dir) / f"{host}-{queue.pid}.json"
    lock = path.with_suffix(".lock")

    def write() -> None:
        # A full disk must not end the runs: the file only tells others.
        with suppress(OSError):
            write_json(path, asdict(queue) | {"schema": SCHEMA})

    for other in path.parent.glob("*.lock"):
        if not is_locked(other):  # of a process that died
            other.with_suffix(".json").unlink(missing_ok=True)
            other.unlink(missing_ok=True)
    with ExitStack() as stack, closing(events):
        stack.enter_context(file_lock(lock))
        stack.callback(lock.unlink, missing_ok=True)
        stack.callback(path.unlink, missing_ok=True)
        write()
        for event in events:
            if state := STATES.get(type(event).__name__):
                of: Any = getattr(event, "plan", event)  # Missing and Failed have no plan
                run, now = runs[of.experiment, of.seed], time.time()
                if run.state == "running":
                    run.seconds = round(now - run.since, 3)
                if state == "running":
                    run.where = getattr(event, "where", "") or host
                run.state, run.since = state, now
                run.identity = getattr(of, "identity", run.identity)
                write()
            yield event
