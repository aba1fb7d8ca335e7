"""Files written atomically, hashes, and locks that end with their process.

No reader ever meets half a file; nothing here knows what files hold.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmark.errors import RunError

ASK_AGAIN_SECONDS: Final = 0.05


def check_outputs(
    paths: Iterable[Path], *, overwrite: bool, inputs: Iterable[Path | None] = ()
) -> None:
    """Raise RunError where writing these files would replace one, before anything is written.

    overwrite: an existing file may be replaced, but never an input, nor a file within one that is a
    folder. This is the rule of all files that a command's options name; what it keeps in folders of
    its own (RUNS_DIR, DATA_DIR) it writes anew each time.
    """
    sources = [source.resolve() for source in inputs if source is not None]
    for path in paths:
        if not os.path.lexists(path) or path.is_dir():
            continue
        place = path.resolve()
        if any(source in (place, *place.parents) for source in sources):
            found = f"{path} is an input of this command and would be overwritten"
            raise RunError(found, fix="Give another name; --overwrite does not replace inputs")
        if not overwrite:
            fix = "Give another name, or --overwrite to replace it"
            raise RunError(f"{path} exists already", fix=fix)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, renamed onto it when the block ends well.

    The content reaches the disk before the name does, so that a crash leaves either the old
    file or the whole new one. On an error the temporary file is removed. The umask alone says who
    may read it: some libraries write files that are their owner's alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; of a file name that is not UTF-8, the escapes."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: sorted keys, indented, numpy numbers as plain ones."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=_plain) + "\n")


def canonical_json(value: Any) -> str:
    """Write JSON so that equal values give equal text: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    import numpy as np  # here: definitions and completion do without it

    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def digest_of(value: Any) -> str:
    """Give the sha256 of a value's canonical JSON: 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Yield whether this process now owns the lock file at `path`; never raises for a locked one.

    The kernel's advisory lock counts, so that no stale one can outlive its process; the file's text
    only tells a person who owns it. With `wait`, wait for the owner to let go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    n_refused = 0
    while n_refused < 2:
        with path.open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                n_refused += 1  # Maybe for the moment of a question (is_locked): ask again.
                time.sleep(ASK_AGAIN_SECONDS)
                continue
            is_there = False
            with contextlib.suppress(FileNotFoundError):
                is_there = path.stat().st_ino == os.fstat(file.fileno()).st_ino
            # One that was removed meanwhile is nobody's: another process would make a new one.
            if is_there:
                file.truncate(0)
                file.write(json.dumps({"pid": os.getpid(), "since": time.time()}))
                file.flush()
                yield True
                return
    yield False


def is_locked(path: Path) -> bool:
    """Tell whether a living process owns the lock on a file or folder, without taking it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # For this moment nobody else can lock it either, which is why `file_lock` asks twice.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_owner(path: Path) -> dict[str, Any]:
    """Read who owned the lock last: `pid` and `since` (seconds of the epoch); empty if unknown."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}
