"""Which channel a first layer expects first, where that can be told at all.

A first layer alone does not say: blue and red do much the same in it. But where it is, or was
fine-tuned from, the first layer of weights whose order is known, it is like that layer in one of
the two orders and less so in the other (docs/WEIGHTS.md has the numbers).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.models.preprocessing import Channels

SAME_LAYER_COSINE: Final = 0.9
"""Fine-tuning turns a first layer little; two that were trained apart have a cosine near 0."""
CLEARLY: Final = 2.0
"""How many times larger the angle to the other order must be."""


@dataclass(frozen=True)
class KnownFirstLayer:
    """The first layer of weights that are at hand, and the order that they expect."""

    name: str
    kernel: Tensor
    """(out, 3, height, width)"""
    channels: Channels


def first_kernel(tensors: Mapping[str, Tensor]) -> Tensor:
    """Find the kernel that reads the picture: the first with three inputs, (out, 3, h, w)."""
    return next(tensor for tensor in tensors.values() if tensor.ndim == 4 and tensor.shape[1] == 3)


def told_order(kernel: Tensor, known: KnownFirstLayer) -> Channels | None:
    """Say which order a kernel expects if it is `known` in either order; None if it is neither."""
    if kernel.shape != known.kernel.shape:
        return None
    other: Channels = "BGR" if known.channels == "RGB" else "RGB"
    angles = {
        known.channels: _angle(kernel, known.kernel),
        other: _angle(kernel, known.kernel.flip(1)),
    }
    near, far = sorted(angles, key=lambda order: angles[order])
    is_this = angles[near] <= math.acos(SAME_LAYER_COSINE)
    return near if is_this and angles[far] >= CLEARLY * angles[near] + 1e-6 else None


def _angle(a: Tensor, b: Tensor) -> float:
    """Give the angle between two kernels in radians, 0 to pi."""
    a, b = a.double().flatten(), b.double().flatten()
    cosine = torch.dot(a, b) / (a.norm() * b.norm()).clamp_min(1e-30)
    return math.acos(min(1.0, max(-1.0, float(cosine))))


def check_order(
    tensors: Mapping[str, Tensor], declared: Channels, known: Iterable[KnownFirstLayer], source: str
) -> None:
    """Raise WeightsError where a known first layer shows that the declared order is the wrong one.

    `source` is the file that `tensors` come from.
    """
    kernel = first_kernel(tensors)
    for layer in known:
        told = told_order(kernel, layer)
        if told is not None and told != declared:
            turned = " with red and blue exchanged" if told != layer.channels else ""
            raise WeightsError(
                f"{declared} was declared, but the first layer is that of {layer.name}{turned}, "
                f"and expects {told}",
                allowed=told,
                source=source,
                fix=f"Declare {told}; a file that claims to be published and is not in the order "
                "it was published in is not that file",
            )
