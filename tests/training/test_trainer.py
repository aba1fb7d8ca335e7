"""The epoch loop: what it yields, what it selects, and that stopping half-way changes nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment
from benchmark.training import trainer
from benchmark.training.device import Device, choose_device
from benchmark.training.trainer import EpochResult, TrainingState, fit, start
from tests.training import small
from tests.training.small import CPU, a_network, epochs, same_weights, some_data


def an_experiment(**recipe: Any) -> Experiment:
    fields = {"learning_rate": 3e-3, "max_epochs": 3, "selection": "best_validation_combined"}
    return small.an_experiment(trained="all", **fields | recipe)


def trained(
    experiment: Experiment, seed: int = 0, device: Device = CPU
) -> tuple[TrainingState, list[EpochResult]]:
    state = start(a_network(experiment), experiment.recipe, device)
    return state, epochs(fit(state, some_data(), experiment, seed, device))


def test_a_network_learns_and_the_first_epoch_with_the_highest_score_is_selected() -> None:
    state, results = trained(an_experiment(max_epochs=5))
    assert [result.epoch for result in results] == [0, 1, 2, 3, 4]
    assert results[-1].train_loss < results[0].train_loss
    assert set(results[0].metrics()) >= {"train/loss", "val/race/accuracy", "val/combined"}
    scores = [result.val_combined for result in results]
    assert max(scores) > 0.9
    assert state.best_epoch == scores.index(max(scores))
    selected = state.network.state_dict()
    assert all(torch.equal(selected[name], state.best_weights[name]) for name in selected)


def test_exact_trainings_of_one_seed_end_in_equal_weights_and_of_two_do_not() -> None:
    exact, networks = choose_device("cpu", exact=True), []
    for seed in (5, 5, 6):
        with exact.arithmetic():
            networks.append(trained(an_experiment(), seed, exact)[0].network)
    assert same_weights(networks[0], networks[1])
    assert not same_weights(networks[0], networks[2])


def test_a_loss_that_is_not_finite_stops_the_run_with_its_epoch() -> None:
    with pytest.raises(RunError, match=r"training loss of epoch \d is (nan|inf).*Lower"):
        trained(an_experiment(learning_rate=1e30, clipping="none"))


def test_early_stopping_waits_as_long_as_it_says() -> None:
    # A rate near zero: the first epoch stays the best, so that two more follow and no third.
    experiment = an_experiment(learning_rate=1e-12, max_epochs=10, early_stopping_epochs=2)
    _, results = trained(experiment)
    best = max(results, key=lambda result: (result.val_combined, -result.epoch)).epoch
    assert len(results) == best + 3


def test_fixed_batches_see_one_order_and_shuffling_another_each_epoch() -> None:
    """With a fixed order and no learning, every epoch's training loss is the same sum."""
    # Batch norm sees a batch's own statistics, so that another grouping gives another loss.
    for shuffling in ("fixed_batches", "every_epoch"):
        experiment = an_experiment(learning_rate=1e-12, max_epochs=2)
        protocol = replace(experiment.protocol, shuffling=shuffling)  # type: ignore[arg-type]
        first, second = trained(replace(experiment, protocol=protocol))[1]
        assert (abs(first.train_loss - second.train_loss) <= 1e-5) == (shuffling != "every_epoch")


def test_a_fixed_number_of_steps_makes_an_epoch() -> None:
    # 43 faces that train, three steps of 8 an epoch: 24 faces
    _, results = trained(an_experiment(steps_per_epoch=3, max_epochs=2))
    assert len(results) == 2
    rates = [rate * 24 for result in results for rate in result.train_accuracy.values()]
    assert all(rate == pytest.approx(round(rate)) for rate in rates)


def test_training_stops_at_the_training_accuracy_asked_for_and_does_not_resume() -> None:
    experiment = an_experiment(max_epochs=30, until_train_accuracy=0.9)
    state, results = trained(experiment)
    *before, last = [min(result.fitted_accuracy.values()) for result in results]
    assert len(results) < 30
    assert all(rate < 0.9 for rate in before)
    assert last >= 0.9
    assert "fitted/race/accuracy" in results[0].metrics()
    again = start(a_network(experiment), experiment.recipe, CPU)
    again.restore(state.checkpoint())
    assert epochs(fit(again, some_data(), experiment, 0, CPU)) == []


def test_weights_that_are_not_finite_are_refused_though_the_loss_is_finite() -> None:
    """As when an epoch's very last step overflows: the loss was computed before it."""
    network = a_network(an_experiment())
    trainer.check_weights(network, 0, 1e-3)
    with torch.no_grad():
        next(network.head.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(RunError, match="not finite after epoch 3 at learning rate 0.001"):
        trainer.check_weights(network, 2, 1e-3)


def test_stages_learn_slower_the_shallower_they_are() -> None:
    experiment = small.an_experiment(trained=3, trunk_rate_ratio=0.1, stage_rate_decay=0.5)
    network = a_network(experiment)
    # Head 1; block5, the deepest, 0.1; block4 0.1 x 0.5; block3 0.1 x 0.5 x 0.5.
    ratios = trainer.stage_ratios(network, experiment.recipe)
    assert ratios == pytest.approx({"block3": 0.025, "block4": 0.05, "block5": 0.1})
    optimiser = trainer.new_optimiser(network, experiment.recipe, CPU)
    trainer.set_rate(optimiser, 2e-3)
    groups = optimiser.param_groups
    rate_of = {id(item): group["lr"] for group in groups for item in group["params"]}
    named = network.named_parameters()
    rates = {name: rate_of[id(item)] for name, item in named if item.requires_grad}
    assert rates["trunk.stages.block3.conv.weight"] == pytest.approx(5e-5)
    assert rates["trunk.stages.block5.norm.bias"] == pytest.approx(2e-4)
    assert rates["head.gender.hidden.weight"] == pytest.approx(2e-3)
    assert "trunk.stages.block2.conv.weight" not in rates
