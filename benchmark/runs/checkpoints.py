"""Checkpoints during a run, how often they are written, and final weights.

Writing a VGG16's checkpoint takes longer than an epoch on its cached features: written after each,
that took half of a run (docs/PERFORMANCE.md). So a kill may cost more than the epoch it interrupts:
seconds of work, and of whole epochs never more than a minute's. All load as tensors only.
"""

import io
import json
import pickle
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from safetensors.torch import save

from benchmark.experiment.definition import Experiment
from benchmark.files import canonical_json, replacing, write_text
from benchmark.models.network import Network
from benchmark.runs.plan import Plan, Settings
from benchmark.training.trainer import EpochResult, TrainingState

CHECKPOINT_FILE: Final = "checkpoint.pt"
"""In a run's folder, until the run is done."""
HEADER: Final = b"facebench checkpoint "
"""Followed by the CRC-32 of the rest in eight digits: torch.load accepts a changed tensor."""
SHARE: Final = 0.05
"""Of a run's time, that checkpoints may take at most."""
CHEAP_SECONDS: Final = 0.1
"""A checkpoint that takes less is written after every epoch."""
LOST_SECONDS: Final = 60.0
"""After so long one is written, whatever that takes: so much work a kill may cost."""


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a mid-run checkpoint atomically; a full disk raises OSError like any other write.

    torch.save into a file would answer a full disk with an internal error of its own.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(HEADER + b"%08x\n" % zlib.crc32(content))
        stream.write(content)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a mid-run checkpoint onto the CPU; None where there is none or it is damaged.

    A damaged checkpoint costs the epochs it held, never the run: training starts anew.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if content.startswith(HEADER):
        end = len(HEADER) + 9
        header, content = content[:end], content[end:]
        if header != HEADER + b"%08x\n" % zlib.crc32(content):
            return None
    elif not content.startswith(b"PK"):  # an older facebench wrote what torch.save gives, a zip
        return None
    try:
        checkpoint: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, pickle.UnpicklingError):
        return None
    except zipfile.BadZipFile:
        return None
    return checkpoint


def save_weights(
    path: Path, network: Network, experiment: Experiment, *, faces_px: int | None = None
) -> None:
    """Write a network's tensors with the definition that rebuilds it in the file's header.

    faces_px: side of the faces that it was trained on, which is not the side it works at. The
    header's notes are sorted, which the library does not do: equal weights are equal files.
    """
    state = network.state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    notes = {
        "experiment": canonical_json(experiment.as_dict()),
        "network": canonical_json(network.describe()),
        **({"faces_px": str(faces_px)} if faces_px else {}),
    }
    content = save(tensors, notes)
    # A safetensors file begins with its header's length in 8 bytes, the header padded to 8.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.writelines((len(text).to_bytes(8, "little"), text, memoryview(content)[end:]))


class CheckpointWriter:
    """Writes a run's checkpoint, its history and what is mirrored of it, all of the same epoch."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        history: list[dict[str, Any]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._plan, self._settings, self._history, self._clock = plan, settings, history, clock
        self._cost = 0.0
        self._written_at = clock()
        self._epochs_written = len(history)

    def add(self, state: TrainingState, step: EpochResult) -> None:
        """Take an epoch's result; write a checkpoint, unless the last one is too recent."""
        self._history.append({"epoch": step.epoch + 1, **step.metrics()})
        plan = self._plan
        if self._settings.keep_weights == "all":
            path = plan.folder / f"weights-epoch-{state.epochs_done:03d}.safetensors"
            save_weights(path, state.network, plan.experiment, faces_px=plan.faces.image_px)
        since = self._clock() - self._written_at
        if self._cost < CHEAP_SECONDS or since >= min(self._cost / SHARE, LOST_SECONDS):
            self._write(state)

    def finish(self, state: TrainingState) -> None:
        """Write the end of the training, unless it is written."""
        if len(self._history) > self._epochs_written:
            self._write(state)

    def table(self) -> pd.DataFrame:
        """Give the history, one row per epoch."""
        return pd.DataFrame(self._history)

    def _write(self, state: TrainingState) -> None:
        """Store an epoch: the checkpoint first, since the history can be written from it."""
        folder, begun = self._plan.folder, self._clock()
        save_checkpoint(folder / CHECKPOINT_FILE, state.checkpoint() | {"history": self._history})
        write_text(folder / "history.csv", self.table().to_csv(index=False))
        self._settings.mirror(self._plan.record)
        self._written_at = self._clock()
        self._cost = self._written_at - begun
        self._epochs_written = len(self._history)
