"""Class probabilities of faces under a network: the one way they are computed anywhere."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmark.faces.batches import FaceBatches
from benchmark.models.network import Network
from benchmark.tasks import TaskName
from benchmark.training.device import Device

EVALUATION_BATCH = 256


def probabilities(
    network: Network, faces: FaceBatches, indices: Tensor
) -> dict[TaskName, npt.NDArray[np.float32]]:
    """Give per task (n, classes) softmax probabilities, rows in the order of `indices`.

    Computed in full fp32 whatever the training's precision, so that stored predictions do not
    depend on a speed setting.
    """
    pieces: dict[TaskName, list[Tensor]] = {}
    network.eval()
    with torch.inference_mode():
        for batch in torch.split(indices, EVALUATION_BATCH):
            for task, logits in network(faces.images(batch)).items():
                pieces.setdefault(task, []).append(logits.float().softmax(1).cpu())
    return {task: torch.cat(parts).numpy() for task, parts in pieces.items()}


def correct_counts(
    network: Network, faces: FaceBatches, indices: Tensor, device: Device
) -> dict[TaskName, int]:
    """Count right answers per task at the training's precision; read from the device once."""
    totals: dict[TaskName, Tensor] = {}
    network.eval()
    with torch.inference_mode():
        for batch, logits in _logits(network, faces, indices, device):
            truths = faces.truths(batch)
            for task, values in logits.items():
                hits = (values.argmax(1) == truths[task]).sum()
                totals[task] = totals.get(task, torch.zeros_like(hits)) + hits
    return {task: int(total) for task, total in totals.items()}


def _logits(
    network: Network, faces: FaceBatches, indices: Tensor, device: Device
) -> Iterator[tuple[Tensor, dict[TaskName, Tensor]]]:
    for batch in torch.split(indices, EVALUATION_BATCH):
        with device.autocast():
            yield batch, network(faces.images(batch))
