"""Class probabilities of faces under a network: the one way they are computed anywhere."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmark.data.batches import FaceBatches
from benchmark.models.network import Network
from benchmark.tasks import TaskName
from benchmark.training.device import Device
from benchmark.training.micro_batching import in_halves
from benchmark.training.prefix_cache import CachedFaces
from benchmark.training.reading import Reader

EVALUATION_BATCH: Final = 256
CPU_BATCH: Final = 32
"""By 256 the maps leave a CPU's caches, and half as many are read (docs/PERFORMANCE.md)."""

OnFaces = Callable[[int, int], None]
"""Is told how many faces were read, and of how many."""


def evaluation_batch(device: torch.device) -> int:
    """Say how many faces are read at once, where nothing is learnt from them."""
    return CPU_BATCH if device.type == "cpu" else EVALUATION_BATCH


def probabilities(
    network: Network,
    faces: FaceBatches,
    indices: Tensor,
    prefix: CachedFaces | None = None,
    on_faces: OnFaces | None = None,
) -> dict[TaskName, npt.NDArray[np.float32]]:
    """Give per task (n, classes) softmax probabilities, rows in the order of `indices`.

    Computed in full fp32 whatever the training's precision, so that stored predictions do not
    depend on a speed setting. prefix: activations of these faces, if they are float32 and were
    found bit-equal to a live forward pass; others are not used.
    """
    usable = prefix if prefix is not None and prefix.is_exact_fp32 else None
    device = Device(faces.device, "fp32")
    reader = Reader(network, faces, device, usable)
    pieces: dict[TaskName, list[Tensor]] = {}
    n_done = 0
    network.eval()
    # No contest: by rule the same kernels compute an epoch's score and what is stored of it.
    with torch.inference_mode(), device.without_contest():
        for batch in torch.split(indices, evaluation_batch(faces.device)):
            for _, answers in in_halves(reader.logits, batch):
                for task, logits in answers.items():
                    pieces.setdefault(task, []).append(logits.float().softmax(1).cpu())
            n_done += len(batch)
            if on_faces is not None:
                on_faces(n_done, len(indices))
    return {task: torch.cat(parts).numpy() for task, parts in pieces.items()}


def accuracies(
    network: Network, faces: FaceBatches, indices: Tensor, prefix: CachedFaces | None = None
) -> dict[TaskName, float]:
    """Give per task the fraction of right answers, of the numbers that `probabilities` stores."""
    truths = {task: values.cpu().numpy() for task, values in faces.truths(indices).items()}
    answers = probabilities(network, faces, indices, prefix)
    return {
        task: float((values.argmax(1) == truths[task]).mean()) for task, values in answers.items()
    }


def correct_counts(reader: Reader, indices: Tensor) -> dict[TaskName, int]:
    """Count right answers per task at the training's precision; read from the device once."""
    totals: dict[TaskName, Tensor] = {}
    reader.network.eval()
    with torch.inference_mode():
        for batch in torch.split(indices, evaluation_batch(reader.faces.device)):
            for rows, answers in in_halves(reader.logits, batch):
                truths = reader.faces.truths(rows)
                for task, values in answers.items():
                    hits = (values.argmax(1) == truths[task]).sum()
                    totals[task] = totals.get(task, torch.zeros_like(hits)) + hits
    return {task: int(total) for task, total in totals.items()}
