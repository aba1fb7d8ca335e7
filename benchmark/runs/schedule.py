"""Forecast runs placed on workers, in the order they are started in.

A worker is a GPU, or a process on a CPU, as fast as the one the costs were measured on. What runs
share of a frozen part is computed once, by the first that needs it; the others wait for it.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.runs.forecast import Forecast


@dataclass(frozen=True)
class Slot:
    """A run on a worker; seconds since the suite began."""

    forecast: Forecast
    worker: int
    start: float
    trains_at: float
    """When activations of its frozen part are there."""
    end: float

    @property
    def group(self) -> str:
        """Architecture and depth, by which a picture colours it."""
        backbone = self.forecast.experiment.backbone
        return f"{backbone.architecture} {backbone.depth_name}"


def arrange(forecasts: Iterable[Forecast], n_workers: int) -> list[Slot]:
    """Place every run that trains on the worker that is free first."""
    free = [(0.0, worker) for worker in range(n_workers)]
    built: dict[object, float] = {}
    slots = []
    for forecast in forecasts:
        if forecast.trains:
            start, worker = heapq.heappop(free)
            now = start
            for build in forecast.builds:
                now = max(now, built.setdefault(build.key, now + build.seconds))
            end = now + forecast.seconds + forecast.rest_seconds
            slots.append(Slot(forecast, worker, start, now, end))
            heapq.heappush(free, (end, worker))
    return slots


def critical_path(slots: Sequence[Slot]) -> Forecast | None:
    """Give the run that takes longest with its caches: no number of workers is faster."""
    return max((slot.forecast for slot in slots), key=lambda of: of.alone_seconds, default=None)
