"""Work shared among processes: results in order, errors as they are, a death in a sentence."""

import os

import pytest

from benchmark.data import progress
from benchmark.data.progress import in_parallel
from benchmark.errors import DataError


def process_of(number: int) -> int:
    return os.getpid()


def refuse(number: int) -> int:
    if number == 5:
        raise DataError("five", allowed="four")
    return number


def die(number: int) -> int:
    os._exit(number)


def test_many_items_are_done_elsewhere_in_order_and_errors_arrive_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "n_cores", lambda: 2)
    items = [(n, n) for n in range(9)]
    keys, processes = zip(*in_parallel(process_of, iter(items), 9, a_core=2), strict=True)
    assert (list(keys), os.getpid() in processes) == (list(range(9)), False)
    assert list(in_parallel(process_of, items[:1], 1, a_core=2)) == [(0, os.getpid())]
    with pytest.raises(DataError, match="five") as caught:
        list(in_parallel(refuse, items, 9, a_core=2))
    assert caught.value.allowed == "four"
    with pytest.raises(DataError, match="a process that reads pictures died"):
        list(in_parallel(die, items, 9, a_core=2))
