"""How a network reads faces: from pictures, or from what its frozen part has made of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from benchmark.data.batches import FaceBatches, changed, draw_epoch, is_mirrored, split_into_batches
from benchmark.experiment.definition import Augmentation
from benchmark.models.network import Network
from benchmark.tasks import TaskName
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CachedFaces

Apply = Callable[[Tensor], dict[TaskName, Tensor]]
"""From what a batch is made of to logits: a network's `forward` or `suffix`, compiled or not."""


@dataclass(frozen=True)
class Batch:
    """Which faces, and how they are changed; all of it on the device.

    rows: (n,) int64 of the packed array. draws: per kind of change (n,) in [0, 1).
    """

    rows: Tensor
    draws: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Reader:
    """A network and the faces that it reads, live or from the cut on."""

    network: Network
    faces: FaceBatches
    device: Device
    prefix: CachedFaces | None = None

    @property
    def apply(self) -> Apply:
        """What makes logits of `inputs`."""
        return self.network.__call__ if self.prefix is None else self.network.suffix

    def inputs(self, batch: Batch, augmentation: Augmentation) -> Tensor:
        """Gather what the network is given of a batch, changed as it drew."""
        if self.prefix is not None:
            mirrored = is_mirrored(batch.draws) if augmentation.flip else None
            return self.prefix.gather(batch.rows, mirrored)
        images = changed(self.faces.images(batch.rows), augmentation, batch.draws)
        return images.contiguous(memory_format=self.device.memory_format)

    def unchanged(self, rows: Tensor) -> Tensor:
        """Gather what the network is given of faces as they are."""
        if self.prefix is not None:
            return self.prefix.gather(rows)
        return self.faces.images(rows).contiguous(memory_format=self.device.memory_format)

    def features(self, rows: Tensor) -> Tensor:
        """Give what a wholly frozen backbone hands to the head of faces as they are, float32."""
        inputs = self.unchanged(rows)
        if self.prefix is not None:
            return inputs.float()
        with self.device.autocast():
            return self.network.prefix(inputs).float()

    def logits(self, rows: Tensor) -> dict[TaskName, Tensor]:
        """Read faces as they are, at the training's precision: logits (n, classes) per task."""
        inputs = self.unchanged(rows)
        with self.device.autocast():
            return self.apply(inputs)


def epoch_batches(
    order: Tensor, augmentation: Augmentation, batch_size: int, generator: torch.Generator
) -> Iterator[Batch]:
    """Cut an epoch's rows into batches, in order, with all that their faces draw.

    order: (n,) int64, on the device, to which the draws are copied once for the whole epoch.
    """
    sizes = [len(part) for part in split_into_batches(order, batch_size)]
    drawn = draw_epoch(augmentation, sizes, generator)
    draws = {name: values.to(order.device) for name, values in drawn.items()}
    for stop, size in zip(accumulate(sizes), sizes, strict=True):
        here = slice(stop - size, stop)
        yield Batch(order[here], {name: values[here] for name, values in draws.items()})
