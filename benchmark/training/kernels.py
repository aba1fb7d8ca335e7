"""Kernels of our own for a GPU: what a step does between its backward pass and the next step.

In Triton, which comes with torch for CUDA; `own_kernels` imports this file where it works. A step
of a head on cached features is bound by how many kernels it has, and by nothing else: here the
losses of all tasks are one, clipping two, and Adam one. What each computes stands in torch beside
its caller, for where there is no Triton; tests compare the two.
"""

import math
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmark.training.layout import ALIGNMENT

FACES: Final = 32
"""Faces that the loss reads at once; more are read one such lot after another."""
SEGMENTS: Final = 1024
"""Blocks of one tensor whose sums are read at once."""
KNOWN: Final = (0.5, math.log(2), 0.95)
"""What `try_out` is to find: a clipping factor, a loss, and one of Adam's averages."""


@triton.jit
def _sums_of_squares(numbers, sums, BLOCK: tl.constexpr):
    block = tl.program_id(0).to(tl.int64)
    values = tl.load(numbers + block * BLOCK + tl.arange(0, BLOCK))
    tl.store(sums + block, tl.sum(values * values))


@triton.jit
def _factors(sums, starts, factors, limit, AT_ONCE: tl.constexpr):
    tensor = tl.program_id(0)
    first = tl.load(starts + tensor)
    end = tl.load(starts + tensor + 1)
    total = tl.zeros([AT_ONCE], tl.float32)
    for start in range(first, end, AT_ONCE):
        at = start + tl.arange(0, AT_ONCE)
        total += tl.load(sums + at, mask=at < end, other=0.0)
    factor = limit / (tl.sqrt(tl.sum(total)) + 1e-6)
    tl.store(factors + tensor, tl.minimum(factor, 1.0, propagate_nan=tl.PropagateNan.ALL))


def clipping_factors(
    numbers: Tensor, starts: Tensor, limit: float, sums: Tensor, factors: Tensor
) -> None:
    """Give the factor, at most 1, that bounds each tensor's norm by `limit`.

    numbers: a buffer of gradients, (blocks * ALIGNMENT,) float32. starts: (tensors + 1,) int64, the
    first block of each and the end of the last. sums, (blocks,) and factors, (tensors,) float32,
    are written.
    """
    _sums_of_squares[(len(sums),)](numbers, sums, BLOCK=ALIGNMENT)
    _factors[(len(factors),)](sums, starts, factors, limit, AT_ONCE=SEGMENTS)


@triton.jit
def _adamw(
    values,
    gradients,
    averages,
    squares,
    owners,
    factors,
    steps,
    rate,
    weight_decay,
    fresh1,
    beta2,
    fresh2,
    epsilon,
    LOG2_BETA1: tl.constexpr,
    LOG2_BETA2: tl.constexpr,
    IS_CLIPPED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    gradient = tl.load(gradients + at)
    if IS_CLIPPED:
        gradient *= tl.load(factors + tl.load(owners + block))
    learning_rate = tl.load(rate)
    # In float64, and `fresh` worked out before: 1 - 0.999 has lost four digits in float32.
    count = tl.load(steps).to(tl.float64)
    left1 = 1 - tl.exp2(count * tl.full([], LOG2_BETA1, tl.float64))
    left2 = 1 - tl.exp2(count * tl.full([], LOG2_BETA2, tl.float64))
    average = tl.load(averages + at)
    average += fresh1 * (gradient - average)
    square = beta2 * tl.load(squares + at) + fresh2 * gradient * gradient
    value = tl.load(values + at)
    value -= learning_rate * weight_decay * value
    scale = tl.sqrt(square) / tl.sqrt(left2).to(tl.float32) + epsilon
    value -= learning_rate / left1.to(tl.float32) * average / scale
    tl.store(averages + at, average)
    tl.store(squares + at, square)
    tl.store(values + at, value)


def adamw(
    state: tuple[Tensor, Tensor, Tensor, Tensor],
    owners: Tensor,
    factors: Tensor | None,
    steps: Tensor,
    rate: Tensor,
    group: dict[str, Any],
) -> None:
    """Update a buffer's part as torch's AdamW does, the gradients scaled by their factor first.

    state: values, gradients, averages, squares, (blocks * ALIGNMENT,) float32 each. owners:
    (blocks,) int64, of each block the place of its factor; factors None: nothing is scaled. steps:
    a scalar, how often it is with this one. rate: a scalar on the device.
    """
    betas = group["betas"]
    _adamw[(len(state[0]) // ALIGNMENT,)](
        *state,
        owners,
        steps if factors is None else factors,
        steps,
        rate,
        group["weight_decay"],
        1 - betas[0],
        betas[1],
        1 - betas[1],
        group["eps"],
        LOG2_BETA1=math.log2(betas[0]),
        LOG2_BETA2=math.log2(betas[1]),
        IS_CLIPPED=factors is not None,
        BLOCK=ALIGNMENT,
    )


@triton.jit
def _judge(
    logits,
    rows,
    truths,
    weights,
    starts,
    loss,
    hits,
    slopes,
    n,
    per_face,
    n_tasks,
    FACES: tl.constexpr,
    TASKS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    task = tl.arange(0, TASKS)
    is_task = task < n_tasks
    first = tl.load(starts + task, mask=is_task, other=0)
    size = tl.load(starts + task + 1, mask=is_task, other=0) - first
    weight = tl.load(weights + task, mask=is_task, other=0.0)
    class_ = tl.arange(0, CLASSES)
    is_class = class_[None, None, :] < size[None, :, None]
    right = tl.zeros([TASKS], tl.int64)
    total = tl.zeros([TASKS], tl.float32)
    for start in range(0, n, FACES):
        face = start + tl.arange(0, FACES)
        is_face = face < n
        row = tl.load(rows + face, mask=is_face, other=0)
        is_asked = is_face[:, None] & is_task[None, :]
        is_there = is_face[:, None, None] & is_class
        at = face[:, None, None] * per_face + first[None, :, None] + class_[None, None, :]
        logit = tl.load(logits + at, mask=is_there, other=-float("inf"))
        # Tasks and faces that are padding have no logit at all: 0 stands for their greatest.
        greatest = tl.where(is_asked, tl.max(logit, axis=2), 0.0)
        share = tl.exp(logit - greatest[:, :, None])
        whole = tl.where(is_asked, tl.sum(share, axis=2), 1.0)
        truth = tl.load(truths + row[:, None] * n_tasks + task[None, :], mask=is_asked, other=-1)
        is_truth = class_[None, None, :] == truth[:, :, None]
        of_truth = tl.sum(tl.where(is_truth & is_there, logit, 0.0), axis=2)
        told = of_truth - greatest - tl.log(whole)
        total += tl.sum(tl.where(is_asked, told, 0.0), axis=0)
        said = tl.argmax(logit, axis=2)
        is_right = (said == truth) & is_asked
        right += tl.sum(is_right.to(tl.int64), axis=0)
        slope = share / whole[:, :, None] - is_truth.to(tl.float32)
        slope *= (weight / n)[None, :, None]
        tl.store(slopes + at, slope, mask=is_there)
    tl.store(hits + task, right, mask=is_task)
    tl.store(loss, -tl.sum(total * weight) / n)


class Judged(torch.autograd.Function):
    """The weighted cross-entropy of all tasks, and the right answers; one kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        rows: Tensor,
        truths: Tensor,
        weights: Tensor,
        starts: Tensor,
        widest: int,
    ) -> tuple[Tensor, Tensor]:
        """Give the loss, a scalar, and hits, (tasks,) int64.

        logits: (n, classes of all tasks) float32, contiguous. rows: (n,) int64 in `truths`,
        (n_faces, tasks) int64. weights: (tasks,) float32. starts: (tasks + 1,) int64, the first
        column of each task and the end of the last. widest: the most classes that a task has.
        """
        n_tasks = len(weights)
        slopes = torch.empty_like(logits)
        loss = logits.new_empty(())
        hits = rows.new_empty(n_tasks)
        _judge[(1,)](
            logits,
            rows,
            truths,
            weights,
            starts,
            loss,
            hits,
            slopes,
            logits.shape[0],
            logits.shape[1],
            n_tasks,
            FACES=FACES,
            TASKS=triton.next_power_of_2(n_tasks),
            CLASSES=triton.next_power_of_2(widest),
        )
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(hits)
        return loss, hits

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor, _of_hits: Tensor) -> Any:
        """Scale what the forward pass has worked out already."""
        (slopes,) = ctx.saved_tensors
        return slopes * of_loss, None, None, None, None, None


def try_out(device: torch.device) -> None:
    """Start every kernel once, with numbers that are known.

    Raise RuntimeError where one cannot be compiled or computes something else: all are compiled
    when they are first started, each for the GPU that is there.
    """
    state = [torch.ones(ALIGNMENT, device=device) for _ in range(4)]
    starts = torch.tensor([0, 1], device=device)
    sums, factors, one = (torch.ones(1, device=device) for _ in range(3))
    group = {"weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-7}
    logits, rows = torch.zeros(1, 2, device=device), starts[:1]
    try:
        clipping_factors(state[1], starts, 16.0, sums, factors)
        adamw((state[0], state[1], state[2], state[3]), rows, factors, one[0], one[0], group)
        loss, _ = Judged.apply(logits, rows, rows.view(1, 1), one, 2 * starts, 2)
        found = [float(factors), float(loss), float(state[2][0])]
    except triton.TritonError as error:
        raise RuntimeError(str(error)) from error
    # The norm of 1,024 ones is 32; two equal logits; an average of ones, and a tenth of a half.
    if not all(abs(number - known) < 1e-4 for number, known in zip(found, KNOWN, strict=True)):
        raise RuntimeError(f"its kernels compute {found}, and not {list(KNOWN)}")
