"""Our own kernels compute what torch's do.

They need Triton, and a GPU; or Triton alone and TRITON_INTERPRET=1, which goes through them on a
CPU, line by line: so does a test of `test_own_kernels` where there is no GPU.
"""

import importlib.util
import os
from types import ModuleType

import pytest
import torch
from torch import nn

from benchmark.experiment import LossWeights, Recipe
from benchmark.faces.batches import FaceBatches
from benchmark.tasks import TASKS, TaskName, n_classes
from benchmark.training import losses, steps, update
from benchmark.training.device import Device
from benchmark.training.losses import TaskLoss, weighted_cross_entropy
from benchmark.training.own_kernels import own_kernels
from benchmark.training.reading import Reader
from benchmark.training.steps import SpeedSettings
from benchmark.training.trainer import TrainingFaces, fit, start
from benchmark.training.update import FlatUpdate, Update
from tests.training.small import CPU, a_network, an_experiment, epochs, some_faces
from tests.training.test_update import precise_adamw

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")
# More blocks than the kernel of factors sums at once; line by line a million numbers take minutes.
LARGE, SEGMENTS = ((60, 1000), 16) if IS_INTERPRETED else ((1100, 1000), 1024)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None
        or not (IS_INTERPRETED or torch.cuda.is_available()),
        reason="needs Triton, and a CUDA device or TRITON_INTERPRET=1",
    ),
]


@pytest.fixture
def kernels() -> ModuleType:
    return importlib.import_module("benchmark.training.kernels")


def test_where_there_is_a_gpu_they_are_used() -> None:
    if IS_INTERPRETED:
        pytest.skip("needs a CUDA device")
    assert own_kernels(DEVICE) is not None
    assert own_kernels(torch.device("cpu")) is None


def test_trying_them_out_finds_what_is_known(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels.try_out(DEVICE)
    monkeypatch.setattr(kernels, "KNOWN", (0.5, 0.5, 0.95))
    with pytest.raises(RuntimeError, match=r"compute \[0.5, 0.69.*and not \[0.5, 0.5, 0.95\]"):
        kernels.try_out(DEVICE)


@pytest.mark.parametrize("n", [1, 32, 45, 100])
@pytest.mark.parametrize("tasks", [TASKS, ("age_group", "race"), ("gender",), ("race", "gender")])
def test_losses_and_hits(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, tasks: tuple[TaskName, ...], n: int
) -> None:
    monkeypatch.setattr(losses, "own_kernels", lambda _device: kernels)
    torch.manual_seed(n)
    labels = {task: torch.randint(0, n_classes(task), (50,), device=DEVICE) for task in TASKS}
    rows = torch.randint(0, 50, (n,), device=DEVICE)
    weights = LossWeights(age_group=0.5, gender=0.3, race=0.7)
    logits = {
        task: (20 * torch.randn(n, n_classes(task), device=DEVICE)).requires_grad_(True)
        for task in tasks
    }
    truths = {task: labels[task][rows] for task in tasks}
    expected = weighted_cross_entropy(logits, truths, weights)
    wanted = torch.autograd.grad(2 * expected, list(logits.values()))
    answer = TaskLoss(tasks, labels, weights)(logits, rows)
    found = torch.autograd.grad(2 * answer.loss, list(logits.values()))
    torch.testing.assert_close(answer.loss, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    hits = [int((logits[task].argmax(1) == truths[task]).sum()) for task in tasks]
    assert answer.hits.tolist() == hits


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("class_", [0, 1])
def test_a_logit_that_is_no_number_makes_a_loss_that_is_none(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, bad: float, class_: int
) -> None:
    monkeypatch.setattr(losses, "own_kernels", lambda _device: kernels)
    labels = {task: torch.zeros(4, dtype=torch.int64, device=DEVICE) for task in TASKS}
    logits = {task: torch.zeros(4, n_classes(task), device=DEVICE) for task in TASKS}
    logits["race"][2, class_] = bad
    answer = TaskLoss(TASKS, labels, LossWeights())(logits, torch.arange(4, device=DEVICE))
    assert not bool(answer.loss.isfinite())


@pytest.mark.parametrize("clipping", ["per_variable", "global", "none"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_clipped_steps(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, clipping: str, weight_decay: float
) -> None:
    monkeypatch.setattr(update, "own_kernels", lambda _device: kernels)
    monkeypatch.setattr(kernels, "SEGMENTS", SEGMENTS)
    # Held to the formulas: torch's kernel for CUDA has 1 - 0.999 from float32, and its norm of a
    # million numbers on a CPU is off by 1 in 100,000.
    monkeypatch.setattr(torch, "_fused_adamw_", precise_adamw)
    monkeypatch.setattr(
        torch, "_foreach_norm", lambda items: [item.double().norm().float() for item in items]
    )
    recipe = Recipe(learning_rate=0.1, clipping=clipping, clip_norm=3.0)  # type: ignore[arg-type]
    reader = Reader(a_network(an_experiment(trained=0)), some_faces(), CPU)
    torch.manual_seed(3)
    shapes = ((70, 30), (5,), (1025,), (), LARGE)
    first = [nn.Parameter(torch.randn(shape, device=DEVICE)) for shape in shapes]
    second = [nn.Parameter(item.detach().clone()) for item in first]
    optimisers = []
    for parameters in (first, second):
        groups = [
            {"params": parameters[:2], "lr": torch.tensor(0.1, device=DEVICE)},
            {"params": parameters[2:], "lr": torch.tensor(0.02, device=DEVICE)},
        ]
        optimisers.append(
            torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True, eps=1e-7)
        )
    ours, plain = FlatUpdate(optimisers[0], recipe, reader), Update(optimisers[1], recipe)
    for number in range(4):
        gradients = [torch.randn(shape, device=DEVICE) * (number + 0.5) for shape in shapes]
        for taught, parameters in ((ours, first), (plain, second)):
            taught.begin()
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            taught.take()
            taught.finish()
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        for name, value in optimisers[1].state[other].items():
            mine = optimisers[0].state[one][name]
            # Averages of both signs cancel; squares cannot.
            atol = 0.0 if name == "exp_avg_sq" else 1e-6
            torch.testing.assert_close(mine, value, rtol=2e-6, atol=atol)


def test_a_training_with_them_ends_as_one_without(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where gradients are mere rounding, Adam with a small epsilon makes whole steps of it.
    n_epochs = 1 if IS_INTERPRETED else 2
    experiment = an_experiment(
        trained=1, max_epochs=n_epochs, learning_rate=1e-2, clip_norm=0.1, adam_epsilon=1e-2
    )
    device = Device(DEVICE, "fp32", exact=True)
    on_host = some_faces()
    labels = {task: values.to(DEVICE) for task, values in on_host.labels.items()}
    faces = FaceBatches(on_host.pixels.to(DEVICE), labels)
    data = TrainingFaces(faces, torch.arange(43).to(DEVICE), torch.arange(43, 64).to(DEVICE))
    found, losses_found = [], []
    for ours in (False, True):
        taken = kernels if ours else None
        monkeypatch.setattr(losses, "own_kernels", lambda _device, taken=taken: taken)
        monkeypatch.setattr(update, "own_kernels", lambda _device, taken=taken: taken)
        monkeypatch.setattr(steps, "update_for", FlatUpdate if ours else plainly)
        with device.arithmetic():
            state = start(a_network(experiment), experiment.recipe, device)
            speed = SpeedSettings(graph=False)
            results = epochs(fit(state, data, experiment, 4, device, speed))
        found.append(state.network.state_dict())
        losses_found.append([result.train_loss for result in results])
    assert losses_found[1] == pytest.approx(losses_found[0], rel=1e-4)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-6)


def plainly(optimiser: torch.optim.Optimizer, recipe: Recipe, _reader: Reader) -> Update:
    return Update(optimiser, recipe)


def test_a_gradient_that_is_no_number_spoils_its_tensor(kernels: ModuleType) -> None:
    numbers = torch.ones(2048, device=DEVICE)
    numbers[1500] = float("nan")
    starts = torch.tensor([0, 1, 2], device=DEVICE)
    sums, factors = torch.zeros(2, device=DEVICE), torch.zeros(2, device=DEVICE)
    kernels.clipping_factors(numbers, starts, 16.0, sums, factors)
    assert float(factors[0]) == pytest.approx(0.5)
    assert bool(factors[1].isnan())
