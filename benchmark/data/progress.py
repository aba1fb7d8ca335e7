"""Long work on faces: how far it is, who does it, and how it is shared among the cores."""

import contextlib
import functools
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from benchmark.errors import DataError
from benchmark.files import file_lock, is_locked, lock_owner

OnProgress = Callable[[str, int, int], None]
"""Called with the stage in words, how much is done and how much there is; cheap enough to call
some hundred times, never from two threads at once."""
MAX_PROCESSES: Final = 16
"""One process reads the source, some 20,000 pictures a second; more than this would wait for it."""

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")


def keep_quiet(stage: str, done: int, total: int) -> None:
    """Take a report and do nothing with it."""


@contextlib.contextmanager
def owned(place: Path, on_progress: OnProgress = keep_quiet) -> Iterator[None]:
    """Own a file or folder that is to be made; wait while another process does, and say so."""
    lock = place.parent / f".{place.name}.lock"
    if is_locked(lock):
        on_progress(f"waiting for process {lock_owner(lock).get('pid')}: {place.name}", 0, 0)
    with file_lock(lock, wait=True):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def n_cores() -> int:
    """Count the cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[tuple[Key, Item]], n: int, a_core: int = 64
) -> Generator[tuple[Key, Result]]:
    """Apply a function to keyed items in processes, one a core; give keys and results in order.

    n: how many items there are; few are done before the processes would have started. a_core: how
    many items are read ahead for each core, which bounds the memory. joblib's processes do not
    import the caller's main module again; threads would queue for the interpreter. Raises what the
    function raises, and DataError where a process died.
    """
    n_processes, call = min(n_cores(), MAX_PROCESSES), functools.partial(_keyed, function)
    if n <= 3 * a_core or n_processes == 1:
        yield from map(call, items)
        return
    from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    waiting, under_way = iter(items), deque[Iterator[tuple[Key, Result]]]()
    # Each process has a core and no more.
    env = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    executor = ProcessPoolExecutor(
        n_processes, initializer=_begin_worker, initargs=(os.getpid(),), env=env
    )
    try:
        # In halves: one is read while the other is worked on.
        while several := list(islice(waiting, a_core * n_processes // 2)):
            under_way.append(executor.map(call, several, chunksize=max(1, a_core // 8)))
            if len(under_way) > 1:
                yield from under_way.popleft()
        for results in under_way:
            yield from results
    except TerminatedWorkerError as error:
        fix = "Where memory is short, use fewer cores (taskset) or smaller pictures"
        raise DataError("a process that reads pictures died", fix=fix) from error
    finally:
        executor.shutdown()


def _begin_worker(parent: int) -> None:
    """Leave Ctrl-C to the process that started this one, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _keyed(function: Callable[[Item], Result], keyed: tuple[Key, Item]) -> tuple[Key, Result]:
    return keyed[0], function(keyed[1])
