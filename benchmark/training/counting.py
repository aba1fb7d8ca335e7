"""Right answers of many faces, epoch after epoch, under the same network."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmark.tasks import TaskName
from benchmark.training.probabilities import correct_counts, evaluation_batch
from benchmark.training.reading import Reader
from benchmark.training.steps import Capture, SpeedSettings, not_recorded


class Counter:
    """Counts as `correct_counts` does; where steps are recorded, so is the reading of a batch.

    A recording has one size: a last batch that is shorter is filled up with faces that do not
    count.
    """

    def __init__(
        self,
        reader: Reader,
        tasks: Sequence[TaskName],
        speed: SpeedSettings,
        capture: Capture | None,
    ) -> None:
        self._reader = reader
        self._speed = speed
        self._capture = capture
        device = reader.device.torch_device
        self._batch = evaluation_batch(device)
        self._rows = torch.zeros(self._batch, dtype=torch.int64, device=device)
        self._counts = torch.zeros(self._batch, dtype=torch.bool, device=device)
        self._hits = {task: torch.zeros((), dtype=torch.int64, device=device) for task in tasks}
        self._replay: Callable[[], None] | None = None

    def correct(self, rows: Tensor) -> dict[TaskName, int]:
        """Count right answers per task at the training's precision; read from the device once."""
        reader = self._reader
        reader.network.eval()
        if self._capture is not None and self._replay is None:
            self._record(rows, self._capture)
        if self._replay is None:
            return correct_counts(reader.network, reader.faces, rows, reader.device, reader.prefix)
        for hits in self._hits.values():
            hits.zero_()
        for batch in torch.split(rows, self._batch):
            self._fill(batch)
            self._replay()
        return {task: int(hits) for task, hits in self._hits.items()}

    def _fill(self, batch: Tensor) -> None:
        self._counts.zero_()
        self._counts[: len(batch)] = True
        self._rows[: len(batch)].copy_(batch)

    def _add(self) -> None:
        with torch.no_grad():
            truths = self._reader.faces.truths(self._rows)
            for task, values in self._reader.logits(self._rows).items():
                right = (values.argmax(1) == truths[task]) & self._counts
                self._hits[task] += right.sum()

    def _record(self, rows: Tensor, capture: Capture) -> None:
        # Whatever else lies in the buffer are rows too: 0, which is a face like any other.
        self._rows.fill_(int(rows[0]))
        try:
            capture.warm_up(self._add)
            self._replay = capture.record(self._add)
        except RuntimeError as error:
            self._capture = None
            self._speed.say(not_recorded("The reading of validation faces", error))
