"""Work shared among processes: results in order, errors as they are, a death in a sentence."""

import os

import pytest

from benchmark.data import progress
from benchmark.data.progress import in_parallel
from benchmark.errors import DataError


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "n_cores", lambda: 2)


def worker_of(number: int) -> tuple[int, bool]:
    return number, os.getpid() == int(os.environ["TEST_PARENT"])


def refuse(number: int) -> int:
    if number == 5:
        raise DataError("five", allowed="four")
    return number


def die(number: int) -> int:
    os._exit(number)


def test_many_items_are_done_elsewhere_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PARENT", str(os.getpid()))
    assert list(in_parallel(worker_of, iter(range(9)), 9, a_core=3)) == [
        (number, False) for number in range(9)
    ]
    assert list(in_parallel(worker_of, range(3), 3, a_core=3)) == [(n, True) for n in range(3)]


def test_an_error_arrives_whole_and_a_dead_process_is_one() -> None:
    with pytest.raises(DataError, match="five") as caught:
        list(in_parallel(refuse, range(9), 9, a_core=3))
    assert caught.value.allowed == "four"
    with pytest.raises(DataError, match="a process that reads pictures died"):
        list(in_parallel(die, range(9), 9, a_core=3))
