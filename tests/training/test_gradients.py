"""Gathered gradients, and weights rounded in one go, teach what autograd and autocast teach."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmark.experiment import Augmentation, Recipe
from benchmark.training import steps
from benchmark.training.gradients import GatheredGradients, Gradients, working_weights_for
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.reading import Reader
from benchmark.training.trainer import TrainingFaces, TrainingState, fit, start
from benchmark.training.working_weights import WorkingWeights
from tests.training.small import (
    CPU,
    a_network,
    an_experiment,
    epochs,
    same_weights,
    some_data,
    some_faces,
)
from tests.training.test_accumulation import SmallMemory

BF16 = torch.bfloat16


def gathered(reader: Reader, trained: Sequence[nn.Parameter]) -> Gradients:
    """Do as on a GPU."""
    return GatheredGradients(trained, working_weights_for(reader))


def trained(
    monkeypatch: pytest.MonkeyPatch | None,
    architecture: str = "cnn",
    *,
    stages: int | str = "all",
    precision: str = "bf16",
    is_cached: bool = False,
    memory: int | None = None,
    **recipe: object,
) -> TrainingState:
    """Train; as on a GPU where there is something to patch with."""
    if monkeypatch is not None:
        monkeypatch.setattr(steps, "gradients_for", gathered)
    experiment = an_experiment(architecture, trained=stages, **recipe)
    device = replace(CPU, precision=precision)
    state = start(a_network(experiment), experiment.recipe, device)
    data, prefix = some_data(some_faces()), None
    if is_cached:
        request = PrefixRequest("the pixels", Augmentation())
        prefix = open_prefix(state.network, data.faces, device, CacheSettings(None), request)
        assert prefix is not None
    if memory is not None:
        state.network.register_forward_pre_hook(SmallMemory(memory))
    faces = TrainingFaces(data.faces, data.train, data.val, prefix)
    epochs(fit(state, faces, experiment, 4, device))
    return state


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("architecture", ["cnn", "squeezenet1_1", "resnet18"])
def test_a_network_ends_in_the_weights_of_autocast_and_autograd(
    monkeypatch: pytest.MonkeyPatch, architecture: str, precision: str
) -> None:
    plain = trained(None, architecture, precision=precision)
    fast = trained(monkeypatch, architecture, precision=precision)
    assert same_weights(plain.network, fast.network)
    assert plain.best_score == fast.best_score


@pytest.mark.parametrize(
    ("architecture", "is_cached"),
    [("cnn", False), ("cnn", True), ("squeezenet1_1", False), ("squeezenet1_1", True),
     ("resnet18", False)],
)  # fmt: skip
def test_so_does_one_trained_from_a_stage_on(
    monkeypatch: pytest.MonkeyPatch, architecture: str, is_cached: bool
) -> None:
    asked = {"stages": 1, "is_cached": is_cached}
    plain = trained(None, architecture, **asked)
    fast = trained(monkeypatch, architecture, **asked)
    assert same_weights(plain.network, fast.network)


@pytest.mark.parametrize("is_cached", [False, True])
def test_so_does_a_head_on_a_frozen_trunk(monkeypatch: pytest.MonkeyPatch, is_cached: bool) -> None:
    plain = trained(None, stages=0, is_cached=is_cached)
    fast = trained(monkeypatch, stages=0, is_cached=is_cached)
    assert same_weights(plain.network, fast.network)


@pytest.mark.parametrize("clipping", ["global", "none"])
def test_so_does_every_way_of_clipping(monkeypatch: pytest.MonkeyPatch, clipping: str) -> None:
    plain = trained(None, clipping=clipping, clip_norm=0.3)
    fast = trained(monkeypatch, clipping=clipping, clip_norm=0.3)
    assert same_weights(plain.network, fast.network)


def test_clipping_is_put_to_the_test_by_gradients_that_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loose = trained(monkeypatch, clip_norm=1e6)
    plain = trained(None, clip_norm=1e-3)
    fast = trained(monkeypatch, clip_norm=1e-3)
    assert same_weights(plain.network, fast.network)
    assert not same_weights(loose.network, fast.network)


def test_pieces_of_a_batch_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    # Autocast rounds each piece's gradients and adds them in float32; copies must not add in bf16.
    divided = trained(None, "squeezenet1_1", memory=4)
    fast = trained(monkeypatch, "squeezenet1_1", memory=4)
    assert divided.speed_report["pieces"] == fast.speed_report["pieces"] == 2
    assert same_weights(divided.network, fast.network)


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))
    gradients = GatheredGradients([unused, used])
    recipe = Recipe(learning_rate=1.0, clip_norm=1.0)
    for _ in range(2):
        gradients.begin()
        (used * torch.tensor([3.0, 0.0, 4.0])).sum().backward()
        gradients.take()
        gradients.finish(recipe)
        assert unused.grad is None
        assert used.grad is not None
        assert used.grad.tolist() == pytest.approx([0.6, 0.0, 0.8], rel=1e-5)


def test_gradients_lie_as_their_parameters_do() -> None:
    # Adam's fused kernel reads both in one go.
    weights = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last).weight
    gradients = GatheredGradients([weights, nn.Parameter(torch.ones(130))])
    gradients.begin()
    (weights * torch.arange(216.0).view(6, 4, 3, 3)).sum().backward()
    gradients.take()
    gradients.finish(Recipe(learning_rate=1.0, clipping="none"))
    assert weights.grad is not None
    assert weights.grad.stride() == weights.stride()
    assert torch.equal(weights.grad.flatten(), torch.arange(216.0))


def test_a_trunk_has_its_own_weights_back_after_an_error() -> None:
    network = a_network(an_experiment("squeezenet1_1", trained="all"))
    before = {name: id(value) for name, value in network.named_parameters()}
    working = WorkingWeights(network, trained_alone=False)
    rounded = set()

    def broken() -> None:
        rounded.update(name for name, value in network.named_parameters() if value.dtype == BF16)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), working.in_place():
        broken()
    assert {name: id(value) for name, value in network.named_parameters()} == before
    assert rounded == {name for name in before if name.startswith("trunk.")}


def test_weights_that_others_read_too_are_left_to_autocast() -> None:
    class Scaled(nn.Module):
        def __init__(self, weight: nn.Parameter) -> None:
            super().__init__()
            self.weight = weight

    network = a_network(an_experiment(trained="all"))
    first = next(item for item in network.trunk.modules() if isinstance(item, nn.Conv2d))
    network.trunk.add_module("other", Scaled(first.weight))
    working = WorkingWeights(network, trained_alone=False)
    assert working.source_of(first.weight) is first.weight


def test_no_frozen_weight_is_copied_where_none_is_read() -> None:
    network = a_network(an_experiment(trained=0))
    with WorkingWeights(network, trained_alone=True).in_place():
        assert {value.dtype for value in network.parameters()} == {torch.float32}
