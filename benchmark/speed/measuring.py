"""The clocks: every way of doing one thing, in turns, so that a busy moment hits all alike."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final, Protocol

import psutil

ROUNDS: Final = 3


class Way(Protocol):
    """One way of doing what a row measures."""

    def warm_up(self) -> None:
        """Do all that is done once: workers, kernels, recordings. Timed apart."""

    def prepare(self) -> None:
        """Make ready for a measurement; no part of it."""

    def measure(self) -> None:
        """Do what is measured, to its end: nothing may be left running on the device."""

    def close(self) -> None:
        """Let go of workers, files and memory."""


@dataclass(frozen=True)
class Measured:
    """What one measurement took."""

    seconds: float
    cpu_seconds: float
    """Of this process and its workers: the sturdier number where cores are shared."""


@dataclass(frozen=True)
class Timings:
    """What a way took, a measurement a round."""

    warm_up_seconds: float
    measured: tuple[Measured, ...]

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return median(one.seconds for one in self.measured)

    @property
    def cpu_seconds(self) -> float:
        """The median of the rounds."""
        return median(one.cpu_seconds for one in self.measured)


@dataclass(frozen=True)
class Ratio:
    """How many times faster one way is than another: median, least and most over the rounds."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, slow: Timings, fast: Timings) -> "Ratio":
        """Compare within rounds, where both met the same machine."""
        pairs = zip(slow.measured, fast.measured, strict=True)
        values = [one.seconds / other.seconds for one, other in pairs]
        return cls(median(values), min(values), max(values))


def in_turns(
    ways: Mapping[str, Way],
    rounds: int,
    deadline: float,
    on_round: Callable[[int], None] | None = None,
) -> dict[str, Timings]:
    """Warm every way up, then measure all of them `rounds` times, in turns.

    deadline: of time.perf_counter; after it no further round begins, though one is always made.
    """
    warm_ups = {name: _measured(way.warm_up).seconds for name, way in ways.items()}
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    for number in range(rounds):
        started = time.perf_counter()
        if number and started + _longest_round(found) > deadline:
            break
        for name, way in ways.items():
            way.prepare()
            found[name].append(_measured(way.measure))
        if on_round is not None:
            on_round(number + 1)
    return {name: Timings(warm_ups[name], tuple(values)) for name, values in found.items()}


def _longest_round(found: Mapping[str, list[Measured]]) -> float:
    by_round = zip(*found.values(), strict=True)
    return max(float(sum(one.seconds for one in measured)) for measured in by_round)


def _measured(work: Callable[[], None]) -> Measured:
    cpu, started = _cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return Measured(seconds, max(0.0, _cpu_seconds() - cpu))


def _cpu_seconds() -> float:
    """Add up the processor time of this process, of its workers, and of those that have ended."""
    times = os.times()
    total = time.process_time() + times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.Error:
            continue
        total += spent.user + spent.system
    return float(total)
