"""One run end to end, and many in a row; each leaves a folder that tells everything about it.

A run's events are yielded, so that the display, the tuner and a test read the same story. The
folder under `mlruns/work/` is the truth; tracking mirrors it and can catch up at any time.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, WeightsMissing
from benchmark.experiment.definition import Experiment
from benchmark.files import claimed, holder
from benchmark.models import weights as weight_files
from benchmark.models.network import build_network
from benchmark.runs.checkpoints import CHECKPOINT_FILE, Keeper, load_checkpoint
from benchmark.runs.execution import RunWays, decided, worth_compiling
from benchmark.runs.folder import (
    Trained,
    begin,
    explained,
    finish,
    is_done,
    mark_failed,
    mark_interrupted,
    parts_for,
    write_answers,
)
from benchmark.runs.plan import Plan, Settings, plan_run
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
class Prepared:
    """A run is about to train; `sentence` says how, where that is worth a line."""

    plan: Plan
    sentence: str


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


Event = Started | Prepared | Advanced | Finished | Skipped | Missing | Failed


def run_all(
    experiments: Iterable[Experiment], seeds: Iterable[int], faces: FaceSet, settings: Settings
) -> Generator[Event]:
    """Run every experiment with every seed; one that fails does not stop the others."""
    on_device = FaceBatches.on_device(
        faces.pixels(), faces.table, settings.device.torch_device, settings.speed.say
    )
    experiments, seeds = tuple(experiments), tuple(seeds)
    compiled = worth_compiling(experiments, len(seeds), faces, settings.device)
    for experiment in experiments:
        own = decided(settings, experiment, compiled)
        for seed in seeds:
            try:
                plan = plan_run(experiment, seed, faces, own)
                yield from run(plan, on_device, own)
            except WeightsMissing as error:
                yield Missing(experiment, seed, error)
            except BenchmarkError as error:
                yield Failed(experiment, seed, _without_frames(error))
            except OSError as error:
                # Its folder cannot be made or claimed; what befalls a run within it, `run` tells.
                yield Failed(experiment, seed, explained(error))


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
        if is_done(plan, settings):
            settings.mirror(plan.record)
            yield Skipped(plan, "done")
            return
        try:
            yield from _train_and_evaluate(plan, on_device, settings)
        except (KeyboardInterrupt, GeneratorExit):
            mark_interrupted(plan, settings)
            raise
        # Whatever it is: a suite must go on, and the folder say why. Training and evaluating run
        # torch, drivers and libraries whose errors no list could name.
        except Exception as error:  # noqa: BLE001
            raise mark_failed(plan, settings, error) from error
    yield Finished(plan)


def _train_and_evaluate(plan: Plan, on_device: FaceBatches, settings: Settings) -> Iterator[Event]:
    """The way a face travels, from the split to the stored predictions."""
    experiment = plan.experiment
    parts = parts_for(plan)
    loaded = weight_files.load(plan.weights) if plan.weights else None
    network = build_network(experiment, loaded, plan.seed)
    ways = RunWays(plan, on_device, settings, network)
    device = ways.device
    rows = {
        part: torch.from_numpy(indices).to(device.torch_device)
        for part, indices in parts.own.items()
    }
    with device.arithmetic():
        begin(plan, replace(settings, device=device), network, parts.counts(), ways.record())
        state = start(network, experiment.recipe, device)
        keeper = Keeper(plan, settings, _resume(plan, state))
        settings.mirror(plan.record)
        device.reset_peak_memory()
        yield Started(plan, state.epochs_done, len(rows["train"]))
        prefix = ways.prefix()
        exact = ways.exact_prefix(parts, prefix)
        yield Prepared(plan, ways.sentence())

        data = TrainingFaces(on_device, rows["train"], rows["val"], prefix, exact)
        for step in fit(state, data, experiment, plan.seed, device, ways.speed):
            if isinstance(step, EpochResult):
                keeper.add(state, step)
            yield Advanced(plan, step)
        keeper.finish(state)

        write_answers(plan, parts, ways.predictor(exact), settings)
        ways.note_steps(state.speed_report)
    trained = Trained(network, keeper.table(), state.best_epoch + 1)
    finish(plan, trained, parts, settings)


def _resume(plan: Plan, state: TrainingState) -> list[dict[str, Any]]:
    """Take up the last checkpoint, if there is one, and the history up to it."""
    checkpoint = load_checkpoint(plan.folder / CHECKPOINT_FILE)
    if checkpoint is None:
        (plan.folder / "history.csv").unlink(missing_ok=True)
        return []
    state.restore(checkpoint)
    rows: list[dict[str, Any]] = checkpoint["history"]
    return rows
