"""The driver of a cluster: runs as Ray tasks, and what comes back of them into the runs' folders.

Ray schedules, transports, retries and notices lost nodes; this says which runs are under way, on
which node a frozen prefix is, and what an end means. A run's folder here is locked while its task
is under way, so that two drivers on one folder do no work twice, and a driver that died holds
nothing. Everything is a generator, as in benchmark.runs.run: a reader that stops cancels the tasks.
"""

import contextlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmark.cluster import worker
from benchmark.cluster.connection import CPU, GPU, Connection, probe
from benchmark.data.dataset import PIXELS_FILE, FaceSet
from benchmark.data.progress import keep_quiet
from benchmark.errors import ClusterLost, RunError
from benchmark.experiment.definition import Experiment
from benchmark.files import canonical_json, file_lock, lock_owner
from benchmark.runs import run as runs
from benchmark.runs.folder import is_done, mark_failed, mark_interrupted
from benchmark.runs.plan import Plan, Settings
from benchmark.training.prefix_cache import CacheSettings
from benchmark.training.steps import SpeedSettings

POLL_SECONDS: Final = 0.1
REPORTS_SECONDS: Final = 0.2
"""How often workers' reports are asked for."""
NODES_SECONDS: Final = 2.0
MOST_STORED: Final = 12
"""Faces and weight files that stay in the object store; tasks under way keep theirs."""
MOST_RETRIES: Final = 3
"""Of a task whose node or process was lost; one that fails by itself is not tried again."""


@dataclass
class Task:
    """A run under way."""

    plan: Plan
    prefix: str | None
    """What its frozen part is, where that is worth finding again; equal ones share a cache."""
    node: str | None
    """Where it runs; before that is known, where it was sent."""
    reference: Any = None
    events: deque[runs.Event] = field(default_factory=deque)
    is_over: bool = False


class Fleet:
    """The runs of one driver on a cluster."""

    def __init__(self, connection: Connection) -> None:
        ray, options = connection.ray, connection.options
        self._connection, self._ray, self._options = connection, ray, options
        self._device = "cuda" if connection.needs[GPU] else options.device or "cpu"
        self._versions = probe()()
        self._nodes = connection.nodes()
        self._looked_at = self._asked_at = time.monotonic()
        self._tasks: dict[str, Task] = {}
        self._prefix_nodes: defaultdict[str, set[str]] = defaultdict(set)
        self._stored: dict[str, Any] = {}
        # Two tasks could share a process with CUDA of another GPU: then it serves one alone.
        is_reused = max(node.resources.get(GPU, 0) for node in self._nodes) <= 1
        self._train = ray.remote(
            num_cpus=connection.needs[CPU],
            num_gpus=connection.needs[GPU],
            max_retries=MOST_RETRIES,
            max_calls=0 if is_reused else 1,
        )(worker.train)
        here = ray.get_runtime_context().get_node_id()
        inbox = ray.remote(num_cpus=0)(worker.Inbox)
        self._inbox = inbox.options(scheduling_strategy=self._on(here, soft=False)).remote()

    def _on(self, node: str, *, soft: bool) -> Any:
        strategies = self._ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(node, soft=soft)

    def n_slots(self) -> int:
        """How many runs the nodes that live now compute at once."""
        if time.monotonic() - self._looked_at > NODES_SECONDS:
            with self._usable():
                self._nodes = self._connection.nodes()
            self._looked_at = time.monotonic()
        return sum(node.slots(self._connection.needs) for node in self._nodes)

    def n_at_once(self) -> int:
        """How many may be under way: some wait on their nodes, so that no node waits for us."""
        return self.n_slots() + 1 + self.n_slots() // 8

    def run_all(
        self,
        experiments: Iterable[Experiment],
        seeds: Iterable[int],
        faces: FaceSet,
        settings: Settings,
    ) -> Generator[runs.Event]:
        """Run every experiment with every seed, as benchmark.runs.run.run_all does.

        MLflow is written in a thread of its own: the folders are whole before, and nodes need not
        wait for it.
        """
        seeds = tuple(seeds)
        with ThreadPoolExecutor(1) as writer:
            written = list[Future[None]]()
            later = replace(
                settings, mirror=lambda run: written.append(writer.submit(settings.mirror, run))
            )
            begun: Iterator[Generator[runs.Event | None]] = (
                runs.run_one(experiment, seed, faces, later, self.run)
                for experiment in experiments
                for seed in seeds
            )
            found: Generator[runs.Event] = runs.interleaved(begun, self.n_at_once)
            with contextlib.closing(found) as events:
                yield from events
            for future in written:
                future.result()

    def run(self, plan: Plan, settings: Settings) -> Generator[runs.Event | None]:
        """Bring one run to its end on some node; None is yielded while nothing happens.

        Raises RunError where it fails, ClusterLost where the cluster is lost. Closed, it cancels
        the task; the same run resumes from what was reported last.
        """
        claim = plan.folder / "claim"
        with contextlib.ExitStack() as stack:
            if not self._options.shared_runs and not stack.enter_context(file_lock(claim)):
                yield runs.Skipped(plan, f"process {lock_owner(claim).get('pid')} runs it")
                return
            if is_done(plan, settings):
                settings.mirror(plan.record)
                yield runs.Skipped(plan, "done")
                return
            task = self._sent(plan, settings)
            try:
                while not task.is_over or task.events:
                    if task.events:
                        yield task.events.popleft()
                    else:
                        yield None
                        self._look(settings)
                yield from self._ended(task, settings)
            except (KeyboardInterrupt, GeneratorExit):
                mark_interrupted(plan, settings)
                raise
            finally:
                del self._tasks[plan.identity]
                with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError):
                    self._inbox.forget.remote(plan.identity)
                    if not task.is_over:
                        self._ray.cancel(task.reference)

    def _sent(self, plan: Plan, settings: Settings) -> Task:
        """Hand a run to Ray, on a node that has its frozen prefix if one has."""
        weights = plan.weights
        prefix = _prefix_of(plan) if settings.cache is not None else None
        task = Task(plan, prefix, self._node_with(prefix))
        with self._usable():
            if self._options.shared_runs:
                plan.folder.mkdir(parents=True, exist_ok=True)
            elif begun := worker.read_files(plan.folder):
                self._ray.get(self._inbox.begin.remote(plan.identity, begun))
            faces = plan.faces
            pixels = self._put(faces.pixel_digest, faces.folder / PIXELS_FILE)
            split = f"{faces.pixel_digest}/{faces.split_digest}/{faces.labels_digest}"
            references = {}
            if weights is not None:
                # A run's weights say in its experiment.json what they are of.
                names = (weights.path.name, *(("experiment.json",) if weights.from_run else ()))
                references = {
                    name: self._put(f"{weights.sha256}/{name}", weights.path.with_name(name))
                    for name in names
                }
            # What is said and shown here cannot be sent.
            cache, speed = settings.cache, settings.speed
            sent = replace(
                settings,
                offline=True,
                mirror=lambda _record: None,
                on_download=None,
                on_progress=keep_quiet,
                cache=cache and CacheSettings(cache.folder, cache.cap_gib),
                speed=SpeedSettings(speed.graph, speed.compile),
            )
            without_faces = replace(faces, table=faces.table.head(0))
            alone = replace(plan, faces=without_faces, folder=plan.folder.resolve())
            job = worker.RemoteRun(alone, sent, self._options, self._device, self._versions)
            placed = (
                {} if task.node is None else {"scheduling_strategy": self._on(task.node, soft=True)}
            )
            task.reference = self._train.options(name=plan.title, **placed).remote(
                job, self._put(split, faces), [pixels], references, self._inbox
            )
        self._tasks[plan.identity] = task
        return task

    def _node_with(self, prefix: str | None) -> str | None:
        """Choose a node that has a prefix and is free; where none is, the one to wait for."""
        busy = Counter(task.node for task in self._tasks.values())
        free = {n.id: n.slots(self._connection.needs) - busy[n.id] for n in self._nodes}
        nodes = [node for node in self._prefix_nodes.get(prefix or "", ()) if node in free]
        best = max(nodes, key=free.__getitem__, default=None)
        is_elsewhere_free = sum(max(0, n) for n in free.values()) > busy[None]
        return None if best is None or (free[best] <= 0 and is_elsewhere_free) else best

    def _put(self, key: str, what: Path | FaceSet) -> Any:
        """Put a file's bytes or a table of faces into the object store, once; keep the last few."""
        if key not in self._stored:
            bytes_of = np.fromfile(what, np.uint8) if isinstance(what, Path) else what
            self._stored[key] = self._ray.put(bytes_of)
        self._stored[key] = self._stored.pop(key)
        if len(self._stored) > MOST_STORED:
            del self._stored[next(iter(self._stored))]
        return self._stored[key]

    def _look(self, settings: Settings) -> None:
        """Wait a moment for ends; hand what workers report to the tasks that it is about."""
        by_reference = {task.reference: task for task in self._tasks.values() if not task.is_over}
        ray = self._ray
        with self._usable():
            timeout = POLL_SECONDS / max(1, len(by_reference))
            ended, _ = ray.wait(list(by_reference), timeout=timeout)
            now = time.monotonic()
            if ended or now - self._asked_at >= REPORTS_SECONDS:
                self._asked_at = now
                for identity, kind, content in ray.get(self._inbox.take.remote()):
                    if (task := self._tasks.get(identity)) is not None and not task.is_over:
                        self._take_in(task, kind, content, settings)
        for reference in ended:
            by_reference[reference].is_over = True

    def _take_in(self, task: Task, kind: str, content: Any, settings: Settings) -> None:
        plan = task.plan
        if kind == "started":
            epochs_done, n_train, task.node = content
            host = next((n.host for n in self._nodes if n.id == task.node), "a new node")
            if task.prefix is not None:
                self._prefix_nodes[task.prefix].add(task.node)
            task.events.append(runs.Started(plan, epochs_done, n_train, host))
        elif kind == "epoch":
            task.events.append(runs.Advanced(plan, content))
        elif kind == "note":
            settings.speed.say(content)
        elif kind == "files":
            files = dict(zip(content, self._ray.get(list(content.values())), strict=True))
            if files:
                worker.write_files(plan.folder, files)
            settings.mirror(plan.record)

    def _ended(self, task: Task, settings: Settings) -> Iterator[runs.Event]:
        """Write what a task returned, and say how it ended."""
        plan, errors = task.plan, self._ray.exceptions
        try:
            returned: worker.Returned = self._ray.get(task.reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, (errors.ObjectStoreFullError, errors.OutOfDiskError)):
                address = str(error).partition("ip=")[2].partition(")")[0]
                raise _store_is_full(f"the node {address}") from None
            raise mark_failed(plan, settings, error.cause or error) from None
        except errors.RayError as error:
            lost = RunError(
                f"its worker was lost {MOST_RETRIES + 1} times: {str(error).splitlines()[0]}",
                fix="Look at the nodes with `ray status`; the same command resumes",
            )
            raise mark_failed(plan, settings, lost) from None
        if returned.files:
            worker.write_files(plan.folder, returned.files)
        if returned.held:
            yield runs.Skipped(plan, returned.held)
            return
        settings.mirror(plan.record)
        if returned.error is not None:
            raise returned.error
        yield runs.Finished(plan)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Turn what Ray raises where the cluster itself fails into a sentence."""
        errors = self._ray.exceptions
        try:
            yield
        except (errors.ObjectStoreFullError, errors.OutOfDiskError) as error:
            raise _store_is_full("the driver's node") from error
        except (errors.RayError, ConnectionError) as error:
            raise ClusterLost(
                f"the Ray cluster was lost: {str(error).splitlines()[0]}",
                source=f"--on {self._connection.options.address}",
                fix="Start it again; the same command resumes, and what is done stays",
            ) from error


def _store_is_full(where: str) -> ClusterLost:
    return ClusterLost(
        "Ray's object store is full, and so is the disk that takes what does not fit",
        source=where,
        fix="Start Ray there with more --object-store-memory; the same command resumes",
    )


def _prefix_of(plan: Plan) -> str | None:
    """Give what runs with one frozen prefix have in common; None where nothing is frozen."""
    experiment = plan.experiment
    if experiment.backbone.trainable_stages == "all":
        return None
    seed = plan.seed if plan.weights is None else None
    made_of = [vars(experiment.backbone), experiment.protocol.input_scaling, seed]
    return canonical_json([*made_of, plan.ingredients.weights_sha256, plan.faces.pixel_digest])
