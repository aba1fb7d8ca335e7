"""Faces and labels where the network is: the packed array on the device, batches by index.

Splits and subsets are index arrays into one array, never copies of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from benchmark.tasks import TASKS, TaskName


@dataclass(frozen=True)
class FaceBatches:
    """All faces of a data set on one device.

    pixels: (n, px, px, 3) uint8, RGB. On a GPU a copy, made once; on a CPU the memory-mapped
    file itself, so that only the faces in use take memory; so too where a GPU has no room.
    labels: per task (n,) int64 classes.
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
        """Place the packed array and the labels of its table, whose rows belong together.

        Where the device's memory is too small for the pixels they stay in main memory, and `say`
        is told.
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
    """Give the order of `n` training faces in `epoch`: (n,) int64 on the CPU.

    Depends on nothing but the arguments, so that a resumed run sees the batches it would have
    seen.
    """
    return torch.randperm(n, generator=generator_for(seed, epoch, purpose=0))


def random_passes(n: int, n_wanted: int, *, seed: int, epoch: int) -> Tensor:
    """Give `n_wanted` training faces of `n` for one epoch: (n_wanted,) int64 on the CPU.

    Epochs go on where the one before ended, through one random order of all faces after another,
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


def split_into_batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """Cut an order into batches; a last batch of one face joins the one before.

    Batch norm cannot train on a single value per channel.
    """
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
