"""Loss and clipping by hand-worked numbers."""

import math

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from benchmark.experiment.definition import LossWeights, Recipe
from benchmark.tasks import TASKS, TaskName, n_classes
from benchmark.training.losses import TaskLoss, clip_gradients, weighted_cross_entropy


def test_tasks_are_weighted_by_the_recipe() -> None:
    # Equal logits give ln(classes): 0.4 ln 5 + 0.2 ln 2 + 0.4 ln 5 = 1.42618.
    logits = {
        "age_group": torch.zeros(3, 5),
        "gender": torch.zeros(3, 2),
        "race": torch.zeros(3, 5),
    }
    truths = {task: torch.tensor([0, 1, 0]) for task in logits}
    loss = weighted_cross_entropy(logits, truths, LossWeights())  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(0.8 * math.log(5) + 0.2 * math.log(2), rel=1e-6)


def test_a_single_task_counts_one() -> None:
    loss = weighted_cross_entropy(
        {"gender": torch.zeros(2, 2)}, {"gender": torch.tensor([0, 1])}, LossWeights()
    )
    assert float(loss) == pytest.approx(math.log(2), rel=1e-6)


def test_weights_may_be_whole_numbers() -> None:
    labels = {task: torch.zeros(2, dtype=torch.int64) for task in TASKS}
    logits = {task: torch.zeros(2, n_classes(task)) for task in TASKS}
    answer = TaskLoss(TASKS, labels, LossWeights(1, 2, 3))(logits, torch.arange(2))
    assert float(answer.loss) == pytest.approx(4 * math.log(5) + 2 * math.log(2), rel=1e-6)


def tensors_with_gradients(*gradients: list[float]) -> list[torch.Tensor]:
    tensors = [torch.zeros(len(gradient), requires_grad=True) for gradient in gradients]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = torch.tensor(gradient)
    return tensors


def norms(tensors: list[torch.Tensor]) -> list[float]:
    return [float(tensor.grad.norm()) for tensor in tensors if tensor.grad is not None]


def test_per_variable_clipping_bounds_each_tensor_by_itself() -> None:
    tensors = tensors_with_gradients([3.0, 4.0], [0.3, 0.4])
    clip_gradients(tensors, Recipe(learning_rate=1.0, clipping="per_variable", clip_norm=1.0))
    # Norms 5 and 0.5: the first shrinks to 1, the second is left alone.
    assert norms(tensors) == pytest.approx([1.0, 0.5], rel=1e-5)


def test_global_clipping_bounds_all_tensors_together() -> None:
    tensors = tensors_with_gradients([3.0, 0.0], [0.0, 4.0])
    clip_gradients(tensors, Recipe(learning_rate=1.0, clipping="global", clip_norm=1.0))
    # Together the norm is 5, so that each shrinks by 5.
    assert norms(tensors) == pytest.approx([0.6, 0.8], rel=1e-5)


def test_no_clipping_changes_nothing() -> None:
    tensors = tensors_with_gradients([30.0, 40.0])
    clip_gradients(tensors, Recipe(learning_rate=1.0, clipping="none"))
    assert norms(tensors) == [50.0]


def test_clipping_all_at_once_gives_the_bits_of_clipping_one_after_another() -> None:
    torch.manual_seed(0)
    shapes = ((64, 32, 3, 3), (64,), (5, 128), (1,), ())
    sizes = (1e-4, 1.0, 30.0, 0.5, 7.0)
    tensors = [torch.zeros(shape, requires_grad=True) for shape in (*shapes, (3,))]
    for tensor, shape, size in zip(tensors, shapes, sizes, strict=False):
        tensor.grad = torch.randn(shape) * size  # the last has none
    expected = []
    for tensor in tensors[:-1]:
        alone = tensor.detach().clone().requires_grad_(True)
        assert tensor.grad is not None
        alone.grad = tensor.grad.clone()
        clip_grad_norm_(alone, 1.5)
        expected.append(alone.grad)
    clip_gradients(tensors, Recipe(learning_rate=1.0, clipping="per_variable", clip_norm=1.5))
    for tensor, wanted in zip(tensors, expected, strict=False):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad, wanted)


@pytest.mark.parametrize("tasks", [TASKS, ("age_group", "race"), ("gender",), ("race", "gender")])
def test_all_tasks_at_once_are_lost_and_hit_as_one_after_another(
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
    answer = TaskLoss(tasks, labels, weights)(logits, rows)
    found = torch.autograd.grad(answer.loss, list(logits.values()))
    torch.testing.assert_close(answer.loss, expected)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    hits = [int((logits[task].argmax(1) == truths[task]).sum()) for task in tasks]
    assert answer.hits.tolist() == hits
    assert answer.n_faces == 32
