"""What a process that runs many experiments has before it: a file that any other process can read.

`RUNS_DIR/queues/HOST-PID.json`, written while the runs go on and removed at their end. A kernel
lock beside it tells whether its process lives; a file of a dead one is nobody's queue.
"""

import json
import os
import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, Self

from benchmark.experiment.definition import Experiment
from benchmark.files import canonical_json, file_lock, is_locked, write_json

if TYPE_CHECKING:
    from benchmark.runs.run import Event

SCHEMA: Final = 1
WRITE_SECONDS: Final = 2.0
"""A queue is written at most so often, and at its end."""


@dataclass(frozen=True)
class QueuedRun:
    """One experiment with one seed: where it stands, since when (seconds of the epoch)."""

    name: str
    seed: int
    state: str = "queued"
    """queued, running, done, skipped (up to date, or another process has it), missing, failed."""
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
    since: float
    runs: tuple[QueuedRun, ...]


def queues_folder(runs_dir: Path) -> Path:
    """Where the files are."""
    return runs_dir / "queues"


def queues(runs_dir: Path) -> Iterator[Queue]:
    """Yield the queues of living processes."""
    for path in sorted(queues_folder(runs_dir).glob("*.json")):
        if not is_locked(path.with_suffix(".lock")):
            continue
        with suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("schema") == SCHEMA:
                runs = tuple(QueuedRun(**run) for run in content.pop("runs"))
                yield Queue(runs=runs, **content)


def seconds_left(queue: Queue, measured: Mapping[str, float], now: float) -> float | None:
    """Predict the time to the end of a queue from its finished runs, else from earlier ones.

    measured: seconds of finished runs by experiment, from start to end. None where nothing ended.
    """
    ended: dict[str, list[float]] = {name: [seconds] for name, seconds in measured.items()}
    for name in {run.name for run in queue.runs}:
        if took := [run.seconds for run in queue.runs if (run.name, run.state) == (name, "done")]:
            ended[name] = took
    usual = {name: median(seconds) for name, seconds in ended.items()}
    ahead = [run for run in queue.runs if run.state in ("queued", "running")]
    if not usual and ahead:
        return None
    left = []
    for run in ahead:
        spent = now - run.since if run.state == "running" else 0.0
        left.append(max(0.0, usual.get(run.name, median(usual.values())) - spent))
    return max(sum(left) / queue.n_slots, max(left, default=0.0))


def queued(
    events: "Generator[Event]", experiments: Sequence[Experiment], seeds: Sequence[int],
    runs_dir: Path, *, engine: str = "local", n_slots: int = 1,
) -> "Generator[Event]":  # fmt: skip
    """Pass on the events of these runs, and let a file say meanwhile where each of them stands."""
    from benchmark.runs.run import Advanced, Failed, Missing, Prepared, Started

    wanted = [(experiment, seed) for experiment in experiments for seed in seeds]
    numbers = {_key(*item): number for number, item in enumerate(wanted)}
    now, host = time.time(), socket.gethostname()
    runs = tuple(QueuedRun(item.name, seed, since=now) for item, seed in wanted)
    queue = Queue(host, os.getpid(), engine, n_slots, now, runs)
    with _Published(runs_dir, queue) as file, closing(events):
        for event in events:
            if isinstance(event, Missing | Failed):
                number = numbers[_key(event.experiment, event.seed)]
                file.note(number, type(event).__name__.lower())
            elif not isinstance(event, Advanced | Prepared):
                plan, ends = event.plan, {"Started": "running", "Finished": "done"}
                number = numbers[_key(plan.experiment, plan.seed)]
                state = ends.get(type(event).__name__, "skipped")
                where = (event.where or host) if isinstance(event, Started) else ""
                file.note(number, state, plan.identity, where)
            yield event


def _key(experiment: Experiment, seed: int) -> tuple[str, int]:
    return canonical_json(experiment.as_dict()), seed


class _Published:
    """The queue of this process as a file, while it is entered."""

    def __init__(self, runs_dir: Path, queue: Queue) -> None:
        self._queue, self._runs, self._written_at = queue, list(queue.runs), 0.0
        self._path = queues_folder(runs_dir) / f"{queue.host}-{queue.pid}.json"
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        for path in self._path.parent.glob("*.lock"):
            if not is_locked(path):  # of a process that died
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        self._lock.enter_context(file_lock(self._path.with_suffix(".lock")))
        self._write()
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        self._path.with_suffix(".lock").unlink(missing_ok=True)
        self._lock.close()

    def note(self, number: int, state: str, identity: str = "", where: str = "") -> None:
        """Say where a run stands now."""
        run, now = self._runs[number], time.time()
        began = run.since if run.state == "running" else now
        self._runs[number] = replace(
            run, state=state, identity=identity or run.identity, where=where or run.where,
            since=now, seconds=0.0 if state == "running" else round(now - began, 3),
        )  # fmt: skip
        if now - self._written_at >= WRITE_SECONDS:
            self._write()

    def _write(self) -> None:
        # A full disk must not end the runs: the file only tells others.
        with suppress(OSError):
            content = asdict(replace(self._queue, runs=tuple(self._runs)))
            write_json(self._path, content | {"schema": SCHEMA})
        self._written_at = time.time()
