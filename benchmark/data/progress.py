"""How long work on faces reports how far it is, and how many cores it may use."""

import os
from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with the stage in words, how much is done and how much there is; cheap enough to call
some hundred times, never from two threads at once."""


def keep_quiet(stage: str, done: int, total: int) -> None:
    """Take a report and do nothing with it."""


def n_cores() -> int:
    """Count the cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
