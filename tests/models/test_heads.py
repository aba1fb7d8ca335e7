"""Heads have the study's parameters, to the last one, and compute what its notebooks say."""

import pytest
import torch
from torch import Tensor, nn

from benchmark.experiment.parts import Conditioning, Head
from benchmark.models.network import GenderWeighting, build_head, initialise_head
from benchmark.tasks import TASKS, TaskName


def head(conditioning: Conditioning = "none", tasks: tuple[TaskName, ...] = TASKS) -> nn.Module:
    return build_head(Head(tasks=tasks, conditioning=conditioning), 512)


def test_a_gate_is_one_sigmoid_scalar_per_face_and_attention_sums_to_one() -> None:
    embedding = torch.rand(3, 4) + 0.1
    factors = GenderWeighting("gate", 4)(embedding) / embedding
    assert torch.allclose(factors, factors[:, :1].expand(3, 4))
    assert bool(((factors > 0) & (factors < 1)).all())
    weights = GenderWeighting("attention", 4)(embedding) / embedding
    assert weights.sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


@pytest.mark.parametrize(
    ("conditioning", "gender_first"), [("embedding", True), ("gate", False), ("attention", False)]
)
def test_features_and_gender_are_joined_in_the_notebooks_order(
    conditioning: Conditioning, gender_first: bool
) -> None:
    module, features = head(conditioning), torch.randn(1, 512)
    seen: list[Tensor] = []
    branch = module.get_submodule("race")
    branch.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    module(features)
    assert torch.equal(seen[0][:, 128:] if gender_first else seen[0][:, :512], features)


@pytest.mark.parametrize("conditioning", ["embedding", "gate", "attention"])
def test_the_race_loss_reaches_the_gender_branch(conditioning: Conditioning) -> None:
    module = head(conditioning)
    module(torch.randn(3, 512))["race"].sum().backward()
    gradient = module.get_submodule("gender").hidden.weight.grad
    assert gradient is not None
    assert bool(gradient.any())


def test_glorot_is_kerass_dense_default() -> None:
    module = head()
    initialise_head(module, "glorot", seed=0)
    hidden = module.get_submodule("race").hidden
    # Glorot and Bengio 2010: uniform on ± sqrt(6 / (fan-in + fan-out)); std = limit / sqrt(3)
    limit = (6 / (512 + 128)) ** 0.5
    assert hidden.weight.abs().max().item() == pytest.approx(limit, rel=1e-3)
    assert hidden.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.01)
    assert not hidden.bias.any()


def test_torch_initialisation_draws_biases_too() -> None:
    module = head()
    initialise_head(module, "torch", seed=0)
    hidden = module.get_submodule("race").hidden
    # torch's Linear: uniform on ± 1 / sqrt(fan-in)
    assert 0 < hidden.bias.abs().max().item() <= 512**-0.5


def test_a_branch_starts_alike_in_its_counterpart_and_with_every_conditioning() -> None:
    starts = []
    for module in (head(), head(tasks=("gender",)), head("gate"), head("attention")):
        initialise_head(module, "glorot", seed=7)
        starts.append(module.get_submodule("gender").hidden.weight)
    assert all(torch.equal(starts[0], start) for start in starts)
