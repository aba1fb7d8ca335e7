"""Batches of faces on the device, by index, and their random augmentation.

Splits and subsets are index arrays into one packed array, never copies of it. Augmentation changes
each face by itself; its random numbers come from a generator on the CPU, so that a seed draws the
same changes on every device.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from benchmark.experiment.definition import Augmentation
from benchmark.tasks import TASKS, TaskName

Draws = Mapping[str, Tensor]
"""Per kind of change, a field of Augmentation, (n,) uniform in [0, 1): what faces drew."""


@dataclass(frozen=True)
class Batch:
    """Which faces, as (n,) int64 rows of the packed array, and what they drew; on the device."""

    rows: Tensor
    draws: Draws = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def epoch_batches(
    order: Tensor, augmentation: Augmentation, batch_size: int, generator: torch.Generator
) -> list[Batch]:
    """Cut an epoch's rows into batches, in order, and draw on the CPU how every face is augmented.

    order: (n,) int64, on the device, to which all draws are copied at once. A last batch of one
    face, on which batch norm cannot train, joins the one before.
    """
    parts = list(torch.split(order, batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    every = ("flip", "rotation_degrees", "contrast", "brightness")
    kinds = [kind for kind in every if getattr(augmentation, kind)]
    sizes = [len(rows) for rows in parts]
    drawn = [{kind: torch.rand(n, generator=generator) for kind in kinds} for n in sizes]
    whole = {kind: torch.cat([draws[kind] for draws in drawn]) for kind in kinds}
    split = {kind: torch.split(it.to(order.device), sizes) for kind, it in whole.items()}
    return [Batch(rows, {kind: split[kind][n] for kind in kinds}) for n, rows in enumerate(parts)]


def changed(images: Tensor, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Change every face by itself: draws of a Batch, on the device of the images.

    images: (n, 3, h, w) uint8, 0..255, in channels-last memory, as `FaceBatches.images` gives
    them. Returns (n, 3, h, w) float32, 0..255, in the same. Flipping comes first, while a pixel is
    still one byte instead of four. Nothing here depends on a value on the host, so that a CUDA
    graph can hold it.
    """
    n = len(images)
    if augmentation.flip:
        as_is, mirrored = in_words(images), in_words(images.flip(-1))
        picked = torch.where(is_mirrored(draws).view(-1, 1), mirrored, as_is).view(torch.uint8)
        _, channels, height, width = images.shape
        images = picked.view(n, height, width, channels).permute(0, 3, 1, 2)
    faces = images.float()
    if augmentation.rotation_degrees:
        limit = math.radians(augmentation.rotation_degrees)
        faces = _rotated(faces, (draws["rotation_degrees"] * 2 - 1) * limit)
    if augmentation.contrast:
        factor = 1 + (draws["contrast"] * 2 - 1) * augmentation.contrast
        mean = faces.mean(dim=(1, 2, 3), keepdim=True)
        faces = (faces - mean) * factor.view(n, 1, 1, 1) + mean
    if augmentation.brightness:
        shift = (draws["brightness"] * 2 - 1) * augmentation.brightness * 255
        faces = faces + shift.view(n, 1, 1, 1)
    changed_range = augmentation.contrast or augmentation.brightness
    return faces.clamp(0, 255) if changed_range else faces


def is_mirrored(draws: Draws) -> Tensor:
    """Tell which faces drew to be mirrored: (n,) bool."""
    return draws["flip"] < 0.5


def in_words(images: Tensor) -> Tensor:
    """View faces as rows of the widest whole numbers that they fill, (n, words): a choice between
    two words takes as long as one between two bytes."""
    rows = images.permute(0, 2, 3, 1).flatten(1)
    words = (torch.int64, torch.int32, torch.int16, torch.uint8)
    return rows.view(next(word for word in words if rows.shape[1] % word.itemsize == 0))


def _rotated(faces: Tensor, radians: Tensor) -> Tensor:
    """Rotate about the centre; corners repeat the border, so that no black wedge gives it away."""
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    rows = [torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)]
    size = [len(faces), *faces.shape[1:]]
    grid = functional.affine_grid(torch.stack(rows, 1), size, align_corners=False)
    return functional.grid_sample(
        faces, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


@dataclass(frozen=True)
class FaceBatches:
    """All faces of a data set on one device.

    pixels: (n, px, px, 3) uint8, RGB. On a GPU a copy, made once; on a CPU, or where a GPU is too
    small, the memory-mapped file itself. labels: per task (n,) int64 classes.
    """

    pixels: Tensor
    labels: dict[TaskName, Tensor]

    @classmethod
    def on_device(
        cls,
        pixels: npt.NDArray[np.uint8],
        table: pd.DataFrame,
        device: torch.device,
        say: Callable[[str], None] | None = None,
    ) -> "FaceBatches":
        """Place the packed array and the labels of its table, row by row.

        Where the device's memory is too small for the pixels they stay in main memory, and `say`
        is called with a sentence.
        """
        labels = {
            task: torch.from_numpy(table[task].to_numpy(np.int64, copy=True)).to(device)
            for task in TASKS
        }
        on_host = torch.from_numpy(pixels)
        try:
            return cls(on_host.to(device), labels)
        except torch.OutOfMemoryError:
            if say is not None:
                gib = on_host.numel() / 2**30
                say(f"The faces take {gib:.2f} GiB, which the device has not: batches are copied")
            return cls(on_host, labels)

    @property
    def device(self) -> torch.device:
        """Where batches are put; the labels are there too."""
        return next(iter(self.labels.values())).device

    def images(self, indices: Tensor) -> Tensor:
        """Gather faces: (n, 3, px, px) uint8 in channels-last memory, which costs no transpose."""
        return gathered(self.pixels, indices, self.device).permute(0, 3, 1, 2)

    def truths(self, indices: Tensor) -> dict[TaskName, Tensor]:
        """Gather the labels of the same faces: per task (n,) int64."""
        return {task: values.index_select(0, indices) for task, values in self.labels.items()}


def gathered(rows: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    """Pick rows and put them on the device, whether they lie there or in main memory."""
    # By type: `cuda` and `cuda:0` are unequal, and are the same place.
    if rows.device.type == device.type:
        return rows.index_select(0, indices)
    picked = rows.index_select(0, indices.to(rows.device))
    # From pinned memory the copy runs beside the device's work.
    return picked.pin_memory().to(device, non_blocking=True)


def random_order(n: int, *, seed: int, epoch: int) -> Tensor:
    """Give the order of `n` training faces in `epoch`: (n,) int64 on the CPU; by the arguments
    alone, so that a resumed run sees the batches it would have seen."""
    return torch.randperm(n, generator=generator_for(seed, epoch, purpose=0))


def random_passes(n: int, n_wanted: int, *, seed: int, epoch: int) -> Tensor:
    """Give `n_wanted` training faces of `n` for one epoch: (n_wanted,) int64 on the CPU.

    Epochs continue where the one before ended, through one random order of all faces after another,
    so that networks of few and of many faces take equally many steps.
    """
    first = epoch * n_wanted
    passes = range(first // n, -(-(first + n_wanted) // n))
    orders = torch.cat([random_order(n, seed=seed, epoch=number) for number in passes])
    start = first - passes.start * n
    return orders[start : start + n_wanted]


def generator_for(seed: int, epoch: int, *, purpose: int) -> torch.Generator:
    """Make a CPU generator for one epoch; `purpose` keeps streams of one epoch apart."""
    state = np.random.SeedSequence([seed, epoch, purpose]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))
