"""Clocks, rows and bounds: loops take turns, ratios are of one round, least times by hand."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.data.dataset import FaceSet
from benchmark.errors import ExperimentError
from benchmark.experiment.definition import Experiment
from benchmark.models.network import build_network
from benchmark.speed.loops import Loop, version_of
from benchmark.speed.measure import (
    LayerShape,
    Peaks,
    explained,
    in_turns,
    layers_of,
    least_work,
    multiply_adds,
    ratio_of,
)
from benchmark.speed.rows import ROWS, Goal, images_for, rows_named
from benchmark.training.device import Device
from tests.speed.test_loops import a_job

CPU = Device(torch.device("cpu"), "fp32")
PEAKS = Peaks({"fp32": 100.0}, 10.0)


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


def test_no_round_begins_that_would_end_too_late_but_the_first() -> None:
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
    assert version_of("timm") is not None


def test_as_many_faces_as_fit_in_whole_batches() -> None:
    # 100 s at half a second a face: 200, of which 192 are six batches.
    assert images_for(CPU, 100, 0.5, cap=10_000) == 192
    assert images_for(CPU, 1, 0.5, cap=10_000) == 32
    assert images_for(CPU, 1e6, 0.5, cap=100) == 96


def test_a_verdict_compares_the_median_ratio_with_the_goal() -> None:
    found = [Goal(2, 3).verdict(ratio) for ratio in (4.0, 2.4, 1.5)]
    assert found == ["aim met", "met", "missed"]


def test_a_depthwise_convolution_is_counted_by_its_groups() -> None:
    # Each of 4 x 6 x 6 outputs takes 3 x 3 products of one channel; dense, of four.
    made = torch.empty(1, 4, 6, 6)
    assert multiply_adds(nn.Conv2d(4, 4, 3, groups=4), made) == 144 * 9
    assert multiply_adds(nn.Conv2d(4, 4, 3), made) == 144 * 9 * 4


def test_a_layer_takes_the_longer_of_computing_and_moving() -> None:
    computing = LayerShape("head", multiply_adds=500, n_inputs=1, n_outputs=1, n_weights=1)
    moving = LayerShape("head", multiply_adds=1, n_inputs=30, n_outputs=20, n_weights=10)
    # 2 x 500 x 2 operations at 100 a second; 4 x ((30 + 20) x 2 + 10) bytes at 10 a second.
    assert PEAKS.forward([computing], "fp32", 2)[1] == pytest.approx(20)
    assert PEAKS.forward([moving], "fp32", 2)[1] == pytest.approx(44)
    assert PEAKS.forward([computing, moving], "fp32", 2)[0] == 2000 + 4
    # Training is three passes and Adam's 28 bytes a parameter.
    trained = PEAKS.training([computing], "fp32", 2, n_trained=5)
    assert list(trained) == pytest.approx([6000, 3 * 20 + 5 * 28 / 10])
    # A peak is the best that was seen.
    assert PEAKS.better(Peaks({"fp32": 50.0}, 20.0)) == Peaks({"fp32": 100.0}, 20.0)


def cut_at(stages: int) -> Experiment:
    return rows_named("cnn")[0].experiment(32, 1).adjusted({"backbone.trainable_stages": stages})


def test_layers_add_up_to_what_the_network_counts() -> None:
    network = build_network(cut_at(2), None, 0)
    assert sum(layer.multiply_adds for layer in layers_of(network, 32)) == network.multiply_adds(32)
    assert network.training


def test_a_run_that_caches_goes_through_the_frozen_part_once(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    job = replace(a_job(drawn_faces, tmp_path, n=64), experiment=cut_at(1), epochs=10)
    plain, ours = least_work("run", job, PEAKS)
    once, again = (least_work("run", replace(job, epochs=epochs), PEAKS) for epochs in (1, 2))
    assert once[0] == pytest.approx(once[1])
    assert plain == pytest.approx(10 * once[0])
    behind = again[1] - once[1]
    assert ours == pytest.approx(once[1] + 9 * behind)
    assert 0 < behind[0] < once[1][0]
    whole = least_work("epoch", replace(job, epochs=1), PEAKS)
    assert whole[0][0] > once[0][0]
