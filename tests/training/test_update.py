"""Weights that lie side by side learn what they learn one by one, to the last bit."""

import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmark.experiment import Augmentation, Recipe
from benchmark.models.network import Network
from benchmark.training import losses, steps, update
from benchmark.training.flat_adam import PIECES
from benchmark.training.layout import Layout
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.reading import Reader
from benchmark.training.trainer import TrainingFaces, TrainingState, fit, start
from benchmark.training.update import FlatUpdate, Update
from benchmark.training.working_weights import WorkingWeights
from tests.training import stand_in_kernels as kernels
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
WAYS = {"plain": lambda optimiser, recipe, _reader: Update(optimiser, recipe), "flat": FlatUpdate}


def precise_adamw(
    values: list[torch.Tensor],
    gradients: list[torch.Tensor],
    averages: list[torch.Tensor],
    squares: list[torch.Tensor],
    _largest: list[torch.Tensor],
    steps: list[torch.Tensor],
    *,
    lr: torch.Tensor | float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    **_others: object,
) -> None:
    """Step as torch's kernel does, and round once.

    Its own rounding on a CPU depends on where in a vector a number lies.
    """
    kinds = zip(values, gradients, averages, squares, steps, strict=True)
    for value, gradient, average, square, step in kinds:
        rate, count = float(lr), float(step)
        first = beta1 * average.double() + (1 - beta1) * gradient.double()
        second = beta2 * square.double() + (1 - beta2) * gradient.double() ** 2
        scale = (second / (1 - beta2**count)).sqrt() + eps
        after = (
            value.double() * (1 - rate * weight_decay) - rate / (1 - beta1**count) * first / scale
        )
        for old, new in ((average, first), (square, second), (value, after)):
            old.copy_(new)


@pytest.fixture(autouse=True)
def _precise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both torch's AdamW and ours call this."""
    monkeypatch.setattr(torch, "_fused_adamw_", precise_adamw)


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
        monkeypatch.setattr(steps, "update_for", FlatUpdate)
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
    asked = {"precision": precision, "max_epochs": 1 if architecture == "resnet18" else 2}
    plain = trained(None, architecture, **asked)
    fast = trained(monkeypatch, architecture, **asked)
    assert same_weights(plain.network, fast.network)


@pytest.mark.parametrize(
    ("architecture", "is_cached"),
    [("cnn", False), ("cnn", True), ("squeezenet1_1", False), ("squeezenet1_1", True),
     ("resnet18", False)],
)  # fmt: skip
def test_so_does_one_trained_from_a_stage_on(
    monkeypatch: pytest.MonkeyPatch, architecture: str, is_cached: bool
) -> None:
    asked = {"stages": 1, "is_cached": is_cached}
    if architecture == "resnet18":
        asked["max_epochs"] = 1
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


@pytest.mark.parametrize("architecture", ["mobilenetv4_conv_small", "vit_tiny_patch16_224"])
def test_so_does_one_of_timm_s(monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    # Layers of its own kinds, attention, and parameters that no layer of ours has.
    plain = trained(None, architecture, max_epochs=1)
    fast = trained(monkeypatch, architecture, max_epochs=1)
    assert same_weights(plain.network, fast.network)


@pytest.mark.parametrize("clipping", ["per_variable", "global", "none"])
def test_with_kernels_of_our_own_it_learns_the_same(
    monkeypatch: pytest.MonkeyPatch, clipping: str
) -> None:
    asked = {"trunk_rate_ratio": 0.1, "stage_rate_decay": 0.5, "weight_decay": 0.1}
    asked |= {"clipping": clipping, "clip_norm": 0.3, "precision": "fp32", "adam_epsilon": 1e-2}
    plain = trained(None, "squeezenet1_1", **asked)
    used = []
    for module in (losses, update):
        monkeypatch.setattr(module, "own_kernels", lambda _device: used.append(1) or kernels)
    fast = trained(monkeypatch, "squeezenet1_1", **asked)
    assert len(used) == 2
    for name, value in plain.network.state_dict().items():
        found = fast.network.state_dict()[name]
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6, msg=name)
    for parameter, state in plain.optimiser.state.items():
        assert float(state["step"]) == 12
        assert parameter.grad is not None
    assert {float(state["step"]) for state in fast.optimiser.state.values()} == {12.0}


def test_pieces_of_a_batch_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    # Autocast rounds each piece's gradients and adds them in float32; copies must not add in bf16.
    divided = trained(None, "squeezenet1_1", memory=4)
    fast = trained(monkeypatch, "squeezenet1_1", memory=4)
    assert divided.speed_report["pieces"] == fast.speed_report["pieces"] == 2
    assert same_weights(divided.network, fast.network)


def an_update(*tensors: torch.Tensor, **recipe: object) -> tuple[FlatUpdate, torch.optim.AdamW]:
    """Make the update of some parameters, whatever network is beside it."""
    reader = Reader(a_network(an_experiment(trained=0)), some_faces(), CPU)
    optimiser = torch.optim.AdamW(tensors, lr=0.1, weight_decay=0.5, fused=True)
    return FlatUpdate(optimiser, Recipe(learning_rate=0.1, **recipe), reader), optimiser


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))
    alone = nn.Parameter(torch.ones(3))
    update, _ = an_update(unused, used, clip_norm=1.0)
    other, _ = an_update(alone, clip_norm=1.0)
    for _ in range(3):
        for changed, parameter in ((update, used), (other, alone)):
            changed.begin()
            (parameter * torch.tensor([3.0, 0.0, 4.0])).sum().backward()
            changed.take()
            changed.finish()
        assert unused.tolist() == [[1, 1], [1, 1]]
        assert used.tolist() == alone.tolist() != [1, 1, 1]


def test_a_parameter_that_has_no_gradient_for_once_goes_on_afterwards() -> None:
    def trained_with(kind: str) -> list[list[float]]:
        first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
        update, optimiser = an_update(first, second)
        if kind == "plain":
            update = Update(optimiser, Recipe(learning_rate=0.1))
        for uses_both in (True, False, True, True):
            update.begin()
            loss = first.square().sum() + (second.square().sum() if uses_both else 0)
            loss.backward()
            update.take()
            update.finish()
        return [first.tolist(), second.tolist()]

    assert trained_with("flat") == trained_with("plain")


def test_an_old_gradient_adds_nothing_to_the_norm_of_all() -> None:
    def trained_with(kind: str) -> list[float]:
        first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
        clipped = {"clipping": "global", "clip_norm": 1.0, "adam_epsilon": 1.0}
        taught, optimiser = an_update(first, second, **clipped)
        if kind == "plain":
            taught = Update(optimiser, Recipe(learning_rate=0.1, **clipped))
        for is_large in (True, False):
            taught.begin()
            (first.sum() + (1000 * second.sum() if is_large else 0)).backward()
            taught.take()
            taught.finish()
        return first.tolist()

    assert trained_with("flat") == trained_with("plain")


def test_in_bf16_too_a_gradient_is_learnt_from_once() -> None:
    experiment = an_experiment("squeezenet1_1", trained="all")
    network, faces = a_network(experiment), some_faces()
    device = replace(CPU, precision="bf16")
    optimiser = start(network, experiment.recipe, device).optimiser
    changed = FlatUpdate(optimiser, experiment.recipe, Reader(network, faces, device))
    images = faces.images(torch.arange(4))

    def step(part: str) -> None:
        changed.begin()
        with changed.reading(), device.autocast():
            features = network.features(images)
        if part == "head":
            features = features.detach()
        logits = network.head(features) if part != "trunk" else {"none": features}
        sum(values.square().sum() for values in logits.values()).backward()
        changed.take()
        changed.finish()

    step("both")
    step("trunk")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    step("head")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) is name.startswith("trunk"), name


def test_torch_s_own_kernel_steps_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.manual_seed(3)
    first = [nn.Parameter(torch.randn(shape)) for shape in ((70, 3), (5,), (1000,), ())]
    second = [nn.Parameter(item.detach().clone()) for item in first]
    flat, _ = an_update(*first, clipping="none")
    _, optimiser = an_update(*second)
    plain = Update(optimiser, Recipe(learning_rate=0.1, clipping="none"))
    for number in range(5):
        gradients = [torch.randn(item.shape) for item in first]
        for taught, parameters in ((flat, first), (plain, second)):
            taught.begin()
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient * (number + 1)
            taught.take()
            taught.finish()
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_weights_and_state_lie_as_they_did() -> None:
    weights = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last).weight
    before, strides = weights.detach().clone(), weights.stride()
    _, optimiser = an_update(weights, nn.Parameter(torch.ones(130)))
    assert torch.equal(weights, before)
    assert weights.stride() == optimiser.state[weights]["exp_avg"].stride() == strides


def test_many_parameters_are_stepped_in_few_pieces_and_by_their_own_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[int] = []

    def counted(values: list[torch.Tensor], *others: object, **options: object) -> None:
        starts.append(len(values))
        precise_adamw(values, *others, **options)

    asked = {"stages": "all", "trunk_rate_ratio": 0.1, "stage_rate_decay": 0.5}
    plain = trained(None, "squeezenet1_1", **asked)
    monkeypatch.setattr(torch, "_fused_adamw_", counted)
    fast = trained(monkeypatch, "squeezenet1_1", **asked)
    assert same_weights(plain.network, fast.network)
    assert len({float(group["lr"]) for group in fast.optimiser.param_groups}) > 2
    assert max(starts) == PIECES


def test_training_goes_on_from_a_checkpoint_of_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = an_experiment(trained="all", max_epochs=3)
    whole = trained(None, precision="fp32", max_epochs=3)
    for first, second in (("flat", "flat"), ("flat", "plain"), ("plain", "flat")):
        monkeypatch.setattr(steps, "update_for", WAYS[first])
        stopped = start(a_network(experiment), experiment.recipe, CPU)
        next(fit(stopped, some_data(some_faces()), experiment, 4, CPU))
        kept = io.BytesIO()
        torch.save(stopped.checkpoint(), kept)
        kept.seek(0)
        monkeypatch.setattr(steps, "update_for", WAYS[second])
        resumed = start(a_network(experiment, seed=8), experiment.recipe, CPU)
        resumed.restore(torch.load(kept, weights_only=True))
        epochs(fit(resumed, some_data(some_faces()), experiment, 4, CPU))
        assert same_weights(whole.network, resumed.network), f"{first}, then {second}"


def working_weights_of(network: Network) -> WorkingWeights:
    parameters = [item for item in network.parameters() if item.requires_grad]
    return WorkingWeights(network, parameters, Layout(parameters))


def test_a_trunk_has_its_own_weights_back_after_an_error() -> None:
    network = a_network(an_experiment("squeezenet1_1", trained="all"))
    before = {name: id(value) for name, value in network.named_parameters()}
    working = working_weights_of(network)
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
    second = next(item for item in network.head.modules() if isinstance(item, nn.Linear))
    network.trunk.add_module("other", Scaled(first.weight))
    working = working_weights_of(network)
    for layer in (first, second):
        assert working.source_of(layer.weight) is layer.weight
