"""What benchmark.training.kernels computes, in torch: for tests of its callers without Triton.

Each does with its arguments what the kernel does, block by block, in float64.
"""

from typing import Any

import torch
from torch import Tensor

from benchmark.training.layout import ALIGNMENT


def clipping_factors(
    numbers: Tensor, starts: Tensor, limit: float, sums: Tensor, factors: Tensor
) -> None:
    sums.copy_(numbers.double().view(-1, ALIGNMENT).square().sum(1))
    places = starts.tolist()
    assert len(places) == len(factors) + 1
    assert places[-1] == len(sums)
    for tensor, (first, end) in enumerate(zip(places, places[1:], strict=False)):
        norm = float(sums[first:end].double().sum().sqrt())
        factors[tensor] = min(1.0, limit / (norm + 1e-6))


def adamw(
    state: tuple[Tensor, Tensor, Tensor, Tensor],
    owners: Tensor,
    factors: Tensor | None,
    steps: Tensor,
    rate: Tensor,
    group: dict[str, Any],
) -> None:
    values, gradients, averages, squares = state
    assert len(owners) * ALIGNMENT == len(values)
    gradient = gradients.double().view(-1, ALIGNMENT)
    if factors is not None:
        gradient = gradient * factors.double()[owners].unsqueeze(1)
    gradient = gradient.view(-1)
    beta1, beta2 = group["betas"]
    average = beta1 * averages.double() + (1 - beta1) * gradient
    square = beta2 * squares.double() + (1 - beta2) * gradient**2
    count, learning_rate = float(steps), float(rate)
    scale = (square / (1 - beta2**count)).sqrt() + group["eps"]
    value = values.double() * (1 - learning_rate * group["weight_decay"])
    value -= learning_rate / (1 - beta1**count) * average / scale
    for old, new in ((values, value), (averages, average), (squares, square)):
        old.copy_(new)


class Judged:
    """Stands for a function with a gradient of its own; torch finds this one's."""

    @staticmethod
    def apply(
        logits: Tensor, rows: Tensor, truths: Tensor, weights: Tensor, starts: Tensor, widest: int
    ) -> tuple[Tensor, Tensor]:
        places = starts.tolist()
        assert places[-1] == logits.shape[1]
        loss, hits = torch.zeros(()), []
        for task, (first, end) in enumerate(zip(places, places[1:], strict=False)):
            assert end - first <= widest
            mine, truth = logits[:, first:end], truths[rows, task]
            loss = loss + weights[task] * torch.nn.functional.cross_entropy(mine, truth)
            hits.append((mine.argmax(1) == truth).sum())
        return loss, torch.stack(hits)
