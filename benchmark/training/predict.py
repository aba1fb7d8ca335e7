"""Logits and class probabilities of faces under a network: the one way they are computed anywhere.

A network's input is a batch of images, or what its frozen part has made of them (prefix_cache).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmark.data.batches import FaceBatches, changed, draw_epoch, is_mirrored, split_into_batches
from benchmark.experiment.definition import Augmentation
from benchmark.models.network import Network
from benchmark.tasks import MISSING, TaskName
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CachedFaces

EVALUATION_BATCH: Final = 256
CPU_BATCH: Final = 32
"""With 256 the maps leave a CPU's caches, and it is half as fast (docs/PERFORMANCE.md)."""

Apply = Callable[[Tensor], dict[TaskName, Tensor]]
"""From a network's input to logits: its `forward` or `suffix`, compiled or not."""
OnFaces = Callable[[int, int], None]
"""Called with how many faces are predicted, and of how many."""


@dataclass(frozen=True)
class Batch:
    """Which faces, and how they are augmented; all of it on the device.

    rows: (n,) int64 of the packed array. draws: per kind of change (n,) in [0, 1).
    """

    rows: Tensor
    draws: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def epoch_batches(
    order: Tensor, augmentation: Augmentation, batch_size: int, generator: torch.Generator
) -> Iterator[Batch]:
    """Cut an epoch's rows into batches, in order, with the augmentation of every face.

    order: (n,) int64, on the device, to which the draws are copied once for the whole epoch.
    """
    parts = split_into_batches(order, batch_size)
    sizes = [len(part) for part in parts]
    drawn = draw_epoch(augmentation, sizes, generator)
    draws = {name: torch.split(it.to(order.device), sizes) for name, it in drawn.items()}
    for number, rows in enumerate(parts):
        yield Batch(rows, {name: pieces[number] for name, pieces in draws.items()})


@dataclass(frozen=True)
class ForwardPass:
    """A network, and the faces that it predicts from their images or from cached activations."""

    network: Network
    faces: FaceBatches
    device: Device
    prefix: CachedFaces | None = None

    @property
    def apply(self) -> Apply:
        """What makes logits of `inputs`."""
        return self.network.__call__ if self.prefix is None else self.network.suffix

    def inputs(self, batch: Batch, augmentation: Augmentation | None = None) -> Tensor:
        """Gather the network's input of a batch, augmented as it drew."""
        if self.prefix is not None:
            mirrored = is_mirrored(batch.draws) if "flip" in batch.draws else None
            return self.prefix.gather(batch.rows, mirrored)
        images = self.faces.images(batch.rows)
        if augmentation is not None and batch.draws:
            images = changed(images, augmentation, batch.draws)
        return images.contiguous(memory_format=self.device.memory_format)

    def features(self, rows: Tensor) -> Tensor:
        """Give what the head of a frozen backbone receives."""
        inputs = self.inputs(Batch(rows))
        with self.device.autocast():
            return inputs if self.prefix is not None else self.network.prefix(inputs)

    def logits(self, rows: Tensor) -> dict[TaskName, Tensor]:
        """Give the logits of faces, (n, classes) per task, at the device's precision."""
        inputs = self.inputs(Batch(rows))
        with self.device.autocast():
            return self.apply(inputs)

    def correct_counts(self, indices: Tensor) -> dict[TaskName, int]:
        """Count correct predictions per task in eval mode, at the training's precision."""
        counts = Counter[TaskName]()
        self.network.eval()
        with torch.inference_mode():
            for rows in torch.split(indices, evaluation_batch(self.faces.device)):
                truths = self.faces.truths(rows)
                for task, values in self.logits(rows).items():
                    counts[task] += int((values.argmax(1) == truths[task]).sum())
        return counts


def evaluation_batch(device: torch.device) -> int:
    return CPU_BATCH if device.type == "cpu" else EVALUATION_BATCH


def probabilities(
    network: Network, faces: FaceBatches, indices: Tensor, prefix: CachedFaces | None = None,
    on_faces: OnFaces | None = None,
) -> dict[TaskName, npt.NDArray[np.float32]]:  # fmt: skip
    """Give per task (n, classes) softmax probabilities, rows in the order of `indices`.

    Computed in full fp32 whatever the training's precision, so that stored predictions do not
    depend on a speed setting. prefix: activations of these faces, if they are float32 and were
    found bit-equal to a live forward pass; others are not used.
    """
    usable = prefix if prefix is not None and prefix.is_exact_fp32 else None
    device = Device(faces.device, "fp32")
    forward = ForwardPass(network, faces, device, usable)
    pieces, n_done = dict[TaskName, list[Tensor]](), 0
    network.eval()
    # The same kernels, chosen by heuristics, compute an epoch's score and the stored predictions.
    with torch.inference_mode(), device.without_cudnn_benchmark():
        for batch in torch.split(indices, evaluation_batch(faces.device)):
            for task, logits in forward.logits(batch).items():
                pieces.setdefault(task, []).append(logits.float().softmax(1).cpu())
            n_done += len(batch)
            if on_faces is not None:
                on_faces(n_done, len(indices))
    return {task: torch.cat(parts).numpy() for task, parts in pieces.items()}


def accuracies(
    network: Network, faces: FaceBatches, indices: Tensor, prefix: CachedFaces | None = None
) -> dict[TaskName, float]:
    """Give per task the accuracy of `probabilities` on the faces that have the task's label."""
    truths = {task: values.cpu().numpy() for task, values in faces.truths(indices).items()}
    predicted = probabilities(network, faces, indices, prefix)
    return {
        task: float((p.argmax(1) == truths[task])[truths[task] != MISSING].mean())
        for task, p in predicted.items()
    }
