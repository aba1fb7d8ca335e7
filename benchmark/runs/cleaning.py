"""What `facebench clean` removes: what killed processes left, and what can be made again.

What a running process works on is never touched: it holds the lock of its run, or of the folder
that it is making.
"""

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from benchmark.data.dataset import STAGING_SUFFIX
from benchmark.files import file_lock, is_locked
from benchmark.models.weight_store import MODEL_FILE
from benchmark.record import all_records, work_folder
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
    "interrupted": "folders of interrupted runs: run again, these begin anew",
    "weights": "networks of finished runs: their numbers stay, they can predict no more faces",
}
NEEDLESS: Final[tuple[Kind, ...]] = ("leftovers",)
"""What is removed where nothing else is asked for."""
TEMPORARY: Final = re.compile(r"\..+\..{8}(\.\w+)?")
"""How benchmark.files.replacing names a file being written: a dot, the name, eight letters."""
SETTLED_SECONDS: Final = 3600.0
"""Outside the runs' folders there is no lock: a temporary file of that age was left behind."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that could go."""

    kind: Kind
    path: Path
    claim: Path | None = None
    """The lock that is held by whoever works on it."""

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of the file, or of all files in the folder; those that vanish count nothing."""
        total = 0
        for file in self.path.rglob("*") if self.path.is_dir() else (self.path,):
            with contextlib.suppress(OSError):
                total += file.stat().st_size if file.is_file() else 0
        return total

    def remove(self) -> bool:
        """Remove it, unless somebody works on it now; tell whether it is gone."""
        with contextlib.ExitStack() as stack:
            if self.claim is not None and not stack.enter_context(file_lock(self.claim)):
                return False
            if not self.path.is_dir():
                self.path.unlink(missing_ok=True)
                if self.path.suffix == ".npy":
                    self.path.with_suffix(".json").unlink(missing_ok=True)
                return True
            try:
                lock = os.open(self.path, os.O_RDONLY)
                stack.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self.path)
            except FileNotFoundError:
                return True
            except BlockingIOError:
                return False
        return True


def removables(runs_dir: Path, data_dir: Path, kinds: set[Kind]) -> Iterator[Removable]:
    """Yield what could go, of the kinds asked for, in the order of KINDS."""
    cache = data_dir / "cache"
    if "leftovers" in kinds:
        for folder in sorted(work_folder(runs_dir).glob("*")):
            claim = folder / "claim"
            if not folder.is_dir() or is_locked(claim):
                continue
            if not (folder / "experiment.json").is_file() and _is_settled(folder):
                yield Removable("leftovers", folder, claim)
                continue
            for path in sorted(folder.glob(".*")):
                if TEMPORARY.fullmatch(path.name):
                    yield Removable("leftovers", path, claim)
        for path in sorted(data_dir.glob(f".*{STAGING_SUFFIX}")):
            yield Removable("leftovers", path)
        for path in sorted(cache.glob("*.partial")):
            if not is_locked(path.with_suffix(".claim")):
                yield Removable("leftovers", path, path.with_suffix(".claim"))
        for folder in (runs_dir, data_dir, data_dir / "weights", cache):
            for path in sorted(folder.glob(".*")):
                if path.is_file() and TEMPORARY.fullmatch(path.name) and _is_settled(path):
                    yield Removable("leftovers", path)
    if "cache" in kinds:
        for path in sorted(cache.glob("*.npy")):
            yield Removable("cache", path, path.with_suffix(".claim"))
    for record in list(all_records(runs_dir)):
        folder, state, claim = record.folder, record.state, record.folder / "claim"
        if is_locked(claim):
            continue
        found: dict[Kind, list[Path]] = {
            "epoch-weights": sorted(folder.glob("weights-epoch-*.safetensors")),
            "checkpoints": [folder / CHECKPOINT_FILE] if state == "failed" else [],
            "failed": [folder] if state == "failed" else [],
            "interrupted": [folder] if state == "interrupted" else [],
            "weights": [folder / MODEL_FILE] if state == "done" else [],
        }
        for kind, paths in found.items():
            if kind in kinds:
                yield from (Removable(kind, path, claim) for path in paths if path.exists())


def _is_settled(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > SETTLED_SECONDS
    return False
