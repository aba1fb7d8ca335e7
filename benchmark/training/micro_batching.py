"""A batch that the device has no memory for, in pieces whose gradients add up to the same step.

How a step is computed is for benchmark.training.steps; when there is no way, it fails clearly.
"""

import gc
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from benchmark.errors import DeviceError
from benchmark.training.device import is_out_of_memory
from benchmark.training.reading import Apply, Batch

if TYPE_CHECKING:
    from benchmark.training.steps import TrainStep

Read = TypeVar("Read")


class PatientStep:
    """Trains on a batch whole, or after the device ran out of memory in ever smaller pieces.

    A piece counts by its share of the batch, so that the gradients add up to those of the whole
    batch, but for rounding. Where layers make a face's answer depend on the others of its batch, or
    draw at random, pieces would be another training: that is refused.
    """

    def __init__(
        self, step: "TrainStep", say: Callable[[str], None], report: dict[str, Any]
    ) -> None:
        self._step, self._say, self._report = step, say, report
        self._n_pieces = 1

    def __call__(self, batch: Batch, apply: Apply | None = None) -> None:
        """Train on a batch; raise DeviceError where even single faces, or no pieces, would do."""
        while not self._trained(batch, apply):
            # Here, and not where the error was caught: its frames held the batch's activations.
            self._step.begin()
            gc.collect()
            if self._step.reader.device.kind == "cuda":
                torch.cuda.empty_cache()

    def _trained(self, batch: Batch, apply: Apply | None) -> bool:
        if apply is None or self._n_pieces > 1:
            apply = self._step.reader.apply  # what was compiled, was for whole batches
        try:
            self._step.begin()
            answers = [
                self._step.backward(piece, apply, share=len(piece) / len(batch))
                for piece in _pieces(batch, self._n_pieces)
            ]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._divide(len(batch), error)
            return False
        self._step.update(answers)
        return True

    def _divide(self, n_faces: int, error: RuntimeError) -> None:
        reason = why_whole(self._step.reader.network)
        if reason is None and self._n_pieces >= n_faces:
            reason = "not even a single face fits"
        if reason is not None:
            raise DeviceError(
                f"the device's memory does not suffice for a batch of {n_faces} faces, and "
                f"{reason}",
                fix="Lower recipe.batch_size or backbone.input_px, free its memory, or take "
                "--device cpu",
            ) from error
        self._n_pieces = min(2 * self._n_pieces, n_faces)
        self._report["pieces"] = self._n_pieces
        self._say(
            f"The device has no memory for a batch of {n_faces} faces at once: it goes through in "
            f"{self._n_pieces} pieces whose gradients add up, which is the same step"
        )


def _pieces(batch: Batch, n_pieces: int) -> Iterator[Batch]:
    if n_pieces == 1:
        yield batch
        return
    size = math.ceil(len(batch) / n_pieces)
    for start in range(0, len(batch), size):
        here = slice(start, start + size)
        draws = {name: values[here] for name, values in batch.draws.items()}
        yield Batch(batch.rows[here], draws)


def why_whole(network: nn.Module) -> str | None:
    """Say why a network must see a batch as a whole; None where each face is read by itself."""
    for module in network.modules():
        if not module.training:
            continue
        if isinstance(module, _BatchNorm):
            return "a trained batch normalisation must see it as a whole"
        if isinstance(module, _DropoutNd) and module.p > 0:
            return "dropout would draw otherwise in pieces"
        if getattr(module, "drop_prob", 0):  # timm's stochastic depth
            return "stochastic depth would draw otherwise in pieces"
    return None


def in_halves(read: Callable[[Tensor], Read], rows: Tensor) -> Iterator[tuple[Tensor, Read]]:
    """Read rows at once, or by halves where the memory does not suffice; yield rows and answers.

    For networks in eval mode, which read each face by itself.
    """
    try:
        answer = read(rows)
    except RuntimeError as error:
        if len(rows) == 1 or not is_out_of_memory(error):
            raise
    else:
        yield rows, answer
        return
    half = len(rows) // 2
    yield from in_halves(read, rows[:half])
    yield from in_halves(read, rows[half:])
