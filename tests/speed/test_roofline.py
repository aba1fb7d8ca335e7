"""Operations and least times, worked by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.data.dataset import FaceSet
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.models.network import build_network
from benchmark.speed.loops import Job, PlainConfig, Sample
from benchmark.speed.roofline import Bound, Layer, Peaks, layers_of, least_work, multiply_adds
from benchmark.training.device import Device

PEAKS = Peaks({"fp32": 100.0}, 10.0)


def an_experiment(trainable_stages: int) -> Experiment:
    return Experiment(
        name="small",
        asks="How much?",
        backbone=Backbone("cnn", trainable_stages=trainable_stages, input_px=32),
        head=Head(hidden_units=8),
        recipe=Recipe(learning_rate=1e-3),
        ad_hoc=True,
    )


def test_a_depthwise_convolution_is_counted_by_its_groups() -> None:
    # Each of 4 x 6 x 6 outputs takes 3 x 3 products of one channel; dense, of four.
    made = torch.empty(1, 4, 6, 6)
    assert multiply_adds(nn.Conv2d(4, 4, 3, groups=4), made) == 144 * 9
    assert multiply_adds(nn.Conv2d(4, 4, 3), made) == 144 * 9 * 4


def test_layers_add_up_to_what_the_network_counts() -> None:
    network = build_network(an_experiment(2), None, 0)
    assert sum(layer.multiply_adds for layer in layers_of(network, 32)) == network.multiply_adds(32)
    assert network.training


def test_a_layer_takes_the_longer_of_computing_and_moving() -> None:
    computing = Layer("head", multiply_adds=500, n_inputs=1, n_outputs=1, n_weights=1)
    moving = Layer("head", multiply_adds=1, n_inputs=30, n_outputs=20, n_weights=10)
    bound = Bound(PEAKS, "fp32", batch_size=2)
    # 2 x 500 x 2 operations at 100 a second; 4 x ((30 + 20) x 2 + 10) bytes at 10 a second.
    assert bound.forward([computing])[1] == pytest.approx(20)
    assert bound.forward([moving])[1] == pytest.approx(44)
    assert bound.forward([computing, moving])[0] == 2000 + 4


def test_training_is_three_passes_and_adam() -> None:
    layer = Layer("head", multiply_adds=500, n_inputs=1, n_outputs=1, n_weights=1)
    done = Bound(PEAKS, "fp32", 2).training([layer], n_trained=5)
    assert done[0] == 6000
    assert done[1] == pytest.approx(3 * 20 + 5 * 28 / 10)


def test_a_run_that_caches_goes_through_the_frozen_part_once(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    sample = Sample.of(drawn_faces, torch.device("cpu"), tmp_path, most=64)
    job = Job(an_experiment(1), sample, 10, Device(torch.device("cpu"), "fp32"), PlainConfig())
    plain, ours = least_work("run", job, PEAKS)
    once, again = (least_work("run", replace(job, epochs=epochs), PEAKS) for epochs in (1, 2))
    assert once[0] == pytest.approx(once[1])
    assert plain == pytest.approx(10 * once[0])
    behind = again[1] - once[1]
    assert ours == pytest.approx(once[1] + 9 * behind)
    assert 0 < behind[0] < once[1][0]
    whole = least_work("epoch", replace(job, epochs=1), PEAKS)
    assert whole[0][0] > once[0][0]


def test_a_peak_is_the_best_that_was_seen() -> None:
    other = Peaks({"fp32": 50.0}, 20.0)
    assert PEAKS.better(other) == Peaks({"fp32": 100.0}, 20.0)
