"""What runs on a node: one training in a folder of its own, whose files go back to the driver.

A node needs no folder of anybody else's. Packed faces and weight files come from Ray's object
store and are kept in FACEBENCH_WORKER_DIR under their digests, with the features of frozen
networks; a run's folder is a temporary one there. Ray may run this twice for one run, where a node
is lost: the second time resumes from the files that were reported last.
"""

import contextlib
import functools
import os
import shutil
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from benchmark.cluster.connection import ClusterOptions, probe
from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import PIXELS_FILE, FaceSet
from benchmark.data.pictures import pixel_digest
from benchmark.errors import BenchmarkError, DataError, RunError
from benchmark.files import file_lock, replacing
from benchmark.record import RunRecord
from benchmark.runs.folder import CHECKPOINT_FILE
from benchmark.runs.plan import Plan, Settings
from benchmark.runs.run import Advanced, Skipped, Started, run, with_compile
from benchmark.training.device import choose_device
from benchmark.training.trainer import EpochResult

WORKER_DIR: Final = "FACEBENCH_WORKER_DIR"
"""The variable that says where a node keeps faces, weights, features and unfinished runs."""
PASSING: Final = ("done.json", "failed.json", "interrupted.json", CHECKPOINT_FILE)
"""Files of a run's folder that go again: of its end, and of what it resumes from."""

Files = dict[str, NDArray[np.uint8]]
"""The bytes of files by name, as Ray stores them without a copy."""


@dataclass(frozen=True)
class RemoteRun:
    """A run as its driver planned it."""

    plan: Plan
    """Without the table of its faces, which all runs share. Its folder is the driver's; the
    workers' own too where they share the runs' folder."""
    settings: Settings
    """The driver's, but for what is a node's own: device, folders, who gets its reports."""
    options: ClusterOptions
    device: str
    versions: dict[str, str]
    """Of the driver; a node that came later than the check must have the same."""


@dataclass(frozen=True)
class Returned:
    """How a run ended on a node, and its folder; without files where the folder is shared."""

    held: str = ""
    """Who runs it already, if anybody: nothing was done."""
    error: BenchmarkError | None = None
    files: Files = field(default_factory=dict)


class Inbox:
    """An actor on the driver's machine: what workers report, and the files to resume from."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, str, Any]] = []
        self._files: dict[str, dict[str, Any]] = {}

    def tell(self, identity: str, kind: str, content: Any) -> None:
        self._messages.append((identity, kind, content))

    def keep(self, identity: str, files: Files) -> None:
        """Take the files of a run under way; they stay here if its node is lost."""
        self.begin(identity, files)
        self._messages.append((identity, "files", self._files[identity]))

    def begin(self, identity: str, files: Files) -> None:
        """Take the files that a run resumes from."""
        import ray

        self._files[identity] = {name: ray.put(content) for name, content in files.items()}

    def files(self, identity: str) -> dict[str, Any]:
        """Give references to the files of a run, those of its last report."""
        return self._files.get(identity, {})

    def forget(self, identity: str) -> None:
        self._files.pop(identity, None)

    def take(self) -> list[tuple[str, str, Any]]:
        """Give the messages that came since the last call."""
        messages, self._messages = self._messages, []
        return messages


class Reporter:
    """A run's mirror on a node: sends its files to the driver, at most every `seconds`."""

    def __init__(self, inbox: Any, seconds: float, *, shared: bool) -> None:
        self._inbox, self._seconds, self._shared = inbox, seconds, shared
        self._sent_at = time.monotonic()

    def __call__(self, record: RunRecord) -> None:
        now = time.monotonic()
        if now - self._sent_at < self._seconds or record.state == "done":
            return
        self._sent_at = now
        if self._shared:
            self._inbox.tell.remote(record.identity, "files", {})
            return
        import ray

        # With a full object store a report is left out: it costs epochs, if the node is lost too.
        with contextlib.suppress(ray.exceptions.RayError):
            self._inbox.keep.remote(record.identity, read_files(record.folder))


def read_files(folder: Path) -> Files:
    """Read the files of a run's folder that go from one machine to another."""
    paths = (path for path in folder.iterdir() if path.is_file() and path.name != "claim")
    return {path.name: np.fromfile(path, np.uint8) for path in paths if path.name[0] != "."}


def write_files(folder: Path, files: Files) -> None:
    """Bring a run's folder to what its worker says of it; `done.json` is written last."""
    for name in PASSING:
        if name not in files:
            (folder / name).unlink(missing_ok=True)

    def write(name: str) -> None:
        with replacing(folder / name) as temporary:
            files[name].tofile(temporary)

    with ThreadPoolExecutor(8) as pool:  # Each waits for the disk.
        list(pool.map(write, files.keys() - {"done.json"}))
    if "done.json" in files:
        write("done.json")


def worker_folder() -> Path:
    """Give the folder that this node keeps everything in; whoever made it, it is this user's."""
    default = Path(tempfile.gettempdir()) / f"facebench-worker-{os.getuid()}"
    folder = Path(os.environ.get(WORKER_DIR) or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kept_file(path: Path, reference: Any) -> Path:
    """Write a file from the object store, once on a node; who reads it checks its content."""
    import ray

    if not path.is_file():
        with file_lock(path.with_name(f"{path.name}.lock"), wait=True):
            if not path.is_file():
                with replacing(path) as temporary:
                    ray.get(reference).tofile(temporary)
    return path


@functools.lru_cache(maxsize=8)
def _checked(path: Path, digest: str) -> None:
    """Raise DataError unless packed faces are the ones that they should be; once a process."""
    if (found := pixel_digest(path)) != digest:
        path.unlink(missing_ok=True)
        raise DataError(
            f"the packed faces that came to {socket.gethostname()} have the sha256 {found[:12]}",
            allowed=digest,
            source=str(path),
            fix="They are sent again by the next run",
        )


_on_device: dict[tuple[Any, ...], FaceBatches] = {}
"""The faces of the last run: worker processes are used again, for runs on the same faces mostly."""


def _faces_on(device: torch.device, faces: FaceSet) -> FaceBatches:
    key = (faces.pixel_digest, faces.labels_digest, str(device))
    if key not in _on_device:
        _on_device.clear()
        _on_device[key] = FaceBatches.on_device(faces.pixels(), faces.table, device)
    return _on_device[key]


def remove_abandoned(folder: Path) -> None:
    """Remove the folders of runs whose process died."""
    for path in folder.glob("run-*-*"):
        if not psutil.pid_exists(int(path.name.split("-")[1])):
            shutil.rmtree(path, ignore_errors=True)


def train(
    job: RemoteRun, faces: FaceSet, pixels: list[Any], weights: dict[str, Any], inbox: Any
) -> Returned:
    """Bring a run to its end on this node; a run that fails by itself is no error of this function.

    pixels: a reference to faces.npy. weights: references to the weight file and what tells of it,
    by name. References come within containers: Ray fetches only what this node does not have.
    """
    here = worker_folder()
    remove_abandoned(here)
    with tempfile.TemporaryDirectory(dir=here, prefix=f"run-{os.getpid()}-") as scratch:
        folder = job.plan.folder
        if not job.options.shared_runs:
            folder = Path(scratch) / "work" / folder.name
        try:
            if job.options.shared_runs and not folder.is_dir():
                found = f"{socket.gethostname()} does not have the folder of runs that it shares"
                raise RunError(
                    found, source=str(folder), fix="Mount it there, or omit --shared-runs"
                )
            folder.mkdir(parents=True, exist_ok=True)
            ended = _trained(job, faces, pixels, weights, inbox, here, folder)
        except BenchmarkError as error:
            # Without its frames, which hold the network.
            error.__cause__ = error.__context__ = None
            ended = Returned(error=error.with_traceback(None))
        return ended if job.options.shared_runs else replace(ended, files=read_files(folder))


def _trained(
    job: RemoteRun, faces: FaceSet, pixels: list[Any], weights: dict[str, Any], inbox: Any,
    here: Path, folder: Path,
) -> Returned:  # fmt: skip
    import ray

    identity, options, own = job.plan.identity, job.options, job.plan.weights
    if (versions := probe()()) != job.versions:
        raise RunError(
            f"{socket.gethostname()} has {versions}",
            allowed=str(job.versions),
            fix="Install the same versions on every node",
        )

    def say(kind: str, content: Any) -> None:
        inbox.tell.remote(identity, kind, content)

    path = kept_file(here / "faces" / faces.pixel_digest / PIXELS_FILE, pixels[0])
    _checked(path, faces.pixel_digest)
    faces = replace(faces, folder=path.parent)
    if own is not None:
        place = here / "weights" / own.sha256 / own.path.parent.name
        for name, reference in weights.items():
            kept_file(place / name, reference)
        own = replace(own, path=place / own.path.name)
    plan = replace(job.plan, faces=faces, weights=own, folder=folder)
    if not options.shared_runs:
        references = ray.get(inbox.files.remote(identity))
        contents = ray.get(list(references.values()))
        write_files(folder, dict(zip(references, contents, strict=True)))
    torch.set_num_threads(max(1, int(options.cpus)))
    device = choose_device(job.device, options.precision, exact=job.settings.device.exact)
    note, cache = functools.partial(say, "note"), job.settings.cache
    settings = replace(
        job.settings,
        runs_dir=folder.parent.parent,
        device=device,
        mirror=Reporter(inbox, options.report_seconds, shared=options.shared_runs),
        cache=cache and replace(cache, folder=here / "cache", say=note),
        speed=replace(job.settings.speed, say=note),
    )
    settings = with_compile(plan.experiment, 1, faces, settings)
    held = ""
    for event in run(plan, _faces_on(device.torch_device, faces), settings):
        if isinstance(event, Started):
            node = ray.get_runtime_context().get_node_id()
            say("started", (event.epochs_done, event.n_train, node))
        elif isinstance(event, Advanced) and isinstance(event.step, EpochResult):
            say("epoch", event.step)
        elif isinstance(event, Skipped) and event.why != "done":
            held = event.why
    return Returned(held)
