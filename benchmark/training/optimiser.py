"""AdamW as a recipe specifies it: the rate of each parameter, and how its state is stored.

AdamW without weight decay is Adam; with it, decay is decoupled from the gradient.
"""

from collections.abc import Mapping
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

    Parameters are grouped by the ratio of their rate, in the network's order. On CUDA the rate is a
    tensor there, so that a CUDA graph can be given another one.
    """
    ratios = {
        id(parameter): ratio
        for stage, ratio in stage_ratios(network, recipe).items()
        for parameter in network.backbone.stages[stage].parameters()
    }
    by_ratio: dict[float, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            by_ratio.setdefault(ratios.get(id(parameter), 1.0), []).append(parameter)
    on_cuda, groups = device.kind == "cuda", []
    for ratio, parameters in by_ratio.items():
        rate = recipe.learning_rate * ratio
        lr = torch.tensor(rate, device=device.torch_device) if on_cuda else rate
        groups.append({"params": parameters, "lr": lr, RATIO: ratio})
    return torch.optim.AdamW(
        groups,
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=device.kind in ("cpu", "cuda"),
        capturable=on_cuda,
    )


def stage_ratios(network: Network, recipe: Recipe) -> dict[str, float]:
    """Give each trained stage's rate as a fraction of the head's, shallow to deep.

    The deepest stage learns at `trunk_rate_ratio`, each one before it at `stage_rate_decay` times
    the rate of the next deeper one.
    """
    ratio = 1.0 if recipe.trunk_rate_ratio is None else recipe.trunk_rate_ratio
    decay = 1.0 if recipe.stage_rate_decay is None else recipe.stage_rate_decay
    stages = network.trained_stages
    return {stage: ratio * decay ** (len(stages) - 1 - place) for place, stage in enumerate(stages)}


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate to its fraction of `rate`; CUDA graphs read it from then on."""
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
        on_device = group["fused"] or group["capturable"]
        for parameter in group["params"]:
            moments = optimiser.state.get(parameter, {})
            if "step" in moments:
                place = parameter.device if on_device else torch.device("cpu")
                moments["step"] = moments["step"].to(place, torch.float32)
