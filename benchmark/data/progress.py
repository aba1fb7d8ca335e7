"""Long work on faces: how far it is, and how many cores it may use."""

import os
import signal
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Final, TypeVar

from benchmark.errors import DataError

OnProgress = Callable[[str, int, int], None]
"""Called with the stage in words, how much is done and how much there is; cheap enough to call
some hundred times, never from two threads at once."""
MAX_PROCESSES: Final = 16
"""One process reads the source, some 20,000 pictures a second; more than this would wait for it."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def keep_quiet(stage: str, done: int, total: int) -> None:
    """Take a report and do nothing with it."""


def n_cores() -> int:
    """Count the cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], n_items: int, *, a_core: int
) -> Generator[Result]:
    """Apply a function to items in processes, one a core; give the results in order.

    n_items: how many items there are; few are done before the processes would have started. a_core:
    how many items are read ahead for each core, which bounds the memory. In processes: threads
    queue for the interpreter (docs/notes/timings.md).
    Raises what the function raises, and DataError where a process died.
    """
    n_processes = min(n_cores(), MAX_PROCESSES)
    if n_items <= 3 * a_core or n_processes == 1:
        yield from map(function, items)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    waiting = iter(items)
    try:
        with Parallel(n_processes) as parallel:
            while several := list(islice(waiting, a_core * n_processes)):
                yield from parallel(delayed(_in_worker)(function, item) for item in several)
    except TerminatedWorkerError as error:
        raise DataError(
            "a process that reads pictures died",
            fix="Where memory is short, use fewer cores (taskset) or smaller pictures",
        ) from error


def _in_worker(function: Callable[[Item], Result], item: Item) -> Result:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    return function(item)
