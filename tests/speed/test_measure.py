"""Clocks: ways take turns, ratios are of one round, and time that is over is over."""

import time

from benchmark.speed.loops import Loop
from benchmark.speed.measure import Measured, Ratio, Timings, in_turns


class Noted(Loop):
    """A way that writes down what is asked of it."""

    def __init__(self, name: str, book: list[str], seconds: float = 0.0) -> None:
        self.name, self.book, self.seconds = name, book, seconds

    def warm_up(self) -> None:
        self.book.append(f"warm {self.name}")

    def prepare(self) -> None:
        self.book.append(f"prepare {self.name}")

    def measure(self) -> None:
        time.sleep(self.seconds)
        self.book.append(self.name)

    def close(self) -> None:
        self.book.append(f"close {self.name}")


def timings(*seconds: float) -> Timings:
    return Timings(0.0, tuple(Measured(value, value) for value in seconds))


def later() -> float:
    return time.perf_counter() + 1000


def test_ways_take_turns_after_all_are_warm() -> None:
    book: list[str] = []
    found = in_turns({"a": Noted("a", book), "b": Noted("b", book)}, 2, later())
    round_ = ["prepare a", "a", "prepare b", "b"]
    assert book == ["warm a", "warm b", *round_, *round_]
    assert [len(found[name].measured) for name in ("a", "b")] == [2, 2]


def test_no_round_begins_that_would_end_too_late_but_the_first() -> None:
    book: list[str] = []
    found = in_turns({"a": Noted("a", book, 0.02)}, 5, time.perf_counter() - 1)
    assert len(found["a"].measured) == 1


def test_a_ratio_compares_within_rounds() -> None:
    # Rounds 4/2, 9/3 and 8/1: 2, 3 and 8. The ratio of the medians, 8/2, is another number.
    ratio = Ratio.of(timings(4, 9, 8), timings(2, 3, 1))
    assert (ratio.middle, ratio.low, ratio.high) == (3, 2, 8)


def test_one_slow_round_does_not_move_a_median() -> None:
    assert timings(1, 50, 2).seconds == 2


def test_processor_time_is_counted_and_waiting_is_not() -> None:
    found = in_turns({"asleep": Noted("asleep", [], 0.3)}, 1, later())["asleep"]
    assert found.seconds >= 0.3
    assert found.cpu_seconds < 0.15
