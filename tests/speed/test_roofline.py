"""Operations and least times, worked by hand."""

import pytest
import torch
from torch import nn

from benchmark.experiment import Backbone, Experiment, Head, Recipe
from benchmark.models.network import build_network
from benchmark.speed.roofline import Bound, Layer, Peaks, _multiply_adds, cut_layers, layers_of

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
    assert _multiply_adds(nn.Conv2d(4, 4, 3, groups=4), made) == 144 * 9
    assert _multiply_adds(nn.Conv2d(4, 4, 3), made) == 144 * 9 * 4


def test_layers_add_up_to_what_the_network_counts() -> None:
    network = build_network(an_experiment(2), None, 0)
    assert sum(layer.multiply_adds for layer in layers_of(network, 32)) == network.multiply_adds(32)
    assert network.training


def test_a_layer_takes_the_longer_of_computing_and_moving() -> None:
    computing = Layer("head", multiply_adds=500, n_inputs=1, n_outputs=1, n_weights=1)
    moving = Layer("head", multiply_adds=1, n_inputs=30, n_outputs=20, n_weights=10)
    bound = Bound(PEAKS, "fp32", batch_size=2)
    # 2 x 500 x 2 operations at 100 a second; 4 x ((30 + 20) x 2 + 10) bytes at 10 a second.
    assert bound.forward([computing]).seconds == pytest.approx(20)
    assert bound.forward([moving]).seconds == pytest.approx(44)
    assert bound.forward([computing, moving]).flops == 2000 + 4


def test_training_is_three_passes_and_adam() -> None:
    layer = Layer("head", multiply_adds=500, n_inputs=1, n_outputs=1, n_weights=1)
    done = Bound(PEAKS, "fp32", 2).training([layer], n_trained=5)
    assert done.flops == 6000
    assert done.seconds == pytest.approx(3 * 20 + 5 * 28 / 10)


@pytest.mark.parametrize(("trained", "first"), [(0, "head"), (1, "block4"), (2, "block3")])
def test_layers_are_divided_at_the_cut(trained: int, first: str) -> None:
    network = build_network(an_experiment(trained), None, 0)
    before, behind = cut_layers(network, layers_of(network, 32))
    assert before
    assert behind[0].stage in (first, network.trained_stages[0] if trained else "head")
    assert {layer.stage for layer in behind} == {*network.trained_stages, "head"}


def test_a_peak_is_the_best_that_was_seen() -> None:
    other = Peaks({"fp32": 50.0}, 20.0)
    assert PEAKS.better(other) == Peaks({"fp32": 100.0}, 20.0)
