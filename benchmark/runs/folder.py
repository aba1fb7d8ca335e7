"""What a run leaves in its folder, from the first line to `done.json`."""

import contextlib
import functools
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark import record as provenance
from benchmark.data.replays import exposure
from benchmark.data.splits import (
    PartName,
    Rows,
    check_labelled,
    check_no_overlap,
    labelled_counts,
    labelled_parts,
    parts_of,
)
from benchmark.errors import BenchmarkError, RunError
from benchmark.evaluation.artifacts import parts_of_run, with_checksums, write_artifacts
from benchmark.evaluation.predictions import predictions_table, write_predictions
from benchmark.files import write_json, write_text
from benchmark.models.network import Network
from benchmark.record import SCHEMA, RunRecord
from benchmark.runs.checkpoints import CHECKPOINT_FILE, save_weights
from benchmark.runs.plan import Plan, Settings, now
from benchmark.tasks import TaskName
from benchmark.training.device import device_trouble
from benchmark.training.trainer import TrainingState

Predict = Callable[[Rows], Mapping[TaskName, npt.NDArray[np.float32]]]
"""From rows of the face table to (n, classes) softmax probabilities per task, in their order."""
environment = functools.cache(provenance.environment)
"""What is installed, listed once for all runs of a process: it runs what it has loaded."""


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
        found = labelled_counts(plan.faces.table, self.own, tasks)
        return {} if all(counts == self.counts() for counts in found.values()) else found


def parts_for(plan: Plan) -> Parts:
    """Give the rows of each part; unless a split leaks on purpose, refuse to start if it leaks."""
    protocol, table = plan.experiment.protocol, plan.faces.table
    tasks, subset = plan.experiment.head.tasks, plan.experiment.subset
    whole, own = parts_of_run(plan.experiment, plan.seed, plan.faces)
    if not protocol.leaky:
        check_no_overlap(table, whole)
    check_labelled(table, own, tasks)
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
    """Tell whether the run is evaluated on the test set: ad-hoc runs only where asked for."""
    return not plan.experiment.ad_hoc or settings.read_test


def begin(
    plan: Plan, settings: Settings, network: Network, counts: dict[str, int],
    more: Mapping[str, Any] | None = None, *, resumes: bool = False,
) -> None:  # fmt: skip
    """Write what the run is before it trains, and remove the marks of an earlier end.

    more: what experiment.json says beside the plan's own account. resumes: whether it goes on with
    the training of before; another one is another run in MLflow, by `training`.
    """
    attempt, training = 1, {"training": uuid.uuid4().hex}
    if (plan.folder / "experiment.json").is_file():
        before = plan.record
        attempt = int(before.about.get("attempt", 1)) + (before.state == "failed")
        if resumes:
            # Runs that began in an older facebench have none.
            training = {key: before.about[key] for key in training if key in before.about}
    about = plan.about(settings.device, network, counts) | dict(more or {})
    write_json(plan.folder / "experiment.json", about | training | {"attempt": attempt})
    write_text(plan.folder / "environment.txt", environment())
    for name in ("failed.json", "interrupted.json", "done.json"):
        (plan.folder / name).unlink(missing_ok=True)


def write_answers(plan: Plan, parts: Parts, predict: Predict, settings: Settings) -> None:
    """Store the selected network's predictions; of a leaky run, how it met each test face before
    (its exposure) too."""
    faces, record = plan.faces.table, plan.record
    shown: tuple[PartName, ...] = ("val", "test") if reads_test(plan, settings) else ("val",)

    def predicted(rows: Rows, part: PartName) -> pd.DataFrame:
        return predictions_table(faces.iloc[rows], part, predict(rows))

    tables = [predicted(parts.own[part], part) for part in shown]
    write_predictions(record.predictions_path, pd.concat(tables, ignore_index=True))
    if plan.experiment.protocol.leaky:
        files = faces["file"].to_numpy()[parts.own["test"]]
        met = pd.DataFrame({"file": files, "exposure": exposure(faces, parts.own)})
        write_text(record.exposure_path, met.to_csv(index=False))
    if len(parts.outside) and "test" in shown:
        write_predictions(record.outside_path, predicted(parts.outside, "test"))


def finish(
    plan: Plan, state: TrainingState, history: pd.DataFrame, parts: Parts, settings: Settings
) -> None:
    """Compute and write everything that follows from the predictions; `done.json` comes last.

    state: with the selected weights in its network. history: one row per epoch.
    """
    record, folder = plan.record, plan.folder
    settings.on_progress("intervals and figures", 0, 0)
    write_text(folder / "history.csv", history.to_csv(index=False))
    if settings.keep_weights != "none":
        path, px = folder / "model.safetensors", plan.faces.image_px
        save_weights(path, state.network, plan.experiment, faces_px=px)
    done = {
        "schema": SCHEMA,
        "identity": plan.identity,
        "finished": now(),
        "seconds": float(history["epoch_seconds"].sum()),
        "epochs": len(history),
        "selected_epoch": state.best_epoch + 1,
        "images_per_second": float(history["images_per_second"].median()),
        "peak_memory_mib": settings.device.peak_memory_mib(),
        "test_was_read": reads_test(plan, settings),
    }
    write_artifacts(record, done)
    write_json(folder / "done.json", with_checksums(folder, done))
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    settings.mirror(RunRecord(folder))


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
    trouble = device_trouble(error)
    if trouble is not None:
        return trouble
    if isinstance(error, OSError):
        return RunError(
            f"{error.strerror or error} ({error.filename or 'while writing the run'})",
            fix="Free space or choose another --runs-dir, then run the same command again",
        )
    return RunError(f"{type(error).__name__}: {error}")
