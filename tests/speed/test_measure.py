"""Clocks and rows: loops take turns, ratios are of one round, faces fit into the time."""

import time

import pytest
import torch

from benchmark.errors import ExperimentError
from benchmark.speed.loops import Loop
from benchmark.speed.measure import (
    ROWS,
    explained,
    images_for,
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


def later() -> float:
    return time.perf_counter() + 1000


def test_loops_take_turns_after_all_are_warm() -> None:
    book: list[str] = []
    _, found = in_turns({"a": NotedLoop("a", book), "b": NotedLoop("b", book)}, 2, later())
    round_ = ["prepare a", "a", "prepare b", "b"]
    assert book == ["warm a", "warm b", *round_, *round_]
    assert [len(found[name]) for name in ("a", "b")] == [2, 2]
    # No round begins that would end too late, but the first.
    _, found = in_turns({"a": NotedLoop("a", [], 0.02)}, 5, time.perf_counter() - 1)
    assert len(found["a"]) == 1


def test_a_ratio_compares_within_rounds() -> None:
    # Rounds 4/2, 9/3 and 8/1: 2, 3 and 8. The ratio of the medians, 8/2, is another number.
    ratio = ratio_of([(4, 0), (9, 0), (8, 0)], [(2, 0), (3, 0), (1, 0)])
    assert ratio == {"middle": 3, "low": 2, "high": 8}


def test_processor_time_is_counted_and_waiting_is_not() -> None:
    _, found = in_turns({"asleep": NotedLoop("asleep", [], 0.3)}, 1, later())
    ((seconds, cpu_seconds),) = found["asleep"]
    assert seconds >= 0.3
    assert cpu_seconds < 0.15


def test_what_happened_to_a_worker_or_the_device_is_a_sentence_and_a_bug_is_left_alone() -> None:
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error.\nmuch more")
    said = str(explained(error))
    assert "worker" in said
    assert "--workers 0" in said
    assert "much more" not in said
    assert "memory does not suffice" in str(explained(torch.OutOfMemoryError("CUDA out")))
    other = RuntimeError("a bug")
    assert explained(other) is other


def test_rows_come_in_our_order_and_all_can_be_defined() -> None:
    assert [row.name for row in rows_named("frozen,data")] == ["data", "frozen"]
    with pytest.raises(ExperimentError, match="there is no row 'frozn'"):
        rows_named("frozn")
    assert sum(row.share for row in ROWS) == pytest.approx(1)
    for row in ROWS:
        assert row.experiment(100, 1).recipe.clipping == "global", row.name


def test_as_many_faces_as_fit_in_whole_batches() -> None:
    # 100 s at half a second a face: 200, of which 192 are six batches.
    assert images_for(CPU, 100, 0.5, cap=10_000) == 192
    assert images_for(CPU, 1, 0.5, cap=10_000) == 32
    assert images_for(CPU, 1e6, 0.5, cap=100) == 96
