"""Loss, clipping and the rates of stages, by hand-worked numbers."""

import math

import pytest
import torch

from benchmark.experiment.definition import LossWeights, Recipe
from benchmark.tasks import TASKS, TaskName, n_classes
from benchmark.training.steps import TaskLoss, clip_gradients
from benchmark.training.trainer import new_optimiser, set_rate, stage_ratios
from tests.training.small import CPU, a_network, an_experiment, weighted_cross_entropy


def test_tasks_are_weighted_and_a_single_one_counts_one() -> None:
    # Equal logits give ln(classes): 0.4 ln 5 + 0.2 ln 2 + 0.4 ln 5; weights may be whole numbers.
    labels = {task: torch.tensor([0, 1, 0]) for task in TASKS}
    ln5, ln2 = math.log(5), math.log(2)
    cases: list[tuple[tuple[TaskName, ...], LossWeights, float]] = [
        (TASKS, LossWeights(), 0.8 * ln5 + 0.2 * ln2),
        (TASKS, LossWeights(1, 2, 3), 4 * ln5 + 2 * ln2),
        (("gender",), LossWeights(), ln2),
    ]
    for tasks, weights, expected in cases:
        logits = {task: torch.zeros(3, n_classes(task)) for task in tasks}
        found = TaskLoss(tasks, labels, weights)(logits, torch.arange(3))
        assert float(found.loss) == pytest.approx(expected, rel=1e-6), tasks
        assert float(weighted_cross_entropy(logits, labels, weights)) == pytest.approx(expected)


def test_a_missing_label_counts_for_nothing_and_each_labelled_face_alike() -> None:
    # Gender is known of 2 of 4 faces, so that each of them counts double in a task's mean.
    labels = {"gender": torch.tensor([0, -1, 1, -1]), "race": torch.tensor([0, 1, 2, 3])}
    tasks: tuple[TaskName, ...] = ("gender", "race")
    logits = {task: torch.zeros(4, n_classes(task), requires_grad=True) for task in tasks}
    of_all = TaskLoss(tasks, labels, LossWeights())  # type: ignore[arg-type]
    found = of_all(logits, torch.arange(4))
    assert found.loss.item() == pytest.approx(0.2 * math.log(2) + 0.4 * math.log(5), rel=1e-6)
    assert found.hits.tolist() == [1, 1]
    found.loss.backward()  # type: ignore[no-untyped-call]
    gradient = logits["gender"].grad
    assert gradient is not None
    assert gradient.tolist() == [pytest.approx(row) for row in
                                 ([-0.05, 0.05], [0, 0], [0.05, -0.05], [0, 0])]  # fmt: skip
    # Of the two batches of an epoch one has no gender: their mean is the mean of the labelled.
    two = {task: logits[task][:2].detach() for task in tasks}
    halves = [of_all(two, torch.tensor(rows)).loss for rows in ([0, 2], [1, 3])]
    assert float(sum(halves)) / 2 == pytest.approx(found.loss.item(), rel=1e-6)


def test_clipping_bounds_each_tensor_all_together_or_none() -> None:
    # Norms 5 and 0.5 by themselves; 5 together, so that each shrinks by 5.
    cases = {
        "per_variable": ([[3.0, 4.0], [0.3, 0.4]], [1.0, 0.5]),
        "global": ([[3.0, 0.0], [0.0, 4.0]], [0.6, 0.8]),
        "none": ([[30.0, 40.0]], [50.0]),
    }
    for clipping, (gradients, expected) in cases.items():
        tensors = [torch.zeros(2, requires_grad=True) for _ in [*gradients, "without a gradient"]]
        for tensor, gradient in zip(tensors, gradients, strict=False):
            tensor.grad = torch.tensor(gradient)
        recipe = Recipe(learning_rate=1.0, clipping=clipping, clip_norm=1.0)  # type: ignore[arg-type]
        clip_gradients(tensors, recipe)
        norms = [float(tensor.grad.norm()) for tensor in tensors if tensor.grad is not None]
        assert norms == pytest.approx(expected, rel=1e-5), clipping


@pytest.mark.parametrize("tasks", [TASKS, ("age_group", "race"), ("gender",), ("race", "gender")])
def test_all_tasks_at_once_give_loss_and_hits_of_one_after_another(
    tasks: tuple[TaskName, ...],
) -> None:
    torch.manual_seed(1)
    labels = {task: torch.randint(0, n_classes(task), (50,)) for task in TASKS}
    rows = torch.randint(0, 50, (32,))
    weights = LossWeights(age_group=0.5, gender=0.3, race=0.7)
    logits = {task: (20 * torch.randn(32, n_classes(task))).requires_grad_(True) for task in tasks}
    truths = {task: labels[task][rows] for task in tasks}
    expected = weighted_cross_entropy(logits, truths, weights)
    wanted = torch.autograd.grad(expected, list(logits.values()))
    found = TaskLoss(tasks, labels, weights)(logits, rows)
    torch.testing.assert_close(found.loss, expected)
    gradients = torch.autograd.grad(found.loss, list(logits.values()))
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    hits = [int((logits[task].argmax(1) == truths[task]).sum()) for task in tasks]
    assert (found.hits.tolist(), found.n_faces) == (hits, 32)


def test_stages_learn_slower_the_shallower_they_are() -> None:
    experiment = an_experiment(trained=3, trunk_rate_ratio=0.1, stage_rate_decay=0.5)
    network = a_network(experiment)
    # Head 1; block5, the deepest, 0.1; block4 0.1 x 0.5; block3 0.1 x 0.5 x 0.5.
    ratios = stage_ratios(network, experiment.recipe)
    assert ratios == pytest.approx({"block3": 0.025, "block4": 0.05, "block5": 0.1})
    optimiser = new_optimiser(network, experiment.recipe, CPU)
    set_rate(optimiser, 2e-3)
    groups = optimiser.param_groups
    rate_of = {id(item): group["lr"] for group in groups for item in group["params"]}
    named = network.named_parameters()
    rates = {name: rate_of[id(item)] for name, item in named if item.requires_grad}
    assert rates["trunk.stages.block3.conv.weight"] == pytest.approx(5e-5)
    assert rates["trunk.stages.block5.norm.bias"] == pytest.approx(2e-4)
    assert rates["head.gender.hidden.weight"] == pytest.approx(2e-3)
    assert "trunk.stages.block2.conv.weight" not in rates
