"""What a run leaves in its folder, from the first line to `done.json`."""

import contextlib
import functools
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark import record as provenance
from benchmark.data.replays import exposure, replayed_parts
from benchmark.data.splits import PartName, Rows, check_no_overlap, parts_of
from benchmark.data.subsets import labelled_parts, subset_parts
from benchmark.errors import BenchmarkError, RunError
from benchmark.evaluation.artifacts import RunFaces, with_checksums, write_artifacts
from benchmark.evaluation.predictions import predictions_table, write_predictions
from benchmark.files import write_json, write_text
from benchmark.models.network import Network
from benchmark.record import SCHEMA, RunRecord
from benchmark.runs.checkpoints import save_weights
from benchmark.runs.plan import Plan, Settings, now
from benchmark.tasks import TaskName
from benchmark.training.device import device_trouble

Predict = Callable[[Rows], Mapping[TaskName, npt.NDArray[np.float32]]]
"""From rows of the face table to (n, classes) softmax probabilities per task, in their order."""


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


@dataclass(frozen=True)
class Trained:
    """A training that came to its end, the selected weights in its network."""

    network: Network
    history: pd.DataFrame
    """One row per epoch, as history.csv has them."""
    selected_epoch: int
    """Counted from 1."""


def parts_for(plan: Plan) -> Parts:
    """Give the rows of each part; unless a split leaks on purpose, refuse to start if it leaks."""
    protocol, table = plan.experiment.protocol, plan.faces.table
    if protocol.leaky:
        whole = replayed_parts(table, protocol.split)
    else:
        whole = parts_of(plan.faces, protocol.fold)
        check_no_overlap(table, whole)
    tasks, subset = plan.experiment.head.tasks, plan.experiment.subset
    whole = labelled_parts(table, whole, tasks)
    own = subset_parts(table, whole, subset, plan.seed)
    outside = whole["test"][:0]
    if subset is not None and subset.training == "subset":
        outside = np.setdiff1d(whole["test"], own["test"])
    elif subset is None and protocol.leaky:
        common = labelled_parts(table, parts_of(plan.faces), tasks)["test"]
        outside = np.setdiff1d(common, own["test"])
    return Parts(whole, own, outside)


def is_done(plan: Plan, settings: Settings) -> bool:
    """Tell whether a run is finished, with test predictions if they are wanted now."""
    record = plan.record
    return record.state == "done" and (
        reads_test(plan, settings) <= bool(record.done.get("test_was_read"))
    )


def reads_test(plan: Plan, settings: Settings) -> bool:
    """Tell whether the test faces are read: those of ad-hoc runs only where it is asked for."""
    return not plan.experiment.ad_hoc or settings.read_test


def begin(
    plan: Plan,
    settings: Settings,
    network: Network,
    counts: dict[str, int],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write what the run is before it trains, and remove what an earlier end left behind.

    more: what experiment.json says beside the plan's own account.
    """
    attempt = 1
    if (plan.folder / "experiment.json").is_file():
        before = plan.record
        attempt = int(before.about.get("attempt", 1)) + (before.state == "failed")
    about = plan.about(settings.device, network, counts) | dict(more or {})
    write_json(plan.folder / "experiment.json", about | {"attempt": attempt})
    write_text(plan.folder / "environment.txt", _environment())
    for name in ("failed.json", "interrupted.json", "done.json"):
        (plan.folder / name).unlink(missing_ok=True)


@functools.cache
def _environment() -> str:
    """List what is installed, once for all runs of a process: it runs what it has loaded."""
    return provenance.environment()


def write_answers(plan: Plan, parts: Parts, predict: Predict, settings: Settings) -> None:
    """Store what the selected network says of validation and test faces, and what it met before."""
    shown: tuple[PartName, ...] = ("val", "test") if reads_test(plan, settings) else ("val",)
    tables = [
        predictions_table(plan.faces.table.iloc[parts.own[part]], part, predict(parts.own[part]))
        for part in shown
    ]
    write_predictions(plan.record.predictions_path, pd.concat(tables, ignore_index=True))
    if plan.experiment.protocol.leaky:
        _write_exposure(plan, parts.own)
    if len(parts.outside) and "test" in shown:
        table = predictions_table(
            plan.faces.table.iloc[parts.outside], "test", predict(parts.outside)
        )
        write_predictions(plan.record.outside_path, table)


def _write_exposure(plan: Plan, parts: Mapping[PartName, Rows]) -> None:
    """Keep how the network met each test face before: what tells leaky accuracy from honest."""
    met = pd.DataFrame(
        {
            "file": plan.faces.table["file"].to_numpy()[parts["test"]],
            "exposure": exposure(plan.faces.table, parts),
        }
    )
    write_text(plan.record.exposure_path, met.to_csv(index=False))


def finish(plan: Plan, trained: Trained, parts: Parts, settings: Settings) -> None:
    """Compute and write everything that follows from the predictions; `done.json` comes last."""
    record, history = plan.record, trained.history
    settings.on_progress("intervals and pictures", 0, 0)
    write_text(plan.folder / "history.csv", history.to_csv(index=False))
    if settings.keep_weights != "none":
        save_weights(
            plan.folder / "model.safetensors",
            trained.network,
            plan.experiment,
            faces_px=plan.faces.image_px,
        )
    seconds = float(history["epoch_seconds"].sum())
    costs = {
        "cost/seconds": seconds,
        "cost/images_per_second": float(history["images_per_second"].median()),
        "cost/peak_memory_mib": settings.device.peak_memory_mib(),
        "cost/parameters": record.about["parameters"]["total"],
        "cost/trainable_parameters": record.about["parameters"]["trainable"],
        "cost/gmacs": record.about["multiply_adds"] / 1e9,
    }
    run_faces = RunFaces(plan.faces, parts.own)
    write_artifacts(record, costs, selected_epoch=trained.selected_epoch, run_faces=run_faces)
    done = {
        "schema": SCHEMA,
        "identity": plan.identity,
        "finished": now(),
        "seconds": seconds,
        "epochs": len(history),
        "selected_epoch": trained.selected_epoch,
        "images_per_second": costs["cost/images_per_second"],
        "peak_memory_mib": costs["cost/peak_memory_mib"],
        "test_was_read": reads_test(plan, settings),
    }
    write_json(plan.folder / "done.json", with_checksums(plan.folder, done))
    (plan.folder / "checkpoint.pt").unlink(missing_ok=True)
    settings.mirror(RunRecord(plan.folder))


def mark_interrupted(plan: Plan, settings: Settings) -> None:
    """Say in a begun run's folder that it was stopped from outside."""
    if plan.record.state in ("absent", "done"):
        return
    # A full or read-only disk: without done.json it reads interrupted all the same.
    with contextlib.suppress(OSError):
        write_json(plan.folder / "interrupted.json", {"schema": SCHEMA, "when": now()})
        settings.mirror(plan.record)


def mark_failed(plan: Plan, settings: Settings, error: Exception) -> RunError:
    """Write why a run failed and give the error to raise; an unwritable folder changes nothing."""
    said = explained(error)
    try:
        write_json(
            plan.folder / "failed.json",
            {
                "schema": SCHEMA,
                "when": now(),
                "why": str(said),
                "traceback": "".join(traceback.format_exception(error)),
            },
        )
        if (plan.folder / "experiment.json").is_file():
            settings.mirror(plan.record)
    except OSError:
        # A full or read-only disk: the run is left without done.json, which is mark enough.
        pass
    return RunError(f"{plan.title} failed: {said.found}", allowed=said.allowed, fix=said.fix)


def explained(error: Exception) -> BenchmarkError:
    """Say in a sentence what any error tells."""
    if isinstance(error, BenchmarkError):
        return error
    trouble = device_trouble(error)
    if trouble is not None:
        return trouble
    if isinstance(error, OSError):
        return RunError(
            f"{error.strerror or error} ({error.filename or 'while writing the run'})",
            fix="Free space or choose another --runs-dir, then run the same command again",
        )
    return RunError(f"{type(error).__name__}: {error}")
