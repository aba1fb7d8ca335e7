"""What a run leaves in its folder, from the first line to `done.json`, and what a dead one does.

Writing a VGG16's checkpoint takes longer than an epoch on its cached features; after each, that
took half of a run (docs/PERFORMANCE.md). So a kill may cost more than the epoch it interrupts: of
whole epochs never more than a minute's. All files of tensors load as tensors only.
"""

import contextlib
import io
import json
import pickle
import re
import time
import traceback
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import save

from benchmark import record as provenance
from benchmark.data import splits
from benchmark.data.replays import exposure
from benchmark.data.splits import PartName, Rows
from benchmark.errors import BenchmarkError, RunError
from benchmark.evaluation.artifacts import rows_by_part, with_checksums
from benchmark.evaluation.predictions import predictions_table, write_predictions
from benchmark.experiment.definition import Experiment
from benchmark.files import canonical_json, is_locked, replacing, write_json, write_text
from benchmark.models.network import Network
from benchmark.record import MODEL_FILE, SCHEMA, work_folder
from benchmark.runs.plan import Plan, Settings, now
from benchmark.tasks import TaskName
from benchmark.training.device import device_trouble
from benchmark.training.trainer import EpochResult, TrainingState

Predict = Callable[[Rows], Mapping[TaskName, npt.NDArray[np.float32]]]
"""From rows of the face table to (n, classes) softmax probabilities per task, in their order."""

CHECKPOINT_FILE: Final = "checkpoint.pt"
"""In a run's folder, until the run is done."""
HEADER: Final = b"facebench checkpoint "
"""Followed by the CRC-32 of the rest in eight digits: torch.load accepts a changed tensor."""
SHARE: Final = 0.05
"""Of a run's time, that checkpoints may take at most."""
CHEAP_SECONDS: Final = 0.1
"""A checkpoint that takes less is written after every epoch."""
LOST_SECONDS: Final = 60.0
"""Work that a kill may cost: after so long one is written, whatever that takes."""


@dataclass(frozen=True)
class Parts:
    """The rows of a run's faces: of the whole split, and of the subset it is about."""

    whole: Mapping[PartName, Rows]
    own: Mapping[PartName, Rows]
    outside: Rows
    """Faces that are predicted besides, and never count for the run's own scores: of a network
    trained on a subset, the other test faces; of a leaky run, what the leak-free test has more."""

    def predicted(self, *, reads_test: bool) -> Rows:
        """Give the rows of all faces that runs on this split predict, ascending."""
        test = (self.whole["test"], self.outside) if reads_test else ()
        return np.unique(np.concatenate([self.whole["val"], *test]))

    def counts(self) -> dict[str, int]:
        """Count the faces that the run trains, selects and tests on."""
        return {part: len(rows) for part, rows in self.own.items()}

    def labelled(self, plan: Plan) -> dict[str, dict[str, int]]:
        """Count those of each task, by task and part; empty where all faces have all labels."""
        tasks = plan.experiment.head.tasks
        found = splits.labelled_counts(plan.faces.table, self.own, tasks)
        return {} if all(counts == self.counts() for counts in found.values()) else found


def parts_for(plan: Plan) -> Parts:
    """Give the rows of each part; unless a split leaks on purpose, refuse to start if it leaks."""
    table, tasks, subset = plan.faces.table, plan.experiment.head.tasks, plan.experiment.subset
    protocol = plan.experiment.protocol
    whole, own = rows_by_part(plan.faces, protocol, tasks, subset, plan.seed)
    if not protocol.leaky:
        splits.check_no_overlap(table, whole)
    splits.check_labelled(table, own, tasks)
    besides = own["test"]
    if subset is not None and subset.training == "subset":
        besides = whole["test"]
    elif subset is None and protocol.leaky:
        besides = splits.labelled_parts(table, splits.parts_of(plan.faces), tasks)["test"]
    return Parts(whole, own, np.setdiff1d(besides, own["test"]))


def is_done(plan: Plan, settings: Settings) -> bool:
    """Tell whether a run is finished, with test predictions if they are wanted now."""
    if plan.record.state != "done":
        return False
    return not reads_test(plan, settings) or bool(plan.record.done.get("test_was_read"))


def reads_test(plan: Plan, settings: Settings) -> bool:
    """Tell whether the run is evaluated on the test set: ad-hoc runs only where asked for."""
    return not plan.experiment.ad_hoc or settings.evaluate_test


def begin(plan: Plan, about: dict[str, Any], *, resumes: bool = False) -> None:
    """Write what the run is before it trains, and remove the marks of an earlier end.

    resumes: whether it continues an earlier training; another one is another run in MLflow,
    by `training`.
    """
    history: dict[str, Any] = {"training": uuid.uuid4().hex, "attempt": 1}
    before = plan.record
    if (plan.folder / "experiment.json").is_file():
        history["attempt"] = int(before.about["attempt"]) + (before.state == "failed")
        if resumes and "training" in before.about:
            history["training"] = before.about["training"]
    write_json(plan.folder / "experiment.json", about | history)
    write_text(plan.folder / "environment.txt", provenance.environment())
    for name in ("failed.json", "interrupted.json", "done.json"):
        (plan.folder / name).unlink(missing_ok=True)


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a mid-run checkpoint atomically.

    By way of memory: torch.save into a file answers a full disk with an internal error.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(HEADER + b"%08x\n" % zlib.crc32(content))
        stream.write(content)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a mid-run checkpoint onto the CPU; None where there is none or it is damaged."""
    with contextlib.suppress(OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        content, end = path.read_bytes(), len(HEADER) + 9
        if content[:end] == HEADER + b"%08x\n" % zlib.crc32(content[end:]):
            stream = io.BytesIO(content[end:])
            return dict(torch.load(stream, map_location="cpu", weights_only=True))
    return None


def save_weights(
    path: Path, network: Network, experiment: Experiment, *, faces_px: int | None = None
) -> None:
    """Write a network's tensors with the definition that rebuilds it in the file's header.

    faces_px: side of the faces that it was trained on. The header's notes are sorted, which the
    library does not do: equal weights are equal files.
    """
    state = network.state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    described = {"experiment": experiment.as_dict(), "network": network.describe()}
    notes = {name: canonical_json(value) for name, value in described.items()}
    notes |= {"faces_px": str(faces_px)} if faces_px else {}
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
        self, plan: Plan, settings: Settings, history: list[dict[str, Any]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self._plan, self._settings, self._history, self._clock = plan, settings, history, clock
        self._cost, self._written_at, self._epochs_written = 0.0, clock(), len(history)

    def add(self, state: TrainingState, step: EpochResult) -> None:
        """Take an epoch's result; write it all, unless the last time was too recent."""
        self._history.append({"epoch": step.epoch + 1, **step.metrics()})
        since = self._clock() - self._written_at
        if self._cost < CHEAP_SECONDS or since >= min(self._cost / SHARE, LOST_SECONDS):
            self._write(state)

    def finish(self, state: TrainingState) -> pd.DataFrame:
        """Write the end of the training, unless it is written; give a row per epoch."""
        if len(self._history) > self._epochs_written:
            self._write(state)
        return pd.DataFrame(self._history)

    def _write(self, state: TrainingState) -> None:
        """Store an epoch: the checkpoint first, since the history can be written from it."""
        folder, begun = self._plan.folder, self._clock()
        save_checkpoint(folder / CHECKPOINT_FILE, state.checkpoint() | {"history": self._history})
        write_text(folder / "history.csv", pd.DataFrame(self._history).to_csv(index=False))
        self._settings.mirror(self._plan.record)
        self._written_at, self._epochs_written = self._clock(), len(self._history)
        self._cost = self._written_at - begun


def store_predictions(plan: Plan, parts: Parts, predict: Predict, settings: Settings) -> None:
    """Store the selected network's predictions; of a leaky run, how it met each test face before
    (its exposure) too."""
    faces, record = plan.faces.table, plan.record
    shown: tuple[PartName, ...] = ("val", "test") if reads_test(plan, settings) else ("val",)

    def predicted(rows: Rows, part: PartName) -> pd.DataFrame:
        return predictions_table(faces.iloc[rows], part, predict(rows))

    tables = [predicted(parts.own[part], part) for part in shown]
    write_predictions(record.predictions_path, pd.concat(tables, ignore_index=True))
    if plan.experiment.protocol.leaky:
        met = faces.iloc[parts.own["test"]][["file"]].assign(exposure=exposure(faces, parts.own))
        write_text(record.exposure_path, met.to_csv(index=False))
    if len(parts.outside) and "test" in shown:
        write_predictions(record.outside_path, predicted(parts.outside, "test"))


def store_network(
    plan: Plan, state: TrainingState, history: pd.DataFrame, settings: Settings
) -> dict[str, Any]:
    """Store the history and the selected weights, which `state` has; give what done.json says."""
    folder = plan.folder
    write_text(folder / "history.csv", history.to_csv(index=False))
    if settings.keep_weights != "none":
        px = plan.faces.image_px
        save_weights(folder / MODEL_FILE, state.network, plan.experiment, faces_px=px)
    return {
        "schema": SCHEMA, "identity": plan.identity, "finished": now(),
        "seconds": float(history["epoch_seconds"].sum()), "epochs": len(history),
        "selected_epoch": state.best_epoch + 1,
        "images_per_second": float(history["images_per_second"].median()),
        "peak_memory_mib": settings.device.peak_memory_mib(),
        "test_was_read": reads_test(plan, settings),
    }  # fmt: skip


def finish(plan: Plan, done: dict[str, Any], settings: Settings) -> None:
    """Write done.json, the last file of a run, with the checksums of what training left."""
    write_json(plan.folder / "done.json", with_checksums(plan.folder, done))
    (plan.folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    settings.mirror(plan.record)


def mark_interrupted(plan: Plan, settings: Settings) -> None:
    """Write into a begun run's folder that it was stopped from outside."""
    if plan.record.state in ("absent", "done"):
        return
    # A full or read-only disk: without done.json it counts as interrupted all the same.
    with contextlib.suppress(OSError):
        write_json(plan.folder / "interrupted.json", {"schema": SCHEMA, "when": now()})
        settings.mirror(plan.record)


def mark_failed(plan: Plan, settings: Settings, error: Exception) -> RunError:
    """Write why a run failed and give the error to raise; an unwritable folder changes nothing."""
    said = explained(error)
    trace = "".join(traceback.format_exception(error))
    failed = {"schema": SCHEMA, "when": now(), "why": str(said), "traceback": trace}
    with contextlib.suppress(OSError):
        write_json(plan.folder / "failed.json", failed)
        if (plan.folder / "experiment.json").is_file():
            settings.mirror(plan.record)
    return RunError(f"{plan.title} failed: {said.found}", allowed=said.allowed, fix=said.fix)


def explained(error: Exception) -> BenchmarkError:
    """Explain any error in a sentence."""
    if isinstance(error, BenchmarkError):
        return error
    if trouble := device_trouble(error):
        return trouble
    if isinstance(error, OSError):
        found = f"{error.strerror or error} ({error.filename or 'while writing the run'})"
        fix = "Free space or choose another --runs-dir, then run the same command again"
        return RunError(found, fix=fix)
    return RunError(f"{type(error).__name__}: {error}")


TEMPORARY: Final = re.compile(r"\..+\..{8}(\.\w+)?|.+\.partial")
"""How benchmark.files.replacing, the prefix cache and `data prepare` name what they write."""
SETTLED_SECONDS: Final = 3600.0


def leftovers(runs_dir: Path, data_dir: Path) -> Iterator[Path]:
    """Yield temporary files and folders of processes that died, an hour ago or longer."""
    places = (runs_dir, data_dir, data_dir / "weights", data_dir / "cache")
    for folder in (*work_folder(runs_dir).glob("*"), *places):
        for path in sorted(it for it in folder.glob("*") if TEMPORARY.fullmatch(it.name)):
            with contextlib.suppress(OSError):
                is_settled = time.time() - path.stat().st_mtime > SETTLED_SECONDS
                # Who makes a data set locks its name while its folder is staged.
                if is_settled and not is_locked(path.with_suffix(".lock")):
                    yield path
