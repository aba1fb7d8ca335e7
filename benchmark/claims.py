"""A claim on a folder: held by a living process, and gone with it, however it dies."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ASK_AGAIN_SECONDS: Final = 0.05


@contextlib.contextmanager
def claimed(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Yield whether this process now holds the claim at `path`; never raises for a held one.

    The kernel's advisory lock is the claim, so that no stale one can outlive its process; the
    file's text only tells a person who holds it. With `wait`, wait for the holder to let go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _opened_and_locked(path, wait=wait)
    if descriptor is None:
        yield False
        return
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "since": time.time()}).encode(), 0)
        yield True
    finally:
        os.close(descriptor)


def _opened_and_locked(path: Path, *, wait: bool) -> int | None:
    """Open the claim's file and lock it; None where another process holds it.

    A file that was removed between the two (`facebench clean`) is nobody's claim any more: another
    process would make a new one, and both would think themselves alone.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_mine = _locked(descriptor, wait=wait)
            if is_mine and _is_still(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not is_mine:
            return None


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except OSError:
        return False


def _locked(descriptor: int, *, wait: bool) -> bool:
    """Take the lock; one that is held only for the moment of a question is asked for again."""
    for _ in range(2):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            time.sleep(ASK_AGAIN_SECONDS)
        else:
            return True
    return False


def is_held(path: Path) -> bool:
    """Tell whether a living process holds the claim, without taking it or making the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # For this moment nobody else can claim it either, which is why `claimed` asks twice.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(path: Path) -> dict[str, Any]:
    """Read who wrote the claim last: `pid` and `since` (seconds of the epoch); empty if unknown."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
