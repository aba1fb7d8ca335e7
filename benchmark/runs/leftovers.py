"""What takes room and nobody needs: what killed processes left, and what its owner may do without.

Found here, and removed when asked to. What a living process is at is never touched: it holds the
claim of its run, or the lock of the folder that it is making.
"""

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmark.data.dataset import SUFFIX as STAGING_SUFFIX
from benchmark.files import claimed, is_held
from benchmark.models.weight_store import MODEL_FILE
from benchmark.record import RunRecord, all_records, work_folder
from benchmark.runs.checkpoints import CHECKPOINT_FILE

Kind = Literal[
    "leftovers", "cache", "epoch-weights", "checkpoints", "failed", "interrupted", "weights"
]
KINDS: Final[dict[Kind, str]] = {
    "leftovers": "temporary files and folders of processes that died",
    "cache": "features of frozen networks: computed again when a run needs them",
    "epoch-weights": "weights of every epoch (--keep-weights all); the best ones stay",
    "checkpoints": "states of failed runs: run again, these begin anew",
    "failed": "folders of failed runs, with the reasons",
    "interrupted": "folders of runs that stopped: run again, these begin anew",
    "weights": "networks of finished runs: their numbers stay, they can read no more faces",
}
"""From what nobody misses to what somebody may."""
NEEDLESS: Final[tuple[Kind, ...]] = ("leftovers",)
"""What is removed where nothing else is asked for."""
TEMPORARY: Final = re.compile(r"\..+\..{8}(\.\w+)?")
"""How benchmark.files.replacing names a file on its way: a dot, the name, eight random letters."""
SETTLED_SECONDS: Final = 3600.0
"""Outside the runs' folders no claim tells a file on its way from one left behind; its age does."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that could go."""

    kind: Kind
    path: Path
    n_bytes: int
    claim: Path | None = None
    """Held by whoever is at work on it."""

    def remove(self) -> bool:
        """Remove it, unless somebody is at work on it now; tell whether it is gone."""
        with contextlib.ExitStack() as stack:
            if self.claim is not None and not stack.enter_context(claimed(self.claim)):
                return False
            if not self.path.is_dir():
                self.path.unlink(missing_ok=True)
                return True
            return _remove_folder(self.path)


def _remove_folder(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def leftovers(runs_dir: Path, data_dir: Path, kinds: set[Kind]) -> Iterator[Leftover]:
    """Yield what could go, of the kinds asked for, in the order of KINDS."""
    records = list(all_records(runs_dir))
    if "leftovers" in kinds:
        yield from _of_runs(runs_dir)
        yield from _of_data(data_dir)
    if "cache" in kinds:
        for path in sorted((data_dir / "cache").glob("*.prefix")):
            yield Leftover("cache", path, _size(path), path.with_suffix(".claim"))
    for record in records:
        if not is_held(record.folder / "claim"):
            yield from _of_record(record, kinds)


def _of_record(record: RunRecord, kinds: set[Kind]) -> Iterator[Leftover]:
    folder, state, claim = record.folder, record.state, record.folder / "claim"
    if "epoch-weights" in kinds:
        for path in sorted(folder.glob("weights-epoch-*.safetensors")):
            yield Leftover("epoch-weights", path, _size(path), claim)
    checkpoint = folder / CHECKPOINT_FILE
    if "checkpoints" in kinds and state == "failed" and checkpoint.is_file():
        yield Leftover("checkpoints", checkpoint, _size(checkpoint), claim)
    for kind in ("failed", "interrupted"):
        if kind in kinds and state == kind:
            yield Leftover(kind, folder, _size(folder), claim)
    weights = folder / MODEL_FILE
    if "weights" in kinds and state == "done" and weights.is_file():
        yield Leftover("weights", weights, _size(weights), claim)


def _of_runs(runs_dir: Path) -> Iterator[Leftover]:
    """Temporary files in runs that nobody is at, and folders in which no run ever began."""
    for folder in sorted(work_folder(runs_dir).glob("*")):
        claim = folder / "claim"
        if not folder.is_dir() or is_held(claim):
            continue
        if not (folder / "experiment.json").is_file() and _is_settled(folder):
            yield Leftover("leftovers", folder, _size(folder), claim)
            continue
        for path in sorted(folder.glob(".*")):
            if TEMPORARY.fullmatch(path.name):
                yield Leftover("leftovers", path, _size(path), claim)
    yield from _settled_temporaries(runs_dir)


def _of_data(data_dir: Path) -> Iterator[Leftover]:
    for path in sorted(data_dir.glob(f".*{STAGING_SUFFIX}")):
        yield Leftover("leftovers", path, _size(path))
    for path in sorted((data_dir / "cache").glob("*.partial")):
        claim = path.with_suffix(".claim")
        if not is_held(claim):
            yield Leftover("leftovers", path, _size(path), claim)
    for folder in (data_dir, data_dir / "weights"):
        yield from _settled_temporaries(folder)


def _settled_temporaries(folder: Path) -> Iterator[Leftover]:
    for path in sorted(folder.glob(".*")):
        if path.is_file() and TEMPORARY.fullmatch(path.name) and _is_settled(path):
            yield Leftover("leftovers", path, _size(path))


def _is_settled(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > SETTLED_SECONDS
    return False


def _size(path: Path) -> int:
    """Add up the bytes of a file, or of all files in a folder; those that vanish count nothing."""
    total = 0
    for file in path.rglob("*") if path.is_dir() else (path,):
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total
