"""Which rows there are, how many faces they take, and when a verdict is spoken."""

from dataclasses import replace

import pytest
import torch

from benchmark.errors import ExperimentError
from benchmark.speed.loops import version_of
from benchmark.speed.measure import Measured, RowMeasured, Timings, explained
from benchmark.speed.rows import ROWS, Goal, images_for, rows_named
from benchmark.training.device import Device

CPU = Device(torch.device("cpu"), "fp32")


def measured(ours: float, goal: Goal | None, *, judged: bool = True) -> RowMeasured:
    timings = {
        name: Timings(0.0, (Measured(seconds, seconds),) * 3)
        for name, seconds in (("plain", 12.0), ("ours", ours))
    }
    return RowMeasured(ROWS[1], 64, 8, 1, timings, "fp32", True, goal, judged, {})


def test_rows_come_in_our_order_and_unknown_ones_are_refused() -> None:
    assert [row.name for row in rows_named("frozen,data")] == ["data", "frozen"]
    with pytest.raises(ExperimentError, match="there is no row 'frozn'"):
        rows_named("frozn")


def test_every_row_can_be_defined() -> None:
    for row in ROWS:
        assert row.experiment(100, row.epochs(CPU, None)).recipe.clipping == "global"


def test_shares_are_of_one_whole() -> None:
    assert sum(row.share for row in ROWS) == pytest.approx(1)


def test_as_many_faces_as_fit_in_whole_batches() -> None:
    # 100 s at half a second a face: 200, of which 192 are six batches.
    assert images_for(CPU, 100, 0.5, cap=10_000) == 192
    assert images_for(CPU, 1, 0.5, cap=10_000) == 32
    assert images_for(CPU, 1e6, 0.5, cap=100) == 96


@pytest.mark.parametrize(("seconds", "verdict"), [(3.0, "aim met"), (5.0, "met"), (8.0, "missed")])
def test_a_verdict_compares_the_median_ratio_with_the_goal(seconds: float, verdict: str) -> None:
    assert measured(seconds, Goal(2, 3)).verdict == verdict


def test_no_verdict_where_the_goals_are_of_another_machine_or_there_are_none() -> None:
    assert measured(3.0, Goal(2, 3), judged=False).verdict is None
    assert measured(3.0, None).verdict is None


def test_a_worker_that_dies_is_told_in_a_sentence() -> None:
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error.\nmuch more")
    told = str(explained(error))
    assert "worker" in told
    assert "--workers 0" in told
    assert "much more" not in told


def test_what_befell_the_device_is_told_and_other_errors_are_left_alone() -> None:
    assert "memory does not suffice" in str(explained(torch.OutOfMemoryError("CUDA out")))
    other = RuntimeError("a bug")
    assert explained(other) is other


def test_others_loops_are_measured_only_where_they_are_installed() -> None:
    assert version_of("timm") is not None
    row = replace(ROWS[1], loops=())
    assert row.loops == ()
