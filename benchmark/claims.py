"""A claim on a folder: held by a living process, and gone with it, however it dies."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def claimed(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Yield whether this process now holds the claim at `path`; never raises for a held one.

    The kernel's advisory lock is the claim, so that no stale one can outlive its process; the
    file's text only tells a person who holds it. With `wait`, wait for the holder to let go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "since": time.time()}).encode(), 0)
        yield True
    finally:
        os.close(descriptor)


def holder(path: Path) -> dict[str, Any]:
    """Read who wrote the claim last: `pid` and `since` (seconds of the epoch); empty if unknown."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
