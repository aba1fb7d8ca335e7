"""Clocks and rows: loops take turns, ratios are of one round, faces fit into the time."""

import time

import pytest
import torch

from benchmark.errors import ExperimentError
from benchmark.speed.loops import Loop
from benchmark.speed.measure import (
    ROWS,
    in_turns,
    ratio_of,
    rows_named,
)
from benchmark.training.device import Device

CPU = Device(torch.device("cpu"), "fp32")


class NotedLoop(Loop):
    """A loop that writes down what is asked of it."""

    def __init__(self, name: str, book: list[str], seconds: float = 0.0) -> None:
        self.name, self.book, self.seconds = name, book, seconds

    def warm_up(self) -> None:
        self.book.append(f"warm {self.name}")

    def prepare(self) -> None:
        self.book.append(f"prepare {self.name}")

    def measure(self) -> None:
        time.sleep(self.seconds)
        self.book.append(self.name)


def test_loops_take_turns_after_all_are_warm() -> None:
    book: list[str] = []
    _, found = in_turns({"a": NotedLoop("a", book), "b": NotedLoop("b", book)}, 2)
    round_ = ["prepare a", "a", "prepare b", "b"]
    assert book == ["warm a", "warm b", *round_, *round_]
    assert [len(found[name]) for name in ("a", "b")] == [2, 2]


def test_a_ratio_compares_within_rounds() -> None:
    # Rounds 4/2, 9/3 and 8/1: 2, 3 and 8. The ratio of the medians, 8/2, is another number.
    ratio = ratio_of([(4, 0), (9, 0), (8, 0)], [(2, 0), (3, 0), (1, 0)])
    assert ratio == {"middle": 3, "low": 2, "high": 8}


def test_processor_time_is_counted_and_waiting_is_not() -> None:
    _, found = in_turns({"asleep": NotedLoop("asleep", [], 0.3)}, 1)
    ((seconds, cpu_seconds),) = found["asleep"]
    assert seconds >= 0.3
    assert cpu_seconds < 0.15


def test_rows_come_in_our_order_and_all_can_be_defined() -> None:
    assert [row.name for row in rows_named("frozen,data")] == ["data", "frozen"]
    with pytest.raises(ExperimentError, match="there is no row 'frozn'"):
        rows_named("frozn")
    for row in ROWS:
        assert row.experiment(100, 1).recipe.clipping == "global", row.name
