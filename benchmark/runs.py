"""One run end to end, and many in a row; each leaves a folder that tells everything about it.

A run's events are yielded, so that the display, the tuner and a test read the same story. The
folder under `mlruns/work/` is the truth; tracking mirrors it and can catch up at any time.
"""

import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmark import provenance
from benchmark.checkpoints import load_checkpoint, save_checkpoint, save_weights
from benchmark.claims import claimed, holder
from benchmark.errors import BenchmarkError, RunError, WeightsMissing
from benchmark.experiment import Experiment
from benchmark.faces.batches import FaceBatches
from benchmark.faces.published import exposure, replayed_parts
from benchmark.faces.splits import PartName, Rows, check_no_overlap, parts_of
from benchmark.faces.store import FaceSet
from benchmark.faces.subsets import subset_parts
from benchmark.files import write_json, write_text
from benchmark.models import weights as weight_files
from benchmark.models.network import Network, build_network
from benchmark.plans import Plan, Settings, now, plan_run
from benchmark.results.artifacts import AtHand, write_artifacts
from benchmark.results.predictions import predictions_table, write_predictions
from benchmark.results.record import SCHEMA, RunRecord
from benchmark.training.probabilities import probabilities
from benchmark.training.trainer import (
    EpochResult,
    Progress,
    TrainingFaces,
    TrainingState,
    fit,
    start,
)


@dataclass(frozen=True)
class Started:
    """A run began, or went on after `epochs_done` epochs."""

    plan: Plan
    epochs_done: int
    n_train: int


@dataclass(frozen=True)
class Advanced:
    """A run trained on: progress within an epoch, or an epoch's result."""

    plan: Plan
    step: Progress | EpochResult


@dataclass(frozen=True)
class Finished:
    """A run is done, its folder complete."""

    plan: Plan


@dataclass(frozen=True)
class Skipped:
    """A run needs nothing: it is done already, or another process is at it."""

    plan: Plan
    why: str


@dataclass(frozen=True)
class Missing:
    """A run cannot start because its weights are neither at hand nor to be fetched."""

    experiment: Experiment
    seed: int
    error: WeightsMissing


@dataclass(frozen=True)
class Failed:
    """A run ended with an error; the others go on."""

    experiment: Experiment
    seed: int
    error: BenchmarkError


Event = Started | Advanced | Finished | Skipped | Missing | Failed


def run_all(
    experiments: Iterable[Experiment], seeds: Iterable[int], faces: FaceSet, settings: Settings
) -> Generator[Event]:
    """Run every experiment with every seed; one that fails does not stop the others."""
    on_device = FaceBatches.on_device(faces.pixels(), faces.table, settings.device.torch_device)
    seeds = tuple(seeds)
    for experiment in experiments:
        for seed in seeds:
            try:
                plan = plan_run(experiment, seed, faces, settings)
                yield from run(plan, on_device, settings)
            except WeightsMissing as error:
                yield Missing(experiment, seed, error)
            except BenchmarkError as error:
                yield Failed(experiment, seed, _without_frames(error))


def _without_frames(error: BenchmarkError) -> BenchmarkError:
    """Let go of the frames that an error came through; `failed.json` has its traceback.

    They hold the failed run's network and optimiser, whose memory the next run needs.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def run(plan: Plan, on_device: FaceBatches, settings: Settings) -> Generator[Event]:
    """Bring one run from wherever its folder stands to done.

    Raises RunError when it fails; the folder then tells why. Stopped from outside (Ctrl-C, or a
    reader that reads no further), the folder is marked and the same run goes on next time.
    """
    with claimed(plan.folder / "claim") as mine:
        if not mine:
            yield Skipped(plan, f"process {holder(plan.folder / 'claim').get('pid')} is at it")
            return
        if plan.record.state == "done" and _holds_what_is_asked(plan, settings):
            settings.mirror(plan.record)
            yield Skipped(plan, "done")
            return
        try:
            yield from _train_and_evaluate(plan, on_device, settings)
        except (KeyboardInterrupt, GeneratorExit):
            _mark_interrupted(plan, settings)
            raise
        # The one place that catches everything: a suite must go on, and the folder say why.
        except Exception as error:  # noqa: BLE001
            raise _mark_failed(plan, settings, error) from error
    yield Finished(plan)


def _holds_what_is_asked(plan: Plan, settings: Settings) -> bool:
    """Tell whether a finished run has test predictions if they are wanted now."""
    return _reads_test(plan, settings) <= bool(plan.record.done.get("test_was_read"))


def _reads_test(plan: Plan, settings: Settings) -> bool:
    return not plan.experiment.ad_hoc or settings.read_test


def _train_and_evaluate(plan: Plan, on_device: FaceBatches, settings: Settings) -> Iterator[Event]:
    """The way a face travels, from the split to the stored predictions."""
    experiment, device = plan.experiment, settings.device
    whole = _parts(plan)
    parts = subset_parts(plan.faces.table, whole, experiment.subset, plan.seed)
    rows = {
        part: torch.from_numpy(indices).to(device.torch_device) for part, indices in parts.items()
    }
    loaded = weight_files.load(plan.weights) if plan.weights else None
    network = build_network(experiment, loaded, plan.seed)
    _begin(plan, settings, network, {part: len(indices) for part, indices in parts.items()})
    state = start(network, experiment.recipe, device)
    history = _resume(plan, state)
    settings.mirror(plan.record)
    device.reset_peak_memory()
    yield Started(plan, state.epochs_done, len(rows["train"]))

    data = TrainingFaces(on_device, rows["train"], rows["val"])
    for step in fit(state, data, experiment, plan.seed, device):
        if isinstance(step, EpochResult):
            history.append({"epoch": step.epoch + 1, **step.metrics()})
            _keep_epoch(plan, state, history, settings)
        yield Advanced(plan, step)

    shown: tuple[PartName, ...] = ("val", "test") if _reads_test(plan, settings) else ("val",)
    tables = [
        predictions_table(
            plan.faces.table.iloc[parts[part]],
            part,
            probabilities(network, on_device, rows[part]),
        )
        for part in shown
    ]
    write_predictions(plan.record.predictions_path, pd.concat(tables, ignore_index=True))
    if experiment.protocol.leaky:
        _write_exposure(plan, parts)
    if _may_be_routed_to(experiment) and "test" in shown:
        outside = np.setdiff1d(whole["test"], parts["test"])
        on_outside = probabilities(
            network, on_device, torch.from_numpy(outside).to(device.torch_device)
        )
        table = predictions_table(plan.faces.table.iloc[outside], "test", on_outside)
        write_predictions(plan.record.outside_path, table)
    _finish(plan, state, pd.DataFrame(history), settings, AtHand(plan.faces, parts))


def _parts(plan: Plan) -> Mapping[PartName, Rows]:
    """Give the rows of each part; unless a split leaks on purpose, refuse to start if it leaks."""
    protocol, table = plan.experiment.protocol, plan.faces.table
    if protocol.leaky:
        return replayed_parts(table, protocol.split)
    parts = parts_of(plan.faces, protocol.fold)
    check_no_overlap(table, parts)
    return parts


def _may_be_routed_to(experiment: Experiment) -> bool:
    """Tell whether it is a specialist, to which a classifier may send faces that are not its own.

    What it says of those is kept apart: it counts for the system, never for the specialist.
    """
    return experiment.subset is not None and experiment.subset.training == "subset"


def _write_exposure(plan: Plan, parts: Mapping[PartName, Rows]) -> None:
    """Keep how the network met each test face before: what tells leaky accuracy from honest."""
    met = pd.DataFrame(
        {
            "file": plan.faces.table["file"].to_numpy()[parts["test"]],
            "exposure": exposure(plan.faces.table, parts),
        }
    )
    write_text(plan.record.exposure_path, met.to_csv(index=False))


def _begin(plan: Plan, settings: Settings, network: Network, counts: dict[str, int]) -> None:
    """Write what the run is before it trains, and remove what an earlier end left behind."""
    attempt = 1
    if (plan.folder / "experiment.json").is_file():
        before = plan.record
        attempt = int(before.about.get("attempt", 1)) + (before.state == "failed")
    about = plan.about(settings.device, network, counts)
    write_json(plan.folder / "experiment.json", about | {"attempt": attempt})
    write_text(plan.folder / "environment.txt", provenance.environment())
    for name in ("failed.json", "interrupted.json", "done.json"):
        (plan.folder / name).unlink(missing_ok=True)


def _resume(plan: Plan, state: TrainingState) -> list[dict[str, Any]]:
    """Take up the last checkpoint, if there is one, and the history up to it."""
    checkpoint = load_checkpoint(plan.folder / "checkpoint.pt")
    if checkpoint is None:
        (plan.folder / "history.csv").unlink(missing_ok=True)
        return []
    state.restore(checkpoint)
    rows: list[dict[str, Any]] = checkpoint["history"]
    return rows


def _keep_epoch(
    plan: Plan, state: TrainingState, history: list[dict[str, Any]], settings: Settings
) -> None:
    """Store an epoch: the checkpoint first, since the history can be written again from it."""
    save_checkpoint(plan.folder / "checkpoint.pt", state.checkpoint() | {"history": history})
    write_text(plan.folder / "history.csv", pd.DataFrame(history).to_csv(index=False))
    if settings.keep_weights == "all":
        name = f"weights-epoch-{state.epochs_done:03d}.safetensors"
        save_weights(plan.folder / name, state.network, plan.experiment)
    settings.mirror(plan.record)


def _finish(
    plan: Plan, state: TrainingState, history: pd.DataFrame, settings: Settings, at_hand: AtHand
) -> None:
    """Compute and write everything that follows from the predictions; `done.json` comes last."""
    record = plan.record
    write_text(plan.folder / "history.csv", history.to_csv(index=False))
    if settings.keep_weights != "none":
        save_weights(plan.folder / "model.safetensors", state.network, plan.experiment)
    seconds = float(history["epoch_seconds"].sum())
    costs = {
        "cost/seconds": seconds,
        "cost/images_per_second": float(history["images_per_second"].median()),
        "cost/peak_memory_mib": settings.device.peak_memory_mib(),
        "cost/parameters": record.about["parameters"]["total"],
        "cost/trainable_parameters": record.about["parameters"]["trainable"],
        "cost/gmacs": record.about["multiply_adds"] / 1e9,
    }
    write_artifacts(record, costs, selected_epoch=state.best_epoch + 1, at_hand=at_hand)
    write_json(
        plan.folder / "done.json",
        {
            "schema": SCHEMA,
            "identity": plan.identity,
            "finished": now(),
            "seconds": seconds,
            "epochs": state.epochs_done,
            "selected_epoch": state.best_epoch + 1,
            "images_per_second": costs["cost/images_per_second"],
            "peak_memory_mib": costs["cost/peak_memory_mib"],
            "test_was_read": _reads_test(plan, settings),
        },
    )
    (plan.folder / "checkpoint.pt").unlink(missing_ok=True)
    settings.mirror(RunRecord(plan.folder))


def _mark_interrupted(plan: Plan, settings: Settings) -> None:
    if plan.record.state in ("absent", "done"):
        return
    write_json(plan.folder / "interrupted.json", {"schema": SCHEMA, "when": now()})
    settings.mirror(plan.record)


def _mark_failed(plan: Plan, settings: Settings, error: Exception) -> RunError:
    """Write why a run failed and give the error to raise; an unwritable folder changes nothing."""
    said = error if isinstance(error, BenchmarkError) else _explained(error)
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


def _explained(error: Exception) -> BenchmarkError:
    if isinstance(error, OSError):
        return RunError(
            f"{error.strerror or error} ({error.filename or 'while writing the run'})",
            fix="Free space or choose another --runs-dir, then run the same command again",
        )
    return RunError(f"{type(error).__name__}: {error}")
