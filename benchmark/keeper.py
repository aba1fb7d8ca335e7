"""Where a run has got to, kept in its folder as often as that is worth its time.

Keeping a VGG16 takes longer than an epoch on its cached features: kept after each, that took half
of a run (docs/PERFORMANCE.md). So a kill may cost more than the epoch it interrupts: seconds of
work, and of whole epochs never more than a minute's.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import pandas as pd

from benchmark.checkpoints import CHECKPOINT_FILE, save_checkpoint, save_weights
from benchmark.files import write_text
from benchmark.plans import Plan, Settings
from benchmark.training.trainer import EpochResult, TrainingState

SHARE: Final = 0.05
"""Of a run's time, that keeping may take at most."""
CHEAP_SECONDS: Final = 0.1
"""Keeping that takes less is done after every epoch."""
LOST_SECONDS: Final = 60.0
"""After so long what there is is kept, whatever that takes: so much work a kill may cost."""


class Keeper:
    """Keeps a run's checkpoint, its history and what is mirrored of it, all of the same epoch."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        history: list[dict[str, Any]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._plan, self._settings, self._history = plan, settings, history
        self._clock = clock
        self._cost = 0.0
        self._kept_at = clock()
        self._epochs_kept = len(history)

    def add(self, state: TrainingState, step: EpochResult) -> None:
        """Take in an epoch's result; keep what there is, unless it was kept only just now."""
        self._history.append({"epoch": step.epoch + 1, **step.metrics()})
        if self._settings.keep_weights == "all":
            name = f"weights-epoch-{state.epochs_done:03d}.safetensors"
            px = self._plan.faces.image_px
            save_weights(
                self._plan.folder / name, state.network, self._plan.experiment, faces_px=px
            )
        since = self._clock() - self._kept_at
        if self._cost < CHEAP_SECONDS or since >= min(self._cost / SHARE, LOST_SECONDS):
            self._keep(state)

    def finish(self, state: TrainingState) -> None:
        """Keep the end of the training, if that is not what was kept last."""
        if len(self._history) > self._epochs_kept:
            self._keep(state)

    def table(self) -> pd.DataFrame:
        """Give the history of all epochs."""
        return pd.DataFrame(self._history)

    def _keep(self, state: TrainingState) -> None:
        """Store an epoch: the checkpoint first, since the history can be written from it."""
        folder, begun = self._plan.folder, self._clock()
        save_checkpoint(folder / CHECKPOINT_FILE, state.checkpoint() | {"history": self._history})
        write_text(folder / "history.csv", self.table().to_csv(index=False))
        self._settings.mirror(self._plan.record)
        self._kept_at = self._clock()
        self._cost = self._kept_at - begun
        self._epochs_kept = len(self._history)
