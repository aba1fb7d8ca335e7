"""Checkpoints during a run, how often they are written, and final weights.

Where a run has got to, kept in its folder as often as that is worth its time.

Keeping a VGG16 takes longer than an epoch on its cached features: kept after each, that took half
of a run (docs/PERFORMANCE.md). So a kill may cost more than the epoch it interrupts: seconds of
work, and of whole epochs never more than a minute's.

Mid-run checkpoints and the weights of a finished run; both load as tensors only.
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
HEADER_BYTES: Final = len(HEADER) + 9
"""With the CRC-32 of what follows in eight digits: torch.load lets a changed tensor pass."""
LENGTH_BYTES: Final = 8
"""A safetensors file begins with its header's length; the header is padded to a multiple of it."""
ZIP: Final = b"PK"
"""How torch.save begins: checkpoints of an older facebench have no header before it."""


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
        header, content = content[:HEADER_BYTES], content[HEADER_BYTES:]
        if header != HEADER + b"%08x\n" % zlib.crc32(content):
            return None
    elif not content.startswith(ZIP):
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

    faces_px: side of the faces that it was trained on, which is not the side it works at.
    """
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    with replacing(path) as temporary:
        header = {
            "experiment": canonical_json(experiment.as_dict()),
            "network": canonical_json(network.describe()),
            **({"faces_px": str(faces_px)} if faces_px else {}),
        }
        with temporary.open("wb") as stream:
            stream.writelines(_in_order(save(tensors, header)))


def _in_order(content: bytes) -> tuple[bytes, bytes, memoryview]:
    """Give a safetensors file with its notes sorted: equal weights are to be equal files.

    The library writes them in another order each time.
    """
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little"), text, memoryview(content)[end:]


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
