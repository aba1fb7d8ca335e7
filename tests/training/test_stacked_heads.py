"""Stacked heads say, and learn, what each of them says and learns by itself."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmark.experiment import Head, Recipe
from benchmark.models.heads import build_head
from benchmark.models.initialisation import initialise_head
from benchmark.training.losses import clip_gradients
from benchmark.training.stacked_adam import StackedAdamW
from benchmark.training.stacked_heads import StackedHeads

CPU = torch.device("cpu")
N_FEATURES, N_HEADS = 24, 3
KINDS = [
    Head(hidden_units=16),
    Head(hidden_units=16, conditioning="embedding"),
    Head(hidden_units=16, conditioning="gate"),
    Head(hidden_units=16, conditioning="attention"),
    Head(tasks=("race",), hidden_units=16),
]


def some_heads(definition: Head) -> list[nn.Module]:
    heads = [build_head(definition, N_FEATURES) for _ in range(N_HEADS)]
    for seed, head in enumerate(heads):
        initialise_head(head, "torch", seed)
    return heads


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("definition", KINDS, ids=lambda kind: f"{kind.conditioning}{kind.tasks}")
def test_logits_and_gradients_are_those_of_each_head_by_itself(definition: Head) -> None:
    heads = some_heads(definition)
    stacked = StackedHeads.stacked(heads, definition, CPU)
    features = draw(N_HEADS, 10, N_FEATURES)
    passed = stacked.forward(features)
    errors = {task: torch.randn_like(logits) for task, logits in passed.logits.items()}
    for place, head in enumerate(heads):
        logits = head(features[place])
        assert logits.keys() == passed.logits.keys()
        for task, values in logits.items():
            torch.testing.assert_close(passed.logits[task][place], values)
        total: Tensor = sum((errors[task][place] * logits[task]).sum() for task in logits)
        total.backward()  # type: ignore[no-untyped-call]
    stacked.backward(passed, errors)
    for place, head in enumerate(heads):
        for name, parameter in head.named_parameters():
            expected = parameter.grad
            torch.testing.assert_close(stacked.gradients[name][place], expected, msg=name)


def test_some_of_the_heads_go_on_as_they_were() -> None:
    heads = some_heads(KINDS[0])
    stacked = StackedHeads.stacked(heads, KINDS[0], CPU)
    rest = stacked.only(torch.tensor([2, 0]))
    assert len(rest) == 2
    for name, value in heads[2].state_dict().items():
        assert torch.equal(rest.head(0)[name], value)


RECIPES = [
    Recipe(1e-2, clip_norm=0.5),
    Recipe(3e-2, weight_decay=0.1, adam_epsilon=1e-3, clip_norm=0.01),
    Recipe(1e-3, weight_decay=0.01),
]
"""Rates, decays, epsilons and norms that differ."""


@pytest.mark.parametrize("clipping", ["per_variable", "global", "none"])
@pytest.mark.parametrize("fused", [True, False])
def test_every_head_is_updated_as_torch_would_update_it_alone(clipping: str, fused: bool) -> None:
    """Five steps, the rate changed after three, and one head gone by then."""
    recipes = [replace(recipe, clipping=clipping) for recipe in RECIPES]  # type: ignore[arg-type]
    heads = some_heads(KINDS[2])
    stacked = StackedHeads.stacked(heads, KINDS[2], CPU)
    adam = StackedAdamW(stacked, recipes, fused=fused)
    alone = [
        torch.optim.AdamW(
            head.parameters(), recipe.learning_rate, eps=recipe.adam_epsilon,
            weight_decay=recipe.weight_decay,
        )
        for head, recipe in zip(heads, recipes, strict=True)
    ]  # fmt: skip
    places = [0, 1, 2]
    for epoch, n_steps in enumerate((3, 2)):
        if epoch == 1:
            places = [0, 2]
            stacked = stacked.only(torch.tensor(places))
            adam = adam.only(stacked, torch.tensor(places))
        rates = [recipes[place].learning_rate / (epoch + 1) for place in places]
        adam.begin_epoch(rates, n_steps)
        for step in range(n_steps):
            for row, place in enumerate(places):
                alone[place].param_groups[0]["lr"] = rates[row]
                for number, (name, value) in enumerate(heads[place].named_parameters()):
                    value.grad = draw(*value.shape, seed=100 * step + 10 * epoch + number)
                    stacked.gradients[name][row] = value.grad
                clip_gradients(list(heads[place].parameters()), recipes[place])
                alone[place].step()
            adam.step(torch.tensor([step]))
    for row, place in enumerate(places):
        for name, value in heads[place].state_dict().items():
            torch.testing.assert_close(stacked.head(row)[name], value, msg=name)
