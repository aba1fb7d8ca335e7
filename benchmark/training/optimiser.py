"""AdamW as a recipe wants it: which parameters learn at which rate, and how that is kept.

AdamW without weight decay is Adam; with it, decay is decoupled from the gradient.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.experiment.definition import Recipe
from benchmark.models.network import Network
from benchmark.training.device import Device

RATIO = "rate_ratio"
"""Key in a parameter group: its learning rate as a fraction of the recipe's."""


def new_optimiser(network: Network, recipe: Recipe, device: Device) -> torch.optim.AdamW:
    """Make the optimiser of a network that is on the device.

    On CUDA the rate is a tensor there, so that a recorded step can be given another one.
    """
    on_cuda = device.kind == "cuda"
    groups = [
        {
            "params": parameters,
            "lr": _as_rate(recipe.learning_rate * ratio, device.torch_device),
            RATIO: ratio,
        }
        for ratio, parameters in _by_ratio(network, recipe).items()
    ]
    return torch.optim.AdamW(
        groups,
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=device.kind in ("cpu", "cuda"),
        capturable=on_cuda,
    )


def _as_rate(rate: float, device: torch.device) -> float | Tensor:
    return torch.tensor(rate, device=device) if device.type == "cuda" else rate


def _by_ratio(network: Network, recipe: Recipe) -> dict[float, list[nn.Parameter]]:
    """Group the trained parameters by the ratio of their rate, in the network's order."""
    ratio_of = {
        id(parameter): ratio
        for stage, ratio in stage_ratios(network, recipe).items()
        for parameter in network.backbone.stages[stage].parameters()
    }
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups.setdefault(ratio_of.get(id(parameter), 1.0), []).append(parameter)
    return groups


def stage_ratios(network: Network, recipe: Recipe) -> dict[str, float]:
    """Give each trained stage's rate as a fraction of the head's, shallow to deep.

    The deepest stage learns at `trunk_rate_ratio`, each one before it at `stage_rate_decay` times
    the rate of the one behind it.
    """
    ratio = 1.0 if recipe.trunk_rate_ratio is None else recipe.trunk_rate_ratio
    decay = 1.0 if recipe.stage_rate_decay is None else recipe.stage_rate_decay
    n = len(network.trained_stages)
    return {
        stage: ratio * decay ** (n - 1 - place)
        for place, stage in enumerate(network.trained_stages)
    }


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let every group learn at its fraction of `rate` from now on; recorded steps too."""
    for group in optimiser.param_groups:
        own = rate * group.get(RATIO, 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def plain_groups(state: Mapping[str, Any]) -> dict[str, Any]:
    """Give an optimiser's state with its rates as plain numbers, whatever device it is of."""
    groups = [group | {"lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def restored(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `plain_groups` gave into an optimiser, perhaps on another kind of device.

    How it steps there stays its own. Raises ValueError where it has other parameters.
    """
    own = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimiser.param_groups
    ]
    optimiser.load_state_dict({**state})
    for group, options in zip(optimiser.param_groups, own, strict=True):
        group.update(options)
    for group, parameter in _pairs(optimiser):
        steps = optimiser.state[parameter].get("step")
        if steps is not None:
            on_device = group["fused"] or group["capturable"]
            place = parameter.device if on_device else torch.device("cpu")
            optimiser.state[parameter]["step"] = steps.to(place, torch.float32)


def _pairs(optimiser: torch.optim.Optimizer) -> Iterator[tuple[dict[str, Any], Tensor]]:
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter in optimiser.state:
                yield group, parameter
