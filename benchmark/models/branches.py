"""Branches that share nothing but what they read: one after another, or, where a GPU records them,
side by side.

A branch of a head is a chain of kernels of a few microseconds, each on a corner of the GPU. In a
recording every branch may have a stream of its own, and the chains run at once; backward passes
follow on the streams of their forward passes, as autograd does it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmark.tasks import TaskName


def read_by_all(branches: Mapping[TaskName, nn.Module], features: Tensor) -> dict[TaskName, Tensor]:
    """Give what each branch makes of the same features, (n, n_features)."""
    if _is_recorded(features):
        return _side_by_side(branches, features)
    return {task: branch(features) for task, branch in branches.items()}


def _is_recorded(features: Tensor) -> bool:
    # A compiler knows no streams; whether something is recorded is not for it to ask.
    if torch.compiler.is_compiling() or not features.is_cuda:
        return False
    return torch.cuda.is_current_stream_capturing()


def _side_by_side(
    branches: Mapping[TaskName, nn.Module], features: Tensor
) -> dict[TaskName, Tensor]:
    here = torch.cuda.current_stream()
    answers: dict[TaskName, Tensor] = {}
    beside = [torch.cuda.Stream() for _ in branches]  # type: ignore[no-untyped-call]
    for (task, branch), stream in zip(branches.items(), beside, strict=True):
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            answers[task] = branch(features)
        # Memory that two streams read is not to be given away when the first is done with it.
        features.record_stream(stream)
        answers[task].record_stream(here)
    for stream in beside:
        here.wait_stream(stream)
    return answers
