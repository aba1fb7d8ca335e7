"""Each parameter learns at the rate that the recipe gives its stage."""

import pytest
import torch

from benchmark.training.trainer import new_optimiser, plain_groups, set_rate, stage_ratios, start
from tests.training.small import CPU, a_network, an_experiment


def test_one_rate_for_all_where_the_recipe_says_nothing_else() -> None:
    experiment = an_experiment(trained="all")
    optimiser = new_optimiser(a_network(experiment), experiment.recipe, CPU)
    (group,) = optimiser.param_groups
    assert group["lr"] == 1e-3
    assert len(group["params"]) == len(list(a_network(experiment).parameters()))


def test_stages_learn_slower_the_shallower_they_are() -> None:
    experiment = an_experiment(trained=3, trunk_rate_ratio=0.1, stage_rate_decay=0.5)
    network = a_network(experiment)
    # Head 1; block5, the deepest, 0.1; block4 0.1 x 0.5; block3 0.1 x 0.5 x 0.5.
    ratios = stage_ratios(network, experiment.recipe)
    assert ratios == pytest.approx({"block3": 0.025, "block4": 0.05, "block5": 0.1})
    optimiser = new_optimiser(network, experiment.recipe, CPU)
    set_rate(optimiser, 2e-3)
    rate_of = {
        id(item): group["lr"] for group in optimiser.param_groups for item in group["params"]
    }
    named = network.named_parameters()
    rates = {name: rate_of[id(item)] for name, item in named if item.requires_grad}
    assert rates["trunk.stages.block3.conv.weight"] == pytest.approx(5e-5)
    assert rates["trunk.stages.block5.norm.bias"] == pytest.approx(2e-4)
    assert rates["head.gender.hidden.weight"] == pytest.approx(2e-3)
    assert "trunk.stages.block2.conv.weight" not in rates


def test_a_step_moves_stages_by_their_ratio() -> None:
    # Adam's first step moves every weight by the rate, whatever the gradient's size.
    experiment = an_experiment(trained=1, trunk_rate_ratio=0.1, adam_epsilon=1e-30)
    state = start(a_network(experiment), experiment.recipe, CPU)
    named = dict(state.network.named_parameters())
    moved = {}
    for name in ("trunk.stages.block5.conv.weight", "head.race.output.weight"):
        before = named[name].detach().clone()
        named[name].grad = torch.ones_like(before)
        state.optimiser.step()
        named[name].grad = None
        moved[name] = float((before - named[name].detach()).mean())
    assert list(moved.values()) == pytest.approx([1e-4, 1e-3], rel=1e-3)


def test_a_checkpoint_keeps_plain_rates() -> None:
    experiment = an_experiment(trained=1, trunk_rate_ratio=0.5)
    optimiser = new_optimiser(a_network(experiment), experiment.recipe, CPU)
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    rates = [group["lr"] for group in plain_groups(optimiser.state_dict())["param_groups"]]
    assert rates == pytest.approx([5e-4, 1e-3])
    assert all(isinstance(rate, float) for rate in rates)
