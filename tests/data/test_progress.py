"""Work shared among processes: results in order, errors as they are, a death in a sentence."""

import os

import pytest

from benchmark.data import progress
from benchmark.data.progress import in_parallel
from benchmark.errors import DataError


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "n_cores", lambda: 2)


def done_by(number: int) -> tuple[int, int]:
    return number, os.getpid()


def refuse(number: int) -> int:
    if number == 5:
        raise DataError("five", allowed="four")
    return number


def die(number: int) -> int:
    os._exit(number)


def test_many_items_are_done_elsewhere_and_few_are_not() -> None:
    numbers, processes = zip(*in_parallel(done_by, iter(range(9)), 9, a_core=2), strict=True)
    assert (list(numbers), os.getpid() in processes) == (list(range(9)), False)
    assert list(in_parallel(done_by, range(3), 3, a_core=3)) == [(n, os.getpid()) for n in range(3)]


def test_an_error_arrives_whole_and_a_dead_process_is_one() -> None:
    with pytest.raises(DataError, match="five") as caught:
        list(in_parallel(refuse, range(9), 9, a_core=2))
    assert caught.value.allowed == "four"
    with pytest.raises(DataError, match="a process that reads pictures died"):
        list(in_parallel(die, range(9), 9, a_core=2))
